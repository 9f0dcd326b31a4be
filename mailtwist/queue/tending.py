"""What the queue needs now and then: leases kept and freed, delays told, messages expired."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from twisted.logger import Logger

from mailtwist.net.periodic import Periodic
from mailtwist.queue import verdict
from mailtwist.queue.claimer import LEASE_US
from mailtwist.queue.dispatch import Dispatch
from mailtwist.queue.leadership import RENEW_S, Leadership
from mailtwist.queue.recorder import Abandoned, Recorder
from mailtwist.queue.schedule import SECOND, Rules
from mailtwist.store.engine import Connection
from mailtwist.store.queue import claims
from mailtwist.store.queue.values import Message

log = Logger()

ATTEND_S: Final = 30.0
RECLAIM_S: Final = 60.0
ATTENDED: Final = 50
# A message that expired while some of its recipients are held is looked at again after so long.
HELD_US: Final = 600 * SECOND


class Tending:
    """``wake``: called when this process has become the one that runs the queue."""

    def __init__(
        self,
        database: Any,
        dispatch: Dispatch,
        leadership: Leadership,
        recorder: Recorder,
        *,
        rules: Rules,
        clock: Any,
        wake: Callable[[], None],
    ) -> None:
        self._database = database
        self._dispatch = dispatch
        self._leadership = leadership
        self._recorder = recorder
        self._rules = rules
        self._clock = clock
        self._wake = wake
        self._kept_at = 0.0
        self._attended_at = 0.0
        self._reclaimed_at = 0.0
        self._is_ending = False
        self._timer = Periodic("tending the queue", self._tend, every_s=RENEW_S, clock=clock)

    async def start(self) -> None:
        """Take the lease if it is to be had."""
        self._reclaimed_at = self._clock.seconds()
        await self._leadership.renew()
        if not self._leadership.is_held:
            log.info("another process runs the queue; this one stands by")
        self._timer.start()

    async def stop(self) -> None:
        self._is_ending = True
        await self._timer.finish()

    async def _tend(self) -> None:
        if not await self.keep():
            return
        now = self._clock.seconds()
        if now - self._attended_at >= ATTEND_S:
            self._attended_at = now
            with suppress(Abandoned):
                await self.attend()
        if now - self._reclaimed_at >= RECLAIM_S:
            self._reclaimed_at = now
            await self._leadership.reclaim()

    async def keep(self) -> bool:
        """Keep what is leased; False: another process runs the queue."""
        self._kept_at = self._clock.seconds()
        if await self._leadership.renew():
            self._wake()
        if not self._leadership.is_held:
            return False
        await self._renew()
        return True

    async def _renew(self) -> None:
        """Prolong leases at half-time: of messages in long lanes, and of slow deliveries."""
        now = self._dispatch.now()
        jobs = [job for job in self._dispatch.jobs if job.lease_until - now < LEASE_US // 2]
        if not jobs:
            return
        until = now + LEASE_US
        keys = [key for job in jobs for key in job.keys]
        node_id = self._database.ids.node_id
        await self._database.write(lambda c: claims.renew(c, keys, until, node_id))
        for job in jobs:
            job.lease_until = until

    async def attend(self) -> None:
        """Tell of delays and return what expired. Raises: MailError, Abandoned."""
        while not self._is_ending:
            messages = await self._database.write(self._claim)
            for message in messages:
                await self._attend_to(message)
            if len(messages) < ATTENDED:
                return
            # A day's mail that is late may take minutes, and leases run out meanwhile.
            is_time = self._clock.seconds() - self._kept_at >= RENEW_S
            if is_time and not await self.keep():
                return

    def _claim(self, connection: Connection) -> list[Message]:
        now = self._dispatch.now()
        return claims.attend(
            connection,
            node_id=self._database.ids.node_id,
            now=now,
            lease_until=now + LEASE_US,
            limit=ATTENDED,
        )

    async def _attend_to(self, message: Message) -> None:
        now = self._dispatch.now()
        if now >= message.expires_at:
            attend_at = now + HELD_US
            attempts = [verdict.given_up(recipient, now) for recipient in message.recipients]
        else:
            attend_at = message.expires_at
            attempts = [
                verdict.untried(
                    recipient,
                    now=now,
                    is_warned=verdict.must_warn(message, recipient, self._rules, now),
                )
                for recipient in message.recipients
            ]
        await self._recorder.record(message, tuple(attempts), attend_at=attend_at)
