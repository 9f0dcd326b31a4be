"""The store inside a reactor: reads, writes, bounds, health, node numbers, other processes."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, event, text
from twisted.internet.defer import CancelledError, Deferred, gatherResults

from mailtwist.errors import Conflict, MailError, StoreUnavailable
from mailtwist.store import changes, database, ids, readers
from mailtwist.store.database import Database, Inline
from mailtwist.store.engine import Engine, open_engine
from tests.support.now import now
from tests.support.pumped import PumpedReactor
from tests.support.writers import notes, write_note


class Started:
    """A database with its reactor."""

    def __init__(self, engine: Engine) -> None:
        self.reactor = PumpedReactor()
        # Its own connections, as another process has them.
        self.database = Database(open_engine(engine.url), reactor=self.reactor)
        self.reactor.until(self.database.start())

    def until(self, awaitable: Awaitable[Any]) -> Any:
        return self.reactor.until(awaitable)


@pytest.fixture
def started(engine: Engine) -> Iterator[Started]:
    started = Started(engine)
    yield started
    started.until(started.database.close())


def answers(*awaitables: Any) -> Deferred[Any]:
    return gatherResults([Deferred.fromCoroutine(each) for each in awaitables])


def test_what_is_written_is_read(started: Started) -> None:
    async def run() -> object:
        assert await started.database.write(lambda c: write_note(c, "a")) == "a"
        return await started.database.read(
            lambda c: c.execute(text("SELECT n FROM generation WHERE kind = 'a'")).scalar()
        )

    assert started.until(run()) == 1


def test_a_set_writer_answers_each_value(started: Started) -> None:
    def double(connection: Connection, values: list[int]) -> list[int | MailError]:
        return [value * 2 if value else Conflict("zero") for value in values]

    assert started.until(started.database.write_set(double, 21)) == 42
    with pytest.raises(Conflict, match="zero"):
        started.until(started.database.write_set(double, 0))


@pytest.mark.parametrize("way", ["read", "write"])
def test_what_the_work_raises_the_caller_sees(started: Started, way: str) -> None:
    def work(connection: Connection) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        started.until(getattr(started.database, way)(work))


def test_a_reading_transaction_cannot_write(started: Started) -> None:
    with pytest.raises(MailError) as raised:
        started.until(started.database.read(lambda c: write_note(c, "a")))
    assert "generation" not in raised.value.text


def test_all_statements_of_a_read_see_one_snapshot(started: Started) -> None:
    count = text("SELECT count(*) FROM generation")
    between, go_on = threading.Event(), threading.Event()

    def work(connection: Connection) -> tuple[object, object]:
        before = connection.execute(count).scalar()
        between.set()
        assert go_on.wait(20)
        return before, connection.execute(count).scalar()

    reading = Deferred.fromCoroutine(started.database.read(work))
    assert between.wait(20)
    started.until(started.database.write(lambda c: write_note(c, "a")))
    go_on.set()
    before, after = started.until(reading)
    assert before == after


def test_the_answers_of_a_batch_take_one_wake_up(started: Started) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def slow(connection: Connection) -> None:
        entered.set()
        assert go_on.wait(20)

    first = Deferred.fromCoroutine(started.database.write(slow, accounts=[4]))
    assert entered.wait(20)
    later = answers(
        *(
            started.database.write(lambda c, n=n: write_note(c, f"n{n}"), accounts=[4])  # type: ignore[misc]
            for n in range(20)
        )
    )
    woken = started.reactor.woken
    go_on.set()
    started.until(answers_of(first, later))
    assert started.reactor.woken - woken == 2


def test_the_writer_sees_a_turns_units_when_it_is_over(started: Started) -> None:
    begun = threading.Event()
    with started.reactor.turn():
        later = answers(*(started.database.write(lambda c: begun.set()) for _ in range(3)))
        assert not begun.wait(0.1)
    started.until(later)
    assert begun.is_set()


def test_the_units_of_the_last_turn_are_written(engine: Engine) -> None:
    started = Started(engine)
    with started.reactor.turn():
        later = answers(started.database.write(lambda c: write_note(c, "a")))
        started.database.unwell(StoreUnavailable())  # no other unit is waited for then
        closed = answers(started.database.close())
    assert started.until(later) == ["a"]
    started.until(closed)


def answers_of(*deferreds: Deferred[Any]) -> Deferred[Any]:
    return gatherResults(list(deferreds))


@pytest.mark.parametrize("bound", ["WAITING_UNITS", "WAITING_OCTETS"])
def test_too_much_to_write_is_refused_at_once(
    started: Started, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(database, bound, 3)
    waiting = [
        Deferred.fromCoroutine(started.database.write(lambda c: go_on.wait(20), octets=2))
        for _ in range(2 if bound == "WAITING_OCTETS" else 3)
    ]
    with pytest.raises(StoreUnavailable):
        started.until(started.database.write(lambda c: None))
    go_on.set()
    started.until(answers_of(*waiting))
    started.until(started.database.write(lambda c: None))


def test_a_unit_that_the_writer_does_not_get_to_is_answered(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    stuck = Deferred.fromCoroutine(started.database.write(lambda c: go_on.wait(20)))
    monkeypatch.setattr(database, "PATIENCE_S", -1.0)
    started.reactor.advance(1)
    with pytest.raises(StoreUnavailable):
        started.until(stuck)
    monkeypatch.undo()
    go_on.set()
    started.until(started.database.write(lambda c: None))


def test_whoever_goes_away_leaves_no_trace_in_the_bounds(started: Started) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def slow(connection: Connection) -> None:
        entered.set()
        assert go_on.wait(20)

    first = Deferred.fromCoroutine(started.database.write(slow, accounts=[4]))
    assert entered.wait(20)
    gone = Deferred.fromCoroutine(
        started.database.write(lambda c: write_note(c, "gone"), accounts=[4], octets=9)
    )
    gone.addErrback(lambda failure: failure.trap(CancelledError))
    gone.cancel()
    go_on.set()
    started.until(first)
    started.until(started.database.write(lambda c: write_note(c, "here"), accounts=[4]))
    assert "gone" not in notes(started.database.engine)
    assert started.database._octets == 0


def test_one_account_leaves_reading_threads_to_the_others(started: Started) -> None:
    go_on = threading.Event()
    busy = [
        Deferred.fromCoroutine(started.database.read(lambda c: go_on.wait(20), account_id=1))
        for _ in range(6)
    ]
    assert started.until(started.database.read(lambda c: "read", account_id=2)) == "read"
    go_on.set()
    assert started.until(answers_of(*busy)) == [True] * 6


def test_too_many_reads_are_refused(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "WAITING", 2)
    go_on = threading.Event()
    waiting = [
        Deferred.fromCoroutine(started.database.read(lambda c: go_on.wait(20))) for _ in range(2)
    ]
    with pytest.raises(StoreUnavailable):
        started.until(started.database.read(lambda c: None))
    go_on.set()
    started.until(answers_of(*waiting))


ENDLESS = text(
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
)


def test_a_statement_past_its_deadline_is_ended(engine: Engine) -> None:
    started = Started(engine)
    if not engine.is_sqlite:
        limit = text("SET LOCAL statement_timeout = '200ms'")
        event.listen(started.database.engine.reading, "begin", lambda c: c.execute(limit))
    started.database._readers._deadline_s = 0.0
    reading = Deferred.fromCoroutine(
        started.database.read(lambda c: c.execute(ENDLESS).scalar(), account_id=1)
    )
    failed: list[Any] = []
    reading.addErrback(failed.append)
    deadline = time.monotonic() + 20
    while not failed and time.monotonic() < deadline:
        started.reactor.advance(1)
        started.reactor.until(started.database.read(lambda c: None))
    assert isinstance(failed[0].value, StoreUnavailable)
    assert started.until(started.database.read(lambda c: "next", account_id=1)) == "next"
    started.until(started.database.close())


def test_closing_answers_what_was_asked_and_refuses_more(engine: Engine) -> None:
    started = Started(engine)
    units = [
        Deferred.fromCoroutine(started.database.write(lambda c, n=n: write_note(c, f"n{n}")))  # type: ignore[misc]
        for n in range(70)
    ]
    started.until(started.database.close())
    started.until(answers_of(*units))
    assert len(notes(engine)) == 70
    for refused in (started.database.write, started.database.read):
        with pytest.raises(StoreUnavailable):
            started.until(refused(lambda c: None))
    assert not started.database.healthy


def test_health_says_what_is_wrong_and_when_it_is_over(started: Started) -> None:
    assert (started.database.healthy, started.database.failure) == (True, "")
    failing = [1]

    def commit(connection: Connection) -> None:
        if failing:
            raise OSError("the disk went away")

    event.listen(started.database.engine.writing, "commit", commit)
    with pytest.raises(StoreUnavailable):
        started.until(started.database.write(lambda c: write_note(c, "a")))
    assert not started.database.healthy
    assert "the disk went away" in started.database.failure
    failing.clear()
    started.until(started.database.write(lambda c: write_note(c, "a")))
    assert (started.database.healthy, started.database.failure) == (True, "")


# -- nodes ------------------------------------------------------------------------------------


def test_two_databases_make_different_numbers(started: Started, engine: Engine) -> None:
    other = Started(engine)
    assert other.database.ids.node_id != started.database.ids.node_id
    assert Inline(engine).ids.node_id not in {
        other.database.ids.node_id,
        started.database.ids.node_id,
    }
    other.until(other.database.close())


def test_a_node_says_that_it_lives_and_gets_a_new_number_when_its_own_was_taken(
    started: Started, engine: Engine
) -> None:
    first = started.database.ids.node_id
    with engine.write() as connection:
        connection.execute(text("UPDATE node SET name = 'another'"))
    started.reactor.advance(database.TEND_S)
    started.reactor.until_true(lambda: started.database.ids.node_id != first)
    with engine.read() as connection:
        assert ids.living(connection, ids.now_us()) == {first, started.database.ids.node_id}


def test_a_closed_node_lives_no_more(engine: Engine) -> None:
    started = Started(engine)
    started.until(started.database.close())
    with engine.read() as connection:
        assert ids.living(connection, ids.now_us()) == set()


# -- changes ----------------------------------------------------------------------------------


class Told:
    """A subscriber that remembers."""

    def __init__(self, feed: changes.Changes) -> None:
        self.mailboxes: list[tuple[int, int]] = []
        self.kinds: list[str] = []
        self.ends = [
            feed.subscribe(
                1, lambda mailbox_id, modseq: self.mailboxes.append((mailbox_id, modseq))
            ),
            feed.watch("address", lambda: self.kinds.append("address")),
        ]


def change(account_id: int, modseq: int) -> Callable[[Connection], None]:
    """As an operation on mailbox 7 of an account does."""

    def work(connection: Connection) -> None:
        for table, column in (("account_state", "modseq"), ("mailbox_state", "highestmodseq")):
            connection.execute(
                text(f"UPDATE {table} SET {column} = :modseq WHERE account_id = :account_id"),
                {"modseq": modseq, "account_id": account_id},
            )
        changes.touched(connection, account_id, 7, modseq)
        changes.bump(connection, "address")

    return work


@pytest.fixture
def account(engine: Engine) -> Iterator[None]:
    """The states of an account without anything else, removed before the store is checked."""
    with engine.write() as connection:
        connection.execute(text("INSERT INTO account_state (account_id) VALUES (1)"))
        connection.execute(text("INSERT INTO mailbox_state (account_id, mailbox_id) VALUES (1, 7)"))
    yield
    with engine.write() as connection:
        connection.execute(text("DELETE FROM account_state"))
        connection.execute(text("DELETE FROM mailbox_state"))


def test_subscribers_hear_of_a_commit_before_its_author_goes_on(
    account: None, started: Started
) -> None:
    told = Told(started.database.changes)

    async def run() -> tuple[bool, list[str]]:
        await started.database.write(change(1, 5))
        return (7, 5) in told.mailboxes, list(told.kinds)

    assert started.until(run()) == (True, ["address"])


def test_nobody_hears_of_what_was_rolled_back_or_of_others(account: None, started: Started) -> None:
    told = Told(started.database.changes)

    def bug(connection: Connection) -> None:
        change(1, 6)(connection)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        started.until(started.database.write(bug))
    started.until(started.database.write(lambda c: changes.touched(c, 2, 7, 9)))
    assert (7, 6) not in told.mailboxes
    assert (7, 9) not in told.mailboxes
    assert told.kinds == []


def test_whoever_unsubscribed_hears_nothing(account: None, started: Started) -> None:
    told = Told(started.database.changes)
    for end in (*told.ends, *told.ends):
        end()
    started.until(started.database.write(change(1, 5)))
    assert (told.mailboxes, told.kinds) == ([], [])


def test_what_the_command_line_commits_is_heard(
    account: None, started: Started, engine: Engine
) -> None:
    told = Told(started.database.changes)
    with engine.write() as connection:
        change(1, 5)(connection)
    started.reactor.until_true(lambda: (7, 5) in told.mailboxes and told.kinds == ["address"])


def test_what_another_server_commits_is_heard(
    account: None, started: Started, engine: Engine
) -> None:
    other = Started(engine)
    told, told_there = Told(started.database.changes), Told(other.database.changes)
    other.until(other.database.write(change(1, 5)))
    started.reactor.until_true(lambda: (7, 5) in told.mailboxes and bool(told.kinds))
    started.until(started.database.write(change(1, 6)))
    other.reactor.until_true(lambda: (7, 6) in told_there.mailboxes)
    other.until(other.database.close())


def test_our_own_commit_does_not_hide_the_one_of_another_just_before_it(
    account: None, engine: Engine
) -> None:
    feed = changes.Changes()
    told = Told(feed)
    with engine.read() as connection:
        feed.recheck(connection)
    with engine.write() as connection:
        change(1, 5)(connection)
    # Ours, to another mailbox, is published before anybody looked.
    with engine.write() as connection:
        connection.execute(text("UPDATE account_state SET modseq = 6 WHERE account_id = 1"))
    feed.publish(changes.Report({(1, 8): 6}))
    with engine.read() as connection:
        feed.publish(feed.recheck(connection))
    assert (7, 5) in told.mailboxes


def test_our_own_commits_are_not_taken_for_those_of_others(account: None, started: Started) -> None:
    rechecks: list[int] = []
    recheck = started.database.changes.recheck
    started.database.changes.recheck = lambda c: rechecks.append(1) or recheck(c)  # type: ignore
    for n in range(30):
        started.until(started.database.write(change(1, n + 2)))
    assert len(rechecks) <= 1, "the first look, or PostgreSQL's at its start"


def test_inline_tells_its_subscribers_at_once(database: Inline, account: None) -> None:
    told = Told(database.changes)
    now(database.write(change(1, 5)))
    assert (told.mailboxes, told.kinds) == ([(7, 5)], ["address"])


def test_a_report_too_long_for_a_notification_says_look_at_everything() -> None:
    short = changes.Report({(1, 2): 3}, {"address"})
    assert changes.decode(changes.encode(short, "me")) == ("me", short)
    long = changes.Report({(1 << 40, n): 1 << 50 for n in range(1000)}, set())
    payload = changes.encode(long, "me")
    assert len(payload) < 8000
    assert changes.decode(payload) == ("me", None)


@pytest.mark.parametrize(
    "payload", ["", "{}", "[1]", '["a", ["b"], [[1]]]', '["a", 3, []]', "nul\0"]
)
def test_a_strange_notification_says_look_at_everything(payload: str) -> None:
    assert changes.decode(payload)[1] is None
