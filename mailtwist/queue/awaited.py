"""Messages whose first attempts somebody waits for, to be told instead of getting a bounce.

While he waits, an attempt that failed for good is not written down yet: when every recipient is
refused, the outcome is recorded without a report and he is told; else with the report that is
owed. The rows stay leased meanwhile, so that what a crash forgets is tried again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import Deferred

from mailtwist.store.queue.values import Attempt, Message, Outcome

# A failure keeps its session from other mail while it waits for the rest of its message.
HOLD_S: Final = 10.0
MAX_WAITING: Final = 10_000


@dataclass(frozen=True, slots=True)
class Refused:
    """Every recipient was refused for good; ``attempt`` is that of the first one."""

    attempt: Attempt


class Waiter:
    """Somebody who waits for one message."""

    def __init__(self, awaited: Awaited, message: Message) -> None:
        self._awaited = awaited
        self._queue_id = message.queue_id
        self._open = {recipient.n for recipient in message.recipients}
        self._unwritten = set(self._open)
        self._failed: dict[int, Attempt] = {}
        self._held: list[tuple[Deferred[None], Any]] = []
        self._told: Deferred[Refused | None] = Deferred()

    async def outcome(self, seconds: float) -> Refused | None:
        """Wait at most so long until all are refused, or one is not; None: not all are.

        Then it is closed.
        """
        timer = self._awaited.clock.callLater(seconds, self.close)
        try:
            return await self._told
        finally:
            if timer.active():
                timer.cancel()
            self.close()

    def close(self) -> None:
        """Nobody waits any more: what is held back is reported as ever."""
        # Who was about to hear that all are refused hears it now: nobody else is told of it.
        self._tell(self._refused)
        self._release()

    @property
    def _refused(self) -> Refused | None:
        return None if self._open else Refused(self._failed[min(self._failed)])

    # -- what the recorder tells ----------------------------------------------------------------

    async def must_report(self, attempts: Sequence[Attempt]) -> bool:
        """Whether what is owed for the attempts is to be reported; waits until that is known."""
        if any(attempt.outcome is not Outcome.FAILED for attempt in attempts):
            self.close()
            return True
        self._failed |= {attempt.n: attempt for attempt in attempts}
        self._open -= self._failed.keys()
        if self._open:
            await self._hold()
        else:
            self._release()
        return bool(self._open)

    def written(self, attempts: Sequence[Attempt]) -> None:
        """The attempts are in the rows."""
        self._unwritten -= {attempt.n for attempt in attempts}
        if not self._open and not self._unwritten:
            self._tell(self._refused)

    def _hold(self) -> Deferred[None]:
        held: Deferred[None] = Deferred()
        self._held.append((held, self._awaited.clock.callLater(HOLD_S, self.close)))
        return held

    def _release(self) -> None:
        held, self._held = self._held, []
        for each, timer in held:
            if timer.active():
                timer.cancel()
            if not each.called:
                each.callback(None)

    def _tell(self, outcome: Refused | None) -> None:
        self._awaited.forget(self._queue_id, self)
        if not self._told.called:
            self._told.callback(outcome)


class Awaited:
    """The waiters of this process, by message. ``clock`` is the reactor's."""

    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self._is_closed = False
        self._waiters: dict[int, Waiter] = {}

    def expect(self, message: Message) -> Waiter | None:
        """Wait for a message that is about to be written; None: too many wait, or none may."""
        if self._is_closed or len(self._waiters) >= MAX_WAITING:
            return None
        waiter = self._waiters[message.queue_id] = Waiter(self, message)
        return waiter

    def find(self, queue_id: int) -> Waiter | None:
        return self._waiters.get(queue_id)

    def give_up(self, queue_id: int) -> None:
        """The message will not be tried for a while: who waits for it has waited enough."""
        waiter = self._waiters.get(queue_id)
        if waiter is not None:
            waiter.close()

    def forget(self, queue_id: int, waiter: Waiter) -> None:
        if self._waiters.get(queue_id) is waiter:
            del self._waiters[queue_id]

    def close(self) -> None:
        """Let nobody wait any more: the process is about to end."""
        self._is_closed = True
        for waiter in tuple(self._waiters.values()):
            waiter.close()
