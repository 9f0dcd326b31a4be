"""Jobs that one node does for all: whoever holds the row's lease does it until it runs out."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, text

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


def release(connection: Connection, name: str, node_id: int) -> None:
    """Give a lease back before it runs out."""
    connection.execute(_RELEASE, {"name": name, "node_id": node_id})


def holder(connection: Connection, name: str, now: int) -> int | None:
    """The node that holds a lease, if one does."""
    found: int | None = connection.execute(_HOLDER, {"name": name, "now": now}).scalar()
    return found
