"""A reactor of one's own with real sockets and real time, turned while a test waits."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from twisted.internet.epollreactor import EPollReactor

from tests.support.settling import settled

T = TypeVar("T")

PATIENCE_S = 30.0
_TURN_S = 0.05


class TurningReactor:
    """``reactor``: give it to what is tested. It never runs but in :meth:`until`."""

    def __init__(self) -> None:
        self.reactor: Any = EPollReactor()
        self.reactor.startRunning(installSignalHandlers=False)

    def until(self, awaitable: Awaitable[T]) -> T:
        """Its result, or what it raised."""
        return settled(awaitable, self.until_true)

    def until_true(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, "nothing more happens"
            self.reactor.iterate(_TURN_S)

    def close(self) -> None:
        """Close all sockets and threads; what is still to happen does not."""
        self.reactor.iterate(0)
        self.reactor.disconnectAll()
        self.reactor.iterate(0)
        for call in self.reactor.getDelayedCalls():
            call.cancel()
        self.reactor.fireSystemEvent("shutdown")
        self.reactor._poller.close()
