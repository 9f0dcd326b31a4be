"""Run a coroutine that must finish at once, as all do on an Inline database."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from twisted.internet.defer import Deferred

T = TypeVar("T")


def now(awaitable: Awaitable[T]) -> T:
    """Its result, or what it raised; a coroutine that waits for something fails the test."""

    async def run() -> T:
        return await awaitable

    outcome: list[T] = []
    failures: list[BaseException] = []
    waiting = Deferred.fromCoroutine(run())
    waiting.addCallbacks(outcome.append, lambda failure: failures.append(failure.value))
    if failures:
        raise failures[0]
    assert outcome, "the coroutine waits for something"
    return outcome[0]
