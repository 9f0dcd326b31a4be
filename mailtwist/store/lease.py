"""Jobs that one node does for all: whoever holds the row's lease does it until it runs out."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, text

from mailtwist.store import ids

_TAKE = text(
    "INSERT INTO lease (name, node_id, until) VALUES (:name, :node_id, :until)"
    " ON CONFLICT (name) DO UPDATE SET node_id = excluded.node_id, until = excluded.until"
    " WHERE lease.node_id = excluded.node_id OR lease.until <= :now"
).bindparams(bindparam("now"))
_HOLDER = text("SELECT node_id FROM lease WHERE name = :name AND until > :now")
_RELEASE = text("DELETE FROM lease WHERE name = :name AND node_id = :node_id")


def take(connection: Connection, name: str, node_id: int, *, now: int, seconds: float) -> bool:
    """Take or renew a lease; False while another node holds it."""
    values = {"name": name, "node_id": node_id, "now": now, "until": now + int(seconds * 1e6)}
    return connection.execute(_TAKE, values).rowcount == 1


def take_over(connection: Connection, name: str, node_id: int, *, now: int, seconds: float) -> bool:
    """As :func:`take`; the lease of a process that is known to run no more is free at once."""
    if take(connection, name, node_id, now=now, seconds=seconds):
        return True
    other = holder(connection, name, now)
    # Nodes are seen by the wall clock, whatever the clock of the lease.
    if other is None or other in ids.running(connection, ids.now_us()):
        return False
    release(connection, name, other)
    return take(connection, name, node_id, now=now, seconds=seconds)


def release(connection: Connection, name: str, node_id: int) -> None:
    """Give a lease back before it runs out."""
    connection.execute(_RELEASE, {"name": name, "node_id": node_id})


def holder(connection: Connection, name: str, now: int) -> int | None:
    """The node that holds a lease, if one does."""
    found: int | None = connection.execute(_HOLDER, {"name": name, "now": now}).scalar()
    return found
