"""Whether mail can be taken now: the truth that ``/health`` tells.

It can while the store takes something and every listener for mail runs that is wanted. The
store is asked to commit something, at most once a second and by one question at a
time; who asks meanwhile gets the same answer. A store that does not answer in time is
not healthy either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from twisted.internet.defer import Deferred, TimeoutError

from mailtwist.errors import MailError
from mailtwist.store.engine import Connection
from mailtwist.store.listener_states import ListenerState
from mailtwist.store.writer import probe

T = TypeVar("T")

KEPT_S: Final = 1.0
ANSWER_S: Final = 3.0
# By which mail comes in.
SMTP: Final = frozenset({"smtp", "submission", "submissions", "lmtp"})


class Store(Protocol):
    async def write(self, work: Callable[[Connection], T]) -> T: ...


@dataclass(frozen=True, slots=True)
class Health:
    is_good: bool
    detail: str = ""


class StoreHealth:
    """Asks the store; ``clock`` is the reactor's."""

    def __init__(self, store: Store, clock: Any) -> None:
        self._store = store
        self._clock = clock
        self._found = Health(is_good=False, detail="not asked yet")
        self._asked_at: float | None = None
        self._waiting: list[Deferred[Health]] | None = None

    async def check(self) -> Health:
        """Return the state as found within the last second."""
        now = self._clock.seconds()
        if self._asked_at is not None and now - self._asked_at < KEPT_S:
            return self._found
        if self._waiting is not None:
            answer: Deferred[Health] = Deferred()
            self._waiting.append(answer)
            return await answer
        self._waiting = []
        try:
            await self._ask()
        finally:
            waiting, self._waiting = self._waiting, None
            for each in waiting:
                each.callback(self._found)
        return self._found

    async def _ask(self) -> None:
        asking = Deferred.fromCoroutine(self._store.write(probe))
        asking.addTimeout(ANSWER_S, self._clock)
        try:
            await asking
            self._found = Health(is_good=True)
        except MailError as error:
            self._found = Health(is_good=False, detail=error.text)
        except TimeoutError:
            self._found = Health(is_good=False, detail="no answer in time")
        self._asked_at = self._clock.seconds()


class ServerHealth:
    """``broken``: the listeners that are wanted and do not run."""

    def __init__(self, store: StoreHealth, broken: Callable[[], Iterable[ListenerState]]) -> None:
        self._store = store
        self._broken = broken

    async def check(self) -> Health:
        """Return the state as found within the last second."""
        found = await self._store.check()
        if not found.is_good:
            return Health(is_good=False, detail=f"Store: {found.detail}")
        for each in self._broken():
            if each.protocol in SMTP:
                return Health(is_good=False, detail=f"Listener {each.name}: {each.error}")
        return found
