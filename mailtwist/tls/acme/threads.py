"""Where orders block: threads that nobody waits for at the end of the process.

An authority may take minutes; a pool's threads would keep a server that stops from ending.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from threading import Event, Thread
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailtwist.errors import MailError
from mailtwist.tls.acme.values import OrderFailed

log = Logger()

T = TypeVar("T")


class Threads(Protocol):
    """Runs a function that blocks, somewhere it does no harm."""

    async def run(self, work: Callable[[], T]) -> T: ...


class Daemons:
    """A thread for each piece of work; who uses it bounds how many there are."""

    def __init__(self, reactor: IReactorFromThreads) -> None:
        self._reactor = reactor

    async def run(self, work: Callable[[], T]) -> T:
        done: Deferred[T] = Deferred()

        def hand_over(result: T | Failure) -> None:
            if not done.called:
                done.callback(result)

        def run() -> None:
            result: T | Failure
            try:
                result = work()
            except Exception:
                result = Failure()
            self._reactor.callFromThread(hand_over, result)

        Thread(target=run, name="acme", daemon=True).start()
        return await done


class Steps:
    """The steps of orders, until the process stops. ``stop``: for those that wait inside one."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self.stop = Event()

    async def run(self, work: Callable[[], T]) -> T:
        """Raises: OrderFailed once the process stops."""
        if self.stop.is_set():
            raise OrderFailed("the server stops")
        return await self._threads.run(work)

    async def run_anyway(self, work: Callable[[], T]) -> T:
        """The same for what leaves nothing behind."""
        return await self._threads.run(work)


def shielded(work: Coroutine[Any, Any, T]) -> Deferred[T]:
    """Run ``work`` to its end even when who waits for it goes away."""
    waiting: Deferred[T] = Deferred()

    def hand_over(result: Any) -> None:
        if not waiting.called:
            waiting.callback(result)
        elif isinstance(result, Failure) and not result.check(MailError):
            log.failure("an order that nobody waits for failed", result)

    Deferred.fromCoroutine(work).addBoth(hand_over)
    return waiting
