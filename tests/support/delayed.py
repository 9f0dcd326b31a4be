"""A database whose answers come when the test says so, and one that fails when told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from mailtwist.store.database import Inline


class Delayed:
    """Every answer of an Inline database waits for `release`; the work itself is done at once.

    `holding` False lets answers through.
    """

    def __init__(self, inline: Inline) -> None:
        self.inline = inline
        self.holding = True
        self.waiting: list[Deferred[None]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inline, name)

    async def read(self, *args: Any, **rest: Any) -> Any:
        return await self._later(lambda: self.inline.read(*args, **rest))

    async def write(self, *args: Any, **rest: Any) -> Any:
        return await self._later(lambda: self.inline.write(*args, **rest))

    async def write_set(self, *args: Any, **rest: Any) -> Any:
        return await self._later(lambda: self.inline.write_set(*args, **rest))

    async def _later(self, work: Callable[[], Any]) -> Any:
        try:
            result, error = await work(), None
        except Exception as raised:
            result, error = None, raised
        if self.holding:
            gate: Deferred[None] = Deferred()
            self.waiting.append(gate)
            await gate
        if error is not None:
            raise error
        return result

    def release(self) -> int:
        """Let the answers that wait now come; how many there were."""
        gates, self.waiting = self.waiting, []
        for gate in gates:
            gate.callback(None)
        return len(gates)

    def release_all(self) -> None:
        while self.release():
            pass


class Failing:
    """Raises `error`, while it is set, from the methods that `method` names."""

    def __init__(self, inline: Inline, method: str = "write_set") -> None:
        self.inline = inline
        self.method = method
        self.error: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        if name == self.method and self.error is not None:
            return self._fail
        return getattr(self.inline, name)

    async def _fail(self, *args: Any, **rest: Any) -> Any:
        assert self.error is not None
        raise self.error
