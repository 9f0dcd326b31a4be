"""What each node has bound, for those who ask another node or the database."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Final

from sqlalchemy import Connection, text

from mailtwist.store import changes

# Raised by whoever wants the nodes to reconcile their listeners with the rows.
KIND: Final = "listener"

LISTENING: Final = "listening"
FAILED: Final = "failed"

_COLUMNS = "name, protocol, address, port, state, error"
_CLEAR = text("DELETE FROM listener_state WHERE node_id = :node_id")
_ADD = text(
    f"INSERT INTO listener_state (node_id, generation, updated_at, {_COLUMNS}) VALUES"
    " (:node_id, :generation, :now, :name, :protocol, :address, :port, :state, :error)"
)
_OF_NODE = text(
    f"SELECT {_COLUMNS} FROM listener_state WHERE node_id = :node_id ORDER BY name, address, port"
)
_GENERATION = text("SELECT n FROM generation WHERE kind = :kind")


@dataclass(frozen=True, slots=True)
class ListenerState:
    """One bound address of a listener, or the one on which it could not be opened."""

    name: str
    protocol: str
    address: str
    port: int
    state: str = LISTENING
    error: str = ""


def generation(connection: Connection) -> int:
    """Counts the orders to reconcile."""
    return int(connection.execute(_GENERATION, {"kind": KIND}).scalar() or 0)


def order(connection: Connection) -> int:
    """Order every node to reconcile; the new generation."""
    changes.bump(connection, KIND)
    return generation(connection)


def record(
    connection: Connection,
    node_id: int,
    states: Iterable[ListenerState],
    *,
    generation: int,
    now: int,
) -> None:
    """Replace what was known of a node; ``now`` in microseconds."""
    connection.execute(_CLEAR, {"node_id": node_id})
    common = {"node_id": node_id, "generation": generation, "now": now}
    rows = [{**asdict(each), **common} for each in states]
    if rows:
        connection.execute(_ADD, rows)


def of_node(connection: Connection, node_id: int) -> list[ListenerState]:
    return [ListenerState(*row) for row in connection.execute(_OF_NODE, {"node_id": node_id})]
