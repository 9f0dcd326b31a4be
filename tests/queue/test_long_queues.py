"""What a queue of any length must not do: keep a process from ending, or a host under fire."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from mailtwist.queue.claimer import Claimer
from mailtwist.queue.lanes import FIRST_SESSIONS
from mailtwist.queue.leadership import RENEW_S
from mailtwist.queue.tending import ATTEND_S, ATTENDED
from mailtwist.store.queue.values import State
from tests.queue.fakes import LOST, OK, Post, World, run_until, started_clock
from tests.support.now import now as done

W, D = State.WAITING, State.DELIVERED


@pytest.fixture
def post(database: Any) -> Iterator[Post]:
    """A started runner that is stopped in the end."""
    made = Post(database, World(started_clock()), queue={"delay_warning": 0.0})
    done(made.runner.start())
    yield made
    assert stopped(made)


def stopped(post: Post) -> bool:
    stopping = Deferred.fromCoroutine(post.runner.stop())
    post.clock.pump([0.1] * 150)
    return stopping.called


def slowly(post: Post, work: Any, seconds: float) -> Any:
    """The same, but each call takes so long."""

    async def slow(*words: Any, **options: Any) -> Any:
        await deferLater(post.clock, seconds)
        return await work(*words, **options)

    return slow


def test_a_message_whose_new_connection_is_refused_goes_over_an_idle_session(post):
    world = post.world
    world.holds, world.max_sessions = True, 1
    dialled: list[Deferred[None]] = []
    connect = world.connect

    async def dial(*words: Any, **options: Any) -> Any:
        dialled.append(Deferred())
        assert len(dialled) < 10, "one connection after the other"
        await dialled[-1]
        return await connect(*words, **options)

    world.connect = dial
    post.submit("bob@far.example", is_hot=True)
    post.submit("eve@far.example", is_hot=True)
    dialled[0].callback(None)
    world.release()
    # Nothing is left to do for the first session; now the host says that it is enough.
    dialled[1].callback(None)
    world.release()
    assert post.states() == [D, D]
    assert len(dialled) == 2
    assert post.rows("count(*)", "queue_attempt") == [(2,)]


def test_stop_does_not_wait_until_nothing_more_can_be_claimed(post, monkeypatch):
    async def endless(self: Claimer, jobs: Any = None) -> bool:
        await deferLater(post.clock, 0.1)
        return True

    monkeypatch.setattr(Claimer, "claim", endless)
    post.submit("bob@far.example")
    post.clock.pump([0.1] * 30)
    assert stopped(post)


@pytest.fixture
def expired(post: Post) -> Post:
    """Many messages that ran out while nobody could try them."""
    post.world.replies = {"*": OK}
    now = post.now
    for n in range(3 * ATTENDED):
        post.submit(f"bob{n}@far.example", received_at=now + 10**9, expires_at=now, attend_at=now)
    with post.database.engine.write() as connection:
        connection.exec_driver_sql(f"UPDATE queue_recipient SET due_at = {2**60}")
        connection.exec_driver_sql(f"UPDATE queue_destination SET next_due = {2**60}")
    return post


def test_stop_does_not_wait_until_all_that_expired_is_returned(expired):
    record = expired.reports.of
    expired.reports.of = slowly(expired, record, 0.2)
    expired.clock.pump([1.0] * round(ATTEND_S))
    assert stopped(expired)
    left = expired.states().count(W)
    assert 0 < left < 3 * ATTENDED


def test_leases_are_kept_while_messages_are_returned(expired, monkeypatch):
    tending = expired.runner._tending
    renewed: list[float] = []
    renew = tending._leadership.renew

    async def noted() -> bool:
        renewed.append(expired.clock.seconds())
        return bool(await renew())

    monkeypatch.setattr(tending._leadership, "renew", noted)
    expired.reports.of = slowly(expired, expired.reports.of, RENEW_S / ATTENDED)
    expired.clock.pump([0.1] * 1000)
    assert W not in expired.states()
    assert max(b - a for a, b in pairwise(renewed)) <= 2 * RENEW_S


@pytest.fixture
def faltering(post: Post, monkeypatch: pytest.MonkeyPatch) -> Post:
    """Its host greets, and ends each session in the middle of the message."""
    world = post.world
    connect = world.connect

    async def falter(*words: Any, **options: Any) -> Any:
        session = await connect(*words, **options)
        session.is_open = not world.replies["*"].is_ours
        return session

    monkeypatch.setattr(world, "connect", falter)
    world.replies = {"*": LOST}
    return post


def test_a_host_that_loses_every_session_rests_as_a_whole(faltering):
    post = faltering
    for n in range(40):
        post.submit(f"bob{n}@far.example")
    post.clock.pump([0.1] * 600)
    assert len(post.world.connects) <= FIRST_SESSIONS
    assert post.states() == [W] * 40
    ((failures, reply),) = post.rows("failures, reply", "queue_destination")
    assert (failures, reply) == (1, "451 4.4.2 connection lost")
    post.clock.pump([1.0] * 120)  # one message asks whether it is better
    assert len(post.world.connects) <= FIRST_SESSIONS + 1
    post.world.replies = {"*": OK}
    run_until(post.clock, lambda: post.states() == [D] * 40, seconds=3600)


def test_one_lost_session_stops_nobody_else(faltering):
    post = faltering
    post.submit("bob@far.example", is_hot=True)
    post.world.replies = {"*": OK}
    post.submit("eve@far.example", is_hot=True)
    assert post.states() == [W, D]
    assert post.rows("failures", "queue_destination") == [(0,)]


# -- hosts that take a connection and then say nothing ------------------------------------------


@pytest.fixture
def silent(database: Any) -> Iterator[Post]:
    """Ten sessions, each with a host that is silent in its first message; others wait."""
    made = Post(database, World(started_clock(), holds=True), queue={"max_workers": 10})
    done(made.runner.start())
    for n in range(20):
        made.submit(f"bob@silent{n}.example", is_hot=True)
    made.submit("carl@near.example", is_hot=True)
    yield made
    made.world.holds = False
    made.world.release(len(made.world.held))
    assert stopped(made)


def addresses(post: Post) -> list[str]:
    return [address for sent in post.world.sent for address in sent.addresses]


def test_a_host_that_is_silent_in_its_first_message_is_given_up_when_others_wait(silent):
    silent.clock.pump([0.1] * 590)
    assert len(addresses(silent)) == 10
    silent.clock.pump([0.1] * 650)
    assert "carl@near.example" in addresses(silent)
    assert addresses(silent).count("bob@silent0.example") == 1
    (reply,) = {
        row[0] for row in silent.rows("reply", "queue_recipient", "attempts > 0 AND state = 0")
    }
    assert "silent for too long" in reply


def test_a_host_that_answered_before_has_all_the_time_of_the_rfc(silent):
    world = silent.world
    world.release(10)
    world.release(10)
    world.release()
    assert set(silent.states()) == {D}
    for n in range(15):
        silent.submit(f"eve@silent{n}.example", is_hot=True)
    silent.clock.pump([1.0] * 200)
    assert addresses(silent).count("eve@silent0.example") == 1
    assert silent.rows("count(*)", "queue_attempt") == [(21,)]
