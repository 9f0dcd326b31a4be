from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from mailtwist.control.jobs import EVERY_S, LEASE, LEASE_S, PAUSE_S, Housekeeping
from mailtwist.store import accounts, events, failures, inbox, lease, rates
from mailtwist.store.deliver import Acceptance, Entry, deliver
from tests.queue.fakes import Post, World
from tests.store.making import spooled
from tests.support.now import now


@pytest.fixture
def clock():
    clock = Clock()
    clock.advance(1_800_000_000)
    return clock


def microseconds(clock):
    return int(clock.seconds() * 1_000_000)


def count(engine, table):
    with engine.read() as connection:
        return connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar()


def test_counts_that_mean_nothing_go_and_those_that_lock_stay(database, engine, clock):
    second = 1_000_000
    with engine.write() as connection:
        for name, ago in (("old", 4000), ("new", 10)):
            failures.record(
                connection,
                "account",
                name,
                now=microseconds(clock) - ago * second,
                window=300 * second,
                limit=5,
                lock=300 * second,
            )
    now(Housekeeping(database, clock).sweep())
    with engine.read() as connection:
        rows = connection.exec_driver_sql("SELECT subject FROM login_failure").all()
    assert [row[0] for row in rows] == ["new"]


def test_windows_that_have_ended_go(database, engine, clock):
    minute = 60_000_000
    ends = {"over": microseconds(clock), "open": microseconds(clock) + minute}
    with engine.write() as connection:
        added = [rates.Added("messages", name, 3, ends[name], minute) for name in sorted(ends)]
        rates.add(connection, added, now=microseconds(clock) - minute)
    now(Housekeeping(database, clock).sweep())
    with engine.read() as connection:
        rows = connection.exec_driver_sql("SELECT subject FROM rate_count").all()
    assert [row[0] for row in rows] == ["open"]


def test_what_is_left_of_a_removed_account_goes_in_steps(database, engine, clock):
    with engine.write() as connection:
        found = accounts.add(connection, "alice@example.com", [], now=microseconds(clock))
        accounts.remove_step(connection, found.account_id, 1)
        assert accounts.removing(connection) == [found.account_id]
    sweeping = Deferred.fromCoroutine(Housekeeping(database, clock).sweep())
    clock.pump([PAUSE_S] * 20)
    assert sweeping.called
    assert count(engine, "mailbox") == count(engine, "account") == 0


def test_another_node_with_the_lease_is_left_to_it(database, engine, clock):
    with engine.write() as connection:
        assert lease.take(connection, LEASE, 999, now=microseconds(clock), seconds=LEASE_S)
        found = accounts.add(connection, "alice@example.com", [], now=microseconds(clock))
        accounts.remove_step(connection, found.account_id, 1)
    now(Housekeeping(database, clock).sweep())
    assert count(engine, "account") == 1
    clock.advance(LEASE_S + 1)
    Deferred.fromCoroutine(Housekeeping(database, clock).sweep())
    clock.pump([PAUSE_S] * 20)
    assert count(engine, "account") == 0


def test_it_runs_by_itself_and_gives_the_lease_back(database, engine, clock):
    housekeeping = Housekeeping(database, clock)
    housekeeping.start()
    assert count(engine, "lease") == 0
    clock.advance(EVERY_S)
    assert count(engine, "lease") == 1
    clock.advance(EVERY_S)
    now(housekeeping.stop())
    assert count(engine, "lease") == 0
    clock.advance(10 * EVERY_S)
    assert count(engine, "lease") == 0


def test_messages_of_the_queue_go_a_week_after_their_end(database, engine, clock):
    post = Post(database, World(clock))
    now(post.runner.run_once(post.submit("bob@far.example")))
    assert count(engine, "queue_message") == count(engine, "queue_attempt") == 1
    clock.advance(6 * 86400)
    now(Housekeeping(database, clock).sweep())
    assert count(engine, "queue_message") == 1
    clock.advance(86400 + 1)
    now(Housekeeping(database, clock).sweep())
    assert count(engine, "queue_message") == count(engine, "queue_recipient") == 0
    assert count(engine, "queue_attempt") == 0


def test_events_go_when_they_were_kept_long_enough(database, engine, clock):
    hour = 3600 * 1_000_000
    with engine.write() as connection:
        events.write(connection, [(0, events.RECEIVED, {})] * 3)
        connection.exec_driver_sql(
            f"UPDATE event SET at = {microseconds(clock)} - (4 - event_id) * {hour} + {hour // 2}"
        )
    now(Housekeeping(database, clock, events_us=2 * hour).sweep())
    assert count(engine, "event") == 2
    now(Housekeeping(database, clock, events_us=0).sweep())
    assert count(engine, "event") == 0


@pytest.mark.mission("ADG-12")
def test_captured_mail_goes_a_day_after_it_came_each_message_by_itself(database, engine, clock):
    hour, day = 3600 * 1_000_000, 86400 * 1_000_000
    with engine.write() as connection:
        box = inbox.ensure_account(connection, now=microseconds(clock))
        for hours in range(3):
            at = microseconds(clock) - day + hours * hour
            entry = Entry(box, "INBOX", return_path="", inbox=("bob@inbox.example",))
            deliver(connection, [Acceptance(spooled(), (entry,), 100 + hours, at)])

    def left():
        with engine.read() as connection:
            found = inbox.list(connection, box, "bob", since=0, limit=9)
            return [each.queue_id for each in found]

    housekeeping = Housekeeping(database, clock, inbox_us=day)
    for remaining in ([102, 101, 100], [102, 101], [102], []):
        now(housekeeping.sweep())
        assert left() == remaining
        assert count(engine, "message") == len(remaining)
        clock.advance(3600 + 1 if len(remaining) < 3 else 1)
