"""A reactor for tests with threads: a Clock, and calls from threads run when the test waits."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.support.settling import settled

T = TypeVar("T")

PATIENCE_S = 30.0


class PumpedReactor(Clock):
    """Time stands still until :meth:`advance`; threads are real.

    The turn of whoever calls is over at once, but in :meth:`turn`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._calls: queue.SimpleQueue[tuple[Callable[..., object], Any, Any]] = queue.SimpleQueue()
        # How many wake-ups the threads caused.
        self.woken = 0
        self._is_in_turn = False

    @contextmanager
    def turn(self) -> Iterator[None]:
        """One turn of the reactor: what is to be called without delay is called behind it."""
        self._is_in_turn = True
        yield
        self._is_in_turn = False
        self.advance(0)

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kw: object
    ) -> Any:
        made = super().callLater(delay, callable, *args, **kw)
        if not delay and not self._is_in_turn:
            self.advance(0)
        return made

    def callFromThread(self, call: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        self._calls.put((call, args, kwargs))

    def getThreadPool(self) -> PumpedReactor:
        return self

    def callInThreadWithCallback(
        self, on_result: Callable[[bool, Any], object], work: Callable[..., Any], *args: Any
    ) -> None:
        def run() -> None:
            try:
                result = work(*args)
            except BaseException:
                on_result(False, Failure())
            else:
                on_result(True, result)

        threading.Thread(target=run, daemon=True).start()

    def until(self, awaitable: Awaitable[T]) -> T:
        """Run calls from threads until this has its result."""
        return settled(awaitable, self.until_true)

    def until_true(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            try:
                call, args, kwargs = self._calls.get(timeout=deadline - time.monotonic())
            except (queue.Empty, ValueError):
                raise AssertionError("nothing more happens") from None
            self.woken += 1
            call(*args, **kwargs)
