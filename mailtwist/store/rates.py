"""How often somebody did something, within a time that ends; the rows are all nodes' together.

A window begins with the first event and ends at its time, whatever comes meanwhile; the next
event begins another one. Every time is in microseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import Connection

from mailtwist.store.sql import Statement

MAX_SUBJECT = 320

# An end that is too far off was written by a clock that is wrong, or for a time that was longer:
# it must not shut anybody out.
_FIND = Statement(
    """
    SELECT n, ends_at FROM rate_count
    WHERE scope = ? AND subject = ? AND ends_at > ? AND ends_at <= ?
    """
)
_ADD = Statement(
    """
    INSERT INTO rate_count (scope, subject, n, ends_at) VALUES (?, ?, ?, ?)
    ON CONFLICT (scope, subject) DO UPDATE SET
        n = CASE WHEN rate_count.ends_at <= ? OR rate_count.ends_at > ?
                 THEN excluded.n ELSE rate_count.n + excluded.n END,
        ends_at = CASE WHEN rate_count.ends_at <= ? OR rate_count.ends_at > ?
                       THEN excluded.ends_at ELSE rate_count.ends_at END
    RETURNING n, ends_at
    """
)
_SWEEP = Statement("DELETE FROM rate_count WHERE ends_at <= ?")


class Count(NamedTuple):
    """How much was counted, and until when it counts."""

    n: int
    ends_at: int


class Added(NamedTuple):
    """``n`` events more of a subject, whose windows last ``lasts``; ``ends_at``: of a new one."""

    scope: str
    subject: str
    n: int
    ends_at: int
    lasts: int


def is_open(ends_at: int, lasts: int, now: int) -> bool:
    """Whether a window still counts; the clocks of two nodes may differ by its length."""
    return 0 < ends_at - now <= 2 * lasts


def storable(subject: str) -> str:
    """Cut what a peer gave as a name to what either database can hold."""
    return subject[:MAX_SUBJECT].replace("\0", "?").encode(errors="replace").decode()


def find(connection: Connection, scope: str, subject: str, *, lasts: int, now: int) -> Count | None:
    """The window of a subject; None: none is open."""
    row = _FIND(connection, (scope, storable(subject), now, now + 2 * lasts)).first()
    return None if row is None else Count(*row)


def add(connection: Connection, events: Iterable[Added], *, now: int) -> Sequence[Count]:
    """Count events in; what each subject's window then holds, those of other nodes included.

    The events come in the order of their subjects, so that two nodes never wait for each other.
    """
    return [_add(connection, each, now) for each in events]


def _add(connection: Connection, event: Added, now: int) -> Count:
    latest = now + 2 * event.lasts
    key = (event.scope, storable(event.subject))
    values = (*key, event.n, event.ends_at, now, latest, now, latest)
    return Count(*_ADD(connection, values).first())


def sweep(connection: Connection, *, now: int) -> int:
    """Drop the windows that have ended; tells how many."""
    return _SWEEP(connection, (now,)).rowcount
