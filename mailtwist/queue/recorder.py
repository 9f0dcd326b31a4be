"""What came of deliveries is written down, come what may.

Between the host's reply and the commit a message is in danger of leaving twice, never of
being lost: the lease holds it until the rows say what happened, and a store that is away
is asked again until it answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from mailtwist.errors import MailError, TemporaryFailure
from mailtwist.queue.awaited import Awaited
from mailtwist.queue.ports import Reports
from mailtwist.queue.schedule import SECOND, Rules, next_attempt
from mailtwist.store.deliver import Acceptance
from mailtwist.store.queue import outcomes
from mailtwist.store.queue.destinations import DestinationState
from mailtwist.store.queue.outcomes import Finished
from mailtwist.store.queue.values import Attempt, Message, Notify, Outcome

log = Logger()

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
NOTHING: Final[Mapping[str, DestinationState]] = MappingProxyType({})
LINES: Final = {
    Outcome.DELIVERED: "message delivered",
    Outcome.DEFERRED: "message deferred",
    Outcome.FAILED: "message failed",
}


class Abandoned(Exception):
    """The process ends before the outcome could be written; the lease will run out."""


class Recorder:
    """``wake``: called when a report waits in the queue. ``awaited``: who is told instead."""

    def __init__(
        self,
        database: Any,
        reports: Reports,
        *,
        clock: Any,
        rules: Rules,
        wake: Callable[[], None],
        awaited: Awaited | None = None,
    ) -> None:
        self._awaited = awaited or Awaited(clock)
        self._database = database
        self._reports = reports
        self._clock = clock
        self._rules = rules
        self._wake = wake
        self._is_ending = False
        self._pauses: set[Deferred[None]] = set()

    def end(self) -> None:
        """Try once more what waits to be written, then abandon it."""
        self._is_ending = True
        for pause in tuple(self._pauses):
            pause.cancel()

    async def _pause(self, seconds: float) -> None:
        pause: Deferred[None] = deferLater(self._clock, seconds)
        self._pauses.add(pause)
        try:
            await pause
        except CancelledError:
            pass
        finally:
            self._pauses.discard(pause)

    async def record(
        self,
        message: Message,
        attempts: tuple[Attempt, ...],
        *,
        relayed_to_dsn: bool = False,
        states: Mapping[str, DestinationState] = NOTHING,
        attend_at: int = 0,
    ) -> None:
        """Write attempts, and what the sender is told of them. Raises: Abandoned."""
        pause = FIRST_PAUSE_S
        waiter = self._awaited.find(message.queue_id)
        with_reports = waiter is None or await waiter.must_report(attempts)
        while True:
            try:
                reports: tuple[Acceptance, ...] = ()
                if with_reports and _may_report(message, attempts):
                    attempts, reports = await self._report(message, attempts, relayed_to_dsn)
                await self._write(message, attempts, reports, states, attend_at)
            except TemporaryFailure as error:
                log.warn(
                    "the outcome of a delivery waits for the store",
                    queue_id=str(message.queue_id),
                    detail=error.detail or error.text,
                )
            except MailError as error:
                if not with_reports:
                    raise
                # Nobody can be told; what happened is written all the same.
                log.error(
                    "a report could not be delivered",
                    queue_id=str(message.queue_id),
                    detail=error.detail or error.text,
                )
                with_reports = False
                continue
            else:
                _log(message, attempts)
                if waiter is not None:
                    waiter.written(attempts)
                return
            if self._is_ending:
                raise Abandoned
            await self._pause(pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)

    async def _report(
        self, message: Message, attempts: tuple[Attempt, ...], relayed_to_dsn: bool
    ) -> tuple[tuple[Attempt, ...], tuple[Acceptance, ...]]:
        try:
            return attempts, await self._reports.of(
                message, attempts, relayed_to_dsn=relayed_to_dsn
            )
        except MailError:
            raise
        except Exception:
            log.failure("a report could not be made", queue_id=str(message.queue_id))
            return self._postponed(message, attempts), ()

    def _postponed(self, message: Message, attempts: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
        """A failure of which nobody could be told is none yet, while there is time."""
        now = int(self._clock.seconds() * SECOND)
        due_at = next_attempt(1 << 20, schedule=self._rules.waits, now=now)
        if due_at > message.expires_at:
            return attempts
        return tuple(
            replace(attempt, outcome=Outcome.DEFERRED, due_at=due_at)
            if attempt.outcome is Outcome.FAILED
            else replace(attempt, is_warned=False)
            for attempt in attempts
        )

    async def _write(
        self,
        message: Message,
        attempts: tuple[Attempt, ...],
        reports: tuple[Acceptance, ...],
        states: Mapping[str, DestinationState],
        attend_at: int,
    ) -> None:
        node_id, now = self._database.ids.node_id, int(self._clock.seconds() * SECOND)
        for part, part_attempts, state in _by_state(message, attempts, states):
            finished = Finished(
                part,
                part_attempts,
                reports,
                now=now,
                attend_at=attend_at,
                destination=state,
                node_id=node_id,
            )
            reports = ()
            await self._submit(finished)

    async def _submit(self, finished: Finished) -> None:
        octets = sum(report.content.octets for report in finished.reports)
        is_ours = await self._database.write_set(
            outcomes.record, finished, accounts=finished.accounts, octets=octets
        )
        if not is_ours:
            # It was deleted, or this process stood still for so long that another one took it.
            log.warn("an outcome came too late", queue_id=str(finished.message.queue_id))
        elif any(report.queue is not None for report in finished.reports):
            self._wake()


def _by_state(
    message: Message, attempts: tuple[Attempt, ...], states: Mapping[str, DestinationState]
) -> Iterator[tuple[Message, tuple[Attempt, ...], DestinationState | None]]:
    """One part a destination, when something is to be said of destinations."""
    if len(states) <= 1:
        yield message, attempts, next(iter(states.values()), None)
        return
    for name, state in states.items():
        recipients = tuple(each for each in message.recipients if each.destination == name)
        numbers = {recipient.n for recipient in recipients}
        part = replace(message, recipients=recipients)
        yield part, tuple(each for each in attempts if each.n in numbers), state


def _may_report(message: Message, attempts: Sequence[Attempt]) -> bool:
    """Whether there can be anything to tell; false for nearly all mail, at little cost."""
    for attempt in attempts:
        # Of the null reverse-path too: that a report failed is told to the log.
        if attempt.outcome is Outcome.FAILED or attempt.is_warned:
            return True
    return bool(message.reverse_path) and any(
        recipient.notify & Notify.SUCCESS for recipient in message.recipients
    )


def _log(message: Message, attempts: Sequence[Attempt]) -> None:
    """One line an outcome, with the recipients it came to."""
    if len(attempts) == 1:
        _log_line(message, attempts[0].outcome, attempts)
        return
    for outcome in Outcome:
        same = [attempt for attempt in attempts if attempt.outcome is outcome]
        if same:
            _log_line(message, outcome, same)


def _log_line(message: Message, outcome: Outcome, attempts: Sequence[Attempt]) -> None:
    first = attempts[0]
    if not first.is_counted and not first.is_warned:
        return
    addresses = {recipient.n: recipient.address for recipient in message.recipients}
    log.info(
        LINES[outcome],
        queue_id=str(message.queue_id),
        reverse_path=message.reverse_path or "<>",
        forward_paths=[addresses.get(attempt.n, "") for attempt in attempts],
        host=first.host,
        address=first.address,
        tls=first.tls,
        reply=f"{first.code} {first.status} {first.text}",
    )
