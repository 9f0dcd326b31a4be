"""Who runs the queue: on SQLite one process, on PostgreSQL each node.

On SQLite the claimer holds the lease "queue". A process that was killed leaves it behind;
its successor on the same machine sees that the process is gone and does not wait.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.logger import Logger

from mailtwist.errors import MailError
from mailtwist.queue.schedule import SECOND
from mailtwist.store import ids, lease
from mailtwist.store.engine import Connection
from mailtwist.store.queue import claims

log = Logger()

LEASE: Final = "queue"
LEASE_S: Final = 30.0
RENEW_S: Final = 10.0


class Leadership:
    """``is_held``: whether rows may be claimed; always on PostgreSQL."""

    def __init__(self, database: Any, clock: Any) -> None:
        self._database = database
        self._clock = clock
        self._is_shared = not database.engine.is_sqlite
        self._has_begun = False
        self.is_held = False

    async def renew(self) -> bool:
        """Take or keep the lease, and free what a former holder left; True: it is new."""
        if self._is_shared and self.is_held:
            return False
        try:
            is_held = await self._database.write(self._take)
        except MailError as error:
            # The rows stay leased; without the lease for long another process takes over.
            log.info("the queue's lease was not renewed", detail=error.detail or error.text)
            return False
        is_new = is_held and not self.is_held
        self._has_begun = self._has_begun or is_held
        self.is_held = is_held
        return is_new

    def _take(self, connection: Connection) -> bool:
        now = int(self._clock.seconds() * SECOND)
        node_id = self._database.ids.node_id
        running = ids.running(connection, ids.now_us())
        if not self._is_shared:
            holder = lease.holder(connection, LEASE, now)
            if holder is not None and holder != node_id and holder not in running:
                lease.release(connection, LEASE, holder)
            if not lease.take(connection, LEASE, node_id, now=now, seconds=LEASE_S):
                return False
        if not self._has_begun:
            # The number may have been another process's before.
            claims.disown(connection, node_id, now)
        if not self.is_held:
            claims.reclaim(connection, now, running | {node_id})
        return True

    async def reclaim(self) -> None:
        """Free what nodes left that are gone. Raises: MailError."""
        await self._database.write(self._reclaim)

    def _reclaim(self, connection: Connection) -> None:
        now = int(self._clock.seconds() * SECOND)
        living = ids.running(connection, ids.now_us()) | {self._database.ids.node_id}
        claims.reclaim(connection, now, living)

    async def give_up(self) -> None:
        """End all leases of this node. Raises nothing."""
        self.is_held = False
        try:
            await self._database.write(self._end)
        except MailError as error:
            log.info("the queue's lease was left behind", detail=error.detail or error.text)

    def _end(self, connection: Connection) -> None:
        node_id = self._database.ids.node_id
        claims.disown(connection, node_id, int(self._clock.seconds() * SECOND))
        lease.release(connection, LEASE, node_id)
