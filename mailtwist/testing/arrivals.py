"""What came to a server since its inbox was emptied last, in the reactor.

A hint comes after each commit that tells of mail; what it was is then read in the order in
which it was written. Whoever waits asks for hints before he first looks, so nothing that comes
in between is missed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from mailtwist.testing.decoding import messages
from mailtwist.testing.wanted import NoMessage, Wanted

if TYPE_CHECKING:
    from mailtwist.store.arrivals import Arrival
    from mailtwist.store.database import Database
    from mailtwist.store.engine import Connection
    from mailtwist.testing.message import Message


class Arrivals:
    """One for a server. ``clock``: the reactor's."""

    def __init__(self, database: Database, clock: Any) -> None:
        self._database = database
        self._clock = clock
        self._from = 0  # the event behind which the inbox begins

    async def all(self) -> list[Message]:
        """Every message that is there, oldest first."""
        found, _ = await self._after(self._from)
        return found

    async def wait(self, wanted: Wanted, timeout: float) -> Message:
        """The newest message that fits, or the first that comes. Raises: NoMessage.

        ``timeout`` in seconds; 0: look once.
        """
        hints = _Hints(self._database.changes, self._clock)
        deadline = self._clock.seconds() + timeout
        seen: list[Message] = []
        newest, number = -1, self._from
        try:
            while True:
                new, number = await self._after(number)
                fitting = [message for message in new if wanted.fits(message)]
                if fitting:
                    return fitting[newest]
                seen += new
                newest = 0  # from now on the first that comes
                if not await hints.come(deadline):
                    raise NoMessage(wanted, timeout, seen)
        finally:
            hints.end()

    async def clear(self) -> None:
        """Remove all mail from all mailboxes of all accounts, and begin behind it."""
        from mailtwist.store import arrivals, events
        from mailtwist.store.ids import now_us

        # Looked at first: what comes meanwhile is removed or seen, and never only hidden.
        begins = await self._database.read(events.latest)
        for account_id in await self._database.read(arrivals.full_accounts):
            step = partial(arrivals.empty_step, account_id=account_id, now=now_us())
            while not await self._database.write(step, accounts=(account_id,)):
                pass
        self._from = begins

    async def _after(self, number: int) -> tuple[list[Message], int]:
        return await self._database.read(partial(_read, number=number))


def _read(connection: Connection, number: int) -> tuple[list[Message], int]:
    """What came behind an event, decoded in the reading thread, and the last event."""
    from mailtwist.store import arrivals

    copies: list[Arrival] = []
    while True:
        found, last = arrivals.after(connection, number)
        if last == number:
            return messages(copies), last
        copies, number = copies + found, last


class _Hints:
    """Wakes one that waits for mail."""

    def __init__(self, changes: Any, clock: Any) -> None:
        from mailtwist.store import events

        self._clock = clock
        self._has_come = False
        self._wake: Any = None
        self.end: Callable[[], None] = changes.watch(events.KIND, self._come)

    def _come(self) -> None:
        self._has_come = True
        if self._wake is not None:
            wake, self._wake = self._wake, None
            wake.callback(None)

    async def come(self, deadline: float) -> bool:
        """Whether there was a hint since the last one that was told, or comes until then."""
        from twisted.internet.defer import Deferred, TimeoutError

        left = deadline - self._clock.seconds()
        if not self._has_come and left > 0:
            self._wake = Deferred()
            try:
                await self._wake.addTimeout(left, self._clock)
            except TimeoutError:
                self._wake = None
        is_hint, self._has_come = self._has_come, False
        return is_hint
