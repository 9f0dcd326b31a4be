"""The runner among hosts that answer as they are told."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from twisted.internet.defer import Deferred

from mailtwist.errors import StoreUnavailable
from mailtwist.queue.lanes import PENDING
from mailtwist.queue.schedule import SECOND
from mailtwist.queue.values import RemoteReply, Route, Tls, TlsPolicy, Undeliverable
from mailtwist.store.database import Inline
from mailtwist.store.engine import open_engine
from mailtwist.store.queue import claims, control, outcomes
from mailtwist.store.queue.values import Notify, Priority, Recipient, State
from tests.queue.fakes import (
    HEADER,
    LATER,
    LOST,
    NEVER,
    OK,
    REFUSED,
    Post,
    World,
    run_until,
    started_clock,
)
from tests.support.now import now as done

W, L, H, D, F = State.WAITING, State.LEASED, State.HELD, State.DELIVERED, State.FAILED


def opened(database, world=None, **changes):
    post = Post(database, world, **changes)
    done(post.runner.start())
    return post


@pytest.fixture
def make(database):
    """Started post offices, stopped in the end."""
    posts: list[Post] = []

    def make(world=None, **changes):
        posts.append(opened(database, world, **changes))
        return posts[-1]

    yield make
    for post in posts:
        post.world.holds = False
        while post.world.held:
            post.world.release()
        stopping = Deferred.fromCoroutine(post.runner.stop())
        post.clock.pump([0.1] * 150)
        assert stopping.called


def pass_time(post, seconds):
    post.clock.pump([0.1] * round(seconds * 10))


# -- the ways in -----------------------------------------------------------------------------


def test_a_fresh_message_leaves_at_once_and_is_never_read_again(make):
    post = make()
    post.submit("bob@far.example", is_hot=True)
    (sent,) = post.world.sent
    assert sent.data == b"Received: here\r\n" + HEADER + b"hello\r\n"
    assert sent.mail.octets == len(sent.data)
    assert sent.mail.reverse_path == "anna@example.com"
    assert post.world.hostnames == ["mail.example.com"]
    assert post.states() == [D]
    assert post.runner.active == 0


def test_a_message_that_waits_is_claimed(make):
    post = make()
    post.submit("bob@far.example")
    assert post.world.sent == []
    pass_time(post, 0.2)
    assert [sent.addresses for sent in post.world.sent] == [["bob@far.example"]]
    assert post.states() == [D]


def test_the_recipients_at_one_host_share_a_transaction(make):
    post = make()
    post.submit("bob@far.example", "eve@far.example", "carl@near.example", is_hot=True)
    assert [sent.addresses for sent in post.world.sent] == [
        ["bob@far.example", "eve@far.example"],
        ["carl@near.example"],
    ]


@pytest.mark.parametrize("is_hot", [True, False])
def test_through_a_smart_host_all_recipients_share_a_transaction(make, is_hot):
    post = make()
    post.world.routes["*"] = Route("smtp://relay", "relay.example", 587)
    addresses = ["bob@far.example", "carl@near.example", "eve@third.example"]
    post.submit(*addresses, is_hot=is_hot)
    pass_time(post, 0.2)
    assert [sorted(sent.addresses) for sent in post.world.sent] == [addresses]


def test_a_large_content_is_read_in_blocks(make):
    post = make()
    body = b"".join(b"%07d\r\n" % n for n in range(300_000))
    post.submit("bob@far.example", text=body)
    pass_time(post, 0.2)
    (sent,) = post.world.sent
    assert sent.data == b"Received: here\r\n" + HEADER + body
    assert sent.mail.octets == len(sent.data)


def test_urgent_messages_overtake_in_the_lane(make):
    post = make(World(started_clock(), holds=True), outbound={"per_domain": 1})
    for name, priority in (
        ("first", Priority.NORMAL),
        ("bulk", Priority.LOW),
        ("normal", Priority.NORMAL),
        ("urgent", Priority.HIGH),
    ):
        post.submit(f"{name}@far.example", is_hot=True, priority=priority)
    for _ in range(4):
        post.world.release()
    names = [sent.addresses[0].partition("@")[0] for sent in post.world.sent]
    assert names == ["first", "urgent", "normal", "bulk"]


def test_no_lease_is_given_when_the_lane_is_full(make):
    post = make(World(started_clock(), holds=True), outbound={"per_domain": 1})
    for n in range(PENDING + 1):
        post.submit(f"bob{n}@far.example", is_hot=True)
    message = post.message("late@far.example")
    assert post.runner.reserve(message, 10) is None
    assert post.runner.reserve(post.message("bob@near.example"), 10) is not None


def test_the_window_bounds_messages_and_octets(make):
    post = make()
    messages = [post.message(f"bob@d{n}.example") for n in range(1001)]
    leases = [post.runner.reserve(message, 10) for message in messages]
    assert leases[-1] is None
    assert None not in leases[:-1]
    for message in messages[:-1]:
        post.runner.give_back(message)
    assert post.runner.active == 0
    assert post.runner.reserve(post.message("bob@far.example"), 33 << 20) is None


# -- what comes of it --------------------------------------------------------------------------


@pytest.mark.mission("ELE-48")
def test_a_temporary_refusal_is_tried_again_by_the_schedule(make):
    post = make(queue={"retry_schedule": (1.0, 2.0)})
    post.world.replies["*"] = [LATER, LATER, OK]
    post.submit("bob@far.example", is_hot=True)
    run_until(post.clock, lambda: post.states() == [D])
    assert post.attempts() == pytest.approx([0, 1, 3], abs=0.05)


@pytest.mark.mission("DAP-140")
def test_a_deferred_recipient_knows_its_error_and_its_next_attempt(make):
    post = make()
    post.world.replies["*"] = LATER
    post.submit("bob@far.example", is_hot=True)
    rows = post.rows("attempts, code, reply, due_at", "queue_recipient")
    assert rows == [(1, 451, "try later", post.now + 120 * SECOND)]


def test_a_refusal_for_good_is_final_and_reported(make):
    post = make()
    post.world.replies["eve@far.example"] = NEVER
    post.submit("bob@far.example", "eve@far.example", is_hot=True)
    assert post.states() == [D, F]
    pass_time(post, 10)
    assert len(post.world.sent) == 1
    (asked,) = post.reports.asked
    assert [attempt.n for attempt in asked[1] if attempt.outcome == 3] == [2]


@pytest.mark.mission("ELE-49")
def test_after_max_retries_it_fails_with_the_last_reply(make):
    post = make(queue={"retry_schedule": (1.0,), "max_retries": 2})
    post.world.replies["*"] = LATER
    post.submit("bob@far.example", is_hot=True)
    run_until(post.clock, lambda: post.states() == [F])
    assert len(post.world.sent) == 3
    assert post.rows("status, code, reply", "queue_recipient") == [
        ("4.4.7", 451, "4.7.1 try later")
    ]
    assert [attempt.status for attempt in post.reports.asked[-1][1]] == ["4.4.7"]


@pytest.mark.mission("ELE-49")
def test_after_max_queue_time_it_fails(make):
    post = make(queue={"retry_schedule": (2.0,), "max_queue_time": 5.0})
    post.world.replies["*"] = LATER
    post.submit("bob@far.example", is_hot=True)
    run_until(post.clock, lambda: post.states() == [F])
    assert post.attempts() == pytest.approx([0, 2, 4], abs=0.2)


def test_success_is_reported_when_asked_for_and_else_nobody_is_asked(make):
    post = make()
    post.submit("bob@far.example", is_hot=True)
    assert post.reports.asked == []
    asking = (Recipient(1, "bob@far.example", "far.example", notify=Notify.SUCCESS),)
    post.submit("bob@far.example", is_hot=True, recipients=asking)
    assert len(post.reports.asked) == 1


def test_a_report_that_cannot_be_made_keeps_the_failure_from_being_final(make):
    post = make(queue={"retry_schedule": (5.0,)})
    post.world.replies["*"] = NEVER
    post.reports.failure = ZeroDivisionError("ours")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mailtwist.queue.recorder.log", Quiet())
        post.submit("bob@far.example", is_hot=True)
    assert post.states() == [W]
    post.reports.failure = None
    run_until(post.clock, lambda: post.states() == [F])
    assert len(post.reports.asked) == 1


class Quiet:
    """A log that takes failures without telling the test runner."""

    def __getattr__(self, name):
        return lambda *args, **kwargs: None


def test_a_bug_in_delivery_defers_the_message(make, monkeypatch):
    post = make(queue={"retry_schedule": (5.0,)})
    monkeypatch.setattr("mailtwist.queue.dispatch.log", Quiet())
    post.world.replies = {}  # the fake host stumbles
    post.submit("bob@far.example", is_hot=True)
    assert post.states() == [W]
    assert post.rows("attempts, reply", "queue_recipient") == [(1, "Internal error, see the log")]
    post.world.replies = {"*": OK}
    run_until(post.clock, lambda: post.states() == [D])


# -- sessions ----------------------------------------------------------------------------------


def test_a_session_is_used_again_and_closed_when_it_is_idle(make):
    post = make()
    for _ in range(3):
        post.submit("bob@far.example", is_hot=True)
    assert len(post.world.connects) == 1
    assert post.runner.sessions == 1
    pass_time(post, 6)
    assert post.runner.sessions == 0
    assert post.world.sessions == set()


def test_a_session_takes_a_hundred_messages(make):
    post = make()
    for _ in range(101):
        post.submit("bob@far.example", is_hot=True)
    assert len(post.world.connects) == 2


def test_a_session_that_died_meanwhile_is_no_attempt(make):
    post = make()
    post.submit("bob@far.example", is_hot=True)
    (session,) = post.world.sessions
    alive = session.deliver

    async def dies(mail):
        session.abort()
        return await alive(mail)

    session.deliver = dies
    post.submit("eve@far.example", is_hot=True)
    assert post.states() == [D, D]
    assert len(post.world.connects) == 2
    assert post.rows("count(*)", "queue_attempt") == [(2,)]


def test_a_new_session_that_dies_is_an_attempt(make):
    post = make()
    post.world.replies["*"] = LOST
    post.submit("bob@far.example", is_hot=True)
    assert post.states() == [W]
    assert len(post.world.sent) == 1


@pytest.mark.mission("ELE-47")
def test_there_are_never_more_than_max_workers_sessions(make):
    post = make(World(started_clock(), holds=True), queue={"max_workers": 2})
    for n in range(12):
        post.submit(f"bob@d{n}.example", is_hot=True)
        post.submit(f"bob@d{n}.example", is_hot=True)
    while post.world.held:
        post.world.release()
        pass_time(post, 0.1)
    assert len(post.world.sent) == 24
    assert set(post.states()) == {D}
    assert post.world.peak == 2


@pytest.mark.mission("ELE-57")
def test_there_are_never_more_than_per_domain_sessions_to_a_domain(make):
    post = make(World(started_clock(), holds=True), outbound={"per_domain": 1})
    for _ in range(5):
        post.submit("bob@far.example", is_hot=True)
    post.submit("bob@near.example", is_hot=True)
    assert len(post.world.held) == 2  # one to each domain
    while post.world.held:
        post.world.release()
    assert len(post.world.sent) == 6
    assert [address for _, address in post.world.connects] == ["192.0.2.1"] * 2


def test_more_sessions_are_opened_as_a_host_takes_mail(make):
    post = make(World(started_clock(), holds=True), outbound={"per_domain": 8})
    for n in range(30):
        post.submit(f"bob{n}@far.example", is_hot=True)
    assert len(post.world.held) == 5
    post.world.release(3)
    assert len(post.world.held) == 8
    while post.world.held:
        post.world.release()
    assert post.world.peak == 8
    assert set(post.states()) == {D}


def test_a_host_that_wants_fewer_sessions_gets_fewer(make):
    post = make(World(started_clock(), holds=True, max_sessions=2))
    for n in range(8):
        post.submit(f"bob{n}@far.example", is_hot=True)
    while post.world.held:
        post.world.release()
    assert set(post.states()) == {D}
    assert len(post.world.connects) <= 4
    assert post.rows("count(*)", "queue_attempt") == [(8,)]


def test_lanes_take_turns_when_sessions_are_few(make):
    post = make(World(started_clock(), holds=True), queue={"max_workers": 1})
    for _ in range(40):
        post.submit("bob@big.example", is_hot=True)
    post.submit("bob@small.example", is_hot=True)
    for _ in range(12):
        post.world.release()
        pass_time(post, 0.1)
    assert "bob@small.example" in [sent.addresses[0] for sent in post.world.sent]


def silent_hosts(post, count, messages):
    post.world.silent.add("192.0.2.66")
    for n in range(count):
        post.world.hosts[f"silent{n}.example"] = ["192.0.2.66"]
        for _ in range(messages):
            post.submit(f"bob@silent{n}.example", is_hot=True)


def test_hosts_that_accept_and_never_greet_leave_places_for_others(make):
    post = make(queue={"max_workers": 10})
    silent_hosts(post, 4, 5)
    post.submit("carl@near.example", is_hot=True)
    assert [sent.addresses for sent in post.world.sent] == [["carl@near.example"]]


def test_hosts_that_never_greet_are_given_up_after_half_a_minute_when_others_wait(make):
    post = make(queue={"max_workers": 10})
    silent_hosts(post, 20, 1)
    post.submit("carl@near.example", is_hot=True)
    assert post.world.sent == []
    pass_time(post, 29)
    assert post.world.sent == []
    pass_time(post, 62)
    assert [sent.addresses for sent in post.world.sent] == [["carl@near.example"]]
    (reply,) = {
        row[0] for row in post.rows("reply", "queue_recipient", "attempts > 0 AND state = 0")
    }
    assert "silent for too long" in reply


def test_a_host_that_is_slow_to_greet_has_its_five_minutes_when_nobody_waits(make):
    post = make(queue={"max_workers": 10})
    silent_hosts(post, 3, 1)
    pass_time(post, 120)
    assert post.rows("attempts", "queue_recipient") == [(0,), (0,), (0,)]


def test_a_rate_spreads_messages_over_the_minute(make):
    post = make(outbound={"rate": 60})
    for _ in range(5):
        post.submit("bob@far.example", is_hot=True)
    post.submit("bob@near.example", is_hot=True)
    assert len(post.world.sent) == 2
    run_until(post.clock, lambda: post.states() == [D] * 6)
    moments = [sent.at for sent in post.world.sent if sent.addresses == ["bob@far.example"]]
    assert [b - a for a, b in pairwise(moments)] == pytest.approx([1] * 4)


# -- hosts ---------------------------------------------------------------------------------------


@pytest.mark.mission("DAP-145")
def test_the_next_host_is_tried_and_the_one_that_is_down_is_asked_last(make):
    post = make()
    post.world.hosts["far.example"] = ["192.0.2.1", "192.0.2.2"]
    post.world.down["192.0.2.1"] = REFUSED
    post.submit("bob@far.example", is_hot=True)
    assert [address for _, address in post.world.connects] == ["192.0.2.1", "192.0.2.2"]
    pass_time(post, 6)
    post.submit("bob@far.example", is_hot=True)
    assert [address for _, address in post.world.connects][2:] == ["192.0.2.2"]
    assert post.states() == [D, D]


@pytest.mark.parametrize(
    "codes, state",
    [((554, 554), F), ((554, 421), W), ((421, 554), W)],
)
def test_a_destination_is_refused_for_good_when_every_host_says_so(make, codes, state):
    post = make()
    post.world.hosts["far.example"] = ["192.0.2.1", "192.0.2.2"]
    for n, code in enumerate(codes, 1):
        reply = RemoteReply(code, f"{code // 100}.3.2", "not now", "greeting")
        post.world.down[f"192.0.2.{n}"] = Undeliverable(reply)
    post.submit("bob@far.example", is_hot=True)
    assert post.states() == [state]


def test_what_a_smart_host_has_against_us_waits_until_it_is_mended(make):
    post = make()
    post.world.routes["*"] = Route("smtp://relay", "relay.example", 587)
    reply = RemoteReply(535, "5.7.8", "bad credentials", "auth")
    post.world.down["192.0.2.1"] = Undeliverable(reply)
    post.submit("bob@far.example", is_hot=True)
    assert post.states() == [W]
    assert "bad credentials" in post.rows("reply", "queue_recipient")[0][0]


def test_a_domain_that_does_not_exist_fails_at_once(make):
    post = make()
    reply = RemoteReply(550, "5.1.2", "no such domain", "dns", is_ours=True)
    post.world.hosts["far.example"] = Undeliverable(reply)
    post.submit("bob@far.example", "eve@far.example", is_hot=True)
    assert post.states() == [F, F]
    assert post.rows("failures", "queue_destination") in ([], [(0,)])


def test_a_dead_destination_rests_as_a_whole(make):
    post = make(World(started_clock(), down={"192.0.2.1": REFUSED}))
    for n in range(20):
        post.submit(f"bob{n}@far.example")
    pass_time(post, 1)
    tried = len(post.world.connects)
    assert tried <= 5
    pass_time(post, 118)
    assert len(post.world.connects) == tried
    assert post.rows("sum(attempts)", "queue_recipient")[0][0] == tried
    pass_time(post, 10)
    assert len(post.world.connects) == tried + 1, "one message finds out"
    (failures,) = post.rows("failures", "queue_destination")
    assert failures == (2,)
    post.world.down.clear()
    run_until(post.clock, lambda: set(post.states()) == {D}, seconds=600)
    assert post.rows("failures", "queue_destination") == [(0,)]


def test_a_destination_that_rests_gives_no_lease(make):
    post = make(World(started_clock(), down={"192.0.2.1": REFUSED}))
    post.submit("bob@far.example", is_hot=True)
    assert post.runner.reserve(post.message("eve@far.example"), 10) is None


@pytest.mark.mission("DIN-24")
def test_a_smart_host_that_is_down_is_not_asked_for_each_domain(make):
    post = make(World(started_clock(), down={"192.0.2.1": REFUSED}))
    post.world.routes["*"] = Route("smtp://relay", "relay.example", 587)
    for n in range(60):
        post.submit(f"bob@d{n}.example")
    pass_time(post, 3)
    tried = len(post.world.connects)
    assert tried <= 5
    assert set(post.states()) == {W}
    pass_time(post, 110)
    assert len(post.world.connects) == tried
    post.world.down.clear()
    run_until(post.clock, lambda: set(post.states()) == {D}, seconds=300)


def test_a_flush_tries_what_rests_within_two_seconds(make, engine):
    post = make(World(started_clock(), down={"192.0.2.1": REFUSED}))
    post.world.routes["*"] = Route("smtp://relay", "relay.example", 587)
    for n in range(3):
        post.submit(f"bob@d{n}.example")
    pass_time(post, 3)
    post.world.down.clear()
    # Another process: this one hears nothing of it.
    with engine.write() as connection:
        control.retry(connection, None, post.now)
    pass_time(post, 2)
    assert set(post.states()) == {D}


# -- the rows ------------------------------------------------------------------------------------


def test_an_outcome_is_kept_while_the_store_is_away_and_the_message_not_sent_again(
    make, database, monkeypatch
):
    post = make()
    real = database.write_set

    async def away(writer, value, **options):
        if writer is outcomes.record:
            raise StoreUnavailable
        return await real(writer, value, **options)

    database.write_set = away
    post.submit("bob@far.example", is_hot=True)
    pass_time(post, 700)
    assert post.states() == [L]
    assert len(post.world.sent) == 1
    assert post.rows("lease_until", "queue_recipient")[0][0] > post.now
    database.write_set = real
    pass_time(post, 31)
    assert post.states() == [D]
    assert len(post.world.sent) == 1


@pytest.mark.mission("ELE-50")
def test_what_a_killed_process_had_leased_is_delivered_by_the_next(make, engine):
    post = make()
    message_id = post.submit("bob@far.example")
    gone = "elsewhere/1/00"
    with engine.write() as connection:
        connection.exec_driver_sql(
            f"INSERT INTO node (node_id, name, version, seen_at) VALUES (1000, '{gone}', '0', 1)"
        )
        claims.claim_message(
            connection,
            message_id,
            node_id=1000,
            now=post.now,
            lease_until=post.now + 3600 * SECOND,
        )
    pass_time(post, 5)
    assert post.states() == [L]
    run_until(post.clock, lambda: post.states() == [D], seconds=90)


@pytest.mark.mission("DAP-147")
def test_two_processes_send_one_copy(make, database, engine, store_url):
    post = make(World(started_clock(), holds=True))
    other = Inline(open_engine(store_url))
    second = post.make_runner(other)
    done(second.start())
    for n in range(20):
        post.submit(f"bob{n}@far.example")
    second.wake()
    for _ in range(40):
        pass_time(post, 0.1)
        while post.world.held:
            post.world.release()
    assert set(post.states()) == {D}
    assert len(post.world.sent) == 20
    done(second.stop())
    other.release()


def test_on_sqlite_one_process_runs_the_queue_until_it_stops(sqlite_url):
    engine = open_engine(sqlite_url)
    post = opened(Inline(engine))
    other = Inline(open_engine(sqlite_url))
    second = post.make_runner(other)
    done(second.start())
    assert (post.runner.is_leader, second.is_leader) == (True, False)
    assert second.reserve(post.message("bob@far.example"), 10) is None
    done(post.runner.stop())
    pass_time(post, 11)
    assert second.is_leader
    post.submit("bob@far.example")
    pass_time(post, 3)
    assert post.states() == [D]
    done(second.stop())
    other.release()
    engine.dispose()


def test_stop_lets_messages_end_and_gives_back_the_rest(make):
    post = make(World(started_clock(), holds=True), outbound={"per_domain": 1})
    for n in range(3):
        post.submit(f"bob{n}@far.example", is_hot=True)
    stopping = Deferred.fromCoroutine(post.runner.stop(10))
    pass_time(post, 1)
    assert not stopping.called
    post.world.release()
    assert stopping.called
    assert post.states() == [D, W, W]
    assert post.world.sessions == set()
    assert post.rows("attempts", "queue_recipient", "state = 0") == [(0,), (0,)]


def test_stop_cuts_off_what_does_not_end(make):
    post = make(World(started_clock(), holds=True))
    post.submit("bob@far.example", is_hot=True)
    stopping = Deferred.fromCoroutine(post.runner.stop(2))
    pass_time(post, 2.5)
    assert post.world.sessions == set(), "its connection was cut"
    post.world.release()
    assert stopping.called
    assert post.rows("state, attempts", "queue_recipient") == [(W, 0)]


def test_what_is_deleted_or_held_while_it_stands_in_a_lane_is_not_sent(make, database):
    post = make(World(started_clock(), holds=True), outbound={"per_domain": 1})
    ids = [post.submit(f"bob{n}@far.example", is_hot=True) for n in range(4)]
    done(database.write(lambda c: control.delete(c, ids[1], post.now)))
    done(database.write(lambda c: control.hold(c, ids[2])))
    pass_time(post, 2)
    while post.world.held:
        post.world.release()
    sent = [sent.addresses[0] for sent in post.world.sent]
    assert sent == ["bob0@far.example", "bob3@far.example"]
    assert post.states() == [D, H, D]


def test_one_message_can_be_tried_by_itself_without_a_start(database):
    post = Post(database, World(started_clock()))
    first = post.submit("bob@far.example")
    post.submit("eve@far.example")
    done(post.runner.run_once(first))
    assert [sent.addresses for sent in post.world.sent] == [["bob@far.example"]]
    assert post.states() == [D, W]
    done(post.runner.stop())


def test_run_once_ends_when_all_that_is_due_was_tried(make):
    post = make(World(started_clock(), holds=True), queue={"max_workers": 3})
    for n in range(8):
        post.submit(f"bob@d{n}.example")
    running = Deferred.fromCoroutine(post.runner.run_once())
    again = Deferred.fromCoroutine(post.runner.run_once())
    while post.world.held:
        assert not running.called
        assert not again.called
        post.world.release()
    assert running.called
    assert again.called
    assert set(post.states()) == {D}
    assert len(post.world.sent) == 8


def test_run_once_gets_through_more_than_the_window_holds(make):
    post = make()
    for n in range(1100):
        post.submit(f"bob{n}@d{n % 300}.example")
    done(post.runner.run_once())
    assert set(post.states()) == {D}


# -- what a message asks for -----------------------------------------------------------------------


@pytest.mark.mission("ELE-13")
@pytest.mark.parametrize(
    "tls, capabilities, state",
    [
        ("", {}, F),
        ("TLSv1.3", {}, F),
        ("", {"REQUIRETLS": ""}, F),
        ("TLSv1.3", {"REQUIRETLS": ""}, D),
    ],
)
def test_requiretls_leaves_under_verified_tls_to_a_host_that_keeps_it(
    make, tls, capabilities, state
):
    post = make(World(started_clock(), tls=tls, capabilities=capabilities))
    post.submit("bob@far.example", is_hot=True, requiretls=True)
    assert post.states() == [state]
    assert post.world.policies[0].level is Tls.VERIFY
    if state is F:
        assert post.world.sent == []
        assert post.rows("status", "queue_recipient") == [("5.7.30",)]


def test_requiretls_waits_for_a_host_that_is_away(make):
    post = make(World(started_clock(), tls="TLSv1.3"))
    post.world.hosts["far.example"] = ["192.0.2.1", "192.0.2.2"]
    post.world.down["192.0.2.2"] = REFUSED
    post.submit("bob@far.example", is_hot=True, requiretls=True)
    assert post.states() == [W]


def test_a_certificate_that_does_not_hold_is_final_for_requiretls_alone(make):
    reply = RemoteReply(451, "4.7.5", "the certificate expired", "starttls", is_ours=True)
    post = make(World(started_clock(), down={"192.0.2.1": Undeliverable(reply)}))
    post.submit("bob@far.example", is_hot=True, requiretls=True)
    post.submit("bob@near.example", is_hot=True)
    assert post.states() == [F, W]


def test_forwarded_recipients_have_a_transaction_with_a_reverse_path_of_their_own(make):
    post = make()
    recipients = (
        Recipient(1, "bob@far.example", "far.example"),
        Recipient(2, "eve@far.example", "far.example", forwarded_by="info@example.com"),
    )
    for reverse_path in ("anna@other.example", ""):
        post.submit("x", is_hot=True, recipients=recipients, reverse_path=reverse_path)
    assert [(sent.mail.reverse_path, sent.addresses) for sent in post.world.sent] == [
        ("anna@other.example", ["bob@far.example"]),
        ("SRS0=anna=other.example@example.com", ["eve@far.example"]),
        ("", ["bob@far.example", "eve@far.example"]),
    ]
    assert post.states() == [D] * 4


@pytest.mark.mission("DAP-144")
def test_the_name_to_greet_with_is_the_message_s(make):
    post = make()
    post.submit("bob@far.example", is_hot=True, hostname="mx.other.example")
    post.submit("bob@far.example", is_hot=True)
    assert post.world.hostnames == ["mx.other.example", "mail.example.com"]


def test_parameters_of_the_message_reach_the_session(make):
    post = make()
    recipients = (
        Recipient(1, "bob@far.example", "far.example", orcpt="rfc822;b@x", notify=Notify.NEVER),
    )
    post.submit(
        "x", is_hot=True, recipients=recipients, envid="e1", ret="HDRS", body="8BITMIME",
        smtputf8=True,
    )  # fmt: skip
    mail = post.world.sent[0].mail
    assert (mail.envid, mail.ret, mail.body, mail.smtputf8) == ("e1", "HDRS", "8BITMIME", True)
    assert mail.recipients[0].orcpt == "rfc822;b@x"
    assert mail.recipients[0].notify == Notify.NEVER


def test_the_policy_of_a_route_is_the_session_s(make):
    post = make()
    policy = TlsPolicy(Tls.REQUIRED, source="relay")
    post.world.routes["*"] = replace(Route("smtp://relay", "relay.example"), tls=policy)
    post.submit("bob@far.example", is_hot=True)
    assert post.world.policies == [policy]


def test_rows_without_a_way_wait_for_the_configuration(make, monkeypatch):
    post = make()
    monkeypatch.setattr("mailtwist.queue.lane_table.log", Quiet())

    def route(destination):
        raise LookupError("no LMTP server is configured")

    post.world.route = route
    post.submit("bob@far.example")
    pass_time(post, 1)
    assert post.states() == [W]
    assert "No way" in post.rows("reply", "queue_recipient")[0][0]


def test_stop_does_not_wait_for_a_store_that_is_away(make, database):
    post = make()
    real = database.write_set

    async def away(writer, value, **options):
        raise StoreUnavailable

    database.write_set = away
    post.submit("bob@far.example", is_hot=True)
    pass_time(post, 60)
    stopping = Deferred.fromCoroutine(post.runner.stop(10))
    pass_time(post, 1)
    assert stopping.called
    database.write_set = real
