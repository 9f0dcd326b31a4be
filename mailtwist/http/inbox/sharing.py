"""One piece of work for all who ask for the same at the same time."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred

T = TypeVar("T")


class Shared(Generic[T]):
    """Nothing is kept: who comes after the work has ended has it done anew."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, list[Deferred[T]]] = {}

    async def get(self, key: Hashable, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What ``make`` gives or raises. Whoever goes away takes it from nobody else."""
        mine: Deferred[T] = Deferred()
        others = self._waiting.get(key)
        if others is not None:
            others.append(mine)
        else:
            self._waiting[key] = [mine]
            Deferred.fromCoroutine(make()).addBoth(self._give, key)
        return await mine

    def _give(self, result: Any, key: Hashable) -> None:
        for each in self._waiting.pop(key):
            if not each.called:
                each.callback(result)
