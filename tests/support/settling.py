"""What tests wait for, on a reactor that somebody turns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


def settled(awaitable: Awaitable[T], until_true: Callable[[Callable[[], bool]], Any]) -> T:
    """Its result, or what it raised; ``until_true`` turns the reactor until a condition holds."""

    async def run() -> T:
        return await awaitable

    results: list[T] = []
    failures: list[Failure] = []
    Deferred.fromCoroutine(run()).addCallbacks(results.append, failures.append)
    until_true(lambda: bool(results or failures))
    if failures:
        failures[0].raiseException()
    return results[0]
