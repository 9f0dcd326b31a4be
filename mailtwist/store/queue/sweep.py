"""What the queue gives up: contents an hour after delivery, everything after a week."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection

from mailtwist.store import content
from mailtwist.store.queue import control, destinations
from mailtwist.store.sql import Statement, many

CONTENT_US: Final = 3_600 * 1_000_000
MESSAGE_US: Final = 7 * 86_400 * 1_000_000

_SPENT = Statement(
    """
    SELECT queue_id, content_id FROM queue_message {index ix_queue_message_spent}
    WHERE finished_at <= ? AND finished_at IS NOT NULL AND failed = 0 AND content_id <> 0
    ORDER BY finished_at LIMIT ?
    """
)
_FORGET = Statement("UPDATE queue_message SET content_id = 0 WHERE queue_id {numbers}")
_OLD = Statement(
    """
    SELECT m.queue_id, m.content_id FROM queue_message AS m
        {index ix_queue_message_finished_at}
    WHERE m.finished_at <= ? AND m.finished_at IS NOT NULL
    ORDER BY m.finished_at LIMIT ? {skip m}
    """
)


def step(connection: Connection, now: int, keep_delivered: bool, limit: int = 100) -> bool:
    """Give up at most ``limit`` messages and contents each; True: nothing is left to do.

    ``keep_delivered``: contents of delivered messages stay for the week too.
    """
    swept = 0 if keep_delivered else _give_up_contents(connection, now, limit)
    swept = max(swept, _remove_messages(connection, now, limit))
    swept = max(swept, destinations.remove_idle(connection, now, limit))
    return swept < limit


def _give_up_contents(connection: Connection, now: int, limit: int) -> int:
    spent = _SPENT(connection, (now - CONTENT_US, limit)).all()
    if spent:
        _FORGET(connection, (many(connection, (queue_id for queue_id, _ in spent)),))
        _doubt(connection, (content_id for _, content_id in spent), now)
    return len(spent)


def _remove_messages(connection: Connection, now: int, limit: int) -> int:
    old = _OLD(connection, (now - MESSAGE_US, limit)).all()
    if old:
        control.remove(connection, (queue_id for queue_id, _ in old))
        _doubt(connection, (content_id for _, content_id in old), now)
    return len(old)


def _doubt(connection: Connection, content_ids: Iterable[int], now: int) -> None:
    content.doubt(connection, [content_id for content_id in content_ids if content_id], now=now)
