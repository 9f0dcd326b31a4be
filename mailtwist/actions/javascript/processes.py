"""The processes that are there: as many as work at once and one more, replaced as they end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from twisted.logger import Logger

from mailtwist.actions.javascript.worker import Limits, Worker

log = Logger()

# After a process that did not start, none is tried for so long.
PAUSE_S: Final = 5.0


class Processes:
    """``changed()`` is called when one has become ready, or is gone."""

    def __init__(
        self, reactor: Any, limits: Limits, count: int, changed: Callable[[], None]
    ) -> None:
        self._reactor, self._limits, self._count = reactor, limits, count
        self._changed = changed
        self._all: set[Worker] = set()
        self._idle: deque[Worker] = deque()
        self._pause_until = 0.0
        self._is_stopped = False

    def __len__(self) -> int:
        return len(self._all)

    @property
    def has_idle(self) -> bool:
        """Whether one is ready for a request."""
        return bool(self._idle)

    def take(self) -> Worker:
        """An idle one; it comes back by itself."""
        return self._idle.popleft()

    def staff(self) -> None:
        """Start what is missing, unless that failed a moment ago."""
        while not self._is_stopped and len(self._all) < self._count:
            if self._reactor.seconds() < self._pause_until or not self._start():
                break

    async def stop(self) -> None:
        """End all and wait until they are gone."""
        self._is_stopped = True
        workers = tuple(self._all)
        for worker in workers:
            worker.kill()
        for worker in workers:
            await worker.gone

    def _start(self) -> bool:
        worker = Worker(self._reactor, self._limits, self._ready, self._ended)
        try:
            worker.start()
        except OSError:
            log.failure("a JavaScript process does not start")
            self._pause()
            return False
        self._all.add(worker)
        return True

    def _ready(self, worker: Worker) -> None:
        self._idle.append(worker)
        self._changed()

    def _ended(self, worker: Worker) -> None:
        self._all.discard(worker)
        if worker in self._idle:
            self._idle.remove(worker)
        if not worker.is_started:
            self._pause()
        self._changed()

    def _pause(self) -> None:
        self._pause_until = self._reactor.seconds() + PAUSE_S
