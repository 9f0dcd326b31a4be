"""Certificates of authorities, renewed in time: at the start and then hourly, by one node.

When is the authority's word (RFC 9773), else thirty days before the end. What fails is tried
again after an hour, then two, four... up to a day; the row says why. A renewed certificate is in
use from the next handshake on, everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.logger import Logger

from mailtwist.errors import Conflict, MailError, NotFound
from mailtwist.net.periodic import Periodic
from mailtwist.store import acme, lease
from mailtwist.store.acme import Order
from mailtwist.store.database import Database
from mailtwist.tls.acme.issuance import RETRY_S, Issuance

log = Logger()

LEASE: Final = "acme"
EVERY_S: Final = 3600.0
# The listeners are up, and those who wait for them are served first.
FIRST_S: Final = 1.0
LEASE_S: Final = 3600.0
PAGE: Final = 50
# Between two certificates: an authority counts orders by the second too.
PAUSE_S: Final = 0.2
# At the end of the process.
STOP_S: Final = 3.0


class Renewal:
    """One in a process; ``clock`` is the reactor's, ``now`` in microseconds."""

    def __init__(
        self, database: Database, issuance: Issuance, *, clock: Any, now: Callable[[], int]
    ) -> None:
        self._database = database
        self._issuance = issuance
        self._clock = clock
        self._now = now
        self._sweeping = Periodic("renewal", self.sweep, every_s=EVERY_S, clock=clock)
        self._first: IDelayedCall | None = None

    def start(self) -> None:
        """Look soon, and then every hour."""
        self._first = self._clock.callLater(FIRST_S, self._sweeping.start, now=True)

    async def stop(self) -> None:
        """Begin nothing more, give orders under way a moment, give the lease back."""
        if self._first is not None and self._first.active():
            self._first.cancel()
        self._sweeping.cancel()
        await self._issuance.stop(self._clock, STOP_S)
        try:
            await self._database.write(self._release)
        except MailError:
            pass  # it runs out by itself

    def _release(self, connection: Any) -> None:
        lease.release(connection, LEASE, self._database.ids.node_id)

    async def sweep(self) -> None:
        """Renew what is due, one after the other, while this node holds the lease."""
        after = 0
        while await self._database.write(self._take):
            pending = await self._database.read(
                partial(acme.pending, now=self._now(), after=after, limit=PAGE)
            )
            for order in pending:
                await self._tend(order)
                if not await self._database.write(self._take):
                    return
                await deferLater(self._clock, PAUSE_S)
            if len(pending) < PAGE:
                return
            after = pending[-1].certificate_id

    def _take(self, connection: Any) -> bool:
        node = self._database.ids.node_id
        return acme.take_lease(connection, LEASE, node, now=self._now(), seconds=LEASE_S)

    async def _tend(self, order: Order) -> None:
        """Ask when it is to be renewed, and renew it when that is past."""
        try:
            if order.ask_at <= self._now() or order.renew_at is None:
                order = await self._issuance.ask_when(order)
            if order.renew_at is not None and order.renew_at <= self._now():
                await self._issuance.issue(order.reference_id, by_schedule=True)
        except (NotFound, Conflict) as error:
            log.info("{name}: {error}", name=order.hostname, error=error.text)
        except MailError as error:
            # An order that failed has put itself off; what could not even begin has not.
            await self._put_off(order, error)
        except CancelledError:
            raise
        except Exception:
            # Those behind it have their turn all the same.
            log.failure("no renewal of {name}", name=order.hostname)
            await self._put_off(order, MailError())

    async def _put_off(self, order: Order, error: MailError) -> None:
        known = await self._database.read(partial(acme.find, reference_id=order.reference_id))
        if known.retry_at > self._now():
            return
        log.warn("no renewal of {name}: {error}", name=order.hostname, error=error.text)
        retry_at = self._now() + int(RETRY_S * 1e6)
        await self._database.write(
            partial(
                acme.note_failure, order=order, error=error.text, retry_at=retry_at, held_until=0
            )
        )
