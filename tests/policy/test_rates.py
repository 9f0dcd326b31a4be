"""Rules about what one client may do in a time: counted, ended, kept, shared."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import implementer

from mailtwist.config import Settings
from mailtwist.config.outgoing import Inbox
from mailtwist.config.rates import Rate
from mailtwist.config.settings import Limits
from mailtwist.errors import StoreUnavailable
from mailtwist.mail.address import Address
from mailtwist.policy import rates as policy
from mailtwist.policy.rates import NO_RATES, Client, Event, Rates
from mailtwist.store.database import Inline
from mailtwist.store.tables import rate_count
from tests.support.now import now

SENDER = Address("Sender", "example.org")
OTHER = Address("other", "example.org")
HERE = Client("192.0.2.1", reverse_path=SENDER)
THERE = Client("198.51.100.1", reverse_path=OTHER)


def settings(*, smtp_rate: int = 50, domain: str = "", **limits: Any) -> Settings:
    return replace(
        Settings(), limits=Limits(**limits), inbox=Inbox(domain=domain, smtp_rate=smtp_rate)
    )


INBOX = settings(domain="inbox.example")
THREE = settings(message_rate=Rate(3))


@pytest.fixture
def clock():
    clock = Clock()
    clock.advance(1_800_000_000)
    return clock


@pytest.fixture
def make(database, clock):
    return lambda given: Rates(database, settings=given, clock=clock)


def messages(rates, client=HERE, n=1, event=Event.MESSAGE):
    return [now(rates.take(event, client)) for _ in range(n)]


def rows(engine):
    with engine.read() as connection:
        return {(row.scope, row.subject): row.n for row in connection.execute(rate_count.select())}


@pytest.mark.mission("ADG-11")
def test_fifty_messages_a_minute_of_one_sender(make):
    rates = make(INBOX)
    assert messages(rates, n=50) == [True] * 50
    assert messages(rates, n=3) == [False] * 3
    # However it is spelled, and from wherever it comes.
    shouted = Client("203.0.113.9", reverse_path=Address("SENDER", "example.org"))
    assert messages(rates, shouted) == [False]
    assert messages(rates, THERE) == [True]


def test_there_is_no_rate_of_senders_without_an_inbox_domain(make):
    rates = make(settings())
    assert not any(rates.counts(event) for event in Event)
    assert not any(NO_RATES.counts(event) for event in Event)
    assert messages(rates, n=60) == [True] * 60


def test_bounces_are_nobodys(make):
    bounce = Client("192.0.2.1", reverse_path=None)
    assert messages(make(INBOX), bounce, 200) == [True] * 200


@pytest.mark.mission("ELE-58")
@pytest.mark.parametrize(
    ("event", "username", "name"),
    [
        (Event.CONNECTION, "", "connection_rate"),
        (Event.MESSAGE, "", "message_rate"),
        (Event.RECIPIENT, "", "recipient_rate"),
        (Event.LOGIN, "alice@example.com", "account_connection_rate"),
        (Event.MESSAGE, "alice@example.com", "account_message_rate"),
        (Event.RECIPIENT, "alice@example.com", "account_recipient_rate"),
    ],
    ids=lambda value: value if "rate" in value else "",
)
def test_each_rule_counts_its_event_alone(make, event, username, name):
    limits: dict[str, Any] = {name: Rate(2)}
    rates = make(settings(**limits))
    client = replace(HERE, username=username)
    assert messages(rates, client, 3, event) == [True, True, False]
    for other in set(Event) - {event}:
        assert not rates.counts(other)
    # Who has no login, and who has one, are not counted together.
    if event is not Event.CONNECTION:
        stranger = replace(HERE, username="" if username else "alice@example.com")
        assert messages(rates, stranger, 5, event) == [True] * 5


def test_logins_are_counted_by_name_wherever_they_are(make):
    rates = make(settings(account_message_rate=Rate(2)))
    assert messages(rates, Client("192.0.2.1", "alice@example.com"), 2) == [True, True]
    assert messages(rates, Client("198.51.100.1", "alice@example.com")) == [False]
    assert messages(rates, Client("192.0.2.1", "bob@example.com")) == [True]


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::2:3", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
    ],
)
def test_an_address_of_ipv6_is_its_network(make, one, other, is_same):
    rates = make(THREE)
    messages(rates, Client(one), 3)
    assert messages(rates, Client(other)) == [not is_same]


def test_an_address_that_is_not_known_is_not_counted(make):
    assert messages(make(THREE), Client(""), 5) == [True] * 5


def test_exempt_networks_have_no_rate_of_addresses(make):
    rates = make(
        settings(message_rate=Rate(1), account_message_rate=Rate(1), exempt=("192.0.2.0/24", "::1"))
    )
    assert messages(rates, HERE, 3) == [True] * 3
    assert messages(rates, THERE, 2) == [True, False]
    assert messages(rates, replace(HERE, username="alice"), 2) == [True, False]


@pytest.mark.parametrize("pause_s", [0.5, 7, 59])
def test_a_window_ends_although_the_client_hammers(make, clock, pause_s):
    rates = make(THREE)
    assert messages(rates, n=3) == [True] * 3
    begun = clock.seconds()
    while clock.seconds() + pause_s < begun + 60:
        clock.advance(pause_s)
        assert messages(rates) == [False]
    clock.advance(begun + 60 - clock.seconds())
    assert messages(rates, n=4) == [True] * 3 + [False]


def test_when_one_rule_refuses_no_other_counts(make, clock):
    rates = make(settings(domain="inbox.example", message_rate=Rate(2)))
    assert messages(rates, n=50) == [True, True] + [False] * 48
    elsewhere = Client("203.0.113.9", reverse_path=SENDER)
    assert messages(rates, elsewhere, 2) == [True, True]


@pytest.mark.mission("ADG-11")
@pytest.mark.parametrize("is_killed", [False, True])
def test_counts_survive_a_restart(make, clock, is_killed):
    rates = make(INBOX)
    messages(rates, n=49)
    if is_killed:
        clock.advance(policy.WRITE_EVERY_S)
    else:
        now(rates.stop())
    again = make(INBOX)
    assert messages(again, n=2) == [True, False]
    assert messages(again, THERE) == [True]
    clock.advance(60)
    assert messages(make(INBOX)) == [True]


def test_nodes_count_together(make, clock):
    one, other = make(INBOX), make(INBOX)
    assert messages(one, n=30) == [True] * 30
    clock.advance(policy.WRITE_EVERY_S)
    assert messages(other, n=15) == [True] * 15
    clock.advance(policy.WRITE_EVERY_S)
    # What the other node counted is learned when this one writes again.
    assert messages(one) == [True]
    clock.advance(policy.WRITE_EVERY_S)
    assert messages(one, n=5) == [True] * 4 + [False]
    clock.advance(policy.WRITE_EVERY_S)
    # So each node may let through what comes within a second.
    assert messages(other) == [True]
    clock.advance(policy.WRITE_EVERY_S)
    assert messages(other) == [False]


def test_connections_are_counted_without_waiting(make, clock, engine):
    given = settings(connection_rate=Rate(3))
    rates = make(given)
    taken = [rates.take_at_once(Event.CONNECTION, HERE) for _ in range(4)]
    assert taken == [True, True, True, False]
    now(rates.stop())
    assert rows(engine) == {("connections", "192.0.2.1"): 3}
    assert not make(given).take_at_once(Event.CONNECTION, HERE)


def test_many_messages_are_one_write(make, clock, engine):
    rates = make(settings(message_rate=Rate(1000)))
    statements = []
    event.listen(
        engine.writing, "commit", lambda *_: statements.append("commit")
    )  # one for each unit
    messages(rates, n=500)
    assert statements == []
    clock.advance(policy.WRITE_EVERY_S)
    assert statements == ["commit"]
    assert rows(engine) == {("messages of address", "192.0.2.1"): 500}
    assert clock.getDelayedCalls() == []


def test_who_writes_once_is_no_row(make, clock, engine):
    rates = make(INBOX)
    for n in range(100):
        messages(rates, Client("192.0.2.1", reverse_path=Address(f"u{n}", "example.org")))
    now(rates.stop())
    assert rows(engine) == {}
    # Unless once is all that there may be.
    once = make(settings(domain="inbox.example", smtp_rate=1))
    messages(once)
    now(once.stop())
    assert rows(engine) == {("messages of sender", "sender@example.org"): 1}


def test_memory_is_bounded_and_rows_remember(make, clock, monkeypatch):
    monkeypatch.setattr(policy, "MAX_WINDOWS", 10)
    rates = make(INBOX)
    messages(rates, n=50)
    for n in range(100):
        messages(rates, Client("192.0.2.1", reverse_path=Address(f"u{n}", "example.org")))
        clock.advance(0.1)
    assert len(rates._windows) == 10
    assert messages(rates) == [False]


def test_what_could_not_be_written_is_written_later(database, engine, clock):
    class Failing:
        error: Exception | None = None

        async def read(self, work):
            return await database.read(work)

        async def write(self, work):
            if self.error is not None:
                raise self.error
            return await database.write(work)

    failing = Failing()
    rates = Rates(failing, settings=THREE, clock=clock)
    failing.error = StoreUnavailable()
    assert messages(rates, n=2) == [True, True]
    clock.advance(policy.WRITE_EVERY_S)
    assert rows(engine) == {}
    assert messages(rates, n=2) == [True, False]
    failing.error = None
    clock.advance(policy.WRITE_EVERY_S)
    assert rows(engine) == {("messages of address", "192.0.2.1"): 3}
    assert clock.getDelayedCalls() == []


def test_a_store_that_cannot_be_read_stops_no_mail(clock):
    class Gone:
        async def read(self, work):
            raise StoreUnavailable()

    rates = Rates(Gone(), settings=THREE, clock=clock)
    assert messages(rates, n=4) == [True] * 3 + [False]


def test_two_sessions_that_come_together_share_a_window(database, clock):
    class Slow:
        def __init__(self):
            self.waiting = []

        async def read(self, work):
            turn: Deferred[None] = Deferred()
            self.waiting.append(turn)
            await turn
            return await database.read(work)

    slow = Slow()
    rates = Rates(slow, settings=THREE, clock=clock)
    taking = [Deferred.fromCoroutine(rates.take(Event.MESSAGE, HERE)) for _ in range(5)]
    for turn in slow.waiting:
        turn.callback(None)
    assert [each.result for each in taking] == [True] * 3 + [False] * 2


def test_other_settings_hold_at_once_and_keep_what_was_counted(make):
    rates = make(THREE)
    messages(rates, n=3)
    rates.configure(settings(message_rate=Rate(5)))
    assert messages(rates, n=3) == [True, True, False]
    rates.configure(settings())
    assert not rates.counts(Event.MESSAGE)


def test_a_refusal_is_logged_once_a_window(make, clock):
    found: list[dict[str, Any]] = []

    @implementer(ILogObserver)
    def observe(each: LogEvent) -> None:
        found.append(each)

    globalLogPublisher.addObserver(observe)
    try:
        rates = make(THREE)
        messages(rates, n=10)
        clock.advance(60)
        messages(rates, n=10)
    finally:
        globalLogPublisher.removeObserver(observe)
    told = [each for each in found if each.get("log_format") == "rate limit exceeded"]
    assert len(told) == 2
    assert {each["subject"] for each in told} == {"192.0.2.1"}
    assert {each["rule"] for each in told} == {"messages of address"}


def test_inline_stores_serve_too(sqlite_url):
    from mailtwist.store.engine import open_engine

    opened = open_engine(sqlite_url)
    try:
        rates = Rates(Inline(opened), settings=THREE, clock=Clock())
        assert messages(rates, n=4) == [True] * 3 + [False]
        now(rates.stop())
    finally:
        opened.dispose()
