"""Failed logins, counted by account and by address, so that a lock-out survives a restart.

Plain counts with windows: the policy decides the limits and what counts. ``scope`` is
``"account"`` or ``"address"``, ``subject`` the folded user name or the client's address.
Every time and duration is in microseconds.
"""

from __future__ import annotations

from sqlalchemy import Connection

from mailtwist.store.sql import Statement

# A count starts anew when its window is over, and after a lock has run out.
_COUNT = Statement(
    """
    INSERT INTO login_failure (scope, subject, failures, window_start, locked_until)
    VALUES (?, ?, 1, ?, 0)
    ON CONFLICT (scope, subject) DO UPDATE SET
        failures = CASE WHEN login_failure.window_start <= ?
                          OR login_failure.locked_until BETWEEN 1 AND ?
                        THEN 1 ELSE login_failure.failures + 1 END,
        window_start = CASE WHEN login_failure.window_start <= ?
                              OR login_failure.locked_until BETWEEN 1 AND ?
                            THEN excluded.window_start ELSE login_failure.window_start END,
        locked_until = CASE WHEN login_failure.locked_until <= ?
                            THEN 0 ELSE login_failure.locked_until END
    RETURNING failures, locked_until
    """
)
_LOCK = Statement("UPDATE login_failure SET locked_until = ? WHERE scope = ? AND subject = ?")
_LOCKED = Statement("SELECT locked_until FROM login_failure WHERE scope = ? AND subject = ?")
_CLEAR = Statement("DELETE FROM login_failure WHERE scope = ? AND subject = ?")
_CLEAR_ALL = Statement("DELETE FROM login_failure")
_EXIST = Statement("SELECT 1 FROM login_failure LIMIT 1")
_SWEEP = Statement("DELETE FROM login_failure WHERE window_start <= ? AND locked_until <= ?")


MAX_SUBJECT = 320


def _storable(subject: str) -> str:
    """Cut what a peer gave as a name to what either database can hold."""
    return subject[:MAX_SUBJECT].replace("\0", "?").encode(errors="replace").decode()


def record(
    connection: Connection,
    scope: str,
    subject: str,
    *,
    now: int,
    window: int,
    limit: int,
    lock: int,
) -> int:
    """Count one bad login; lock the subject when it is the ``limit``-th within ``window``.

    Returns until when the subject is locked, 0 when it is not. A failure counted while
    the lock holds does not lengthen it.
    """
    subject = _storable(subject)
    over = now - window
    failures, locked_until = _COUNT(
        connection, (scope, subject, now, over, now, over, now, now)
    ).first()
    if locked_until:
        return int(locked_until)
    if failures < limit:
        return 0
    _LOCK(connection, (now + lock, scope, subject))
    return now + lock


def locked(connection: Connection, scope: str, subject: str, *, now: int) -> int:
    """Tell until when the subject is locked; 0 when it is not."""
    until = _LOCKED(connection, (scope, _storable(subject))).scalar()
    return int(until) if until is not None and until > now else 0


def clear(connection: Connection, scope: str, subject: str) -> None:
    """Forget the subject's failures, as after a good login."""
    _CLEAR(connection, (scope, _storable(subject)))


def exist(connection: Connection) -> bool:
    """Whether any failure is counted."""
    return _EXIST(connection).first() is not None


def clear_all(connection: Connection) -> None:
    """Forget the failures of everybody."""
    _CLEAR_ALL(connection)


def sweep(connection: Connection, *, now: int, window: int) -> int:
    """Drop counts that no longer mean anything; tells how many."""
    return _SWEEP(connection, (now - window, now)).rowcount
