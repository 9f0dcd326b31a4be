"""Leases on recipients: who delivers what, and until when.

A claim looks at destinations that are due first, and then at each one's recipients, in
three look-ups of an index. So what waits for a dead host costs a live one nothing, however
much it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Connection

from mailtwist.store.queue import destinations, rows
from mailtwist.store.queue.destinations import NEVER
from mailtwist.store.queue.values import Message, Priority
from mailtwist.store.sql import Statement, many

# (queue_id, n) of a recipient.
Key = tuple[int, int]

# While one message tries a destination that failed, the others wait so long for its outcome.
PROBE_US: Final = 60 * 1_000_000

_DUE = Statement(
    """
    SELECT name, failures FROM queue_destination WHERE next_due <= ? AND NOT (name {texts})
    ORDER BY next_due LIMIT ?
    """
)


def _lease(choice: str) -> Statement:
    """A statement that leases what ``choice`` selects, and returns it."""
    return Statement(
        f"""
        WITH chosen (id, i) AS MATERIALIZED ({choice} {{skip r}})
        UPDATE queue_recipient SET state = 1, lease_until = ?, node_id = ? FROM chosen
        WHERE queue_id = chosen.id AND n = chosen.i AND state = 0
        RETURNING {rows.RECIPIENT_COLUMNS}
        """
    )


_TAKE = _lease(
    """
    SELECT r.queue_id, r.n FROM queue_recipient AS r
    WHERE r.state = 0 AND r.destination = ? AND r.priority = ? AND r.due_at <= ?
    ORDER BY r.due_at, r.queue_id, r.n LIMIT ?
    """
)
_TAKE_REST = _lease(
    """
    SELECT r.queue_id, r.n FROM queue_recipient AS r
    WHERE r.queue_id = ? AND r.destination = ? AND r.state = 0 AND r.due_at <= ? LIMIT ?
    """
)
_TAKE_MESSAGES = _lease(
    """
    SELECT r.queue_id, r.n FROM queue_recipient AS r
    WHERE r.queue_id {numbers} AND r.state = 0
    """
)
_UNATTENDED = Statement(
    """
    SELECT m.queue_id FROM queue_message AS m {index ix_queue_message_attend_at}
    WHERE m.attend_at <= ? AND m.finished_at IS NULL AND EXISTS (
        SELECT 1 FROM queue_recipient AS r WHERE r.queue_id = m.queue_id AND r.state = 0)
    ORDER BY m.attend_at LIMIT ?
    """
)
_NEXT = Statement("SELECT min(next_due) FROM queue_destination")
_RENEW = Statement(
    """
    UPDATE queue_recipient SET lease_until = ?
    WHERE queue_id = ? AND n = ? AND state = 1 AND node_id = ?
    """
)

# A message that is held meanwhile keeps its recipients from waiting.
FREED: Final = """
    CASE WHEN EXISTS (SELECT 1 FROM queue_message AS m
                      WHERE m.queue_id = queue_recipient.queue_id AND m.held = 1)
         THEN 2 ELSE 0 END
"""
_FREE = f"""
    UPDATE queue_recipient SET state = {FREED}, due_at = ?, lease_until = 0
    WHERE state = 1 AND """
_GIVE_BACK = Statement(_FREE + "node_id = ? AND queue_id = ? AND n = ?")
_DISOWN = Statement(_FREE + "node_id = ? RETURNING destination, due_at")
_RECLAIM = Statement(
    _FREE + "(lease_until <= ? OR NOT (node_id {numbers})) RETURNING destination, due_at"
)
_DESTINATIONS = Statement(
    """
    SELECT DISTINCT destination FROM queue_recipient
    WHERE queue_id {numbers} AND n {numbers} AND state = 0
    """
)
_MINE = Statement(
    """
    SELECT r.queue_id, r.n FROM queue_recipient AS r
    JOIN queue_message AS m ON m.queue_id = r.queue_id
    WHERE r.queue_id {numbers} AND r.state = 1 AND r.node_id = ? AND m.held = 0
    """
)


def claim(
    connection: Connection,
    *,
    node_id: int,
    now: int,
    lease_until: int,
    destinations: int,
    per_destination: int,
    skip: Collection[str] = (),
) -> list[Message]:
    """Lease what is due: of each destination at most ``per_destination`` recipients.

    A destination that failed lately gives one message only, a probe, and nothing more until
    its outcome is recorded or a minute went by. ``skip``: destinations to leave out.
    """
    due = _DUE(connection, (now, many(connection, skip), destinations)).all()
    if not due:
        return []
    lease = (lease_until, node_id)
    taken: list[Sequence[Any]] = []
    probed = []
    for name, failures in due:
        found = _take(connection, name, now, lease, 1 if failures else per_destination)
        if failures and found:
            probed.append(name)
            rest = (found[0][0], name, now, per_destination, *lease)
            found += _TAKE_REST(connection, rest).all()
        taken += found
    _settle(connection, [name for name, _ in due], probed, now)
    return rows.messages(connection, taken)


def _take(
    connection: Connection, name: str, now: int, lease: tuple[int, int], limit: int
) -> list[Sequence[Any]]:
    found: list[Sequence[Any]] = []
    for priority in Priority:
        if len(found) < limit:
            chosen = (name, int(priority), now, limit - len(found))
            found += _TAKE(connection, (*chosen, *lease)).all()
    return found


def _settle(
    connection: Connection, names: Collection[str], probed: Collection[str], now: int
) -> None:
    # Whoever holds a destination's row adds to it: then it stays due, and is looked at again.
    destinations.suspend(connection, probed, now + PROBE_US)
    destinations.settle(connection, names, patiently=False)


def claim_message(
    connection: Connection, queue_id: int, *, node_id: int, now: int, lease_until: int
) -> list[Message]:
    """Lease all waiting recipients of one message, due or not."""
    return rows.messages(connection, _take_messages(connection, [queue_id], node_id, lease_until))


def attend(
    connection: Connection, *, node_id: int, now: int, lease_until: int, limit: int
) -> list[Message]:
    """Lease messages that are delayed or expire, with all recipients that wait.

    These may be at several destinations. The caller records a new ``attend_at`` for each.
    """
    found = [row[0] for row in _UNATTENDED(connection, (now, limit))]
    if not found:
        return []
    return rows.whole_messages(connection, _take_messages(connection, found, node_id, lease_until))


def _take_messages(
    connection: Connection, queue_ids: Collection[int], node_id: int, lease_until: int
) -> Sequence[Any]:
    return _TAKE_MESSAGES(connection, (many(connection, queue_ids), lease_until, node_id)).all()


def next_due(connection: Connection) -> int | None:
    """When a claim will find something; None: nobody waits. May be early, never late."""
    due_at: int | None = _NEXT(connection).scalar()
    return None if due_at is None or due_at >= NEVER else due_at


def renew(connection: Connection, keys: Iterable[Key], lease_until: int, node_id: int) -> None:
    """Prolong leases; those that the node lost meanwhile stay as they are."""
    changed = [(lease_until, queue_id, n, node_id) for queue_id, n in sorted(keys)]
    _RENEW.each(connection, changed)


def withdrawn(connection: Connection, node_id: int, keys: Collection[Key]) -> set[Key]:
    """Of leases that a node thinks it holds, those that it must not start to deliver.

    Their recipients were deleted, taken by others, or belong to a message that is held: these
    are to be given back.
    """
    wanted = many(connection, {queue_id for queue_id, _ in keys})
    return set(keys) - {(row[0], row[1]) for row in _MINE(connection, (wanted, node_id))}


def give_back(connection: Connection, node_id: int, keys: Collection[Key] | None, now: int) -> None:
    """End leases untried: the recipients are due now. None: all leases of the node."""
    if keys is None:
        _waiting(connection, _DISOWN(connection, (now, node_id)).all())
        return
    _GIVE_BACK.each(connection, [(now, node_id, queue_id, n) for queue_id, n in sorted(keys)])
    ids = many(connection, {queue_id for queue_id, _ in keys})
    numbers = many(connection, {n for _, n in keys})
    names = _DESTINATIONS(connection, (ids, numbers)).all()
    _waiting(connection, [(name, now) for (name,) in names])


def disown(connection: Connection, node_id: int, now: int = 0) -> None:
    """End all leases of a node number: its process begins or ends."""
    give_back(connection, node_id, None, now)


def reclaim(connection: Connection, now: int, living: Collection[int]) -> int:
    """End leases that ran out, and those of nodes that are gone; tells how many."""
    freed = _RECLAIM(connection, (now, now, many(connection, living))).all()
    _waiting(connection, freed)
    return len(freed)


def _waiting(connection: Connection, freed: Sequence[Any]) -> None:
    if freed:
        destinations.expect(connection, [(name, due_at) for name, due_at in freed])
        rows.tell(connection)
