"""What may be done to a recipient of the queue through its row."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from sqlalchemy import Connection

from mailtwist.errors import Conflict, NotFound, ProtocolViolation
from mailtwist.store import content
from mailtwist.store.entities.model import AccessDenied, Change
from mailtwist.store.queue import control, destinations, rows
from mailtwist.store.queue.values import State
from mailtwist.store.sql import Statement

_MESSAGE: Final = Statement(
    """
    SELECT m.content_id, m.unfinished, m.failed, m.finished_at,
           (SELECT count(*) FROM queue_recipient AS r WHERE r.queue_id = m.queue_id)
    FROM queue_message AS m WHERE m.queue_id = ? {lock m}
    """
)
_RECIPIENT: Final = Statement(
    "SELECT destination, state FROM queue_recipient AS r WHERE r.queue_id = ? AND r.n = ? {lock r}"
)
_POSTPONE: Final = Statement(
    "UPDATE queue_recipient SET due_at = ? WHERE queue_id = ? AND n = ? AND state IN (0, 2)"
)
_FORGET: Final = tuple(
    Statement(f"DELETE FROM {table} WHERE queue_id = ? AND n = ?")
    for table in ("queue_attempt", "queue_recipient")
)
_COUNT_OUT: Final = Statement(
    "UPDATE queue_message SET unfinished = ?, failed = ?, finished_at = ? WHERE queue_id = ?"
)


class Key(NamedTuple):
    queue_id: int
    n: int


def change(change: Change) -> None:
    """Set when the next attempt is due. Raises: AccessDenied, Conflict, NotFound."""
    if change.permission is not None or change.owner is not None:
        raise Conflict("A row of the outbox has the owner and permission of its account")
    if "next_retry_at" not in change.values:
        return
    if not change.viewer.is_admin:
        raise AccessDenied(AccessDenied.ROW, "next_retry_at is an administrator's to set")
    due_at = change.values["next_retry_at"]
    if due_at is None:
        raise ProtocolViolation("next_retry_at: a moment is needed")
    key: Key = change.key
    connection = change.connection
    _locked(connection, key)
    destination, state = _recipient(connection, key)
    if state not in {State.WAITING, State.HELD}:
        raise Conflict("next_retry_at: no attempt is to come")
    _POSTPONE(connection, (due_at, key.queue_id, key.n))
    if state == State.WAITING:
        # Also when it is later: next_due may be early, it costs a look in vain.
        destinations.expect(connection, [(destination, due_at)])
        if due_at <= change.now:
            destinations.pardon(connection, [destination], change.now)
    rows.tell(connection)


def remove(change: Change) -> None:
    """Forget a recipient, and the message with its last; nobody is told.

    Raises: Conflict while it is being delivered, NotFound.
    """
    key: Key = change.key
    connection = change.connection
    content_id, unfinished, failed, finished_at, recipients = _locked(connection, key)
    _, state = _recipient(connection, key)
    if state == State.LEASED:
        raise Conflict("The mail is being delivered just now")
    if recipients == 1:
        control.remove(connection, [key.queue_id])
        content.doubt(connection, [content_id] if content_id else [], now=change.now)
    else:
        for statement in _FORGET:
            statement(connection, key)
        unfinished -= state in {State.WAITING, State.HELD}
        failed -= state == State.FAILED
        ended = finished_at if unfinished or finished_at is not None else change.now
        _COUNT_OUT(connection, (unfinished, failed, ended, key.queue_id))
    rows.tell(connection)


def _locked(connection: Connection, key: Key) -> Any:
    row = _MESSAGE(connection, (key.queue_id,)).first()
    if row is None:
        raise NotFound("No such mail in the queue")
    return row


def _recipient(connection: Connection, key: Key) -> Any:
    row = _RECIPIENT(connection, key).first()
    if row is None:
        raise NotFound("No such mail in the queue")
    return row
