"""What came of deliveries becomes rows: attempts, recipients, destinations and reports.

:func:`record` is a set writer. It changes only recipients that are still leased to the
node that tells; a node that lost its lease changes nothing, and its reports are dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection
from twisted.logger import Logger

from mailtwist.errors import MailError
from mailtwist.store import events
from mailtwist.store.deliver import Acceptance, deliver
from mailtwist.store.queue import destinations, suppression
from mailtwist.store.queue.claims import FREED, Key
from mailtwist.store.queue.destinations import DestinationState
from mailtwist.store.queue.values import Attempt, Message, Outcome, Recipient, State
from mailtwist.store.sql import Statement, many

__all__ = ["DestinationState", "Finished", "record"]

log = Logger()

MAX_TEXT: Final = 1000
# A host that said something here took the connection and the login: the destination lives.
_LIVELY: Final = frozenset({"mail", "rcpt", "data", "end"})
# RFC 3463 §3.5: bad connection.
_LOST: Final = "4.4.2"


@dataclass(frozen=True, slots=True)
class Finished:
    """What came of some recipients of a message that ``node_id`` had leased.

    ``reports`` leave or arrive in the same transaction; their accounts are :attr:`accounts`,
    for ``write_set``. ``attend_at`` 0: unchanged. ``destination`` None: unchanged, but a
    delivery ends its failures.
    """

    message: Message
    attempts: tuple[Attempt, ...]
    reports: tuple[Acceptance, ...] = ()
    now: int = 0
    attend_at: int = 0
    destination: DestinationState | None = None
    node_id: int = field(kw_only=True)

    @property
    def accounts(self) -> frozenset[int]:
        """Those that get a report."""
        return frozenset(entry.account_id for report in self.reports for entry in report.entries)


@dataclass(frozen=True, slots=True)
class _Result:
    """One attempt with what it is about."""

    message: Message
    recipient: Recipient
    attempt: Attempt
    now: int

    @property
    def queue_id(self) -> int:
        return self.message.queue_id

    @property
    def key(self) -> Key:
        return self.queue_id, self.recipient.n

    @property
    def is_open(self) -> bool:
        return self.attempt.outcome is Outcome.DEFERRED


_LEASED = Statement(
    """
    SELECT r.queue_id, r.n, r.node_id FROM queue_recipient AS r
    WHERE r.queue_id {numbers} AND r.n {numbers} AND r.state = 1
    ORDER BY r.queue_id, r.n {lock r}
    """
)
_FINISH = Statement(
    """
    UPDATE queue_recipient SET state = ?, lease_until = 0, attempts = attempts + ?, code = ?,
           status = ?, reply = ?, ended_at = ?
    WHERE queue_id = ? AND n = ?
    """
)
_DEFER = Statement(
    f"""
    UPDATE queue_recipient SET state = {FREED}, lease_until = 0, attempts = attempts + 1,
           code = ?, status = ?, reply = ?, due_at = ?,
           was_warned = CASE WHEN ? = 1 THEN 1 ELSE was_warned END
    WHERE queue_id = ? AND n = ?
    """
)
# Nothing was tried: what was said last stays, and when it is due unless a time is given.
_PUT_BACK = Statement(
    f"""
    UPDATE queue_recipient SET state = {FREED}, lease_until = 0,
           due_at = CASE WHEN ? = 0 THEN due_at ELSE ? END,
           was_warned = CASE WHEN ? = 1 THEN 1 ELSE was_warned END
    WHERE queue_id = ? AND n = ?
    """
)
# Numbered on from the last: a message that starts over counts its attempts anew.
_INSERT_ATTEMPT = Statement(
    """
    INSERT INTO queue_attempt (queue_id, n, attempt, started_at, ended_at, host, address, tls,
        stage, code, status, reply, outcome)
    VALUES (?, ?, (SELECT coalesce(max(attempt), 0) + 1 FROM queue_attempt
                   WHERE queue_id = ? AND n = ?), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    """
)
_CLOSE = Statement(
    """
    UPDATE queue_message SET unfinished = unfinished - ?, failed = failed + ?,
           finished_at = CASE WHEN unfinished = ? THEN ? ELSE finished_at END
    WHERE queue_id = ?
    """
)
_ATTEND = Statement("UPDATE queue_message SET attend_at = ? WHERE queue_id = ?")


def record(connection: Connection, finished: Sequence[Finished]) -> list[bool | MailError]:
    """Write what came of deliveries; False for those whose node had lost its leases."""
    leased = _leased(connection, finished)
    answers: list[bool | MailError] = []
    kept: list[Finished] = []
    results: list[_Result] = []
    for item in finished:
        own = [result for result in _results(item) if leased.get(result.key) == item.node_id]
        for result in own:
            del leased[result.key]
        answers.append(bool(own))
        if own:
            kept.append(item)
            results += own
    _write_recipients(connection, results)
    _write_messages(connection, kept, results)
    _write_reports(connection, kept)
    _write_suppressions(connection, results)
    _write_destinations(connection, kept, results)
    _write_events(connection, results)
    return answers


def _leased(connection: Connection, finished: Sequence[Finished]) -> dict[Key, int]:
    """The nodes of those recipients that are leased, and locked from here on."""
    ids = many(connection, {item.message.queue_id for item in finished})
    numbers = many(connection, {attempt.n for item in finished for attempt in item.attempts})
    return {(queue_id, n): node_id for queue_id, n, node_id in _LEASED(connection, (ids, numbers))}


def _results(item: Finished) -> Iterator[_Result]:
    recipients = {recipient.n: recipient for recipient in item.message.recipients}
    for attempt in item.attempts:
        yield _Result(item.message, recipients[attempt.n], attempt, item.now)


def _write_recipients(connection: Connection, results: Iterable[_Result]) -> None:
    finish, defer, put_back, attempts = [], [], [], []
    for result in results:
        attempt, queue_id, n = result.attempt, result.queue_id, result.recipient.n
        said = (attempt.code, _clean(attempt.status), _clean(attempt.text))
        warned = int(attempt.is_warned)
        if not result.is_open:
            state = State[attempt.outcome.name]
            ended_at = attempt.ended_at or result.now
            finish.append((state, int(attempt.is_counted), *said, ended_at, queue_id, n))
        elif attempt.is_counted:
            defer.append((*said, attempt.due_at, warned, queue_id, n))
        else:
            put_back.append((attempt.due_at, attempt.due_at, warned, queue_id, n))
        if attempt.is_counted:
            attempts.append(
                (queue_id, n, queue_id, n, attempt.started_at, attempt.ended_at,
                 _clean(attempt.host), attempt.address, _clean(attempt.tls), attempt.stage, *said,
                 int(attempt.outcome))
            )  # fmt: skip
    _FINISH.each(connection, finish)
    _DEFER.each(connection, defer)
    _PUT_BACK.each(connection, put_back)
    _INSERT_ATTEMPT.each(connection, attempts)


def _clean(text: str) -> str:
    """A remote's text that any database takes."""
    if len(text) > MAX_TEXT:
        text = text[:MAX_TEXT]
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", " ").encode("utf-8", "replace").decode("utf-8")


def _write_messages(
    connection: Connection, kept: Sequence[Finished], results: Iterable[_Result]
) -> None:
    closed: dict[int, tuple[int, int, int]] = {}
    for result in results:
        if result.is_open:
            continue
        finished, failed, at = closed.get(result.queue_id, (0, 0, 0))
        failed += result.attempt.outcome is Outcome.FAILED
        closed[result.queue_id] = finished + 1, failed, max(at, result.now)
    rows: list[tuple[Any, ...]] = [
        (finished, failed, finished, at, queue_id)
        for queue_id, (finished, failed, at) in sorted(closed.items())
    ]
    _CLOSE.each(connection, rows)
    attend = {item.message.queue_id: item.attend_at for item in kept if item.attend_at}
    _ATTEND.each(connection, [(at, queue_id) for queue_id, at in sorted(attend.items())])


def _write_reports(connection: Connection, kept: Iterable[Finished]) -> None:
    reports = [(item, report) for item in kept for report in item.reports]
    if not reports:
        return
    answers = deliver(connection, [report for _, report in reports])
    for (item, _), answer in zip(reports, answers, strict=True):
        if isinstance(answer, MailError):
            # The sender's account went away. What happened to his mail is recorded all the same.
            log.warn(
                "{queue_id}: a report could not be delivered: {detail}",
                queue_id=item.message.queue_id,
                detail=answer.detail or answer.text,
            )


def _write_suppressions(connection: Connection, results: Iterable[_Result]) -> None:
    delivered, bounced = [], []
    for result in results:
        attempt, address = result.attempt, result.recipient.address
        if attempt.outcome is Outcome.DELIVERED:
            delivered.append(address)
        elif suppression.is_hard(attempt):
            reply = _clean(f"{attempt.code} {attempt.status} {attempt.text}")
            bounced.append((address, reply, result.queue_id, result.now))
    suppression.clear(connection, delivered)
    suppression.count(connection, bounced)


def _is_lost(attempt: Attempt) -> bool:
    """Whether nobody answered: a session that ended is no sign of life."""
    return not attempt.code or (attempt.is_ours and attempt.status == _LOST)


def _write_destinations(
    connection: Connection, kept: Iterable[Finished], results: Sequence[_Result]
) -> None:
    waiting = [
        (result.recipient.destination, result.attempt.due_at)
        for result in results
        if result.is_open
    ]
    states = [item.destination for item in kept if item.destination is not None]
    told = {state.name for state in states}
    alive = {
        result.recipient.destination
        for result in results
        if result.attempt.stage in _LIVELY and not _is_lost(result.attempt)
    }
    recovered = destinations.failing(connection, alive - told)
    destinations.lock(connection, told.union(recovered, (name for name, _ in waiting)))
    destinations.expect(connection, waiting)
    destinations.recover(connection, recovered)
    destinations.note(connection, states, max((item.now for item in kept), default=0))


_KINDS: Final = {
    Outcome.DELIVERED: events.DELIVERED,
    Outcome.DEFERRED: events.DEFERRED,
    Outcome.FAILED: events.BOUNCED,
}


def _write_events(connection: Connection, results: Iterable[_Result]) -> None:
    if events.are_kept(connection):
        told = [_told(result) for result in results if result.attempt.is_counted]
        events.write(connection, told)


def _told(result: _Result) -> events.Told:
    message, recipient, attempt = result.message, result.recipient, result.attempt
    data = {
        "sender": message.reverse_path,
        "recipient": recipient.original or recipient.address,
        "queue_id": message.queue_id,
        "n": recipient.n,
        "code": attempt.code,
        "status": _clean(attempt.status),
        "reply": _clean(attempt.text)[: events.MAX_TEXT],
        "host": _clean(attempt.host),
    }
    if result.is_open:
        data["due"] = attempt.due_at
    return message.account_id, _KINDS[attempt.outcome], data
