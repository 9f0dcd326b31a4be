"""How the queue fares as a whole: what an operator looks at first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from mailtwist.store.queue.destinations import DestinationState
from mailtwist.store.queue.values import State
from mailtwist.store.sql import Statement

# More of them tell nobody more.
MAX_DESTINATIONS: Final = 10

_OLDEST = Statement(
    """
    SELECT min(m.received_at) FROM queue_message AS m {index ix_queue_message_attend_at}
    WHERE m.finished_at IS NULL
    """
)
_OVERDUE = Statement(
    f"""
    SELECT count(*) FROM (
        SELECT 1 FROM queue_recipient AS r, queue_destination AS d
        WHERE r.destination = d.name AND r.state = {State.WAITING:d} AND r.due_at < ?
          AND d.suspended_until <= ? LIMIT 1000) AS late
    """
)
_LEASED = Statement(
    f"SELECT 1 FROM queue_recipient WHERE state = {State.LEASED:d} AND lease_until > ? LIMIT 1"
)
_SUSPENDED = Statement(
    f"""
    SELECT name, suspended_until, failures, reply FROM queue_destination
    WHERE suspended_until > ? ORDER BY failures DESC, name LIMIT {MAX_DESTINATIONS}
    """
)


@dataclass(frozen=True, slots=True)
class Condition:
    """``oldest_at``: when the oldest message that is not finished came; 0: there is none.

    ``overdue``: recipients that are late although nothing holds them, 1,000 at most.
    ``is_worked_on``: somebody is about to deliver to others of them.
    ``suspended``: destinations that back off, those that failed most often first.
    """

    oldest_at: int
    overdue: int
    is_worked_on: bool
    suspended: tuple[DestinationState, ...]


def condition(connection: Connection, now: int, late_us: int) -> Condition:
    """``now`` in microseconds; late is who was due more than ``late_us`` ago."""
    return Condition(
        _OLDEST(connection).scalar() or 0,
        _OVERDUE(connection, (now - late_us, now)).scalar(),
        _LEASED(connection, (now,)).first() is not None,
        tuple(DestinationState(*row) for row in _SUSPENDED(connection, (now,))),
    )
