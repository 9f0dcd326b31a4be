"""Looks that are taken when woken, and now and then."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from mailtwist.actions.turns import Turn
from mailtwist.errors import StoreUnavailable


class Looks:
    """Counts looks; each ends at once with ``answer``, or when ``pending`` is fired."""

    def __init__(self, **options: Any) -> None:
        self.clock = Clock()
        self.count = 0
        self.answer: float | Exception | None = None
        self.pending: Deferred[None] | None = None
        self.turn = Turn("x", self.look, every_s=10, clock=self.clock, pause_s=1, **options)
        self.turn.start()

    async def look(self) -> float | None:
        self.count += 1
        if self.pending is not None:
            await self.pending
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def looks() -> Looks:
    made = Looks()
    made.clock.advance(1)
    assert made.count == 1
    return made


def test_it_looks_now_and_then(looks: Looks) -> None:
    looks.clock.advance(9)
    assert looks.count == 1
    looks.clock.advance(1)
    assert looks.count == 2


def test_it_looks_soon_when_woken_and_once(looks: Looks) -> None:
    for _ in range(3):
        looks.turn.wake()
    assert looks.count == 1
    looks.clock.advance(1)
    assert looks.count == 2
    looks.clock.advance(9)
    assert looks.count == 2


def test_it_looks_when_the_last_look_said(looks: Looks) -> None:
    looks.answer = 3
    looks.turn.wake()
    looks.clock.advance(1)
    looks.clock.advance(2.9)
    assert looks.count == 2
    looks.clock.advance(0.1)
    assert looks.count == 3


def test_there_are_never_two_looks_and_one_follows(looks: Looks) -> None:
    looks.pending = Deferred()
    looks.turn.wake()
    looks.clock.advance(1)
    for _ in range(3):
        looks.turn.wake()
        looks.clock.advance(20)
    assert looks.count == 2
    pending, looks.pending = looks.pending, None
    pending.callback(None)
    looks.clock.advance(1)
    assert looks.count == 3
    looks.clock.advance(9)
    assert looks.count == 3


def test_a_look_that_fails_is_taken_again(looks: Looks) -> None:
    looks.answer = StoreUnavailable()
    looks.clock.advance(10)
    looks.clock.advance(10)
    assert looks.count == 3


def test_once_stopped_it_looks_no_more(looks: Looks) -> None:
    looks.pending = Deferred()
    looks.turn.wake()
    looks.clock.advance(1)
    stopping = Deferred.fromCoroutine(looks.turn.stop())
    assert stopping.called
    looks.turn.wake()
    looks.clock.advance(100)
    assert looks.count == 2
    assert looks.clock.getDelayedCalls() == []
