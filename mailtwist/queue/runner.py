"""The runner: has what is due delivered, fresh messages at once and the others by their times.

A message comes in one of two ways. Fresh from intake, with its content in memory and its
rows leased from the first (:meth:`Runner.reserve`, :meth:`Runner.take`); or claimed from
the table (:mod:`.claimer`), when it waited there. From then on both are alike
(:mod:`.dispatch`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailtwist.errors import MailError
from mailtwist.queue import verdict
from mailtwist.queue.awaited import Awaited
from mailtwist.queue.claimer import LEASE_US, Claimer
from mailtwist.queue.delivery import Delivery
from mailtwist.queue.dispatch import Dispatch
from mailtwist.queue.lanes import Job
from mailtwist.queue.leadership import Leadership
from mailtwist.queue.ports import Reports, Router
from mailtwist.queue.recorder import Recorder
from mailtwist.queue.schedule import SECOND, Rules
from mailtwist.queue.tending import Tending
from mailtwist.queue.window import Held
from mailtwist.store.queue import claims
from mailtwist.store.queue.destinations import DestinationState
from mailtwist.store.queue.values import Lease, Message

if TYPE_CHECKING:
    from mailtwist.config import Settings

log = Logger()

DRAIN_S: Final = 10.0


class Runner:
    """One in a process; ``clock`` is the reactor's."""

    def __init__(
        self,
        database: Any,
        *,
        settings: Settings,
        clock: Any,
        router: Router,
        delivery: Delivery,
        reports: Reports,
    ) -> None:
        queue, outbound = settings.queue, settings.outbound
        rules = Rules(
            tuple(queue.retry_schedule), queue.max_retries, int(queue.delay_warning * SECOND)
        )
        self._database = database
        self._clock = clock
        self._leadership = Leadership(database, clock)
        self.awaited = Awaited(clock)
        self._recorder = Recorder(
            database, reports, clock=clock, rules=rules, wake=self.wake, awaited=self.awaited
        )
        self._dispatch = Dispatch(
            clock=clock,
            router=router,
            delivery=delivery,
            recorder=self._recorder,
            rules=rules,
            max_sessions=queue.max_workers,
            per_domain=outbound.per_domain,
            rate=outbound.rate,
            give_back=self._return,
            on_room=self.wake,
            on_deferred=self._expect,
        )
        self._claimer = Claimer(database, self._dispatch, self._leadership, clock)
        self._tending = Tending(
            database,
            self._dispatch,
            self._leadership,
            self._recorder,
            rules=rules,
            clock=clock,
            wake=self.wake,
        )
        self._reserved: dict[int, Held] = {}
        self._returning: set[Deferred[None]] = set()
        self._unwatch: Any = None

    @property
    def is_running(self) -> bool:
        return self._claimer.is_running

    @property
    def is_leader(self) -> bool:
        """Whether this process takes messages out of the table (on SQLite one does)."""
        return self._leadership.is_held

    @property
    def active(self) -> int:
        """Messages in memory, under way or about to be."""
        return self._dispatch.window.messages

    @property
    def sessions(self) -> int:
        """Connections that are open or being opened."""
        return self._dispatch.sessions

    # -- life -------------------------------------------------------------------------------

    async def start(self) -> None:
        """Free what an earlier process left leased, and begin. The database is started."""
        self._unwatch = self._database.changes.watch("queue", self._claimer.hear)
        await self._tending.start()
        self._claimer.start()

    async def stop(self, drain_s: float = DRAIN_S) -> None:
        """Begin nothing more, let messages under way end, give back the rest."""
        if self._unwatch is not None:
            self._unwatch()
        await self._claimer.stop()
        self.awaited.close()
        self._recorder.end()
        await self._tending.stop()
        await self._dispatch.stop(drain_s)
        for returning in tuple(self._returning):
            await returning
        await self._leadership.give_up()

    async def take_over(self) -> None:
        """The process that held the lease has given it up."""
        if self._claimer.is_running:
            await self._tending.keep()

    def wake(self) -> None:
        """Rows may be due."""
        self._claimer.wake()

    def _expect(self, due_at: int) -> None:
        self._claimer.expect(due_at)

    async def run_once(self, queue_id: int | None = None) -> None:
        """Try once all that is due, or all of one message that waits, and wait for the outcome.

        Works without :meth:`start`. Raises: MailError when the store cannot be asked.
        """
        if queue_id is not None:
            await self._dispatch.ended(await self._claimer.claim_message(queue_id))
            return
        jobs: list[Job] = []
        while await self._claimer.claim(jobs) or (self._dispatch.is_short and self._dispatch.jobs):
            if self._dispatch.is_short:
                self._dispatch.is_short = False
                await self._dispatch.ended(list(self._dispatch.jobs)[:1])
        # What was being claimed when we began is in the lanes by now: our claim came behind it.
        await self._dispatch.ended([*jobs, *self._dispatch.jobs])

    # -- fresh from intake ------------------------------------------------------------------

    def reserve(self, message: Message, octets: int) -> Lease | None:
        """A lease for a message that is about to be written; None: its rows are to wait."""
        if not (self._claimer.is_running and self._leadership.is_held):
            return None
        if not self._dispatch.has_room(message, octets):
            if self._dispatch.is_down(message):
                self.awaited.give_up(message.queue_id)
            return None
        self._reserved[message.queue_id] = self._dispatch.window.take(octets)
        return Lease(self._database.ids.node_id, self._dispatch.now() + LEASE_US)

    def take(self, message: Message, data: bytes | None, lease: Lease) -> None:
        """The message is committed under the lease; ``data``: its content, if at hand."""
        held = self._reserved.pop(message.queue_id)
        self._dispatch.admit(message, data, held, lease.until)

    def give_back(self, message: Message) -> None:
        """The commit failed: there are no rows."""
        self._reserved.pop(message.queue_id).end()

    # -- not now ------------------------------------------------------------------------------

    def _return(self, jobs: Sequence[Job], states: dict[str, DestinationState]) -> None:
        """Let leased rows wait again, untried."""
        returning = Deferred.fromCoroutine(self._write_return(jobs, states))
        self._returning.add(returning)
        returning.addErrback(_log_failure)
        returning.addBoth(lambda _: self._returning.discard(returning))

    async def _write_return(self, jobs: Sequence[Job], states: dict[str, DestinationState]) -> None:
        now = self._dispatch.now()
        if not states:
            keys = [key for job in jobs for key in job.keys]
            node_id = self._database.ids.node_id
            await self._database.write(lambda c: claims.give_back(c, node_id, keys, now))
            return
        for job in jobs:
            attempts = tuple(verdict.untried(each, now=now) for each in job.message.recipients)
            names = {each.destination for each in job.message.recipients}
            own = {name: state for name, state in states.items() if name in names}
            await self._recorder.record(job.message, attempts, states=own)
            job.lane.tell(own, self._dispatch.now())


def _log_failure(failure: Any) -> None:
    # The leases run out by themselves.
    if failure.check(MailError):
        log.info("rows stay leased for a while: {detail}", detail=str(failure.value))
    else:
        log.failure("rows stay leased for a while", failure)
