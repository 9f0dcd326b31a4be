"""Logins that live, and their end when what they stand on is gone.

A hint that accounts changed (:mod:`mailtwist.store.changes`) makes the back-end be asked again
about everybody who is logged in, at most once a second however often accounts change.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from itertools import islice
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailtwist.errors import MailError
from mailtwist.policy.backends import Backend
from mailtwist.store.engine import Connection
from mailtwist.store.logins import Active

log = Logger()

# A password is changed once, quotas of many accounts at a time: those share one look.
LOOK_AFTER_S: Final = 1.0
# Names asked about in one read; the readers have others to serve.
AT_ONCE: Final = 200
RETRY_S: Final = 10.0
# A login takes less; what it was read from may have changed before it is entered here.
LOGIN_S: Final = 30.0

Gone = Callable[[], object]


class Presence:
    """Of one authenticator. Everything here runs on the reactor's thread, save one read."""

    def __init__(self, database: Any, backend: Backend, clock: Any) -> None:
        self._database = database
        self._backend = backend
        self._clock = clock
        self._present: dict[Active, dict[int, Gone]] = {}
        self._number = 0
        self._is_planned = False
        self._is_stale = False
        self._changed_at = -LOGIN_S
        database.changes.watch("account", self.recheck)

    def enter(self, who: Active, gone: Gone) -> Callable[[], None]:
        """Somebody is here; ``gone()`` is called once when he may be no longer."""
        self._number += 1
        number = self._number
        self._present.setdefault(who, {})[number] = gone
        if not self._is_planned and self._clock.seconds() - self._changed_at < LOGIN_S:
            self._plan(LOOK_AFTER_S)

        def leave() -> None:
            sessions = self._present.get(who)
            if sessions is None or sessions.pop(number, None) is None:
                return
            if not sessions:
                del self._present[who]

        return leave

    def recheck(self) -> None:
        """Look soon whether all are still who they were."""
        self._is_stale = True
        self._changed_at = self._clock.seconds()
        if not self._is_planned and self._present:
            self._plan(LOOK_AFTER_S)

    def _plan(self, seconds: float) -> None:
        self._is_planned = True
        self._clock.callLater(seconds, self._begin)

    def _begin(self) -> None:
        looking: Coroutine[Any, Any, None] = self._look()
        Deferred.fromCoroutine(looking).addErrback(self._failed)

    async def _look(self) -> None:
        self._is_stale = False
        present = iter(tuple(self._present))
        while names := tuple(islice(present, AT_ONCE)):
            ended = await self._database.read(partial(self._ended, names=names))
            for who in ended:
                for gone in tuple(self._present.pop(who, {}).values()):
                    _tell(gone)
        self._is_planned = False
        if self._is_stale and self._present:  # by a change that came meanwhile
            self._plan(LOOK_AFTER_S)

    def _ended(self, connection: Connection, names: tuple[Active, ...]) -> list[Active]:
        return [who for who in names if self._backend.find(connection, who.username) != who]

    def _failed(self, failure: Failure) -> None:
        if failure.check(MailError):
            log.info("logins are looked at later", detail=str(failure.value))
        else:
            log.failure("logins could not be looked at", failure)
        self._plan(RETRY_S)


def _tell(gone: Gone) -> None:
    # One session that stumbles must not keep the others alive.
    try:
        gone()
    except Exception:
        log.failure("a session could not be ended")
