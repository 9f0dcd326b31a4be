"""A job that is done again and again on the reactor's thread, never twice at once."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailtwist.errors import MailError

log = Logger()


class Periodic:
    """``name``: for the log. Whatever the job raises, it is tried again at its next time."""

    def __init__(
        self, name: str, job: Callable[[], Coroutine[Any, Any, None]], *, every_s: float, clock: Any
    ) -> None:
        self._name = name
        self._job = job
        self._every_s = every_s
        self._timer = LoopingCall(self._begin)
        self._timer.clock = clock
        self._running: Deferred[None] | None = None

    def start(self, *, now: bool = False) -> None:
        """Do it for the first time at once, or after one interval."""
        self._timer.start(self._every_s, now=now)

    def cancel(self) -> None:
        """Do it no more, and cut off what is under way."""
        self._stop()
        if self._running is not None:
            self._running.cancel()

    async def finish(self) -> None:
        """Do it no more; what is under way has ended on return."""
        self._stop()
        if self._running is not None:
            await self._running

    def _stop(self) -> None:
        if self._timer.running:
            self._timer.stop()

    def _begin(self) -> None:
        if self._running is not None:
            return
        running = self._running = Deferred.fromCoroutine(self._job())
        running.addErrback(self._failed)
        running.addCallback(self._ended)

    def _ended(self, _: None) -> None:
        self._running = None

    def _failed(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        if failure.check(MailError):
            log.info("{name} put off", name=self._name, detail=str(failure.value))
        else:
            log.failure("{name} failed", failure, name=self._name)
