"""Somebody waits for the first attempts: he is told of refusals, and only then nobody else is."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from mailtwist.queue.awaited import HOLD_S, MAX_WAITING, Awaited
from mailtwist.store.deliver import deliver
from mailtwist.store.queue.values import State
from tests.queue.fakes import (
    LATER,
    NEVER,
    OK,
    REFUSED,
    Post,
    World,
    started_clock,
    with_content,
    with_lease,
)
from tests.support.now import now as done

WAIT_S = 2.0
D, F, L, W = State.DELIVERED, State.FAILED, State.LEASED, State.WAITING


@pytest.fixture
def make(database):
    posts: list[Post] = []

    def make(replies, **changes):
        post = Post(database, World(started_clock(), replies=replies), **changes)
        done(post.runner.start())
        posts.append(post)
        return post

    yield make
    for post in posts:
        post.world.holds = False
        while post.world.held:
            post.world.release()
        stopping = Deferred.fromCoroutine(post.runner.stop())
        post.clock.pump([0.1] * 150)
        assert stopping.called


def send(post, *addresses, seconds=WAIT_S):
    """Hand a message over and wait for it; what the one who waits is told comes into the list."""
    message = post.message(*addresses)
    waiter = post.runner.awaited.expect(message)
    acceptance, spooled = post._acceptance(message, b"Subject: hello\r\n\r\nhello\r\n")
    lease = post.runner.reserve(message, spooled.octets)
    with post.database.engine.write() as connection:
        deliver(connection, [with_lease(acceptance, lease)])
    told: list[Any] = []
    Deferred.fromCoroutine(waiter.outcome(seconds)).addCallback(told.append)
    if lease is not None:
        post.runner.take(with_content(message, spooled), spooled.data, lease)
    return told


def reported(post):
    return [[attempt.n for attempt in attempts] for _, attempts in post.reports.asked]


def test_when_all_are_refused_he_is_told_and_nobody_else(make):
    post = make({"*": NEVER})
    (refused,) = send(post, "bob@far.example", "eve@near.example")
    assert refused.attempt.code == 550
    assert refused.attempt.n == 1
    assert post.states() == [F, F]
    assert reported(post) == []


@pytest.mark.parametrize("good", [OK, LATER], ids=["taken", "deferred"])
def test_when_one_is_not_refused_the_others_are_reported(make, good):
    post = make({"far.example": NEVER, "near.example": good})
    assert send(post, "bob@far.example", "eve@near.example") == [None]
    assert post.states()[0] == F
    assert reported(post) == [[1]]


def test_he_hears_at_once_that_one_is_taken(make):
    post = make({"*": OK})
    started = post.clock.seconds()
    assert send(post, "bob@far.example") == [None]
    assert post.clock.seconds() == started
    assert reported(post) == []


def test_nobody_waits_for_a_host_that_is_known_to_be_down(make):
    post = make({"*": OK})
    post.world.down["192.0.2.1"] = REFUSED
    assert send(post, "bob@far.example") == [None]
    tried, started = len(post.world.connects), post.clock.seconds()
    assert send(post, "eve@far.example") == [None]
    assert len(post.world.connects) == tried
    assert post.clock.seconds() == started


def test_a_refusal_is_not_written_while_others_may_still_be_taken(make):
    post = make({"far.example": NEVER})
    post.world.silent.add("192.0.2.9")
    post.world.hosts["near.example"] = ["192.0.2.9"]
    told = send(post, "bob@far.example", "eve@near.example")
    assert told == []
    # A crash forgets nothing: the lease is there.
    assert post.states() == [L, L]
    post.clock.advance(WAIT_S)
    assert told == [None]
    assert post.states()[0] == F
    assert reported(post) == [[1]]


def test_a_refusal_is_held_back_for_a_bounded_time(make):
    post = make({"far.example": NEVER})
    post.world.silent.add("192.0.2.9")
    post.world.hosts["near.example"] = ["192.0.2.9"]
    told = send(post, "bob@far.example", "eve@near.example", seconds=300)
    post.clock.pump([0.1] * int(HOLD_S * 10 + 1))
    assert told == [None]
    assert post.states()[0] == F
    assert reported(post) == [[1]]


def test_what_comes_after_he_went_is_reported_as_ever(make):
    post = make({"*": NEVER})
    post.world.holds = True
    told = send(post, "bob@far.example")
    post.clock.advance(WAIT_S)
    assert told == [None]
    post.world.release()
    assert post.states() == [F]
    assert reported(post) == [[1]]


def test_when_the_server_stops_nobody_waits_any_longer(make):
    post = make({"*": NEVER})
    post.world.holds = True
    told = send(post, "bob@far.example", seconds=300)
    post.runner.awaited.close()
    assert told == [None]
    assert post.runner.awaited.expect(post.message("bob@far.example")) is None


def test_waiters_are_bounded_and_leave_nothing_behind(make):
    post = make({"*": OK})
    awaited = Awaited(post.clock)
    waiters = [awaited.expect(post.message("bob@far.example")) for _ in range(MAX_WAITING)]
    assert None not in waiters
    assert awaited.expect(post.message("bob@far.example")) is None
    for waiter in waiters:
        waiter.close()
    assert not awaited._waiters
