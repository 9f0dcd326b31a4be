"""A look that is taken when something may have happened: when woken, and now and then anyway.

Never two looks at once; however often it is woken during one, one more follows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from mailtwist.errors import MailError

log = Logger()


class Turn:
    """``look`` tells after how many seconds it is to be called again, None: ``every_s``.

    ``pause_s``: between two looks at least.
    """

    def __init__(
        self,
        name: str,
        look: Callable[[], Awaitable[float | None]],
        *,
        every_s: float,
        clock: Any,
        pause_s: float = 0.02,
    ) -> None:
        self._name = name
        self._look = look
        self._every_s = every_s
        self._pause_s = pause_s
        self._clock = clock
        self._timer: Any = None
        self._looking: Deferred[None] | None = None
        self._is_looking = False
        self._is_woken = False
        self._is_running = False

    def start(self) -> None:
        """Look for the first time soon."""
        self._is_running = True
        self._call_in(self._pause_s)

    def wake(self) -> None:
        """Look soon."""
        if self._is_looking:
            self._is_woken = True
        elif self._is_running:
            self._call_in(self._pause_s)

    async def stop(self) -> None:
        """Look no more; what is under way is cut off."""
        self._is_running = False
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._looking is not None and self._is_looking:
            self._looking.cancel()

    def _call_in(self, seconds: float) -> None:
        at = self._clock.seconds() + seconds
        if self._timer is not None and self._timer.active():
            if self._timer.getTime() <= at:
                return
            self._timer.cancel()
        self._timer = self._clock.callLater(seconds, self._begin)

    def _begin(self) -> None:
        self._is_woken, self._is_looking = False, True
        self._looking = looking = Deferred.fromCoroutine(self._once())
        looking.addErrback(lambda failure: failure.trap(CancelledError) and None)

    async def _once(self) -> None:
        wait: float | None = None
        try:
            wait = await self._look()
        except CancelledError:
            raise
        except MailError as error:
            log.info("{name} put off: {detail}", name=self._name, detail=str(error))
        except Exception:
            log.failure("{name} failed", name=self._name)
        finally:
            self._is_looking = False
        if not self._is_running:
            return
        wait = self._every_s if wait is None else min(wait, self._every_s)
        self._call_in(self._pause_s if self._is_woken else max(wait, self._pause_s))
