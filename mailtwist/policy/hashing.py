"""Turns at the processor for key derivations, so that logins cannot starve the mail.

A derivation keeps a processor busy for 60 ms. Two run at once, in a pool of their own;
who finds too many waiting is refused at once instead of waiting for ever.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from mailtwist.errors import MailError, TemporaryFailure

log = Logger()

T = TypeVar("T")

THREADS: Final = 2
# At 30 ms each the last one waits 8 s.
MAX_WAITING: Final = 256


class Derivation(Protocol):
    """Runs a function that keeps a processor busy, somewhere it does no harm."""

    async def run(self, work: Callable[[], T]) -> T: ...


class Inline:
    """Runs it here and now: the command line and tests."""

    async def run(self, work: Callable[[], T]) -> T:
        return work()


class Threads:
    """Runs it in a pool of two threads, which start at the first need."""

    def __init__(
        self, reactor: IReactorFromThreads, threads: int = THREADS, name: str = "passwords"
    ) -> None:
        self._reactor = reactor
        self._pool = ThreadPool(minthreads=0, maxthreads=threads, name=name)

    async def run(self, work: Callable[[], T]) -> T:
        if not self._pool.started:
            self._pool.start()
        result: T = await deferToThreadPool(self._reactor, self._pool, work)
        return result

    def close(self) -> None:
        """Wait for what runs and end the threads."""
        if self._pool.started:
            self._pool.stop()


def too_many(waiting: int) -> TemporaryFailure:
    """Make the refusal of a login that would have to wait too long."""
    # RFC 4954 §4.7.6
    return TemporaryFailure(
        "Too many logins at once, try again later",
        detail=f"{waiting} logins wait",
        code=454,
        status="4.7.0",
        imap_code="UNAVAILABLE",
    )


class Turns:
    """Lets two in at once and a bounded number wait, in the order they came."""

    def __init__(self, at_once: int = THREADS, waiting: int = MAX_WAITING) -> None:
        self._free = at_once
        self._bound = waiting
        self._waiting: deque[Deferred[None]] = deque()
        self._present: Counter[str] = Counter()
        self._passing = False

    async def take(self, peer: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run ``work`` when it is its turn. Raises: TemporaryFailure when too many wait.

        No single peer may fill more than half of the queue.
        """
        waiting = len(self._waiting)
        if waiting >= self._bound or self._present[peer] >= max(self._bound // 2, 1):
            raise too_many(waiting)
        self._present[peer] += 1
        try:
            await self._turn()
            return await shielded(self._then_pass_on(work()))
        finally:
            self._present[peer] -= 1
            if not self._present[peer]:
                del self._present[peer]

    async def _turn(self) -> None:
        if self._free and not self._waiting:
            self._free -= 1
            return
        mine: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(mine)
        await mine

    async def _then_pass_on(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return await work
        finally:
            self._free += 1
            self._pass_on()

    def _pass_on(self) -> None:
        # A loop, not a call from one to the next: who is refused at once passes on at
        # once, and hundreds may be.
        if self._passing:
            return
        self._passing = True
        try:
            while self._free and self._waiting:
                self._free -= 1
                self._waiting.popleft().callback(None)
        finally:
            self._passing = False


def shielded(work: Coroutine[Any, Any, T]) -> Deferred[T]:
    """Run ``work`` to its end even when who waits for it is cancelled.

    A thread can't be called back: a peer that hangs up must not free the turn that
    its derivation still uses, nor escape the count of its bad login.
    """
    waiting: Deferred[T] = Deferred()

    def hand_over(result: Any) -> None:
        if not waiting.called:
            waiting.callback(result)
        elif isinstance(result, Failure) and not result.check(MailError):
            log.failure("abandoned login failed", result)

    Deferred.fromCoroutine(work).addBoth(hand_over)
    return waiting
