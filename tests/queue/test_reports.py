"""Which reports are owed, to whom, and what they are asked to carry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from email import message_from_bytes, policy
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.logger import capturedLogs

from mailtwist.errors import StoreUnavailable
from mailtwist.mail import dsn
from mailtwist.mail.address import Address
from mailtwist.queue.reports import Reports
from mailtwist.store.deliver import Acceptance
from mailtwist.store.queue.values import (
    LOCAL,
    Attempt,
    Message,
    Notify,
    Outcome,
    Recipient,
)
from tests.support.now import now

SECOND = 1_000_000
NOW = 1_795_200_000 * SECOND
HEADER = b"Message-ID: <lunch@example.com>\r\nSubject: Lunch\r\n\r\n"
CONTENT = HEADER + b"At noon?\r\n"

BOB = Recipient(1, "bob@example.net", "example.net")
MESSAGE = Message(
    77,
    "alice@example.com",
    (BOB,),
    received_at=NOW - 3600 * SECOND,
    expires_at=NOW + 86_400 * SECOND,
    attend_at=0,
    prefix=b"Received: by mail.example.com\r\n",
    content_id=5,
    octets=len(CONTENT),
    header_octets=len(HEADER),
)
FAILED = Attempt(
    1, Outcome.FAILED, 550, "5.1.1", "User unknown", "rcpt", "mx.example.net", "192.0.2.1:25"
)
DEFERRED = replace(FAILED, outcome=Outcome.DEFERRED, code=451, status="4.3.2", text="later")
WARNED = replace(DEFERRED, is_warned=True)
DELIVERED = replace(FAILED, outcome=Outcome.DELIVERED, code=250, status="2.1.5", text="ok")


@dataclass
class FakeIntake:
    """Keeps what it was given; everybody is foreign unless nobody is left."""

    letters: list[bytes] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    has_taker: bool = True

    async def prepare(self, letter: bytes, **asked: Any) -> Acceptance | None:
        self.letters.append(letter)
        self.asked.append(asked)
        if not self.has_taker:
            return None
        content: Any = None
        return Acceptance(content, (), 99, NOW)

    async def is_local(self, domain: str) -> bool:
        return domain == "here.example"


class FakeStore:
    """Hands out one content, or what it raises."""

    def __init__(self, content: bytes | Exception = CONTENT) -> None:
        self.content = content
        self.reads = 0

    async def read(self, work: Any) -> bytes | None:
        self.reads += 1
        if isinstance(self.content, Exception):
            raise self.content
        return self.content


class Setup:
    def __init__(self, content: bytes | Exception = CONTENT) -> None:
        self.intake = FakeIntake()
        self.store = FakeStore(content)
        self.reports = Reports(
            self.store,
            self.intake,
            settings=SimpleNamespace(hostname="mail.example.com"),
            now=lambda: NOW,
            token=lambda: "0123456789abcdef",
        )

    def of(
        self, *attempts: Attempt, message: Message = MESSAGE, **asked: Any
    ) -> Sequence[Acceptance]:
        return now(self.reports.of(message, attempts, **asked))

    def actions(self) -> list[str]:
        """What the letters say became of whom."""
        return [
            group["Action"]
            for letter in self.intake.letters
            for group in parts(letter)[1].get_payload()[1:]
        ]


@pytest.fixture
def setup() -> Setup:
    return Setup()


def parts(letter: bytes) -> list[Any]:
    return list(message_from_bytes(letter, policy=policy.default).iter_parts())


def with_notify(notify: Notify) -> Message:
    return replace(MESSAGE, recipients=(replace(BOB, notify=notify),))


# -- what is owed ---------------------------------------------------------------------------

N = Notify


@pytest.mark.mission("ELE-22")
@pytest.mark.parametrize(
    ("notify", "attempt", "action"),
    [
        (N.UNSET, FAILED, "failed"),
        (N.UNSET, WARNED, "delayed"),
        (N.UNSET, DEFERRED, ""),
        (N.UNSET, DELIVERED, ""),
        (N.NEVER, FAILED, ""),
        (N.NEVER, WARNED, ""),
        (N.NEVER, DELIVERED, ""),
        (N.FAILURE, FAILED, "failed"),
        (N.FAILURE, WARNED, ""),
        (N.FAILURE, DELIVERED, ""),
        (N.DELAY, WARNED, "delayed"),
        (N.DELAY, FAILED, ""),
        (N.SUCCESS, DELIVERED, "relayed"),
        (N.SUCCESS, FAILED, ""),
        (N.SUCCESS, WARNED, ""),
        (N.SUCCESS | N.FAILURE | N.DELAY, FAILED, "failed"),
        (N.SUCCESS | N.FAILURE | N.DELAY, WARNED, "delayed"),
        (N.SUCCESS | N.FAILURE | N.DELAY, DELIVERED, "relayed"),
    ],
)
def test_a_report_is_made_as_notify_asks(
    setup: Setup, notify: Notify, attempt: Attempt, action: str
) -> None:
    made = setup.of(attempt, message=with_notify(notify))

    assert setup.actions() == [action] * bool(action)
    assert len(made) == bool(action)


@pytest.mark.parametrize("attempt", [FAILED, WARNED, DELIVERED])
def test_nothing_is_ever_said_about_mail_from_the_null_path(setup: Setup, attempt: Attempt) -> None:
    message = replace(with_notify(N.SUCCESS | N.FAILURE | N.DELAY), reverse_path="")

    assert setup.of(attempt, message=message) == ()
    assert setup.intake.letters == []


def test_a_double_bounce_is_logged_with_what_nobody_else_will_hear(setup: Setup) -> None:
    with capturedLogs() as events:
        setup.of(FAILED, message=replace(MESSAGE, reverse_path=""))

    (event,) = [each for each in events if each["log_format"] == "double bounce"]
    assert (event["queue_id"], event["recipient"], event["reply"]) == (
        "77",
        "bob@example.net",
        "User unknown",
    )


def test_a_reverse_path_that_is_no_address_gets_nothing(setup: Setup) -> None:
    assert setup.of(FAILED, message=replace(MESSAGE, reverse_path="@@")) == ()


def test_one_report_of_a_kind_is_made_for_all_its_recipients(setup: Setup) -> None:
    recipients = tuple(
        Recipient(n, f"u{n}@example.net", "example.net", notify=N.SUCCESS | N.FAILURE | N.DELAY)
        for n in range(1, 7)
    )
    attempts = [
        replace(attempt, n=n)
        for n, attempt in enumerate([FAILED, DELIVERED, WARNED, FAILED, DELIVERED, WARNED], 1)
    ]

    made = setup.of(*attempts, message=replace(MESSAGE, recipients=recipients))

    assert len(made) == 3
    assert setup.actions() == ["failed", "failed", "relayed", "relayed", "delayed", "delayed"]


def test_a_next_hop_that_knows_dsn_reports_success_itself(setup: Setup) -> None:
    message = with_notify(N.SUCCESS | N.FAILURE)

    assert setup.of(DELIVERED, message=message, relayed_to_dsn=True) == ()
    assert len(setup.of(FAILED, message=message, relayed_to_dsn=True)) == 1


def test_what_came_into_a_mailbox_is_delivered_and_not_relayed(setup: Setup) -> None:
    message = with_notify(N.SUCCESS)
    here = Attempt(1, Outcome.DELIVERED, 250, "2.1.5", "")
    behind_lmtp = replace(message, recipients=(replace(message.recipients[0], destination=LOCAL),))

    setup.of(here, message=message, header=HEADER)
    setup.of(DELIVERED, message=behind_lmtp)

    assert setup.actions() == ["delivered", "delivered"]


def test_plain_deliveries_cost_no_look_at_anything(setup: Setup) -> None:
    assert setup.of(DELIVERED) == ()
    assert setup.store.reads == 0


# -- to whom, and how -----------------------------------------------------------------------


def test_a_report_goes_to_the_sender_from_nobody(setup: Setup) -> None:
    setup.of(FAILED)

    assert setup.intake.asked == [
        {
            "reverse_path": None,
            "recipients": [Address("alice", "example.com")],
            "hostname": "",
            "notify": Notify.NEVER,
            "smtputf8": False,
            "requiretls": False,
            "is_report": True,
        }
    ]
    assert parts(setup.intake.letters[0])[1].get_payload()[0]["Reporting-MTA"] == (
        "dns; mail.example.com"
    )


def test_a_report_comes_from_the_name_under_which_the_message_did(setup: Setup) -> None:
    setup.of(FAILED, message=replace(MESSAGE, hostname="mx.example.org"))

    letter = message_from_bytes(setup.intake.letters[0], policy=policy.default)
    assert letter["From"] == "Mail Delivery System <MAILER-DAEMON@mx.example.org>"
    assert setup.intake.asked[0]["hostname"] == "mx.example.org"


def test_a_report_that_nobody_would_get_is_none(setup: Setup) -> None:
    setup.intake.has_taker = False

    assert setup.of(FAILED) == ()


def test_a_report_asks_a_next_hop_for_no_more_than_it_needs(setup: Setup) -> None:
    setup.of(FAILED, message=replace(MESSAGE, smtputf8=True))
    setup.of(FAILED, message=replace(MESSAGE, smtputf8=True, reverse_path="käthe@example.com"))

    assert [(asked["smtputf8"], asked["requiretls"]) for asked in setup.intake.asked] == [
        (False, False),
        (True, False),
    ]


@pytest.mark.mission("ELE-13")
def test_a_report_on_secret_mail_is_as_secret_and_returns_no_text(setup: Setup) -> None:
    refused = replace(
        FAILED, code=550, status="5.7.30", text="no TLS", stage="starttls", is_ours=True
    )
    message = replace(MESSAGE, requiretls=True, ret="FULL")

    setup.of(refused, message=message)

    assert setup.intake.asked[0]["requiretls"]
    (letter,) = setup.intake.letters
    assert b"At noon?" not in letter
    assert parts(letter)[1].get_payload()[1]["Status"] == "5.7.30"
    assert parts(letter)[2].get_content_type() == "text/rfc822-headers"


# -- what it returns ------------------------------------------------------------------------


@pytest.mark.mission("ELE-22")
@pytest.mark.parametrize(
    ("ret", "attempt", "is_whole"),
    [
        ("", FAILED, True),
        ("FULL", FAILED, True),
        ("HDRS", FAILED, False),
        ("FULL", WARNED, False),
        ("FULL", DELIVERED, False),
    ],
)
def test_ret_says_what_comes_back_of_a_failure(
    setup: Setup, ret: str, attempt: Attempt, is_whole: bool
) -> None:
    message = replace(with_notify(N.SUCCESS | N.FAILURE | N.DELAY), ret=ret, envid="QQ1")

    setup.of(attempt, message=message)

    (letter,) = setup.intake.letters
    returned = parts(letter)[2]
    assert (b"At noon?" in letter) is is_whole
    assert returned.get_content_type() == ("message/rfc822" if is_whole else "text/rfc822-headers")
    assert b"Received: by mail.example.com\r\nMessage-ID: <lunch@example.com>\r\n" in letter
    assert parts(letter)[1].get_payload()[0]["Original-Envelope-Id"] == "QQ1"


@pytest.mark.parametrize(
    ("reverse_path", "ret", "is_whole"),
    [
        ("alice@here.example", "", True),  # into a mailbox, no host can refuse it
        ("alice@example.com", "", False),
        ("alice@example.com", "FULL", True),
    ],
)
def test_a_report_that_leaves_has_nothing_that_a_host_without_8bitmime_refuses(
    reverse_path: str, ret: str, is_whole: bool
) -> None:
    content = HEADER + "Im Café?\r\n".encode()
    setup = Setup(content)
    setup.of(FAILED, message=replace(MESSAGE, reverse_path=reverse_path, ret=ret))

    (letter,) = setup.intake.letters
    assert letter.isascii() is not is_whole
    assert (b"Im Caf" in letter) is is_whole


@pytest.mark.parametrize(
    "changes",
    [{"octets": 300 * 1024}, {"body": "BINARYMIME"}],
    ids=["long", "binary"],
)
def test_only_the_header_comes_back_of_what_is_too_long_or_binary(
    setup: Setup, changes: dict[str, Any]
) -> None:
    setup.of(FAILED, message=replace(MESSAGE, **changes))

    assert parts(setup.intake.letters[0])[2].get_content_type() == "text/rfc822-headers"
    assert b"At noon?" not in setup.intake.letters[0]


def test_a_message_that_is_not_stored_yet_is_not_looked_up(setup: Setup) -> None:
    setup.of(DELIVERED, message=with_notify(N.SUCCESS), header=HEADER)

    assert setup.store.reads == 0
    assert b"Subject: Lunch" in setup.intake.letters[0]


def test_a_content_that_is_gone_leaves_a_report_with_what_is_known(database: Any) -> None:
    intake = FakeIntake()
    settings = SimpleNamespace(hostname="mail.example.com")
    reports = Reports(database, intake, settings=settings)

    assert len(now(reports.of(MESSAGE, [FAILED]))) == 1
    assert b"Received: by mail.example.com" in intake.letters[0]


def test_a_store_that_is_away_is_the_callers_to_ask_again() -> None:
    setup = Setup(StoreUnavailable())

    with pytest.raises(StoreUnavailable):
        setup.of(FAILED)
    assert setup.intake.letters == []


def test_a_bug_in_front_of_a_strange_original_does_not_silence_the_report(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = dsn.compose

    def brittle(report: Any) -> bytes:
        if report.header:
            raise ValueError("strange")
        return real(report)

    monkeypatch.setattr(dsn, "compose", brittle)

    assert len(setup.of(FAILED)) == 1
    assert setup.actions() == ["failed"]


# -- what it says of a recipient ------------------------------------------------------------


def only_group(setup: Setup) -> Any:
    (letter,) = setup.intake.letters
    return parts(letter)[1].get_payload()[1]


def test_who_wrote_to_an_alias_is_not_told_where_it_leads(setup: Setup) -> None:
    forwarded = replace(
        BOB,
        address="secret@private.example",
        destination="private.example",
        original="info@example.com",
        forwarded_by="info@example.com",
        orcpt="rfc822;info@example.com",
    )
    refused = replace(
        FAILED,
        text="<Secret@Private.example> secret unknown at mx.private.example, insecret",
        host="mx.private.example",
    )

    setup.of(refused, message=replace(MESSAGE, recipients=(forwarded,)))

    group = only_group(setup)
    assert group["Final-Recipient"] == group["Original-Recipient"] == "rfc822; info@example.com"
    assert group["Remote-MTA"] is None
    assert group["Diagnostic-Code"] == (
        "smtp; 550 5.1.1 <info@example.com> ... unknown at mx...., insecret"
    )
    assert b"private" not in setup.intake.letters[0].lower()
    assert b"192.0.2.1" not in setup.intake.letters[0]


def test_an_alias_inside_is_named_as_the_client_named_it(setup: Setup) -> None:
    recipient = replace(BOB, original="Robert@example.net")

    setup.of(FAILED, message=replace(MESSAGE, recipients=(recipient,)))

    assert only_group(setup)["Final-Recipient"] == "rfc822; Robert@example.net"


@pytest.mark.mission("ELE-49")
def test_giving_up_says_how_often_it_was_tried_and_what_was_said_last(setup: Setup) -> None:
    given_up = replace(FAILED, code=451, status="4.4.7", text="4.2.2 Mailbox full", ended_at=NOW)
    message = replace(MESSAGE, recipients=(replace(BOB, attempts=5),))

    setup.of(given_up, message=message)

    group = only_group(setup)
    assert (group["Action"], group["Status"]) == ("failed", "4.4.7")
    assert group["Diagnostic-Code"] == "smtp; 451 4.2.2 Mailbox full"
    assert group["Last-Attempt-Date"] == "Fri, 20 Nov 2026 18:40:00 +0000"
    assert "We tried 6 times in" in parts(setup.intake.letters[0])[0].get_content()


def test_what_expired_untried_tells_of_no_attempt(setup: Setup) -> None:
    untried = Attempt(1, Outcome.FAILED, 451, "4.4.7", "not tried", started_at=NOW, ended_at=NOW)

    setup.of(untried)

    group = only_group(setup)
    assert group["Last-Attempt-Date"] is None
    assert group["Diagnostic-Code"] == "X-Mailtwist; not tried"
    assert "could not be tried" in parts(setup.intake.letters[0])[0].get_content()


@pytest.mark.parametrize("stage", ["dns", "connect"])
def test_where_no_server_was_spoken_to_none_is_blamed(setup: Setup, stage: str) -> None:
    setup.of(replace(FAILED, stage=stage, text="no route"))

    group = only_group(setup)
    assert group["Remote-MTA"] is None
    assert group["Diagnostic-Code"] == "X-Mailtwist; no route"


def test_what_we_say_of_a_server_is_not_put_into_its_mouth(setup: Setup) -> None:
    setup.of(replace(FAILED, stage="mail", status="5.6.3", text="no 8BITMIME", is_ours=True))

    group = only_group(setup)
    assert group["Remote-MTA"] == "dns; mx.example.net"
    assert group["Diagnostic-Code"] == "X-Mailtwist; no 8BITMIME"


def test_an_attempt_for_nobody_known_says_nothing(setup: Setup) -> None:
    assert setup.of(replace(FAILED, n=9)) == ()
