"""Codes that were sent to somebody and count once: one for each purpose and subject.

What is kept is a verifier, never the code. Times are in microseconds.
"""

from __future__ import annotations

from mailtwist.store.engine import Connection
from mailtwist.store.sql import Statement

_PUT = Statement(
    """
    INSERT INTO one_time_code (purpose, subject, verifier, attempts, expires_at, created_at)
    VALUES (?, ?, ?, 0, ?, ?)
    ON CONFLICT (purpose, subject) DO UPDATE SET verifier = excluded.verifier, attempts = 0,
        expires_at = excluded.expires_at, created_at = excluded.created_at
    """
)
# Of two who show the right code at once one gets the row.
_TAKE = Statement(
    """
    DELETE FROM one_time_code
    WHERE purpose = ? AND subject = ? AND verifier = ? AND attempts < ? AND expires_at > ?
    RETURNING subject
    """
)
_MISS = Statement(
    "UPDATE one_time_code SET attempts = attempts + 1 WHERE purpose = ? AND subject = ?"
)
_SWEEP = Statement("DELETE FROM one_time_code WHERE expires_at <= ?")


def put(
    connection: Connection, purpose: str, subject: str, verifier: str, *, now: int, expires_at: int
) -> None:
    """Let this code count, and no earlier one."""
    _SWEEP(connection, (now,))
    _PUT(connection, (purpose, subject, verifier, expires_at, now))


def take(
    connection: Connection, purpose: str, subject: str, verifier: str, *, now: int, attempts: int
) -> bool:
    """Use up a code; False counts as one of its wrong ``attempts``, after which it is of no use."""
    if _TAKE(connection, (purpose, subject, verifier, attempts, now)).first() is not None:
        return True
    _MISS(connection, (purpose, subject))
    return False
