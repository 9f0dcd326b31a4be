"""Who may have a session: at most ``max_workers`` in all, ``per_domain`` in a lane, in turns.

A session that has nothing to do is kept for a short while for the next message to the same
hop; it is closed at once when another lane needs its place.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from dataclasses import replace
from typing import Any, Final, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from mailtwist.net.session_id import session_id
from mailtwist.queue.lanes import Job, Lane, Line
from mailtwist.queue.ports import Session
from mailtwist.queue.schedule import SECOND
from mailtwist.queue.values import RemoteReply, Undeliverable

log = Logger()

T = TypeVar("T")

IDLE_S: Final = 5.0
# Messages on one session; some hosts end longer ones in the middle of things.
SERVED: Final = 100
QUIT_S: Final = 5.0
# Messages after which a session gives way when other lanes wait for a place.
TURN: Final = 10
# RFC 5321 §4.5.3.2.1 gives a host five minutes for its greeting. While other lanes wait for a
# place it has these: silent hosts must not keep the mail for all others waiting.
PATIENCE_S: Final = 30.0
# And so many for the reply to the first message, besides its content at so many octets a second.
LONG_PATIENCE_S: Final = 60.0
SLOW: Final = 65536
TOO_SLOW: Final = RemoteReply(
    451, "4.4.2", "The host was silent for too long while other mail waited", "", is_ours=True
)

Run = Callable[[Lane, Job, Line], Awaitable[None]]


class Pool:
    """``run`` delivers one job and leaves in the line the session that it had, or none."""

    def __init__(
        self, clock: Any, run: Run, *, max_sessions: int, per_domain: int, rate: int = 0
    ) -> None:
        self._clock = clock
        self._run = run
        self._max_sessions = max_sessions
        self.per_domain = per_domain
        self._interval = 60.0 / rate if rate else 0.0
        self._open = 0  # lines that exist: busy, idle or being closed
        self._workers: dict[Line, Deferred[None]] = {}
        self._idle: dict[Line, Lane] = {}  # the one that is idle for longest first
        self._starved: dict[Lane, None] = {}  # lanes that wait for a line, in their order
        # Hosts that have yet to say something; until when they are waited for in any case.
        self._silent: dict[Line, tuple[float, Deferred[Any]]] = {}
        self._given_up: set[Line] = set()
        self._sweeper: Any = None
        self._reliever: Any = None
        self._quiet: Deferred[None] | None = None
        self.is_stopping = False
        self.is_cut = False  # what ends now was cut off by us

    @property
    def sessions(self) -> int:
        return self._open

    def pump(self, lane: Lane) -> None:
        """Start as many sessions for the lane as it needs and may have."""
        while lane.pending and not self.is_stopping:
            now = self._clock.seconds()
            # One more is counted: what may be begun here must not be too much right after.
            if len(lane.at_work) >= self._allowed(lane, now, self._open + 1):
                return
            if lane.suspended_until > now * SECOND or self._must_pause(lane, now):
                return
            line = self._take_line(lane)
            if line is None:
                # One that has a session already asks again when a message is through.
                if not lane.at_work:
                    self._starved[lane] = None
                    self._arm_relief()
                return
            self._begin(lane, line)

    def _allowed(self, lane: Lane, now: float, sessions: int) -> int:
        is_scarce = sessions * 2 > self._max_sessions
        return lane.allowed(int(now * SECOND), self.per_domain, is_scarce=is_scarce)

    def _must_pause(self, lane: Lane, now: float) -> bool:
        """Whether ``outbound.rate`` makes the lane wait; if so it goes on by itself."""
        if not self._interval or lane.next_send <= now:
            return False
        if not lane.is_paused:
            lane.is_paused = True
            self._clock.callLater(lane.next_send - now, self._resume, lane)
        return True

    def _resume(self, lane: Lane) -> None:
        lane.is_paused = False
        self.pump(lane)

    def _take_line(self, lane: Lane) -> Line | None:
        while lane.idle:
            line = lane.idle.pop()
            del self._idle[line]
            if line.is_open:
                return line
            self._release(line)
        if self._open < self._max_sessions:
            self._open += 1
            return Line()
        for line in self._idle:
            self._dismiss(line)
            break
        return None

    # -- a session at work --------------------------------------------------------------------

    def _begin(self, lane: Lane, line: Line) -> None:
        lane.at_work.add(line)
        # Not the context of the client whose message happened to be the first one.
        worker = Context().run(Deferred.fromCoroutine, self._serve(lane, line))
        if not worker.called:
            self._workers[line] = worker
        worker.addErrback(_log_failure)

    async def _serve(self, lane: Lane, line: Line) -> None:
        session_id.set(line.name)
        try:
            turn = 0
            while (job := self._next(lane, line, turn)) is not None:
                turn += 1
                await self._run(lane, job, line)
        finally:
            self._workers.pop(line, None)
            lane.at_work.discard(line)
            self._park(lane, line)
            self.pump(lane)

    def _next(self, lane: Lane, line: Line, turn: int) -> Job | None:
        if not lane.pending or self.is_stopping:
            return None
        if self._starved and turn >= TURN:
            return None
        # A session that became idle meanwhile takes it, rather than one that is yet to be had.
        if lane.idle and not line.is_open:
            return None
        now = self._clock.seconds()
        if lane.suspended_until > now * SECOND or self._must_pause(lane, now):
            return None
        if len(lane.at_work) > self._allowed(lane, now, self._open):
            return None
        if self._interval:
            lane.next_send = now + self._interval
        return lane.pop()

    def _park(self, lane: Lane, line: Line) -> None:
        """Keep the session for the next message, or close it."""
        if not line.is_open:
            self._release(line)
        elif self._starved or self.is_stopping or line.served >= SERVED:
            self._close(line)
        else:
            line.idle_since = self._clock.seconds()
            lane.idle.append(line)
            self._idle[line] = lane
            if self._sweeper is None:
                self._sweeper = self._clock.callLater(IDLE_S, self._sweep)

    # -- a host that has said nothing yet --------------------------------------------------------

    async def opened(self, line: Line, connecting: Coroutine[Any, Any, Session]) -> Session:
        """Await a new session for a line.

        Raises: Undeliverable, also for a host that is silent while others wait for its place.
        """
        return await self._patiently(line, connecting, PATIENCE_S, "greeting")

    async def answered(self, line: Line, sending: Coroutine[Any, Any, T], octets: int) -> T:
        """Await what a host says of the first message that it is offered.

        Raises: Undeliverable for one that is silent while others wait for its place.
        """
        seconds = LONG_PATIENCE_S + octets / SLOW
        return await self._patiently(line, sending, seconds, "end")

    async def _patiently(
        self, line: Line, trying: Coroutine[Any, Any, T], seconds: float, stage: str
    ) -> T:
        waiting = Deferred.fromCoroutine(trying)
        if waiting.called:
            return await waiting
        self._silent[line] = self._clock.seconds() + seconds, waiting
        self._arm_relief()
        try:
            return await waiting
        except CancelledError:
            if line in self._given_up:
                raise Undeliverable(replace(TOO_SLOW, stage=stage)) from None
            raise
        finally:
            del self._silent[line]
            self._given_up.discard(line)

    def _arm_relief(self) -> None:
        if self._reliever is None and self._starved and self._silent:
            until = min(until for until, _ in self._silent.values())
            left = max(until - self._clock.seconds(), 0.0)
            self._reliever = self._clock.callLater(left, self._relieve)

    def _relieve(self) -> None:
        """Give up the session that is silent for longest, if its place is wanted."""
        self._reliever = None
        if self._starved and self._silent:
            line, (until, waiting) = min(self._silent.items(), key=lambda item: item[1][0])
            if until <= self._clock.seconds():
                self._given_up.add(line)
                waiting.cancel()
        self._arm_relief()

    # -- a session without work -----------------------------------------------------------------

    def _sweep(self) -> None:
        self._sweeper = None
        now = self._clock.seconds()
        for line in tuple(self._idle):
            left = line.idle_since + IDLE_S - now
            if left > 0:
                self._sweeper = self._clock.callLater(left, self._sweep)
                return
            self._dismiss(line)

    def _dismiss(self, line: Line) -> None:
        self._idle.pop(line).idle.remove(line)
        self._close(line)

    def _close(self, line: Line) -> None:
        """Say QUIT; the place is free when the connection is gone."""
        session, line.session = line.session, None
        assert session is not None
        closing = Deferred.fromCoroutine(_quit(session))
        closing.addTimeout(QUIT_S, self._clock, lambda _, __: session.abort())
        closing.addErrback(_log_failure)
        closing.addCallback(lambda _: self._release(line))

    def _release(self, line: Line) -> None:
        line.session = None
        self._open -= 1
        while self._starved and self._open < self._max_sessions:
            lane = next(iter(self._starved))
            del self._starved[lane]
            self.pump(lane)
        if self._open == 0 and self._quiet is not None:
            quiet, self._quiet = self._quiet, None
            quiet.callback(None)

    # -- the end ----------------------------------------------------------------------------------

    async def stop(self, drain_s: float) -> None:
        """Let messages under way end for so long, then cut them off."""
        self.is_stopping = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        if self._reliever is not None:
            self._reliever.cancel()
            self._reliever = None
        for line in tuple(self._idle):
            self._dismiss(line)
        if self._open:
            self._quiet = Deferred()
            overdue = self._clock.callLater(drain_s, self._cut)
            await self._quiet
            if overdue.active():
                overdue.cancel()

    def _cut(self) -> None:
        self.is_cut = True
        for line, worker in tuple(self._workers.items()):
            # What came of a delivery is written in any case.
            if line.session is not None:
                line.session.abort()
            elif not line.is_recording:
                worker.cancel()


async def _quit(session: Session) -> None:
    await session.quit()


def _log_failure(failure: Any) -> None:
    if not failure.check(CancelledError):
        log.failure("a delivery session failed", failure)
