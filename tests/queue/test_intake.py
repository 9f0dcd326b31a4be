"""Addresses become recipients, a message becomes one write: mailboxes, queue, reports."""

from __future__ import annotations

import email
import gc
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from sqlalchemy import select

from mailtwist.config import Settings
from mailtwist.config.outgoing import Delivery, Queue
from mailtwist.errors import MailError, NotFound, OverQuota, Refusal, StoreUnavailable
from mailtwist.mail.address import Address, parse_address
from mailtwist.mail.dkim import HashedMessage
from mailtwist.mail.flags import SEEN
from mailtwist.mail.srs import Srs
from mailtwist.queue.envelope import Envelope, Mail, Origin
from mailtwist.queue.intake import Intake
from mailtwist.queue.reports import Reports
from mailtwist.store import accounts, domains, mailboxes
from mailtwist.store.database import Inline
from mailtwist.store.directory import Directory, Foreign, Target
from mailtwist.store.engine import open_engine
from mailtwist.store.queue import suppression
from mailtwist.store.queue.tables import queue_recipient
from mailtwist.store.queue.values import (
    LOCAL,
    Lease,
    Message,
    Notify,
    Priority,
    State,
)
from tests.support.now import now
from tests.support.smtp_server import queued, stored
from tests.support.stores import violations

NOW = 1_790_000_000_000_000
DAY = 86400 * 1_000_000
DATE = b"Date: Fri, 1 Jan 2027 00:00:00 +0000\r\n"
ID = b"Message-ID: <one@client.example>\r\n"
LETTER = DATE + ID + b"From: alice@example.com\r\nSubject: x\r\n\r\nbody\r\n"
BARE = b"From: alice@example.com\r\nSubject: x\r\n\r\nbody\r\n"
STRANGER = Origin("mx.example.com", "s", "192.0.2.7", "client", "ESMTP", is_tls=False)
RELAY = replace(STRANGER, may_relay=True)


class Refuses:
    """A database whose writes fail."""

    def __init__(self, database: Inline) -> None:
        self._database = database

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    async def write_set(self, *args: Any, **rest: Any) -> None:
        raise StoreUnavailable()


@dataclass
class Runner:
    """Notes what it is told; ``room`` leases are granted."""

    room: int = 0
    said: list[tuple[str, Any]] = field(default_factory=list)

    def reserve(self, message: Message, octets: int) -> Lease | None:
        if not self.room:
            return None
        self.room -= 1
        self.said.append(("reserve", octets))
        return Lease(0, NOW + 600_000_000)

    def take(self, message: Message, data: bytes | None, lease: Lease) -> None:
        self.said.append(("take", (message, data)))

    def give_back(self, message: Message) -> None:
        self.said.append(("give_back", message))

    def wake(self) -> None:
        self.said.append(("wake", None))

    @property
    def words(self) -> list[str]:
        return [word for word, _ in self.said]


@dataclass
class Signer:
    is_enabled: bool = True
    seen: list[tuple[HashedMessage, str]] = field(default_factory=list)
    by_author: bool | None = None

    async def sign(
        self, hashed: HashedMessage, *, reverse_path: str, by_author: bool = True
    ) -> bytes:
        self.seen.append((hashed, reverse_path))
        self.by_author = by_author
        return b"DKIM-Signature: v=1\r\n"


class Bench:
    """A store with alice, bob and full in example.com, and an intake over it."""

    def __init__(self, database: Inline) -> None:
        self.database = database
        self.runner = Runner()
        self.signer = Signer()
        self.srs = Srs(b"k" * 32)
        self.settings = replace(Settings(), hostname="mx.example.com", domains=("example.com",))
        with database.engine.write() as connection:
            made = [
                accounts.add(connection, f"{name}@example.com", [], now=NOW)
                for name in ("alice", "bob", "full")
            ]
            self.alice, self.bob, self.full = (each.account_id for each in made)
            accounts.set_quota(connection, self.full, octets=1)
            accounts.add_alias(connection, "out@example.com", ["x@far.test"])
            accounts.add_alias(connection, "both@example.com", ["bob@example.com", "y@far.test"])
        self.build()

    def build(self, **settings: Any) -> Bench:
        self.settings = replace(self.settings, **settings)
        self.directory = Directory(self.database, self.settings)
        self.intake = Intake(
            self.database,
            self.directory,
            settings=self.settings,
            outbound=self.runner,
            signer=self.signer,
            srs=self.srs,
            now=lambda: NOW,
        )
        self.intake.reports = Reports(
            self.database, self.intake, settings=self.settings, now=lambda: NOW
        )
        return self

    @property
    def login(self) -> Origin:
        return replace(
            RELAY, account_id=self.alice, is_authenticated=True, protocol="ESMTPSA", is_tls=True
        )

    def admit(self, *names: str, notify: Notify = Notify.UNSET, **rest: Any) -> list[Any]:
        return [
            replace(now(self.intake.admit(parse_address(name), **rest)), notify=notify)
            for name in names
        ]

    def receive(
        self,
        *names: str,
        letter: bytes = LETTER,
        origin: Origin = RELAY,
        mail: Mail | None = None,
        notify: Notify = Notify.UNSET,
        step: int = 1 << 16,
    ) -> str:
        """Take a message in; its queue id."""
        mail = mail or Mail(parse_address("alice@example.com"))
        recipients = self.admit(
            *names,
            notify=notify,
            may_relay=origin.may_relay,
            is_bounce=mail.reverse_path is None,
            is_sandbox=origin.is_sandbox,
        )
        incoming = self.intake.receive(Envelope(mail, recipients), origin, limit=1 << 24)
        for at in range(0, len(letter), step):
            now(incoming.write(letter[at : at + step]))
        return now(incoming.accept())

    def queued(self) -> list[Message]:
        with self.database.engine.read() as connection:
            return queued(connection)

    def stored(self, name: str) -> list[bytes]:
        return stored(self.database.engine, f"{name}@example.com")

    def states(self) -> list[int]:
        with self.database.engine.read() as connection:
            return list(connection.execute(select(queue_recipient.c.state)).scalars())


@pytest.fixture
def bench(sqlite_url: str) -> Iterator[Bench]:
    engine = open_engine(sqlite_url)
    database = Inline(engine)
    yield Bench(database)
    try:
        assert violations(engine) == []
    finally:
        database.release()
        engine.dispose()


BOUNCE = ("x@far.test", "550 5.1.1 no such user", 1, NOW)


# -- who is admitted --------------------------------------------------------------------------


def refused(work: Callable[[], object]) -> tuple[int, str, str]:
    with pytest.raises(MailError) as error:
        work()
    return error.value.code, error.value.status, error.value.text


@pytest.mark.mission("DAP-101", "ELE-42")
def test_only_who_may_relay_names_foreign_addresses(bench: Bench) -> None:
    denied = (554, "5.7.1", "Relay access denied")
    assert refused(lambda: bench.admit("X@far.test")) == denied
    (admitted,) = bench.admit("X@far.test", may_relay=True)
    assert admitted.targets == (Foreign("X@far.test", "far.test"),)
    unknown = (550, "5.1.1", "User unknown")
    assert refused(lambda: bench.admit("nobody@example.com", may_relay=True)) == unknown


def test_anybody_reaches_a_foreign_address_through_an_alias(bench: Bench) -> None:
    (admitted,) = bench.admit("both@example.com")
    assert set(admitted.targets) == {
        Foreign("y@far.test", "far.test", "both@example.com"),
        Target(bench.bob, "INBOX", "bob@example.com"),
    }


def test_an_address_that_bounced_too_often_is_refused_until_it_is_cleared(bench: Bench) -> None:
    for n in range(3):
        assert bench.admit("X@far.test", may_relay=True), n
        now(bench.database.write(lambda c: suppression.count(c, [BOUNCE])))
    gone = (550, "5.1.1", "Address suppressed after 3 hard bounces")
    assert refused(lambda: bench.admit("X@far.test", may_relay=True)) == gone
    now(bench.database.write(lambda c: suppression.remove(c, "x@far.test")))
    assert bench.admit("X@far.test", may_relay=True)


def test_where_nobody_is_suppressed_no_address_is_looked_up(bench: Bench) -> None:
    bench.admit("first@far.test", may_relay=True)
    reads: list[object] = []

    async def read(work: Callable[[Any], Any]) -> Any:
        reads.append(work)
        with bench.database.engine.read() as connection:
            return work(connection)

    bench.database.read = read  # type: ignore[method-assign, assignment]
    for n in range(50):
        bench.admit(f"u{n}@far.test", may_relay=True)
    assert reads == []


def test_suppression_can_be_switched_off(bench: Bench) -> None:
    bench.build(queue=Queue(suppress_after=0))
    for _ in range(5):
        now(bench.database.write(lambda c: suppression.count(c, [BOUNCE])))
    assert bench.admit("x@far.test", may_relay=True)


def test_bounces_of_forwarded_mail_go_back_to_its_sender(bench: Bench) -> None:
    seconds = NOW / 1_000_000
    away = bench.srs.rewrite("Bob@b.example", "out@example.com", seconds=seconds)
    (admitted,) = bench.admit(away, is_bounce=True)
    assert admitted.targets == (Foreign("Bob@b.example", "b.example"),)
    unknown = (550, "5.1.1", "User unknown")
    # Not as a way to send anything else, nor without the secret, nor for ever.
    assert refused(lambda: bench.admit(away, may_relay=True)) == unknown
    assert refused(lambda: bench.admit(away.replace("=Bob", "=Eve"), is_bounce=True)) == unknown
    old = bench.srs.rewrite("Bob@b.example", "out@example.com", seconds=seconds - 30 * 86400)
    assert refused(lambda: bench.admit(old, is_bounce=True)) == unknown


def test_a_catch_all_does_not_swallow_bounces_of_forwarded_mail(bench: Bench) -> None:
    with bench.database.engine.write() as connection:
        domains.add(connection, "caught.example", catch_all="alice@example.com")
    away = bench.srs.rewrite("bob@b.example", "x@caught.example", seconds=NOW / 1_000_000)
    (admitted,) = bench.admit(away, is_bounce=True)
    assert admitted.targets == (Foreign("bob@b.example", "b.example"),)


def test_an_lmtp_server_gets_all_local_mail(bench: Bench) -> None:
    bench.build(delivery=Delivery(mode="lmtp", host="127.0.0.1"))
    names = ["Alice+tag@example.com", "nobody@example.com", "both@example.com", "full@example.com"]
    admitted = [each.targets for each in bench.admit(*names, size=10_000)]
    assert [set(targets) for targets in admitted] == [
        {Foreign("Alice+tag@example.com", LOCAL)},
        {Foreign("nobody@example.com", LOCAL)},
        {Foreign("y@far.test", "far.test", "both@example.com"), Foreign("bob@example.com", LOCAL)},
        {Foreign("full@example.com", LOCAL)},
    ]
    assert refused(lambda: bench.admit("x@far.test"))[0] == 554
    bench.receive("alice@example.com", origin=STRANGER)
    (message,) = bench.queued()
    assert [each.destination for each in message.recipients] == [LOCAL]
    assert bench.stored("alice") == []


@pytest.mark.mission("ELE-43")
def test_nothing_leaves_a_sandbox(bench: Bench) -> None:
    bench.build(dev_mode=True)
    origin = replace(bench.login, is_sandbox=True)
    bench.receive("x@far.test", "out@example.com", "both@example.com", origin=origin)
    now(
        bench.intake.submit(
            LETTER,
            reverse_path=parse_address("alice@example.com"),
            recipients=[parse_address("z@far.test")],
        )
    )
    assert bench.queued() == []
    assert len(stored(bench.database.engine, "captured@mailtwist.invalid")) == 2
    assert len(bench.stored("bob")) == 1


# -- what is written --------------------------------------------------------------------------


@pytest.mark.mission("DAP-120", "DAP-148")
def test_mailboxes_and_queue_get_a_message_in_one_write(bench: Bench) -> None:
    mail = Mail(
        parse_address("alice@example.com"),
        ret="HDRS",
        envid="e1",
        requiretls=True,
        smtputf8=True,
        body="8BITMIME",
    )
    letter = LETTER + b"\xc3\xbc\r\n"
    number = bench.receive(
        "bob@example.com", "X@far.test", "y@[192.0.2.1]", mail=mail, letter=letter
    )
    (message,) = bench.queued()
    assert str(message.queue_id) == number
    assert (message.reverse_path, message.envid, message.ret) == ("alice@example.com", "e1", "HDRS")
    assert (message.body, message.smtputf8, message.requiretls) == ("8BITMIME", True, True)
    assert (message.hostname, message.account_id) == ("", 0)
    assert (message.octets, message.header_octets) == (len(letter), letter.index(b"body"))
    assert message.received_at == NOW
    assert (message.expires_at, message.attend_at) == (NOW + 5 * DAY, NOW + DAY // 6)
    assert [(r.n, r.address, r.destination, r.original) for r in message.recipients] == [
        (1, "X@far.test", "far.test", ""),
        (2, "y@[192.0.2.1]", "[192.0.2.1]", ""),
    ]
    # RFC 5321 §7.2: with several recipients none is named.
    assert message.prefix.startswith(b"DKIM-Signature: v=1\r\nReceived: from client")
    assert b"for <" not in message.prefix
    (copy,) = bench.stored("bob")
    assert b"DKIM-Signature" not in copy
    assert b"for <bob@example.com>" in copy
    assert copy.endswith(letter)
    assert bench.runner.words == ["wake"]


def test_a_single_recipient_is_named_in_the_trace(bench: Bench) -> None:
    bench.receive("x@far.test")
    assert b"\tfor <x@far.test>;" in bench.queued()[0].prefix


def test_each_address_gets_one_copy(bench: Bench) -> None:
    bench.receive("x@far.test", "out@example.com", "x@far.test", "both@example.com")
    (message,) = bench.queued()
    assert [r.address for r in message.recipients] == ["x@far.test", "y@far.test"]
    assert len(bench.stored("bob")) == 1


# queue settings, when the message is looked at whatever happens
ATTENTION = [
    (Queue(), DAY // 6),
    (Queue(delay_warning=0), 5 * DAY),
    (Queue(max_queue_time=3600), 3600 * 1_000_000),
]


@pytest.mark.parametrize("queue, after", ATTENTION)
def test_delay_and_expiry_are_foreseen(bench: Bench, queue: Queue, after: int) -> None:
    bench.build(queue=queue).receive("x@far.test")
    (message,) = bench.queued()
    assert message.attend_at == NOW + after
    assert message.expires_at == NOW + int(queue.max_queue_time * 1_000_000)


PRECEDENCE = [
    (b"", Priority.NORMAL),
    (b"Precedence: bulk\r\n", Priority.LOW),
    (b"precedence:List\r\n", Priority.LOW),
    (b"PRECEDENCE: junk \r\n", Priority.LOW),
    (b"Precedence: first-class\r\n", Priority.NORMAL),
    (b"X-Precedence: bulk\r\n", Priority.NORMAL),
]


@pytest.mark.parametrize("field, priority", PRECEDENCE)
def test_mass_mail_waits_behind_other_mail(bench: Bench, field: bytes, priority: Priority) -> None:
    bench.receive("x@far.test", letter=field + LETTER)
    assert bench.queued()[0].priority == priority


def test_words_in_the_body_change_no_priority(bench: Bench) -> None:
    bench.receive("x@far.test", letter=LETTER + b"Precedence: bulk\r\n")
    assert bench.queued()[0].priority == Priority.NORMAL


@pytest.mark.parametrize("letter, body", [(LETTER, "7BIT"), (LETTER + b"\xff\r\n", "8BITMIME")])
def test_a_message_in_ascii_needs_no_8bitmime(bench: Bench, letter: bytes, body: str) -> None:
    mail = Mail(parse_address("alice@example.com"), body="8BITMIME")
    bench.receive("x@far.test", letter=letter, mail=mail)
    assert bench.queued()[0].body == body


@pytest.mark.parametrize("name", ["x@far.test", "bob@example.com"])
@pytest.mark.parametrize("is_login", [False, True])
def test_a_message_that_is_done_waits_for_no_collector(
    bench: Bench, name: str, is_login: bool
) -> None:
    envelope = Envelope(Mail(None), bench.admit(name, may_relay=True))
    incoming = bench.intake.receive(envelope, bench.login if is_login else RELAY, limit=1000)
    gone = weakref.ref(incoming)
    gc.disable()
    try:
        now(incoming.write(LETTER))
        now(incoming.accept())
        del incoming
        assert gone() is None
    finally:
        gc.enable()


# -- the runner -------------------------------------------------------------------------------


def test_a_message_with_a_lease_goes_to_the_runner_with_its_content(bench: Bench) -> None:
    bench.runner.room = 1
    bench.receive("x@far.test")
    assert bench.runner.words == ["reserve", "take"]
    message, data = bench.runner.said[1][1]
    assert data == LETTER
    assert message == bench.queued()[0]
    assert bench.states() == [State.LEASED]
    bench.receive("x@far.test")
    assert bench.states() == [State.LEASED, State.WAITING]
    assert bench.runner.words == ["reserve", "take", "wake"]


def test_a_lease_is_given_back_when_the_write_fails(bench: Bench) -> None:
    bench.runner.room = 1
    bench.intake.database = Refuses(bench.database)
    with pytest.raises(StoreUnavailable):
        bench.receive("x@far.test")
    assert bench.runner.words == ["reserve", "give_back"]
    assert bench.queued() == []


def test_who_has_no_room_refuses_the_message_for_all(bench: Bench) -> None:
    bench.runner.room = 1
    targets = now(bench.directory.resolve(parse_address("full@example.com")))
    (outside,) = bench.admit("x@far.test", may_relay=True)
    inside = replace(outside, address=parse_address("full@example.com"), targets=targets)
    mail = Mail(parse_address("alice@example.com"))
    incoming = bench.intake.receive(Envelope(mail, [outside, inside]), RELAY, limit=1000)
    now(incoming.write(LETTER))
    with pytest.raises(OverQuota):
        now(incoming.accept())
    assert bench.runner.words == ["reserve", "give_back"]
    assert bench.queued() == []


def test_local_mail_of_strangers_tells_the_runner_nothing(bench: Bench) -> None:
    bench.runner.room = 1
    bench.receive("bob@example.com", origin=STRANGER)
    assert bench.runner.said == []
    assert bench.signer.seen == []


# -- signatures -------------------------------------------------------------------------------


# who sends, to whom, whether it is signed
SIGNED = [
    (STRANGER, "out@example.com", False),
    (RELAY, "out@example.com", True),
    (RELAY, "x@far.test", True),
    (RELAY, "bob@example.com", False),
]


@pytest.mark.parametrize("origin, name, is_signed", SIGNED)
def test_only_what_we_vouch_for_is_signed(
    bench: Bench, origin: Origin, name: str, *, is_signed: bool
) -> None:
    bench.receive(name, origin=origin)
    assert bool(bench.signer.seen) is is_signed
    if is_signed:
        assert bench.signer.by_author is not origin.is_authenticated
    for message in bench.queued():
        assert message.prefix.startswith(b"DKIM-Signature:" if is_signed else b"Received:")


def test_nothing_is_hashed_where_signing_is_off(bench: Bench) -> None:
    bench.signer.is_enabled = False
    bench.receive("x@far.test")
    assert bench.signer.seen == []


# -- submissions ------------------------------------------------------------------------------


# what the client sends, which fields it lacked
SUBMISSIONS = [
    (LETTER, ()),
    (BARE, ("date", "message-id")),
    (DATE + BARE, ("message-id",)),
    (ID.lower() + BARE, ("date",)),
    (b"DATE :x\r\n" + BARE, ("message-id",)),
    (b"\r\nDate: in the body\r\n", ("date", "message-id")),
    (b"Subject: no body", ("date", "message-id")),
    (b"Subject: x\r\n Date: folded\r\n\r\nMessage-ID: <x@y>\r\n", ("date", "message-id")),
    (b"X: " + b"y" * 70_000 + b"\r\n" + LETTER, ()),
]


@pytest.mark.parametrize("step", [1, 1 << 16])
@pytest.mark.parametrize("letter, lacked", SUBMISSIONS)
def test_a_submission_gets_the_fields_that_it_lacks(
    bench: Bench, letter: bytes, lacked: Sequence[str], step: int
) -> None:
    bench.receive("x@far.test", "bob@example.com", letter=letter, origin=bench.login, step=step)
    (copy,) = bench.stored("bob")
    content = copy.partition(b"Delivered-To: bob@example.com\r\n")[2]
    assert content.endswith(letter)
    added = content[: len(content) - len(letter)]
    assert [line.partition(b":")[0].lower().decode() for line in added.splitlines()] == list(lacked)
    parsed = email.message_from_bytes(content)
    if "message-id" in lacked:
        assert parsed["Message-ID"].endswith("@mx.example.com>")
    if "date" in lacked:
        assert parsed["Date"] == "Mon, 21 Sep 2026 14:13:20 +0000"
    # They are signed with the rest, and IMAP shows them.
    ((hashed, reverse_path),) = bench.signer.seen
    assert hashed.header.startswith(added)
    assert reverse_path == "alice@example.com"


def test_mail_of_others_is_left_as_it_is(bench: Bench) -> None:
    bench.receive("x@far.test", "bob@example.com", letter=BARE)
    assert bench.stored("bob")[0].endswith(b"Delivered-To: bob@example.com\r\n" + BARE)
    assert bench.queued()[0].octets == len(BARE)


def test_a_submission_names_its_account(bench: Bench) -> None:
    bench.receive("x@far.test", origin=bench.login)
    assert bench.queued()[0].account_id == bench.alice


# -- the copy in Sent -------------------------------------------------------------------------


def sent(bench: Bench) -> list[tuple[int, bytes]]:
    """Flags and content of what alice has in Sent; INBOX must be empty."""
    with bench.database.engine.read() as connection:
        rows = connection.exec_driver_sql(
            "SELECT b.name, m.flags FROM message AS m JOIN mailbox AS b"
            " ON b.account_id = m.account_id AND b.mailbox_id = m.mailbox_id"
            f" WHERE m.account_id = {bench.alice}"
        ).all()
    assert {name for name, _ in rows} <= {"Sent"}
    return [
        (flags, content) for (_, flags), content in zip(rows, bench.stored("alice"), strict=True)
    ]


@pytest.fixture
def copying(bench: Bench) -> Bench:
    return bench.build(delivery=Delivery(sent_copy=True))


@pytest.mark.mission("DAP-133")
def test_a_submission_files_one_copy_in_sent(copying: Bench) -> None:
    copying.receive("x@far.test", "bob@example.com", origin=copying.login)
    assert sent(copying) == [(SEEN, LETTER)]
    # The same message again, as a client sends it that lost our reply.
    copying.receive("x@far.test", origin=copying.login)
    assert sent(copying) == [(SEEN, LETTER)]
    assert len(copying.queued()) == 2


def test_a_letter_of_ours_may_file_a_copy(bench: Bench) -> None:
    now(
        bench.intake.submit(
            LETTER,
            reverse_path=parse_address("alice@example.com"),
            recipients=[parse_address("bob@example.com")],
            account_id=bench.alice,
            sent_copy=True,
        )
    )
    assert sent(bench) == [(SEEN, LETTER)]


def without_sent(bench: Bench) -> None:
    with bench.database.engine.write() as connection:
        mailboxes.delete(connection, bench.alice, "Sent")


def with_little_room(bench: Bench) -> None:
    with bench.database.engine.write() as connection:
        accounts.set_quota(connection, bench.alice, octets=10)


@pytest.mark.parametrize("change", [without_sent, with_little_room])
def test_the_message_leaves_where_no_copy_can_be_filed(
    copying: Bench, change: Callable[[Bench], None]
) -> None:
    change(copying)
    copying.receive("x@far.test", origin=copying.login)
    assert sent(copying) == []
    assert len(copying.queued()) == 1


def test_no_copy_is_filed_unasked_nor_for_strangers(bench: Bench) -> None:
    bench.receive("x@far.test", origin=bench.login)
    bench.build(delivery=Delivery(sent_copy=True)).receive("x@far.test", origin=RELAY)
    assert sent(bench) == []


# -- reports of delivery ----------------------------------------------------------------------


def test_a_delivery_here_is_reported_to_who_asked(bench: Bench) -> None:
    mail = Mail(parse_address("carol@far.test"), envid="e7")
    bench.receive("bob@example.com", mail=mail, origin=STRANGER, notify=Notify.SUCCESS)
    (report,) = bench.queued()
    assert report.reverse_path == ""
    assert [r.address for r in report.recipients] == ["carol@far.test"]
    assert len(bench.stored("bob")) == 1
    assert bench.runner.words == ["wake"]


def test_a_report_to_a_sender_here_comes_in_the_same_write(bench: Bench) -> None:
    bench.receive("bob@example.com", notify=Notify.SUCCESS)
    (report,) = bench.stored("alice")
    parsed = email.message_from_bytes(report)
    assert parsed.get_content_type() == "multipart/report"
    status = report.partition(b"Content-Type: message/delivery-status")[2]
    assert b"\r\nAction: delivered\r\n" in status
    assert b"\r\nFinal-Recipient: rfc822; bob@example.com\r\n" in status
    assert b"\r\nSubject: x\r\n" in status


@pytest.mark.parametrize("notify", [Notify.UNSET, Notify.FAILURE | Notify.DELAY, Notify.NEVER])
def test_other_deliveries_here_are_not_reported(bench: Bench, notify: Notify) -> None:
    bench.receive("bob@example.com", notify=notify)
    assert bench.stored("alice") == []


def test_the_null_path_gets_no_report(bench: Bench) -> None:
    bench.receive("bob@example.com", mail=Mail(None), notify=Notify.SUCCESS)
    assert bench.queued() == []


def test_what_leaves_takes_its_wishes_along(bench: Bench) -> None:
    bench.receive("x@far.test", notify=Notify.SUCCESS | Notify.FAILURE)
    (message,) = bench.queued()
    assert message.recipients[0].notify == Notify.SUCCESS | Notify.FAILURE
    assert bench.stored("alice") == []


# -- letters of our own -----------------------------------------------------------------------


def addresses(*names: str) -> list[Address]:
    return [parse_address(name) for name in names]


@pytest.mark.mission("DAP-148")
def test_a_letter_goes_to_mailboxes_and_queue(bench: Bench) -> None:
    bench.runner.room = 1
    number = now(
        bench.intake.submit(
            LETTER,
            reverse_path=parse_address("alice@example.com"),
            recipients=addresses("bob@example.com", "nobody@example.com", "x@far.test"),
            hostname="news.example.com",
            notify=Notify.NEVER,
        )
    )
    (message,) = bench.queued()
    assert (str(message.queue_id), message.hostname) == (number, "news.example.com")
    assert [(r.address, r.notify) for r in message.recipients] == [("x@far.test", Notify.NEVER)]
    assert message.prefix == b"DKIM-Signature: v=1\r\n"
    assert bench.stored("bob") == [
        b"Return-Path: <alice@example.com>\r\nDelivered-To: bob@example.com\r\n" + LETTER
    ]
    assert bench.runner.words == ["reserve", "take"]


def test_a_letter_to_nobody_is_none(bench: Bench) -> None:
    nobody = addresses("nobody@example.com")
    assert now(bench.intake.prepare(LETTER, reverse_path=None, recipients=nobody)) is None
    with pytest.raises(Refusal):
        now(bench.intake.submit(LETTER, reverse_path=None, recipients=nobody))


def test_a_report_comes_into_a_full_mailbox(bench: Bench) -> None:
    to_full = addresses("full@example.com")
    with pytest.raises(OverQuota):
        now(bench.intake.submit(LETTER, reverse_path=None, recipients=to_full))
    now(bench.intake.submit(LETTER, reverse_path=None, recipients=to_full, is_report=True))
    assert len(bench.stored("full")) == 1


def test_a_long_letter_is_read_from_the_store(bench: Bench) -> None:
    bench.runner.room = 1
    letter = LETTER + b"x" * 78 * 20_000 + b"\r\n"
    now(bench.intake.submit(letter, reverse_path=None, recipients=addresses("x@far.test")))
    message, data = bench.runner.said[1][1]
    assert data is None
    assert message.octets == len(letter)


def test_a_mailbox_that_vanished_refuses_the_write(bench: Bench) -> None:
    recipients = bench.admit("bob@example.com")
    with bench.database.engine.write() as connection:
        accounts.remove_step(connection, bench.bob)
    incoming = bench.intake.receive(Envelope(Mail(None), recipients), STRANGER, limit=1000)
    now(incoming.write(LETTER))
    with pytest.raises(NotFound):
        now(incoming.accept())
