"""Housekeeping that one node does for all, in small steps, while it holds the lease.

Removed: what is left of removed accounts, counts of bad logins that mean nothing any more,
messages of the queue that are long finished, and captured mail, events and what was posted of
them, when they were kept long enough. (Octets that nothing refers to are the database's own
business.)
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.task import deferLater

from mailtwist.errors import MailError
from mailtwist.net.periodic import Periodic
from mailtwist.policy.lockout import WINDOW_S
from mailtwist.store import (
    accounts,
    events,
    failures,
    inbox,
    lease,
    mailboxes,
    rates,
    send_requests,
    webhooks,
)
from mailtwist.store.database import Database
from mailtwist.store.engine import Connection
from mailtwist.store.queue import sweep

LEASE: Final = "housekeeping"
EVERY_S: Final = 60.0
LEASE_S: Final = 180.0
# Between two steps, so that mail that arrives meanwhile does not wait behind them.
PAUSE_S: Final = 0.05
ACCOUNT_ROWS: Final = 500


class Housekeeping:
    """Runs the housekeeping once a minute; ``clock`` is the reactor's.

    ``keeps_delivered``: ``queue.keep_delivered_messages``; ``events_us``: how long events are
    kept; ``inbox_us``: how long captured mail is, 0: for ever.
    """

    def __init__(
        self,
        database: Database,
        clock: Any,
        *,
        keeps_delivered: bool = False,
        events_us: int = 0,
        inbox_us: int = 0,
    ) -> None:
        self._database = database
        self._clock = clock
        self._events_us = events_us
        self._inbox_us = inbox_us
        self._keeps_delivered = keeps_delivered
        self._sweeping = Periodic("housekeeping", self.sweep, every_s=EVERY_S, clock=clock)

    def start(self) -> None:
        self._sweeping.start()

    async def stop(self) -> None:
        """End after the step at hand and give the lease back."""
        self._sweeping.cancel()
        node = self._database.ids.node_id
        try:
            await self._database.write(lambda connection: lease.release(connection, LEASE, node))
        except MailError:
            pass  # it runs out by itself

    async def sweep(self) -> None:
        """Take the lease and work until nothing is left to do."""
        while await self._database.write(self._step):
            await deferLater(self._clock, PAUSE_S)

    def _step(self, connection: Connection) -> bool:
        """One short unit; True: there is more."""
        now = int(self._clock.seconds() * 1_000_000)
        node = self._database.ids.node_id
        if not lease.take(connection, LEASE, node, now=now, seconds=LEASE_S):
            return False
        failures.sweep(connection, now=now, window=WINDOW_S * 1_000_000)
        rates.sweep(connection, now=now)
        for account_id in accounts.removing(connection)[:1]:
            accounts.remove_step(connection, account_id, ACCOUNT_ROWS)
            return True
        # What a DELETE of a large mailbox left when its process ended on the way.
        for account_id, mailbox_id in mailboxes.deleted(connection, 1):
            mailboxes.remove_step(connection, account_id, mailbox_id, ACCOUNT_ROWS)
            return True
        if self._inbox_us and not inbox.sweep(connection, now, self._inbox_us):
            return True
        is_done = events.sweep(connection, now, self._events_us)
        is_done = webhooks.sweep(connection, now) and is_done
        is_done = send_requests.sweep(connection, now) and is_done
        return not (sweep.step(connection, now, self._keeps_delivered) and is_done)
