from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import floordiv
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from mailtwist.policy.batched import AT_ONCE, Batched
from mailtwist.policy.hashing import Inline
from tests.support.now import now


class Held:
    """Threads that work when the test says so."""

    def __init__(self) -> None:
        self.turns: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    async def run(self, work: Callable[[], Any]) -> Any:
        waiting: Deferred[Any] = Deferred()
        self.turns.append((work, waiting))
        return await waiting

    def work(self) -> None:
        work, waiting = self.turns[-1]
        waiting.callback(work())


def later(batched: Batched, work: Callable[[], Any]) -> Deferred[Any]:
    return Deferred.fromCoroutine(batched.run(work))


def test_what_ends_at_once_waits_for_nothing() -> None:
    batched = Batched(Inline())
    assert [now(batched.run(lambda: 1)), now(batched.run(lambda: 2))] == [1, 2]


def test_what_comes_meanwhile_shares_the_next_turn() -> None:
    threads = Held()
    batched = Batched(threads)
    done: list[int] = []
    for n in range(AT_ONCE + 3):
        later(batched, partial(int, n)).addCallback(done.append)
    assert len(threads.turns) == 1
    threads.work()
    assert done == [0]
    threads.work()
    assert done == list(range(AT_ONCE + 1))
    threads.work()
    assert done == list(range(AT_ONCE + 3))
    assert len(threads.turns) == 3
    later(batched, lambda: 99).addCallback(done.append)
    threads.work()
    assert done[-1] == 99


def test_an_error_is_its_own_callers() -> None:
    threads = Held()
    batched = Batched(threads)
    outcomes = [later(batched, partial(floordiv, 1, n)) for n in (1, 0, 1)]
    threads.work()
    threads.work()
    failed: Any = outcomes[1].result
    assert failed.check(ZeroDivisionError)
    outcomes[1].addErrback(lambda failure: None)
    assert [outcomes[0].result, outcomes[2].result] == [1, 1]


def test_who_was_cancelled_disturbs_nobody() -> None:
    threads = Held()
    batched = Batched(threads)
    outcomes = [later(batched, lambda: 1) for _ in range(3)]
    outcomes[0].cancel()
    outcomes[1].cancel()
    for each in outcomes[:2]:
        each.addErrback(lambda failure: failure.trap(CancelledError))
    threads.work()
    threads.work()
    assert outcomes[2].result == 1


def test_threads_that_are_gone_leave_nobody_waiting() -> None:
    class Gone:
        async def run(self, work: Callable[[], Any]) -> Any:
            raise RuntimeError("stopped")

    batched = Batched(Gone())
    for _ in range(2):
        with pytest.raises(RuntimeError, match="stopped"):
            now(batched.run(lambda: 1))
