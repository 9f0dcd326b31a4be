"""What operators do to messages of the queue. Each raises NotFound for an id that is none.

A recipient that is being delivered just now is left to its node: what comes of it counts,
except that a deleted message is gone, and that a held one waits no more.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection

from mailtwist.errors import Conflict, NotFound
from mailtwist.store import content
from mailtwist.store.queue import destinations, rows
from mailtwist.store.sql import Statement, many

_LOCK = Statement(
    """
    SELECT m.content_id, m.failed, m.received_at, m.expires_at, m.unfinished
    FROM queue_message AS m WHERE m.queue_id = ? {lock m}
    """
)
_FLUSH = Statement("UPDATE queue_recipient SET due_at = ? WHERE state = 0 AND due_at > ?")
_WAITING = Statement("SELECT DISTINCT destination FROM queue_recipient WHERE state = 0")
_DUE_NOW = Statement(
    """
    UPDATE queue_recipient SET due_at = CASE WHEN due_at < ? THEN due_at ELSE ? END
    WHERE queue_id = ? AND state = 0 RETURNING destination
    """
)
_START_OVER = Statement(
    """
    UPDATE queue_recipient SET state = CASE WHEN ? = 1 THEN 2 ELSE 0 END, due_at = ?,
           attempts = 0, was_warned = 0, ended_at = NULL
    WHERE queue_id = ? AND state = 4 RETURNING destination
    """
)
_REOPEN = Statement(
    """
    UPDATE queue_message SET unfinished = unfinished + failed, failed = 0, finished_at = NULL,
           expires_at = ?, attend_at = ?
    WHERE queue_id = ?
    """
)
_IS_HELD = Statement("SELECT held FROM queue_message WHERE queue_id = ?")
_SET_HELD = Statement("UPDATE queue_message SET held = ? WHERE queue_id = ?")
_HOLD = Statement("UPDATE queue_recipient SET state = 2 WHERE queue_id = ? AND state = 0")
_RELEASE = Statement(
    """
    UPDATE queue_recipient SET state = 0, due_at = ?
    WHERE queue_id = ? AND state = 2 RETURNING destination
    """
)
_DELETE = tuple(
    Statement(f"DELETE FROM {table} WHERE queue_id {{numbers}}")
    for table in ("queue_attempt", "queue_recipient", "queue_message")
)


def retry(connection: Connection, queue_id: int | None, now: int) -> None:
    """Make a message due now, or all (None); what its destinations suffered is forgiven.

    A message that failed starts over, for the recipients that failed, with as much time as it
    had. Held ones stay held. Raises: NotFound, Conflict when all was delivered.
    """
    if queue_id is None:
        _flush(connection, now)
    else:
        _retry(connection, queue_id, now)
    rows.tell(connection)


def _flush(connection: Connection, now: int) -> None:
    _FLUSH(connection, (now, now))
    destinations.pardon(connection, [name for (name,) in _WAITING(connection)], now)


def _retry(connection: Connection, queue_id: int, now: int) -> None:
    _, failed, received_at, expires_at, unfinished = _locked(connection, queue_id)
    if not unfinished and not failed:
        raise Conflict("The message is delivered")
    names = [name for (name,) in _DUE_NOW(connection, (now, now, queue_id))]
    if failed:
        is_held = _IS_HELD(connection, (queue_id,)).scalar()
        names += [name for (name,) in _START_OVER(connection, (is_held, now, queue_id))]
        until = now + expires_at - received_at
        _REOPEN(connection, (until, until, queue_id))
    destinations.pardon(connection, names, now)


def hold(connection: Connection, queue_id: int) -> None:
    """Keep a message from being tried until it is released. Raises: NotFound, Conflict."""
    if not _locked(connection, queue_id)[4]:
        raise Conflict("The message is finished")
    _SET_HELD(connection, (1, queue_id))
    _HOLD(connection, (queue_id,))
    rows.tell(connection)


def release(connection: Connection, queue_id: int, now: int) -> None:
    """Let a held message go on, at once. Raises: NotFound."""
    _locked(connection, queue_id)
    _SET_HELD(connection, (0, queue_id))
    freed = _RELEASE(connection, (now, queue_id)).all()
    destinations.expect(connection, [(name, now) for (name,) in freed])
    rows.tell(connection)


def delete(connection: Connection, queue_id: int, now: int) -> None:
    """Remove a message, whatever its state; nobody is told. Raises: NotFound."""
    content_id = _locked(connection, queue_id)[0]
    remove(connection, [queue_id])
    content.doubt(connection, [content_id] if content_id else [], now=now)
    rows.tell(connection)


def remove(connection: Connection, queue_ids: Iterable[int]) -> None:
    """Delete the rows of messages; what becomes of their contents is the caller's."""
    wanted = many(connection, queue_ids)
    for statement in _DELETE:
        statement(connection, (wanted,))


def _locked(connection: Connection, queue_id: int) -> Any:
    row = _LOCK(connection, (queue_id,)).first()
    if row is None:
        raise NotFound("No such message in the queue")
    return row
