"""When the table is looked at, and how much is taken out of it.

There is one timer: for the time at which a destination is due. It never waits long, since
another process may have written rows without a word. What the lanes have no room for stays
in the table.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailtwist.errors import MailError
from mailtwist.queue.dispatch import Dispatch
from mailtwist.queue.lanes import Job
from mailtwist.queue.leadership import Leadership
from mailtwist.queue.schedule import SECOND
from mailtwist.store.engine import Connection
from mailtwist.store.queue import claims
from mailtwist.store.queue.values import Message

log = Logger()

LEASE_US: Final = 600 * SECOND
# Rows that are written one by one are claimed a few together.
GATHER_S: Final = 0.02
LOOK_S: Final = 2.0
# What is due cannot be had: others have it, or there is no room.
AGAIN_S: Final = 1.0
UNWELL_S: Final = 5.0
DESTINATIONS: Final = 20
CHECK_S: Final = 1.0


class Claimer:
    def __init__(
        self, database: Any, dispatch: Dispatch, leadership: Leadership, clock: Any
    ) -> None:
        self._database = database
        self._dispatch = dispatch
        self._leadership = leadership
        self._clock = clock
        self._timer: Any = None
        self._working: Deferred[None] | None = None
        self._must_look = False
        self._must_check = False
        self._checked_at = 0.0
        self.is_running = False

    def start(self) -> None:
        self.is_running = True
        self._arm(0.0)

    async def stop(self) -> None:
        """Claim nothing more; what is being claimed is in the lanes on return."""
        self.is_running = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._working is not None:
            await self._working

    def wake(self) -> None:
        """Rows may be due."""
        if self._working is not None:
            self._must_look = True
        else:
            self._arm(GATHER_S)

    def hear(self) -> None:
        """Somebody changed the queue: what waits in the lanes may have been withdrawn."""
        self._must_check = True
        self.wake()

    def expect(self, due_at: int) -> None:
        """Something will be due at a time."""
        if self._working is None:
            self._arm(max(0.0, due_at / SECOND - self._clock.seconds()))
        else:
            self._must_look = True

    def _arm(self, delay: float) -> None:
        """Look after so long, or earlier."""
        if not self.is_running:
            return
        if self._timer is not None:
            if self._timer.getTime() <= self._clock.seconds() + delay:
                return
            self._timer.cancel()
        self._timer = self._clock.callLater(delay, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._must_look = False
        working = self._working = Deferred.fromCoroutine(self._work())
        working.addErrback(lambda failure: log.failure("claiming failed", failure))
        if working.called:
            self._working = None

    async def _work(self) -> None:
        delay = UNWELL_S
        try:
            delay = await self._look()
        except MailError as error:
            log.info("the queue is not read: {detail}", detail=error.detail or error.text)
        finally:
            self._working = None
            self._arm(GATHER_S if self._must_look else delay)

    async def _look(self) -> float:
        """Claim what is due and has room; how long to wait until the next look."""
        if not self._leadership.is_held:
            return LOOK_S
        if self._must_check:
            await self._withdraw()
        due_at = await self._database.read(claims.next_due)
        if due_at is not None and due_at <= self._dispatch.now():
            # Where much is given back at once, there is always more.
            while self.is_running and await self.claim():
                pass
            due_at = await self._database.read(claims.next_due)
        if due_at is None:
            return LOOK_S
        left = (due_at - self._dispatch.now()) / SECOND
        return min(left, LOOK_S) if left > 0 else AGAIN_S

    async def claim(self, jobs: list[Job] | None = None) -> bool:
        """One helping; False: nothing is due, or there is no room. The new jobs join ``jobs``."""
        dispatch = self._dispatch
        room = dispatch.window.room
        if room < DESTINATIONS:
            dispatch.is_short = True
            return False
        full = dispatch.lanes.full_destinations()
        now = dispatch.now()
        until = now + LEASE_US

        def work(connection: Connection) -> list[Message]:
            return claims.claim(
                connection,
                node_id=self._database.ids.node_id,
                now=now,
                lease_until=until,
                destinations=DESTINATIONS,
                per_destination=min(room // DESTINATIONS, DESTINATIONS),
                skip=full,
            )

        messages = await self._database.write(work)
        admitted = dispatch.admit_claimed(messages, claimed_at=now, lease_until=until)
        if jobs is not None:
            jobs += admitted
        return bool(messages)

    async def claim_message(self, queue_id: int) -> list[Job]:
        """All of one message that waits, due or not."""
        dispatch = self._dispatch
        now = dispatch.now()
        until = now + LEASE_US

        def work(connection: Connection) -> list[Message]:
            return claims.claim_message(
                connection,
                queue_id,
                node_id=self._database.ids.node_id,
                now=now,
                lease_until=until,
            )

        messages = await self._database.write(work)
        return dispatch.admit_claimed(messages, claimed_at=now, lease_until=until, by_force=True)

    async def _withdraw(self) -> None:
        """Drop from the lanes what was deleted or is held since."""
        now = self._clock.seconds()
        keys = {key for job in self._dispatch.lanes.waiting() for key in job.keys}
        if not keys:
            self._must_check = False
        elif now - self._checked_at >= CHECK_S:
            self._must_check = False
            self._checked_at = now
            node_id = self._database.ids.node_id
            gone = await self._database.read(lambda c: claims.withdrawn(c, node_id, keys))
            if gone:
                self._dispatch.withdraw(gone)
