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
from mailtwist.config.outgoing import Inbox, Send
from mailtwist.config.rates import Rate
from mailtwist.config.settings import Limits
from mailtwist.errors import StoreUnavailable
from mailtwist.mail.address import Address
from mailtwist.net.redis import RedisAway, Taken
from mailtwist.policy import rates as policy
from mailtwist.policy.rates import NO_RATES, Client, Event, Rates
from mailtwist.store.database import Inline
from mailtwist.store.engine import open_engine
from mailtwist.store.tables import rate_count
from tests.support.now import now

SENDER = Address("Sender", "example.org")
OTHER = Address("other", "example.org")
HERE = Client("192.0.2.1", reverse_path=SENDER)
THERE = Client("198.51.100.1", reverse_path=OTHER)


def settings(
    *,
    smtp_rate: int = 50,
    domain: str = "",
    api_rate: int = 0,
    send_rate: int = 0,
    **limits: Any,
) -> Settings:
    return replace(
        Settings(),
        limits=Limits(**limits),
        inbox=Inbox(domain=domain, smtp_rate=smtp_rate, api_rate=api_rate),
        send=Send(rate=send_rate),
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


class FakeRedis:
    """Counts as the script does, on a clock; ``waiting``: answers when it is told to."""

    def __init__(self, clock):
        self.clock = clock
        self.is_up = True
        self.is_dying = False
        self.asked = 0
        self.turns: list[Deferred[None]] | None = None
        self.found: dict[str, tuple[int, float]] = {}

    async def take(self, windows):
        self.asked += 1
        if self.turns is not None:
            self.turns.append(Deferred())
            await self.turns[-1]
        if self.is_dying:
            self.is_up = False
            raise RedisAway
        now = self.clock.seconds()
        held = [self.found.get(each.key, (0, 0.0)) for each in windows]
        held = [
            (n, end) if end > now else (0, now + each.lasts_ms / 1000)
            for each, (n, end) in zip(windows, held, strict=True)
        ]
        is_taken = all(n < each.limit for each, (n, _) in zip(windows, held, strict=True))
        held = [(n + is_taken, end) for n, end in held]
        if is_taken:
            self.found.update({each.key: it for each, it in zip(windows, held, strict=True)})
        ends = [round((end - now) * 1000) for _, end in held]
        return Taken(is_taken, [n for n, _ in held], ends)


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


@pytest.mark.mission("ADG-09")
@pytest.mark.parametrize(
    ("event", "given"),
    [
        (Event.SEND_REQUEST, settings(send_rate=3)),
        (Event.INBOX_REQUEST, settings(api_rate=3)),
        (Event.WRONG_KEY, settings(api_rate=3)),
    ],
    ids=str,
)
def test_requests_are_counted_by_address_and_told_when_to_come_back(make, clock, event, given):
    rates = make(given)
    loopback = Client("127.0.0.1")
    assert rates.ends_in(event, loopback) == 0
    assert messages(rates, loopback, 3, event) == [True] * 3
    clock.advance(20.5)
    assert messages(rates, loopback, 5, event) == [False] * 5
    assert rates.ends_in(event, loopback) == 39.5
    assert rates.ends_in(event, HERE) == 0
    assert messages(rates, HERE, 1, event) == [True]
    clock.advance(39.5)
    assert rates.ends_in(event, loopback) == 0
    assert messages(rates, loopback, 1, event) == [True]


def test_nobody_is_exempt_who_guesses_keys(make):
    rates = make(settings(api_rate=1, send_rate=1, exempt=("127.0.0.0/8",)))
    loopback = Client("127.0.0.1")
    for each, let_in in (
        (Event.INBOX_REQUEST, True),
        (Event.SEND_REQUEST, True),
        (Event.WRONG_KEY, False),
    ):
        assert messages(rates, loopback, 2, each) == [True, let_in]


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
    opened = open_engine(sqlite_url)
    try:
        rates = Rates(Inline(opened), settings=THREE, clock=Clock())
        assert messages(rates, n=4) == [True] * 3 + [False]
        now(rates.stop())
    finally:
        opened.dispose()


# -- with a Redis -------------------------------------------------------------------------------


@pytest.fixture
def redis(clock):
    return FakeRedis(clock)


@pytest.fixture
def share(sqlite_url, clock, redis):
    """Makes nodes that share it."""
    opened = open_engine(sqlite_url)
    store = Inline(opened)
    yield lambda given: Rates(store, settings=given, clock=clock, redis=redis)
    store.release()
    opened.dispose()


def test_what_nodes_share_is_counted_at_once(share, redis):
    one, other = share(INBOX), share(INBOX)
    assert messages(one, n=30) == [True] * 30
    assert messages(other, n=25) == [True] * 20 + [False] * 5
    assert messages(one) == [False]
    assert messages(other, THERE) == [True]


@pytest.mark.parametrize("loses", ["counts", "answers"])
def test_a_redis_that_goes_away_opens_nothing(share, clock, redis, loses):
    rates = share(THREE)
    assert messages(rates, n=2) == [True, True]
    if loses == "counts":
        redis.found.clear()
    else:
        redis.is_dying = True
    assert messages(rates, n=5) == [True] + [False] * 4
    redis.is_up, redis.is_dying = True, False
    assert messages(rates, n=5) == [False] * 5
    clock.advance(60)
    assert messages(rates, n=4) == [True] * 3 + [False]


def test_who_hammers_does_not_hammer_redis(share, clock, redis):
    one, other = share(THREE), share(THREE)
    messages(one, n=3)
    clock.advance(policy.WRITE_EVERY_S / 2)  # no row tells it yet
    assert messages(other, n=50) == [False] * 50
    assert messages(one, n=50) == [False] * 50
    assert redis.asked == 4
    # The window of all nodes ends, whenever this one began its own.
    assert other.ends_in(Event.MESSAGE, HERE) == 59.5
    clock.advance(59.5)
    assert messages(other, n=4) == [True] * 3 + [False]


def test_when_one_window_of_all_nodes_is_full_no_other_counts(share, redis):
    given = settings(domain="inbox.example", message_rate=Rate(2))
    one, other = share(given), share(given)
    messages(one, n=2)
    assert messages(other, n=9) == [False] * 9
    assert {n for n, _ in redis.found.values()} == {2}
    elsewhere = Client("203.0.113.9", reverse_path=SENDER)
    assert messages(other, elsewhere, 3) == [True, True, False]


def test_among_many_at_once_no_limit_is_exceeded(share, redis):
    rates = share(THREE)
    redis.turns = []
    taking = [Deferred.fromCoroutine(rates.take(Event.MESSAGE, HERE)) for _ in range(9)]
    for turn in redis.turns:
        redis.found.clear()  # it starts anew all the time
        turn.callback(None)
    assert [each.result for each in taking].count(True) == 3


def test_connections_wait_for_no_redis(share, clock, redis):
    given = settings(connection_rate=Rate(3))
    one, other = share(given), share(given)
    redis.turns = []
    assert [one.take_at_once(Event.CONNECTION, HERE) for _ in range(4)] == [True] * 3 + [False]
    for turn in redis.turns:
        turn.callback(None)
    redis.turns = None
    # It learns of the others' by its first.
    assert [other.take_at_once(Event.CONNECTION, HERE) for _ in range(3)] == [True, False, False]


def test_nobody_is_asked_about_nobody(share, redis):
    rates = share(THREE)
    assert messages(rates, Client(""), 5) == [True] * 5
    assert redis.asked == 0


def test_a_window_that_was_forgotten_meanwhile_is_no_fault(share, clock, redis, monkeypatch):
    monkeypatch.setattr(policy, "MAX_WINDOWS", 1)
    rates = share(settings(domain="inbox.example", message_rate=Rate(9)))
    assert messages(rates, n=3) == [True] * 3
    redis.turns = []
    taking = Deferred.fromCoroutine(rates.take(Event.MESSAGE, THERE))
    clock.advance(3600)
    redis.turns[0].callback(None)
    assert taking.result is True
