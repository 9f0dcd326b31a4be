"""What is in the queue, for people: each message with one state, and "why?" for each recipient.

A message is ``active`` while it is being tried or was not tried yet, ``deferred`` while a
recipient waits for the next attempt, ``held`` when the others do so for an operator, and then
``failed`` when a recipient was, else ``delivered``.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection

from mailtwist.errors import NotFound, Refusal
from mailtwist.store.queue.destinations import DestinationState
from mailtwist.store.queue.values import Attempt, Notify, Outcome, Priority, State
from mailtwist.store.sql import Statement, many

ACTIVE: Final = "active"
DEFERRED: Final = "deferred"
HELD: Final = "held"
FAILED: Final = "failed"
DELIVERED: Final = "delivered"
# By the rank that _RANK gives.
STATES: Final = (ACTIVE, DEFERRED, HELD, FAILED, DELIVERED)

# Of the 2**63 ids none is so high, nor are there so many messages.
NO_LIMIT: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Listed:
    """A message of the queue as a line of a list. ``due_at`` 0: nobody waits.

    ``recipients``: at most :data:`MAX_SHOWN`, of ``recipient_count``. ``last_error``: the
    last reply of one that is not delivered, "" when there was none.
    """

    queue_id: int
    state: str
    sender: str
    recipients: tuple[str, ...]
    recipient_count: int
    last_error: str
    received_at: int
    expires_at: int
    finished_at: int
    due_at: int
    attempts: int
    octets: int  # with the prefix
    account_id: int
    priority: Priority


@dataclass(frozen=True, slots=True)
class ViewedAttempt:
    """An attempt with its number, counted from 1."""

    number: int
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class ViewedRecipient:
    """A recipient with all that was tried for it."""

    n: int
    address: str
    destination: str
    original: str
    forwarded_by: str
    orcpt: str
    notify: Notify
    state: str
    due_at: int
    lease_until: int
    node_id: int
    attempts: int
    was_warned: bool
    last_error: str
    ended_at: int
    tried: tuple[ViewedAttempt, ...]


@dataclass(frozen=True, slots=True)
class Viewed:
    """All that the queue knows of a message. ``content_id`` 0: the content was given up."""

    listed: Listed
    envid: str
    ret: str
    body: str
    smtputf8: bool
    requiretls: bool
    hostname: str
    attend_at: int
    prefix: bytes
    content_id: int
    content_octets: int
    recipients: tuple[ViewedRecipient, ...]
    destinations: tuple[DestinationState, ...]  # those that back off


MAX_SHOWN: Final = 100

# The rank of a message among the states, by what its recipients are in.
_RANK = f"""
    CASE WHEN m.finished_at IS NULL THEN (
        SELECT min(CASE WHEN r.state = {State.LEASED:d} THEN 0
                        WHEN r.state = {State.WAITING:d} AND r.attempts = 0 THEN 0
                        WHEN r.state = {State.WAITING:d} THEN 1
                        WHEN r.state = {State.HELD:d} THEN 2 ELSE 9 END)
        FROM queue_recipient AS r WHERE r.queue_id = m.queue_id)
    WHEN m.failed > 0 THEN 3 ELSE 4 END
"""
_COLUMNS = """
    m.queue_id, m.reverse_path AS sender, m.received_at, m.expires_at, m.finished_at,
    m.octets + length(m.prefix) AS octets, m.account_id, m.priority
"""
# Where messages of some states stand together: the unfinished in one index, the failed in one.
_OPEN = ("queue_message AS m {index ix_queue_message_attend_at}", "m.finished_at IS NULL")
_FAILED = (
    "queue_message AS m {index ix_queue_message_failed}",
    "m.failed > 0 AND m.finished_at IS NOT NULL",
)
_DELIVERED = ("queue_message AS m", "m.failed = 0 AND m.finished_at IS NOT NULL")
_MATCHES = """
    AND m.queue_id < ? AND lower(m.reverse_path) LIKE ? ESCAPE '\\'
    AND (? = 0 OR EXISTS (
        SELECT 1 FROM queue_recipient AS r WHERE r.queue_id = m.queue_id
          AND (lower(r.address) LIKE ? ESCAPE '\\' OR lower(r.original) LIKE ? ESCAPE '\\')))
"""


def _choice(place: tuple[str, str], rank: int | None = None) -> Statement:
    table, condition = place
    if rank is not None:
        condition += f" AND {_RANK} = {rank}"
    return Statement(
        f"""
        SELECT m.queue_id FROM {table} WHERE {condition} {_MATCHES}
        ORDER BY m.queue_id DESC LIMIT ?
        """
    )


_IN_STATE: Final[dict[str | None, tuple[Statement, ...]]] = {
    None: (_choice(_OPEN), _choice(_FAILED)),
    ACTIVE: (_choice(_OPEN, 0),),
    DEFERRED: (_choice(_OPEN, 1),),
    HELD: (_choice(_OPEN, 2),),
    FAILED: (_choice(_FAILED),),
    DELIVERED: (_choice(_DELIVERED),),
}
_LINES = Statement(
    f"""
    SELECT {_COLUMNS}, {_RANK} AS rank FROM queue_message AS m
    WHERE m.queue_id {{numbers}} ORDER BY m.queue_id DESC
    """
)
# What a list shows of recipients: those with an error that still counts come first.
_SUMMARY = Statement(
    """
    SELECT queue_id, address, state, due_at, attempts, code, status, reply, total FROM (
        SELECT queue_id, n, address, state, due_at, attempts, code, status, reply,
               count(*) OVER (PARTITION BY queue_id) AS total,
               row_number() OVER (PARTITION BY queue_id ORDER BY n) AS nth
        FROM queue_recipient WHERE queue_id {numbers}) AS s
    WHERE nth <= ? ORDER BY queue_id, n
    """
)
_ONE = Statement(
    f"""
    SELECT {_COLUMNS}, {_RANK} AS rank, m.envid, m.ret, m.body, m.smtputf8, m.requiretls,
           m.hostname, m.attend_at, m.prefix, m.content_id, m.octets
    FROM queue_message AS m WHERE m.queue_id = ?
    """
)
_RECIPIENTS = Statement(
    """
    SELECT n, address, destination, original, forwarded_by, orcpt, notify, state, due_at,
           lease_until, node_id, attempts, was_warned, code, status, reply, ended_at
    FROM queue_recipient WHERE queue_id = ? ORDER BY n
    """
)
_ATTEMPTS = Statement(
    """
    SELECT n, attempt, outcome, code, status, reply, stage, host, address, tls, started_at,
           ended_at
    FROM queue_attempt WHERE queue_id = ? ORDER BY n, attempt
    """
)
_BACKING_OFF = Statement(
    """
    SELECT name, suspended_until, failures, reply FROM queue_destination
    WHERE name {texts} AND (failures > 0 OR suspended_until > 0) ORDER BY name
    """
)
_COUNT_OPEN = Statement(
    f"""
    SELECT rank, count(*) FROM (SELECT {_RANK} AS rank FROM {_OPEN[0]} WHERE {_OPEN[1]}) AS m
    GROUP BY rank
    """
)
_COUNT_FAILED = Statement(f"SELECT count(*) FROM {_FAILED[0]} WHERE {_FAILED[1]}")


def list(
    connection: Connection,
    *,
    state: str | None = None,
    sender: str | None = None,
    recipient: str | None = None,
    limit: int = 100,
    before: int | None = None,
) -> tuple[Listed, ...]:
    """Messages, the newest first; ``before``: older than this id. None: all but delivered ones.

    ``sender`` and ``recipient``: a part of the address, in any case; an empty sender is the
    null path. Each page looks at all that is in the queue: for all of it there are :func:`ids`
    and :func:`lines`. Raises: Refusal for a state that is none.
    """
    found = ids(
        connection, state=state, sender=sender, recipient=recipient, limit=limit, before=before
    )
    return lines(connection, found)


def ids(
    connection: Connection,
    *,
    state: str | None = None,
    sender: str | None = None,
    recipient: str | None = None,
    limit: int = NO_LIMIT,
    before: int | None = None,
) -> builtins.list[int]:
    """Of the messages that :func:`list` would show, the newest first."""
    statements = _IN_STATE.get(state)
    if statements is None:
        raise Refusal(f"No such state: {state}", code=501, status="5.5.4")
    pattern = _pattern(recipient)
    parameters = (
        NO_LIMIT if before is None else before,
        "" if sender == "" else _pattern(sender),
        int(recipient is not None), pattern, pattern, limit,
    )  # fmt: skip
    found = [row[0] for statement in statements for row in statement(connection, parameters)]
    return sorted(found, reverse=True)[:limit]


def lines(connection: Connection, queue_ids: Iterable[int]) -> tuple[Listed, ...]:
    """Those of the messages that are still there, the newest first."""
    wanted = many(connection, queue_ids)
    return _listed(connection, _LINES(connection, (wanted,)).all())


def _pattern(part: str | None) -> str:
    escaped = (part or "").lower().replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def _listed(connection: Connection, found: Sequence[Any]) -> tuple[Listed, ...]:
    of_message: dict[int, builtins.list[Any]] = {row[0]: [] for row in found}
    wanted = many(connection, of_message)
    for queue_id, *recipient in _SUMMARY(connection, (wanted, MAX_SHOWN)):
        of_message[queue_id].append(recipient)
    return tuple(_line(row, of_message[row[0]]) for row in found)


def _line(row: Sequence[Any], recipients: Sequence[Any]) -> Listed:
    queue_id, sender, received_at, expires_at, finished_at, octets, account_id, priority, rank = row
    waiting = [due_at for _, state, due_at, *_ in recipients if state == State.WAITING]
    errors = [
        _error(code, status, reply)
        for _, state, _, _, code, status, reply, _ in recipients
        if state != State.DELIVERED
    ]
    return Listed(
        queue_id=queue_id,
        state=STATES[rank],
        sender=sender,
        recipients=tuple(address for address, *_ in recipients),
        recipient_count=recipients[0][-1] if recipients else 0,
        last_error=next(filter(None, errors), ""),
        received_at=received_at,
        expires_at=expires_at,
        finished_at=finished_at or 0,
        due_at=min(waiting, default=0),
        attempts=max((attempts for _, _, _, attempts, *_ in recipients), default=0),
        octets=octets,
        account_id=account_id,
        priority=Priority(priority),
    )


def _error(code: int, status: str, reply: str) -> str:
    return " ".join(word for word in (str(code or ""), status, reply) if word)


def view(connection: Connection, queue_id: int) -> Viewed:
    """All about one message. Raises: NotFound."""
    row = _ONE(connection, (queue_id,)).first()
    if row is None:
        raise NotFound("No such message in the queue")
    (listed,) = _listed(connection, [row[:9]])
    (envid, ret, body, smtputf8, requiretls, hostname, attend_at, prefix, content_id,
     content_octets) = row[9:]  # fmt: skip
    recipients = _recipients(connection, queue_id)
    names = many(connection, {recipient.destination for recipient in recipients})
    backing_off = tuple(DestinationState(*row) for row in _BACKING_OFF(connection, (names,)))
    return Viewed(
        listed, envid, ret, body, bool(smtputf8), bool(requiretls), hostname, attend_at,
        bytes(prefix), content_id, content_octets, recipients, backing_off,
    )  # fmt: skip


_RECIPIENT_STATES: Final = {
    State.LEASED: ACTIVE,
    State.HELD: HELD,
    State.DELIVERED: DELIVERED,
    State.FAILED: FAILED,
}


def _recipients(connection: Connection, queue_id: int) -> tuple[ViewedRecipient, ...]:
    tried: dict[int, builtins.list[ViewedAttempt]] = {}
    for n, number, outcome, *rest in _ATTEMPTS(connection, (queue_id,)):
        attempt = Attempt(n, Outcome(outcome), *rest)
        tried.setdefault(n, []).append(ViewedAttempt(number, attempt))
    return tuple(
        _recipient(row, tried.get(row[0], ())) for row in _RECIPIENTS(connection, (queue_id,))
    )


def _recipient(row: Sequence[Any], tried: Iterable[ViewedAttempt]) -> ViewedRecipient:
    (n, address, destination, original, forwarded_by, orcpt, notify, state, due_at, lease_until,
     node_id, attempts, was_warned, code, status, reply, ended_at) = row  # fmt: skip
    waiting = DEFERRED if attempts else ACTIVE
    return ViewedRecipient(
        n, address, destination, original, forwarded_by, orcpt, Notify(notify),
        _RECIPIENT_STATES.get(State(state), waiting), due_at, lease_until, node_id, attempts,
        bool(was_warned), "" if state == State.DELIVERED else _error(code, status, reply),
        ended_at or 0, tuple(tried),
    )  # fmt: skip


def stats(connection: Connection) -> dict[str, int]:
    """How many messages are in each state that a list shows by itself."""
    counted = dict.fromkeys((ACTIVE, DEFERRED, HELD, FAILED), 0)
    for rank, messages in _COUNT_OPEN(connection):
        counted[STATES[rank]] = messages
    counted[FAILED] = _COUNT_FAILED(connection).scalar()
    return counted
