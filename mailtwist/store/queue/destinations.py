"""Destinations: what is due, and what backs off as a whole.

``next_due`` says when a claim has to look at a destination. It is never later than the
first of its waiting recipients, or the end of its suspension if that is later; so no
recipient is forgotten, and a claim reads only the destinations that have something to do.

On PostgreSQL whoever adds a waiting recipient locks the destination's row *after* the
recipient's is written, and whoever moves ``next_due`` forward locks it *before* looking at
what waits. So one of the two always sees the other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from mailtwist.store.queue.values import Priority
from mailtwist.store.sql import Statement, is_postgresql, many

# next_due of a destination where nobody waits.
NEVER: Final = 2**62
IDLE_US: Final = 3_600 * 1_000_000


@dataclass(frozen=True, slots=True)
class DestinationState:
    """How a destination fares: ``failures`` in a row, and what was said last."""

    name: str
    suspended_until: int
    failures: int
    reply: str


# Three look-ups in an index: without the priority it would read all that waits.
_EARLIEST = " UNION ALL ".join(
    "SELECT min(r.due_at) AS due_at FROM queue_recipient AS r WHERE r.state = 0"
    f" AND r.destination = d.name AND r.priority = {int(priority)}"
    for priority in Priority
)
_LOOK = Statement(
    f"""
    SELECT d.name, d.suspended_until, d.next_due, (SELECT min(e.due_at) FROM ({_EARLIEST}) AS e)
    FROM queue_destination AS d WHERE d.name {{texts}}
    """
)
_LOCK = Statement(
    "SELECT d.name FROM queue_destination AS d WHERE d.name {texts} ORDER BY d.name {lock d}"
)
_TRY_LOCK = Statement(
    "SELECT d.name FROM queue_destination AS d WHERE d.name {texts} ORDER BY d.name {skip d}"
)
_MOVE = Statement("UPDATE queue_destination SET next_due = ? WHERE name = ?")
_LOWER = Statement(
    """
    INSERT INTO queue_destination (name, next_due) VALUES (?, ?)
    ON CONFLICT (name) DO UPDATE SET next_due =
        CASE WHEN excluded.next_due > queue_destination.suspended_until
             THEN excluded.next_due ELSE queue_destination.suspended_until END
    WHERE queue_destination.next_due > excluded.next_due
      AND queue_destination.next_due > queue_destination.suspended_until
    """
)
_SET = Statement(
    f"""
    INSERT INTO queue_destination (name, next_due, suspended_until, failures, reply, since)
    VALUES (?, {NEVER}, ?, ?, ?, ?)
    ON CONFLICT (name) DO UPDATE SET suspended_until = excluded.suspended_until,
        failures = excluded.failures, reply = excluded.reply,
        since = CASE WHEN queue_destination.failures > 0 AND excluded.failures > 0
                     THEN queue_destination.since ELSE excluded.since END
    """
)
_SUSPEND = Statement("UPDATE queue_destination SET suspended_until = ? WHERE name = ?")
_FAILING = Statement("SELECT name FROM queue_destination WHERE name {texts} AND failures > 0")
_RECOVER = Statement(
    """
    UPDATE queue_destination SET suspended_until = 0, failures = 0, reply = '', since = 0
    WHERE name {texts}
    """
)
_PARDON = Statement("UPDATE queue_destination SET suspended_until = 0 WHERE name {texts}")
_IDLE = Statement(
    f"""
    SELECT d.name FROM queue_destination AS d
    WHERE d.next_due >= {NEVER} AND d.suspended_until <= ? LIMIT ? {{skip d}}
    """
)
_REMOVE = Statement(
    """
    DELETE FROM queue_destination WHERE name {texts} AND NOT EXISTS (
        SELECT 1 FROM queue_recipient AS r
        WHERE r.state = 0 AND r.destination = queue_destination.name)
    """
)
_FIND = Statement(
    "SELECT name, suspended_until, failures, reply FROM queue_destination WHERE name = ?"
)


def find(connection: Connection, name: str) -> DestinationState | None:
    """Tell how a destination fares; None: nothing is known against it."""
    row = _FIND(connection, (name,)).first()
    return None if row is None else DestinationState(*row)


def expect(connection: Connection, waiting: Iterable[tuple[str, int]]) -> None:
    """Note that recipients wait: (destination, due_at) of each. To be called after they do."""
    earliest: dict[str, int] = {}
    for name, due_at in waiting:
        earliest[name] = min(due_at, earliest.get(name, due_at))
    _LOWER.each(connection, sorted(earliest.items()))


def lock(connection: Connection, names: Collection[str]) -> None:
    """Lock all that a transaction is going to change, so that two never wait in a circle."""
    if names and is_postgresql(connection):
        _LOCK(connection, (many(connection, names),))


def failing(connection: Connection, names: Collection[str]) -> set[str]:
    """Those of the destinations that have failed lately."""
    if not names:
        return set()
    return {row[0] for row in _FAILING(connection, (many(connection, names),))}


def settle(connection: Connection, names: Collection[str], *, patiently: bool = True) -> None:
    """Set ``next_due`` to what waits now. Not ``patiently``: leave out those that are locked."""
    if names and is_postgresql(connection):
        # A statement of its own: the next one sees what was committed while this waited.
        choose = _LOCK if patiently else _TRY_LOCK
        names = [row[0] for row in choose(connection, (many(connection, names),))]
    if not names:
        return
    moved = []
    for name, suspended_until, next_due, earliest in _LOOK(connection, (many(connection, names),)):
        due_at = max(suspended_until, NEVER if earliest is None else earliest)
        if due_at != next_due:
            moved.append((due_at, name))
    _MOVE.each(connection, sorted(moved, key=lambda row: row[1]))


def note(connection: Connection, states: Iterable[DestinationState], now: int) -> None:
    """Write how destinations fare, and when each is due by that."""
    known = {state.name: state for state in states}
    rows = [
        (name, state.suspended_until, state.failures, state.reply, now if state.failures else 0)
        for name, state in sorted(known.items())
    ]
    _SET.each(connection, rows)
    settle(connection, known)


def suspend(connection: Connection, names: Iterable[str], until: int) -> None:
    """Keep destinations from being looked at; :func:`settle` must follow."""
    _SUSPEND.each(connection, [(until, name) for name in sorted(names)])


def recover(connection: Connection, names: Collection[str]) -> None:
    """A host of these destinations took mail: forget their failures."""
    if names:
        _RECOVER(connection, (many(connection, names),))
        settle(connection, names)


def pardon(connection: Connection, names: Collection[str], now: int) -> None:
    """End suspensions: somebody wants these destinations to be tried now."""
    if names:
        expect(connection, [(name, now) for name in names])  # their rows are there, and locked
        _PARDON(connection, (many(connection, names),))
        settle(connection, names)


def remove_idle(connection: Connection, now: int, limit: int) -> int:
    """Remove destinations that nobody waits for; tells how many.

    One that failed is remembered for an hour: its recipient may be leased just now.
    """
    idle = [row[0] for row in _IDLE(connection, (now - IDLE_US, limit))]
    if not idle:
        return 0
    # A statement of its own: it sees the recipients of those who waited for the row before.
    return _REMOVE(connection, (many(connection, idle),)).rowcount
