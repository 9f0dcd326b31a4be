"""Begin work whose result is awaited later: the next page while this one is written."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

T = TypeVar("T")

# What was begun: to be awaited, or dropped.
Ahead = Deferred


def ahead(work: Coroutine[Any, Any, T]) -> Ahead[T]:
    """Start ``work`` now. Whoever does not await the result gives it to :func:`drop`."""
    return Deferred.fromCoroutine(work)


def drop(work: Ahead[Any] | None) -> None:
    """Nobody wants the result any more, nor its error."""
    if work is not None:
        work.addErrback(lambda failure: None)
