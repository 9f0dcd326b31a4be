"""From a leased message to a written outcome: lanes, sessions, attempts.

A message stands in the lane of its next hop until one of the lane's sessions takes it; its
place in the window is free again after the record.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from mailtwist.errors import MailError
from mailtwist.queue import verdict
from mailtwist.queue.delivery import Delivery
from mailtwist.queue.lane_table import LaneTable
from mailtwist.queue.lanes import PENDING, Job, Lane, Line
from mailtwist.queue.pool import SERVED, Pool
from mailtwist.queue.ports import Router
from mailtwist.queue.recorder import Abandoned, Recorder
from mailtwist.queue.schedule import SECOND, Rules
from mailtwist.queue.values import RemoteReply, Undeliverable
from mailtwist.queue.window import Held, Window
from mailtwist.store.queue.destinations import DestinationState
from mailtwist.store.queue.values import Attempt, Message, Outcome, Recipient

log = Logger()

OUR_FAULT: Final = RemoteReply(451, "4.3.0", "Internal error, see the log", "", is_ours=True)
# RFC 3463 §3.5: bad connection; what we say ourselves when a session ends.
LOST: Final = "4.4.2"
# What a dead session says of a message that it never took (RFC 5321 §3.8).
BEFORE_CONTENT: Final = frozenset({"mail", "rcpt", "data"})

Answered = list[tuple[Recipient, RemoteReply]]
GiveBack = Callable[[Sequence[Job], dict[str, DestinationState]], None]


class Dispatch:
    """``give_back``: takes jobs that are not to be tried now, and what is known of their
    destinations. ``on_room``: called when more may be taken from the table, after
    :attr:`is_short` was set or :meth:`full_destinations` named a lane. ``on_deferred``: called
    with the time at which something will be due again.
    """

    def __init__(
        self,
        *,
        clock: Any,
        router: Router,
        delivery: Delivery,
        recorder: Recorder,
        rules: Rules,
        max_sessions: int,
        per_domain: int,
        rate: int,
        give_back: GiveBack,
        on_room: Callable[[], None],
        on_deferred: Callable[[int], None],
    ) -> None:
        self._clock = clock
        self._delivery = delivery
        self._recorder = recorder
        self._rules = rules
        self._give_back = give_back
        self._on_room = on_room
        self._on_deferred = on_deferred
        self._pool = Pool(
            clock, self._run, max_sessions=max_sessions, per_domain=per_domain, rate=rate
        )
        self.lanes = LaneTable(router, per_domain=per_domain)
        self.window = Window()
        self.is_short = False
        self.jobs: set[Job] = set()

    @property
    def sessions(self) -> int:
        """Connections that are open or being opened."""
        return self._pool.sessions

    def now(self) -> int:
        return int(self._clock.seconds() * SECOND)

    async def stop(self, drain_s: float) -> None:
        """Let messages under way end; what was not begun is dropped, its leases remain."""
        for lane in self.lanes:
            for job in lane.pop_all():
                self._end(job)
        await self._pool.stop(drain_s)

    # -- into the lanes -----------------------------------------------------------------------

    def has_room(self, message: Message, octets: int) -> bool:
        """Whether a fresh message can go straight to its next hops."""
        return self.window.has_room(octets) and self.lanes.has_room(message)

    def is_down(self, message: Message) -> bool:
        """Whether a next hop is known not to answer, so that the message waits for its time."""
        return self.lanes.is_down(message, self.now())

    def admit(self, message: Message, data: bytes | None, held: Held, lease_until: int) -> None:
        """Put a fresh message, leased, into the lanes of its next hops."""
        for job in self._jobs(message, data, held, lease_until):
            job.lane.put(job)
            self._pool.pump(job.lane)

    def admit_claimed(
        self,
        messages: Sequence[Message],
        *,
        claimed_at: int,
        lease_until: int,
        by_force: bool = False,
    ) -> list[Job]:
        """The same for messages that waited in the table.

        ``claimed_at``: when the claim began. ``by_force``: whatever is known of next hops.
        """
        admitted = []
        for message in _merged(messages):
            jobs = self._jobs(message, None, self.window.take(0), lease_until)
            admitted += jobs
            for job in jobs:
                job.claimed_at = claimed_at
                self._admit_unless_down(job, job.lane, by_force)
        return admitted

    def _admit_unless_down(self, job: Job, lane: Lane, by_force: bool) -> None:
        if lane.suspended_until > self.now():
            if not by_force and not lane.is_flushed(job):
                self._refuse([job], lane)
                return
            lane.suspended_until = 0
        lane.put(job)
        self._pool.pump(lane)

    def _jobs(
        self, message: Message, data: bytes | None, held: Held, lease_until: int
    ) -> list[Job]:
        parts = self.lanes.parts(message)
        held.jobs = len(parts)
        jobs = [Job(part, data, held, lease_until, lane) for lane, part in parts]
        self.jobs.update(jobs)
        return jobs

    def withdraw(self, keys: set[tuple[int, int]]) -> None:
        """Drop jobs that have not begun with any of these recipients, and give them back."""
        for lane in self.lanes:
            if not lane.pending:
                continue
            dropped = [job for job in lane.pop_all() if not self._keep(job, lane, keys)]
            if dropped:
                self._refuse(dropped, lane)

    def _keep(self, job: Job, lane: Lane, keys: set[tuple[int, int]]) -> bool:
        if not keys.isdisjoint(job.keys):
            return False
        lane.put(job)
        return True

    # -- out of them ------------------------------------------------------------------------------

    async def _run(self, lane: Lane, job: Job, line: Line) -> None:
        """Try one job, on the line's session or a new one, and write what came of it."""
        started_at = self.now()
        try:
            try:
                await self._connect(lane, job, line)
            except Undeliverable as failure:
                await self._unreachable(lane, job, line, failure, started_at)
                return
            answered = await self._offer(lane, job, line)
            if answered is not None:
                await self._settle(lane, job, line, answered, started_at)
        except (CancelledError, Abandoned):
            self._end(job)
        except MailError as error:
            log.warn(
                "a message could not be offered",
                queue_id=str(job.message.queue_id),
                detail=error.detail or error.text,
            )
            await self._stumble(job, line, started_at)
        except Exception:
            log.failure("a delivery failed", queue_id=str(job.message.queue_id))
            await self._stumble(job, line, started_at)

    async def _connect(self, lane: Lane, job: Job, line: Line) -> None:
        if line.session is not None:
            if line.session.is_open and line.served < SERVED:
                return
            session, line.session = line.session, None
            await session.quit()
        line.served = 0
        connecting = self._delivery.connect(
            lane.route,
            job.message.recipients[0].destination,
            hostname=job.message.hostname,
            is_strict=job.message.requiretls,
        )
        line.session = await self._pool.opened(line, connecting)

    async def _offer(self, lane: Lane, job: Job, line: Line) -> Answered | None:
        """What the host answers; None: the session had ended behind our back, once more."""
        session = line.session
        assert session is not None
        was_used = line.served > 0
        line.served += 1
        sending = self._delivery.send(session, job.message, job.data)
        if lane.is_proven:
            answered = await sending
        else:
            answered = await self._first_answered(line, job, sending)
        if was_used and not session.is_open and not job.is_retry and _never_began(answered):
            job.is_retry = True
            line.session = None
            lane.put_back(job)
            return None
        return answered

    async def _first_answered(
        self, line: Line, job: Job, sending: Coroutine[Any, Any, Answered]
    ) -> Answered:
        try:
            return await self._pool.answered(line, sending, job.message.octets)
        except Undeliverable as failure:
            return [(recipient, failure.reply) for recipient in job.message.recipients]

    async def _settle(
        self, lane: Lane, job: Job, line: Line, answered: Answered, started_at: int
    ) -> None:
        session = line.session
        assert session is not None
        attempts = verdict.judge(
            job.message,
            answered,
            self._rules,
            host=session.host,
            tls=session.tls,
            started_at=started_at,
            now=self.now(),
        )
        states: dict[str, DestinationState] = {}
        if self._pool.is_cut:
            attempts = tuple(_uncounted(attempt) for attempt in attempts)
        elif not _is_lost(answered):
            lane.succeeded()
        elif lane.is_losing():
            states = self._suspend(lane, job, answered[0][1])
        relayed_to_dsn = "DSN" in session.capabilities
        await self._record(job, line, attempts, relayed_to_dsn=relayed_to_dsn, states=states)
        if lane.pending:
            self._pool.pump(lane)

    async def _unreachable(
        self, lane: Lane, job: Job, line: Line, failure: Undeliverable, started_at: int
    ) -> None:
        now = self.now()
        reply = failure.reply
        states: dict[str, DestinationState] = {}
        if reply.code < 500:
            if lane.is_sated(now):
                lane.put_back(job)
                return
            states = self._suspend(lane, job, reply)
        attempts = verdict.judge(
            job.message,
            [(recipient, reply) for recipient in job.message.recipients],
            self._rules,
            host=failure.host,
            tls=failure.tls,
            started_at=started_at,
            now=now,
        )
        await self._record(job, line, attempts, states=states)

    def _suspend(self, lane: Lane, job: Job, reply: RemoteReply) -> dict[str, DestinationState]:
        """The hop is down: its lane is emptied; what the rows of the job's destinations say."""
        lane.failed(reply, waits=self._rules.waits, now=self.now())
        rest = lane.pop_all()
        if rest:
            self._refuse(rest, lane)
        return _states(lane, job.message.recipients)

    async def _stumble(self, job: Job, line: Line, started_at: int) -> None:
        """A bug, or a content that cannot be read: the message is tried again later."""
        session, line.session = line.session, None
        if session is not None:
            session.abort()
        attempts = verdict.judge(
            job.message,
            [(recipient, OUR_FAULT) for recipient in job.message.recipients],
            self._rules,
            host=None,
            tls="",
            started_at=started_at,
            now=self.now(),
        )
        try:
            await self._record(job, line, attempts)
        except (CancelledError, Abandoned):
            self._end(job)
        except Exception:
            # The lease runs out, and somebody tries again.
            log.failure("an outcome was not written", queue_id=str(job.message.queue_id))
            self._end(job)

    async def _record(
        self,
        job: Job,
        line: Line,
        attempts: tuple[Attempt, ...],
        *,
        relayed_to_dsn: bool = False,
        states: dict[str, DestinationState] | None = None,
    ) -> None:
        job.data = None
        line.is_recording = True
        try:
            await self._recorder.record(
                job.message, attempts, relayed_to_dsn=relayed_to_dsn, states=states or {}
            )
        finally:
            line.is_recording = False
        if states:
            job.lane.tell(states, self.now())
        self._end(job)
        due_at = min([each.due_at for each in attempts if each.due_at], default=0)
        if due_at:
            self._on_deferred(due_at)

    def _refuse(self, jobs: Sequence[Job], lane: Lane) -> None:
        self._give_back(jobs, _states(lane, [r for job in jobs for r in job.message.recipients]))
        for job in jobs:
            self._end(job)

    async def ended(self, jobs: Sequence[Job]) -> None:
        """Wait until nothing is left to do for them."""
        for job in jobs:
            if job in self.jobs:
                job.ended = job.ended or Deferred()
                # Others may wait for the same one.
                waiting: Deferred[None] = Deferred()
                job.ended.chainDeferred(waiting)
                await waiting

    def _end(self, job: Job) -> None:
        if job not in self.jobs:
            return
        self.jobs.discard(job)
        job.held.end()
        ended, job.ended = job.ended, None
        if ended is not None:
            ended.callback(None)
        lane = job.lane
        if lane.was_skipped and lane.pending * 2 < PENDING:
            lane.was_skipped = False
            self._on_room()
        elif self.is_short and self.window.is_ample:
            self.is_short = False
            self._on_room()


def _merged(messages: Sequence[Message]) -> list[Message]:
    """A message's recipients at several destinations, in one value."""
    merged: dict[int, Message] = {}
    for message in messages:
        known = merged.get(message.queue_id)
        if known is None:
            merged[message.queue_id] = message
        else:
            recipients = known.recipients + message.recipients
            merged[message.queue_id] = replace(known, recipients=recipients)
    return list(merged.values())


def _never_began(answered: Answered) -> bool:
    """Whether all that a session said is that it is over (RFC 5321 §3.8: 421 at any time)."""
    return all(
        reply.stage in BEFORE_CONTENT and (reply.is_ours or reply.code == 421)
        for _, reply in answered
    )


def _is_lost(answered: Answered) -> bool:
    """Whether the host said nothing of the message: the session ended or was silent."""
    return all(reply.is_ours and reply.status == LOST for _, reply in answered)


def _uncounted(attempt: Attempt) -> Attempt:
    """An attempt that we broke off ourselves is none."""
    if attempt.outcome is not Outcome.DEFERRED or not attempt.is_ours:
        return attempt
    return replace(attempt, is_counted=False, due_at=0)


def _states(lane: Lane, recipients: Sequence[Recipient]) -> dict[str, DestinationState]:
    """What the destinations' rows are to say of a hop that is down."""
    if not lane.failures:
        return {}
    names = {recipient.destination for recipient in recipients}
    return {
        name: DestinationState(name, lane.suspended_until, lane.failures, lane.reply)
        for name in names
    }
