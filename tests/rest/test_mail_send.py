"""Letters that actions send: who gets what, and what no letter may hold."""

from __future__ import annotations

import base64
import email
import email.policy
import json
import time
from email.message import EmailMessage

import pytest

from tests.e2e.relaying import FAR, going_to, until
from tests.support.own_actions import OPEN_TO_GUESTS, define, once, outcome, run
from tests.support.rest import Rest, outcomes
from tests.support.sink import Mail, Sink

pytestmark = [pytest.mark.real]

numbers = iter(range(1, 10_000))


def sender() -> str:
    """An address that no other test sends from, and that is nobody's here."""
    return f"noreply{next(numbers)}@example.com"


def letter(**more) -> dict:
    return {"from": sender(), "to": f"bob@{FAR}", "subject": "Hello", "body": "A text", **more}


def mails(sink: Sink, given: dict) -> list[Mail]:
    address = given["from"].rpartition("<")[2].rstrip(">")
    return [each for each in sink.taken if each.reverse_path == address]


def arrived(sink: Sink, given: dict) -> Mail:
    sink.wait(lambda: mails(sink, given))
    (found,) = mails(sink, given)
    return found


def parsed(mail: Mail) -> EmailMessage:
    message = email.message_from_bytes(mail.data, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert not message.defects
    return message


def outbox(admin: Rest, given: dict) -> list[dict]:
    return [
        each["attributes"]
        for each in admin.rows("outbox", ("from_address", "is", given["from"])).data
    ]


# -- as documented --------------------------------------------------------------------------


@pytest.mark.mission("DAP-127")
def test_the_documented_action_sends_a_letter(admin, sink):
    given = sender()
    name = define(
        admin,
        [
            outcome(
                "mail.send",
                {
                    "to": "~recipient_email",
                    "subject": "Your Subject",
                    "body": "Email body content",
                    "from": given,
                    "mail_server_hostname": hostname(admin),
                },
            ),
            {
                "Type": "client.notify",
                "Method": "ACTIONRESPONSE",
                "Attributes": {
                    "type": "success",
                    "title": "Sent",
                    "message": "queued for $recipient_email",
                },
            },
        ],
        inputs=["recipient_email"],
    )
    answer = run(admin, name, recipient_email=f"u@{FAR}")
    assert answer.status == 200, answer
    assert outcomes(answer) == [
        (
            "client.notify",
            {"message": f"queued for u@{FAR}", "title": "Sent", "type": "success"},
        )
    ]
    mail = arrived(sink, {"from": given})
    assert mail.recipients == [f"u@{FAR}"]
    message = parsed(mail)
    assert message["Subject"] == "Your Subject"
    assert message["From"] == given
    assert message.get_content().strip() == "Email body content"


def hostname(admin: Rest) -> str:
    """The name of a mail_server row."""
    name = f"mx{next(numbers)}.example.com"
    admin.make("mail_server", {"hostname": name})
    return name


@pytest.mark.mission("DAP-128")
@pytest.mark.parametrize("to", ["~to", "![to]", "!to.split(',')", ["~to"]], ids=repr)
def test_whom_a_letter_is_for_is_said_in_any_form(admin, sink, to):
    given = letter(to=to)
    name = define(admin, [outcome("mail.send", given)], inputs=["to"])
    answer = run(admin, name, to=f"carol@{FAR}")
    assert (answer.status, answer.json) == (200, [])
    assert arrived(sink, given).recipients == [f"carol@{FAR}"]


def test_names_and_several_addresses_are_read(admin, sink):
    given = letter(to=[f'"Example, Bob" <b@{FAR}>, c@{FAR}', f"Dörte <d@{FAR}>"])
    assert once(admin, "mail.send", given).status == 200
    mail = arrived(sink, given)
    assert sorted(mail.recipients) == [f"b@{FAR}", f"c@{FAR}", f"d@{FAR}"]
    to = parsed(mail)["To"].addresses
    assert [(each.display_name, each.addr_spec) for each in to] == [
        ("Example, Bob", f"b@{FAR}"),
        ("", f"c@{FAR}"),
        ("Dörte", f"d@{FAR}"),
    ]


@pytest.mark.mission("DAP-129")
@pytest.mark.parametrize("missing", ["from", "to"])
def test_what_a_letter_needs_is_named(admin, missing):
    given = letter()
    del given[missing]
    answer = once(admin, "mail.send", given)
    assert answer.status == 400
    assert answer.error == f"missing required field: {missing}"
    if "from" in given:
        assert outbox(admin, given) == []


@pytest.mark.mission("DAP-130")
def test_an_unknown_mail_server_is_named(admin):
    given = letter(mail_server_hostname="nowhere.example.com")
    answer = once(admin, "mail.send", given)
    assert answer.status == 400
    assert "nowhere.example.com" in answer.error
    assert outbox(admin, given) == []


@pytest.mark.mission("DAP-131", "DAP-132")
def test_neither_mail_server_nor_account_is_needed(make_fresh):
    with Sink() as sink:
        server = make_fresh(outbound=going_to(sink)).start()
        admin = Rest(server.ports["http"]).become_administrator()
        without = letter()
        assert once(admin, "mail.send", without).status == 200
        arrived(sink, without)
        admin.make("mail_server", {"hostname": "off.example.com", "is_enabled": False})
        row = {"hostname": "mx.example.com", "is_enabled": True, "listen_interface": "127.0.0.1:0"}
        admin.make("mail_server", row)
        given = letter()
        assert once(admin, "mail.send", given).status == 200
        arrived(sink, given)
        assert arrived(sink, given).visit.greeted_as == "mx.example.com"
        assert until(lambda: all(each["sent"] for each in outbox(admin, given)))


@pytest.mark.mission("DAP-133")
def test_a_local_sender_finds_one_copy_in_sent(make_fresh):
    with Sink(replies={"RCPT": ["451 4.7.1 once"]}) as sink:
        server = make_fresh(outbound=going_to(sink), queue={"retry_schedule": ["1s"]}).start()
        admin = Rest(server.ports["http"]).become_administrator()
        user = admin.user()
        account, address = user.account()
        given = letter(**{"from": f"Ann <{address}>"})
        assert once(admin, "mail.send", given).status == 200
        arrived(sink, given)
        box = user.boxes(account)["Sent"]
        (copy,) = user.rows("mail", ("mail_box_id", "is", box)).data
        assert copy["attributes"]["subject"] == "Hello"
        assert copy["attributes"]["seen"] is True


@pytest.mark.mission("DAP-134")
def test_a_letter_is_well_formed(admin, sink):
    given = letter(subject="Grüße 🎉 aus Köln", body="Ünïcödé\nзеленый\n")
    assert once(admin, "mail.send", given).status == 200
    mail = arrived(sink, given)
    assert mail.data.isascii()
    header = mail.data.partition(b"\r\n\r\n")[0]
    assert b"\r\nSubject: =?utf-8?" in header
    message = parsed(mail)
    assert message["Subject"] == given["subject"]
    assert message["MIME-Version"] == "1.0"
    assert message.get_content_charset() == "utf-8"
    assert message.get_content().splitlines() == given["body"].splitlines()
    assert message["Date"].datetime.year >= 2026
    assert message["Message-ID"].endswith("@example.com>")


BREAKS = ["\r\n", "\n", "\r", "\0", "\x85", "\u2028", "\u2029", "\x0b", "\x0c"]
FIELDS = ["from", "to", "cc", "bcc", "reply_to", "subject", "mail_server_hostname"]


@pytest.mark.mission("DAP-135")
@pytest.mark.parametrize("given_break", BREAKS, ids=ascii)
def test_no_field_takes_a_line_break(admin, sink, given_break):
    name = define(admin, [outcome("mail.send", {each: f"~my_{each}" for each in given_fields()})])
    for field in FIELDS:
        given = letter()
        good = given.get(field, f"x@{FAR}")
        answer = run(admin, name, **mine({**given, field: f"{good}{given_break}Bcc: e@evil"}))
        assert answer.status == 400, (field, answer)
        # NUL is refused before anybody looks at what it is for.
        assert field in answer.error or given_break == "\0"
        assert outbox(admin, given) == []
    for where, value in (
        ("headers", {"X-A": f"b{given_break}Bcc: e@evil.example"}),
        ("headers", {f"X-A{given_break}Bcc": "e@evil.example"}),
        ("attachments", [{"filename": f"a{given_break}b", "content": ""}]),
        ("attachments", [{"filename": "a", "content": "", "content_type": f"a/b{given_break}c"}]),
    ):
        given = letter(**{where: value})
        answer = run(admin, name, **mine(given))
        assert answer.status == 400, (where, answer)
        assert where in answer.error or given_break == "\0"
        assert outbox(admin, given) == []
    assert not [mail for mail in sink.taken if b"evil" in mail.data]
    assert not [mail for mail in sink.taken if "evil" in str(mail.recipients)]


def mine(given: dict) -> dict:
    """Inputs: `subject` itself means the row that an action is about."""
    return {f"my_{name}": value for name, value in given.items()}


def given_fields() -> list[str]:
    return [*FIELDS, "body", "headers", "attachments"]


@pytest.mark.mission("DAP-136")
def test_html_attachments_and_copies(admin, sink):
    data = bytes(range(256))
    given = letter(
        html="<p>A <b>text</b></p>",
        cc=f"Carol <carol@{FAR}>",
        bcc=[f"dave@{FAR}"],
        reply_to="answers@example.com",
        attachments=[
            {
                "filename": "Rechnung März.pdf",
                "content": base64.b64encode(data).decode(),
                "content_type": "application/pdf",
            },
            {"filename": "a.bin", "content": "aGk="},
        ],
        headers={"X-Campaign": "spring", "In-Reply-To": "<a@b.example>"},
    )
    assert once(admin, "mail.send", given).status == 200
    mail = arrived(sink, given)
    assert sorted(mail.recipients) == [f"bob@{FAR}", f"carol@{FAR}", f"dave@{FAR}"]
    assert b"dave@" not in mail.data
    message = parsed(mail)
    assert message.get_content_type() == "multipart/mixed"
    (carol,) = message["Cc"].addresses
    assert (carol.display_name, carol.addr_spec) == ("Carol", f"carol@{FAR}")
    assert message["Reply-To"] == "answers@example.com"
    assert (message["X-Campaign"], message["In-Reply-To"]) == ("spring", "<a@b.example>")
    assert message.get_body(("plain",)).get_content().split() == ["A", "text"]
    assert message.get_body(("html",)).get_content().strip() == "<p>A <b>text</b></p>"
    pdf, octets = message.iter_attachments()
    assert (pdf.get_filename(), pdf.get_content_type()) == ("Rechnung März.pdf", "application/pdf")
    assert pdf.get_content() == data
    assert (octets.get_content_type(), octets.get_content()) == ("application/octet-stream", b"hi")


@pytest.mark.mission("DAP-138")
@pytest.mark.parametrize(
    "how", [{"send_immediately": True}, {"attempt_delivery": "true"}, {}], ids=json.dumps
)
def test_a_letter_leaves_at_once(admin, sink, how):
    given = letter(**how)
    begun = time.monotonic()
    assert once(admin, "mail.send", given).status == 200
    arrived(sink, given)
    assert time.monotonic() - begun < 10, "2 s on a machine that does nothing else"
    until(lambda: [each["sent"] for each in outbox(admin, given)] == [True])


@pytest.mark.mission("DAP-148")
def test_a_local_recipient_gets_it_straight_away(admin, sink):
    user = admin.user()
    account, address = user.account()
    given = letter(to=address)
    assert once(admin, "mail.send", given).status == 200
    (found,) = user.inbox(account).data
    assert found["attributes"]["subject"] == "Hello"
    assert outbox(admin, given) == []
    assert mails(sink, given) == []


@pytest.mark.mission("DAP-152")
def test_a_performer_is_no_action(admin):
    for name in ("mail.send", "aws.mail.send", "otp.generate"):
        answer = admin.act("world", name, {"attributes": letter()})
        assert 400 <= answer.status < 500
        assert "no such action" in answer.error


# -- bad input ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed, named",
    [
        ({"to": "nobody"}, "to"),
        ({"to": [f"bob@{FAR}", 7]}, "to"),
        ({"to": {"a": "b"}}, "to"),
        ({"to": [f"u{n}@{FAR}" for n in range(101)]}, "to"),
        ({"from": f"a@{FAR}, b@{FAR}"}, "from"),
        ({"from": ["a", "b"]}, "from"),
        ({"subject": ["a"]}, "subject"),
        ({"subject": "x" * 901}, "subject"),
        ({"body": {"a": 1}}, "body"),
        ({"attachments": "file"}, "attachments"),
        ({"attachments": [{"filename": "a", "content": "no base64!"}]}, "attachments.content"),
        ({"attachments": [{"content_type": "png", "content": ""}]}, "attachments.content_type"),
        ({"headers": {"Bcc": "e@evil.example"}}, "headers"),
        ({"headers": {"Received": "from us"}}, "headers"),
        ({"headers": {"DKIM-Signature": "v=1"}}, "headers"),
        ({"headers": {"Content-Type": "text/html"}}, "headers"),
        ({"headers": ["X-A"]}, "headers"),
    ],
    ids=lambda value: json.dumps(value)[:60],
)
def test_what_cannot_be_sent_is_named_and_nothing_is_written(admin, changed, named):
    before = admin.rows("outbox", ("to_address", "is", f"bob@{FAR}")).total
    answer = once(admin, "mail.send", letter(**changed))
    assert answer.status == 400, answer
    assert named in answer.error
    assert admin.rows("outbox", ("to_address", "is", f"bob@{FAR}")).total == before


def test_a_letter_to_nobody_here_is_refused(admin):
    given = letter(to="nobody-at-all@example.com")
    answer = once(admin, "mail.send", given)
    assert 400 <= answer.status < 500
    assert "nobody-at-all" in answer.error or "unknown" in answer.error.lower()


def test_a_later_failure_sends_nothing(admin, sink):
    given = letter()
    name = define(
        admin,
        [
            outcome("mail.send", given),
            outcome("mail.send", {**letter(), "to": "nobody"}),
        ],
    )
    assert run(admin, name).status == 400
    assert outbox(admin, given) == []
    assert mails(sink, given) == []


def test_guests_may_not_flood(admin, nobody):
    given = letter(to="~to")
    user = admin.user()
    _, address = user.account()
    name = define(admin, [outcome("mail.send", given)], inputs=["to"])
    (row,) = admin.rows("action", ("action_name", "is", name)).data
    admin.change("action", row["id"], permission=OPEN_TO_GUESTS)
    statuses = [run(nobody, name, to=address).status for _ in range(32)]
    assert statuses[:30] == [200] * 30
    assert statuses[30:] == [429] * 2
    assert run(admin, name, to=address).status == 200
