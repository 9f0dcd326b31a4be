"""Reports as messages: what programs read in them, and that nothing foreign breaks them."""

from __future__ import annotations

import random
import re
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, cast

import pytest

from mailtwist.mail.address import Address
from mailtwist.mail.dsn import MAX_HEADER, Action, Fate, Kind, Report, compose
from mailtwist.mail.dsn.original import header_of, may_return_whole

DAY = 86_400 * 1_000_000
NOW = 1_795_200_000 * 1_000_000  # Fri, 20 Nov 2026 18:40:00 +0000

UNKNOWN = Fate(
    "bob@example.net",
    Action.FAILED,
    550,
    "5.1.1",
    "<bob@example.net>: User unknown",
    remote="mx1.example.net",
    remote_address="192.0.2.1:25",
    attempts=1,
    attempted_at=NOW,
)
HEADER = (
    b"Message-ID: <lunch@example.com>\r\nFrom: alice@example.com\r\nTo: bob@example.net\r\n"
    b"Subject: Lunch on Friday\r\n"
)


def report(*fates: Fate, **changes: Any) -> Report:
    values: dict[str, Any] = {
        "kind": Kind.FAILURE,
        "hostname": "mail.example.com",
        "sender": Address("alice", "example.com"),
        "fates": fates or (UNKNOWN,),
        "token": "0123456789abcdef",
        "now": NOW,
        "received_at": NOW - 5 * DAY,
        "queue_id": "77",
        "header": HEADER,
    }
    return Report(**{**values, **changes})


def parse(octets: bytes) -> EmailMessage:
    """As a mail program would, after checking what every report must keep to."""
    lines = octets.split(b"\r\n")
    assert octets.endswith(b"\r\n")
    assert max(map(len, lines)) <= 998
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n|\0", octets)
    message = message_from_bytes(octets, policy=policy.default)
    assert message.defects == []
    assert message.get_content_type() == "multipart/report"
    assert message["Auto-Submitted"] == "auto-replied"
    parts = list(message.iter_parts())
    assert parts[0].get_content_type() == "text/plain"
    # RFC 6522 §3
    assert parts[1].get_content_type() == f"message/{message.get_param('report-type')}"
    assert [part.defects for part in parts] == [[] for _ in parts]
    assert [part["Content-Type"].defects for part in parts] == [() for _ in parts]
    if message["Content-Transfer-Encoding"] == "7bit":
        assert octets.isascii()
    return message


def parts_of(octets: bytes) -> list[EmailMessage]:
    return [cast(EmailMessage, part) for part in parse(octets).iter_parts()]


def groups_of(octets: bytes) -> list[Any]:
    status = parts_of(octets)[1]
    assert status.get_content_type() == "message/delivery-status"
    return list(cast(list[Any], status.get_payload()))


def text_of(octets: bytes) -> str:
    return str(parts_of(octets)[0].get_content()).replace("\r\n", "\n")


# -- what programs read ---------------------------------------------------------------------


def test_a_bounce_says_what_rfc_3464_wants_said() -> None:
    of_message, of_recipient = groups_of(compose(report(envid="QQ314159")))

    assert of_message.items() == [
        ("Original-Envelope-Id", "QQ314159"),
        ("Reporting-MTA", "dns; mail.example.com"),
        ("Arrival-Date", "Sun, 15 Nov 2026 18:40:00 +0000"),
        ("X-Mailtwist-Queue-Id", "77"),
    ]
    assert of_recipient.items() == [
        ("Final-Recipient", "rfc822; bob@example.net"),
        ("Action", "failed"),
        ("Status", "5.1.1"),
        ("Remote-MTA", "dns; mx1.example.net"),
        ("Diagnostic-Code", "smtp; 550 5.1.1 <bob@example.net>: User unknown"),
        ("Last-Attempt-Date", "Fri, 20 Nov 2026 18:40:00 +0000"),
    ]


def test_the_header_names_who_writes_to_whom_about_what() -> None:
    message = parse(compose(report()))

    assert message["From"] == "Mail Delivery System <MAILER-DAEMON@mail.example.com>"
    assert message["To"] == "alice@example.com"
    assert message["Subject"] == "Undelivered: Lunch on Friday"
    assert message["Message-ID"] == "<0123456789abcdef@mail.example.com>"
    assert message["In-Reply-To"] == message["References"] == "<lunch@example.com>"
    assert message["Date"] == "Fri, 20 Nov 2026 18:40:00 +0000"


@pytest.mark.parametrize(
    ("kind", "action", "subject"),
    [
        (Kind.FAILURE, Action.FAILED, "Undelivered: Lunch on Friday"),
        (Kind.DELAY, Action.DELAYED, "Delayed: Lunch on Friday"),
        (Kind.SUCCESS, Action.DELIVERED, "Delivered: Lunch on Friday"),
        (Kind.SUCCESS, Action.RELAYED, "Handed on: Lunch on Friday"),
    ],
)
def test_the_subject_begins_with_what_happened(kind: Kind, action: Action, subject: str) -> None:
    octets = compose(report(Fate("bob@example.net", action), kind=kind))

    assert parse(octets)["Subject"] == subject
    assert groups_of(octets)[1]["Action"] == str(action)


def test_a_delay_says_until_when_it_is_tried_and_a_failure_does_not() -> None:
    until = NOW + 3 * DAY
    late = Fate("bob@example.net", Action.DELAYED, 451, "4.3.2", "later", attempts=3)

    delay = groups_of(compose(report(late, kind=Kind.DELAY, retry_until=until)))[1]
    failure = groups_of(compose(report(retry_until=until)))[1]

    assert delay["Will-Retry-Until"] == "Mon, 23 Nov 2026 18:40:00 +0000"
    assert delay["Status"] == "4.3.2"
    assert failure["Will-Retry-Until"] is None


@pytest.mark.parametrize(
    ("action", "said", "is_expired", "status"),
    [
        (Action.FAILED, "5.1.1", False, "5.1.1"),
        (Action.FAILED, "", False, "5.0.0"),
        (Action.FAILED, "2.0.0", False, "5.0.0"),
        (Action.FAILED, "5.1.1\r\nAction: delivered", False, "5.0.0"),
        (Action.FAILED, "5.1.12345", False, "5.0.0"),
        (Action.FAILED, "4.2.2", True, "4.4.7"),
        (Action.DELAYED, "4.2.2", False, "4.2.2"),
        (Action.DELAYED, "5.2.2", False, "4.0.0"),
        (Action.DELIVERED, "2.1.5", False, "2.1.5"),
        (Action.RELAYED, "", False, "2.0.0"),
    ],
)
def test_the_status_agrees_with_the_action(
    action: Action, said: str, is_expired: bool, status: str
) -> None:
    fate = Fate("bob@example.net", action, 550, said, "text", is_expired=is_expired)

    assert groups_of(compose(report(fate)))[1]["Status"] == status


@pytest.mark.parametrize(
    ("fate", "diagnostic"),
    [
        (Fate("a@b.example", Action.FAILED, 550, "", "No"), "smtp; 550 No"),
        # A server that repeats its status in the text is quoted once.
        (Fate("a@b.example", Action.FAILED, 550, "5.7.1", "5.7.1 No"), "smtp; 550 5.7.1 No"),
        # What we found ourselves is no reply of an SMTP server.
        (
            Fate("a@b.example", Action.FAILED, 556, "5.1.10", "takes no mail", is_ours=True),
            "X-Mailtwist; takes no mail",
        ),
        (
            Fate("a@b.example", Action.FAILED, 0, "", "nobody answered"),
            "X-Mailtwist; nobody answered",
        ),
        (Fate("a@b.example", Action.FAILED, 0, "", ""), None),
        (Fate("a@b.example", Action.DELIVERED, 250, "", "ok", is_ours=True), None),
        # Given up: the reply is quoted with its own status.
        (
            Fate("a@b.example", Action.FAILED, 452, "4.4.7", "4.2.2 Full", is_expired=True),
            "smtp; 452 4.2.2 Full",
        ),
    ],
)
def test_a_diagnostic_code_quotes_a_server_or_says_that_it_does_not(
    fate: Fate, diagnostic: str | None
) -> None:
    assert groups_of(compose(report(fate)))[1]["Diagnostic-Code"] == diagnostic


@pytest.mark.parametrize(
    ("orcpt", "field"),
    [
        ("", None),
        ("rfc822;Bob@Example.NET", "rfc822; Bob@Example.NET"),
        (
            "rfc822;bob@example.net\r\nAction: delivered",
            "rfc822; bob@example.net Action: delivered",
        ),
        ("x400;/C=DE/", "x400; /C=DE/"),
        ("nothing", "rfc822; nothing"),
        (";x", "rfc822; x"),
        ("utf-8;b\\x{FC}b@example.net", "utf-8; b\\x{FC}b@example.net"),
        ("utf-8;büb@example.net", "utf-8; b\\x{FC}b@example.net"),
        ("utf-8;b\\x{D800}b@example.net", "utf-8; b?b@example.net"),
        ("utf-8;b\\x{0D}\\x{0A}x@example.net", "utf-8; b\\x{20}x@example.net"),
        ("rfc822;büb@example.net", "utf-8; b\\x{FC}b@example.net"),
    ],
)
def test_the_original_recipient_is_what_the_sender_said(orcpt: str, field: str | None) -> None:
    fate = Fate("bob@example.net", Action.FAILED, 550, "5.1.1", "no", orcpt=orcpt)

    assert groups_of(compose(report(fate)))[1]["Original-Recipient"] == field


def test_each_recipient_has_a_group_of_fields() -> None:
    fates = tuple(Fate(f"u{n}@example.net", Action.FAILED, 550, "5.1.1", "no") for n in range(500))

    groups = groups_of(compose(report(*fates)))

    assert [group["Final-Recipient"] for group in groups[1:]] == [
        f"rfc822; u{n}@example.net" for n in range(500)
    ]


# -- what comes back ------------------------------------------------------------------------


def test_a_whole_original_comes_back_octet_by_octet() -> None:
    whole = HEADER + b"\r\n.\r\nLunch?\r\n--=_0123\r\n"

    octets = compose(report(whole=whole))
    returned = parts_of(octets)[2]

    assert returned.get_content_type() == "message/rfc822"
    assert whole in octets
    assert returned.get_payload(0).get_payload() == ".\r\nLunch?\r\n--=_0123\r\n"


def test_an_8_bit_original_makes_the_report_8_bit() -> None:
    whole = HEADER + b"\r\nGr\xfc\xdfe\r\n"

    octets = compose(report(whole=whole))

    assert parse(octets)["Content-Transfer-Encoding"] == "8bit"
    assert parts_of(octets)[2]["Content-Transfer-Encoding"] == "8bit"
    assert whole in octets


def test_headers_alone_come_back_as_such() -> None:
    returned = parts_of(compose(report()))[2]

    assert returned.get_content_type() == "text/rfc822-headers"
    assert returned.get_payload().replace("\r\n", "\n").encode() == HEADER.replace(b"\r\n", b"\n")


@pytest.mark.parametrize(
    ("header", "returned"),
    [
        (b"Subject: Gr\xfc\xdfe\r\n", b"Subject: Gr\xfc\xdfe\r\n"),
        (b"Subject: " + b"x" * 2000 + b"\r\n", b"Subject: " + b"x" * 2000 + b"\r\n"),
        (b"Subject: a\nTo: b\n\nText", b"Subject: a\r\nTo: b\r\n"),
        (b"Subject: a\r\n folded\r\n", b"Subject: a\r\n folded\r\n"),
        (b"Sub\0ject: a\r\n", b"Subject: a\r\n"),
        # Text is no header, wherever a message begins with it.
        (b"Secret text\r\nSubject: a\r\n", b"Subject: a\r\n"),
    ],
)
def test_a_broken_header_comes_back_mended(header: bytes, returned: bytes) -> None:
    part = parts_of(compose(report(header=header_of(header))))[2]

    payload = cast(bytes, part.get_payload(decode=True))
    assert payload.rstrip(b"\r\n") == returned.rstrip(b"\r\n")


def test_a_huge_header_comes_back_cut() -> None:
    header = b"X-Long: abc\r\n" * 100_000

    octets = compose(report(header=header))

    assert len(octets) < MAX_HEADER + 8192
    assert parts_of(octets)[2].get_content().count("X-Long: abc") > 4000


def test_without_the_original_the_report_still_stands() -> None:
    octets = compose(report(header=b""))

    assert len(parts_of(octets)) == 2
    assert parse(octets)["Subject"] == "Your message was not delivered"


@pytest.mark.parametrize(
    ("octets", "may"),
    [
        (b"A: b\r\n\r\ntext\r\n", True),
        (b"A: b\r\n\r\n\xff\r\n", True),
        (b"", True),
        (b"A: b\n\ntext\n", False),
        (b"A: b\r\n\r\nte\rxt\r\n", False),
        (b"A: b\r\n\r\nte\0xt\r\n", False),
        (b"A: b\r\n\r\n" + b"x" * 998 + b"\r\n", True),
        (b"A: b\r\n\r\n" + b"x" * 999 + b"\r\n", False),
        (b"A: b\r\n\r\n" + b"x\r\n" * 90_000, False),
    ],
)
def test_an_original_is_returned_whole_only_if_a_message_can_hold_it(
    octets: bytes, may: bool
) -> None:
    assert may_return_whole(octets) is may


# -- addresses beyond ASCII -----------------------------------------------------------------


def test_a_sender_who_used_smtputf8_gets_a_global_report() -> None:
    fate = Fate("jürgen+x@example.net", Action.FAILED, 550, "5.1.1", "Jürgen gibt es nicht")
    octets = compose(
        report(
            fate,
            is_global=True,
            sender=Address("käthe", "example.com"),
            header="Subject: Grüße\r\n".encode(),
        )
    )

    message = message_from_bytes(octets, policy=policy.SMTPUTF8)
    parts = list(message.iter_parts())
    assert [part.get_content_type() for part in parts] == [
        "text/plain",
        "message/global-delivery-status",
        "message/global-headers",
    ]
    assert "To: <käthe@example.com>\r\n".encode() in octets
    assert "Final-Recipient: utf-8; jürgen\\x{2B}x@example.net\r\n".encode() in octets
    assert "Diagnostic-Code: smtp; 550 5.1.1 Jürgen gibt es nicht\r\n".encode() in octets
    assert "Subject: Grüße\r\n".encode() in octets
    assert message["Content-Transfer-Encoding"] == "8bit"
    assert message.get_param("report-type") == "global-delivery-status"


def test_a_whole_global_message_comes_back_as_one() -> None:
    whole = "Subject: Grüße\r\n\r\nText\r\n".encode()

    octets = compose(report(is_global=True, header=header_of(whole), whole=whole))

    assert b"Content-Type: message/global\r\nContent-Transfer-Encoding: 8bit\r\n" in octets
    assert whole in octets


def test_a_header_that_is_no_utf_8_is_encoded_in_a_global_report() -> None:
    octets = compose(report(is_global=True, header=b"Subject: \xff\r\n"))

    assert b"Subject: =FF\r\n" in octets


def test_everybody_else_gets_ascii_only() -> None:
    fate = Fate("jürgen@example.net", Action.FAILED, 550, "5.1.1", "Jürgen gibt es nicht")

    octets = compose(report(fate, header="Subject: Grüße\r\n".encode()))

    assert octets.isascii()
    group = groups_of(octets)[1]
    assert group["Final-Recipient"] == "utf-8; j\\x{FC}rgen@example.net"
    assert group["Diagnostic-Code"] == "smtp; 550 5.1.1 J?rgen gibt es nicht"
    assert "Jürgen gibt es nicht" in text_of(octets)
    assert parse(octets)["Subject"] == "Undelivered: Grüße"


# -- what is hostile ------------------------------------------------------------------------

HOSTILE = [
    "no\r\nAction: delivered\r\nStatus: 2.0.0",
    "no\r\n\r\nFinal-Recipient: rfc822; victim@example.org\r\nAction: delivered",
    "no\r\n--=_0123456789abcdef--\r\n",
    "no\nBcc: victim@example.org",
    "no\x00\x1b[2J\x7f\x85\u2028Action: delivered\u2029",
    "\u202eevil\u202c \u200b\ufeff",
    "x" * 10_000,
    "word " * 5_000,
    "é" * 2_000,
    "\ud800 lone",
    "(" * 400,
    "=?utf-8?q?hidden?=",
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("is_global", [False, True])
def test_no_text_of_a_server_forges_a_field(text: str, is_global: bool) -> None:
    fate = Fate("bob@example.net", Action.FAILED, 550, text, text, remote=text, remote_address=text)
    octets = compose(report(fate, is_global=is_global, queue_id=text, envid=text, hostname=text))

    message = parse(octets)
    fields = octets.split(b"delivery-status\r\n", 1)[1].split(b"\r\n\r\n", 1)[1]
    names = re.findall(rb"^([A-Za-z-]+):", fields.split(b"\r\n--=_")[0], re.MULTILINE)
    allowed = [
        *(b"Original-Envelope-Id", b"Reporting-MTA", b"Arrival-Date", b"X-Mailtwist-Queue-Id"),
        *(b"Final-Recipient", b"Action", b"Status", b"Remote-MTA", b"Diagnostic-Code"),
    ]
    assert names == allowed
    assert message["Bcc"] is None
    assert octets.count(b"\r\n--=_0123456789abcdef") == 4


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_of_a_server_hides_or_turns_what_is_read(text: str) -> None:
    said = text_of(compose(report(Fate("bob@example.net", Action.FAILED, 550, "5.0.0", text))))

    assert all(character.isprintable() or character == "\n" for character in said)


@pytest.mark.parametrize(
    "header",
    [
        b"Subject: a\r\n b\r\n\tc\r\n",
        b"Subject: =?utf-8?b?DQpCY2M6IHZpY3RpbUBleGFtcGxlLm9yZw==?=\r\n",
        b"Subject: " + b"=?x?q?" * 5000 + b"\r\n",
        b"Subject:\r\nMessage-ID: <a@b>\r\n <c@d>\r\n",
        b"Message-ID: <a\x01@b>\r\n",
        b"Message-ID: " + b"<" * 9000 + b"\r\n",
        b"Message-ID: <a@b> <c@d>\r\n",
        b"subject : spaced\r\n",
    ],
)
def test_no_field_of_the_original_forges_one_of_the_report(header: bytes) -> None:
    message = parse(compose(report(header=header)))

    assert message.keys() == [
        *("Date", "From", "To", "Subject", "Message-ID"),
        *(("In-Reply-To", "References") if "In-Reply-To" in message else ()),
        *("Auto-Submitted", "MIME-Version", "Content-Type", "Content-Transfer-Encoding"),
    ]
    assert message.get("In-Reply-To", "<a@b>").count("<") == 1


PIECES = (
    *(b"Subject: x", b"From: \xff\xfe", b"Content-Type: multipart/mixed; boundary=b", b"\r\n"),
    *(b"\r\n\r\n", b"\n", b"\r", b"\0", b"--b", b"--b--", b"--=_", b"X" * 1200, b"\xc3\x28"),
    *(b": no name", b"From someone Mon", b"Content-Type: message/rfc822", b".", b"..", b"\t"),
    *(b"Content-Type: multipart/report; boundary", b"Content-Transfer-Encoding: base64"),
    *("Überschrift: ü".encode(), b"=?utf-8?q?", b'"', b";", b"boundary=", b" folded"),
)


@pytest.mark.parametrize("seed", range(200))
def test_no_original_breaks_a_report(seed: int) -> None:
    chance = random.Random(seed)
    original = b"".join(chance.choices(PIECES, k=chance.randrange(60)))
    whole = original if may_return_whole(original) else None
    is_global = bool(seed % 2)

    octets = compose(
        report(header=header_of(original), whole=whole, is_global=is_global, envid="E")
    )

    parts = parts_of(octets)
    assert len(parts) == (3 if original and (whole or header_of(original)) else 2)
    assert octets.count(b"\r\n--=_0123456789abcdef") == len(parts) + 1
    if whole:
        assert whole in octets
    if not is_global:
        assert groups_of(octets)[1]["Status"] == "5.1.1"
