"""What each node has bound, for those who ask another node or the database."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Final

from sqlalchemy import Connection, text

from mailtwist.store import changes, ids

# Raised by whoever wants the nodes to reconcile their listeners with the rows.
KIND: Final = "listener"

LISTENING: Final = "listening"
FAILED: Final = "failed"
# Of a node as a whole: its last order was carried out, or refused.
APPLIED: Final = "applied"
# The name of the row that says so. It is there as long as the node takes orders.
_NODE: Final = ""
# The text of an error that is kept.
MAX_ERROR: Final = 2000

_COLUMNS = "name, protocol, address, port, state, error"
_CLEAR = text("DELETE FROM listener_state WHERE node_id = :node_id")
_ADD = text(
    f"INSERT INTO listener_state (node_id, generation, updated_at, {_COLUMNS}) VALUES"
    " (:node_id, :generation, :now, :name, :protocol, :address, :port, :state, :error)"
    # One that runs and whose change was refused is told once, with the reason.
    " ON CONFLICT (node_id, name, address, port) DO UPDATE SET"
    " error = excluded.error"
)
_OF_NODE = text(
    f"SELECT {_COLUMNS} FROM listener_state WHERE node_id = :node_id AND name <> ''"
    " ORDER BY name, address, port"
)
_ALL = text(
    f"SELECT node_id, generation, updated_at, {_COLUMNS} FROM listener_state"
    " ORDER BY node_id, name, address, port"
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


@dataclass(frozen=True, slots=True)
class NodeState:
    """What a node that lives has bound."""

    node_id: int
    generation: int  # the last order that it has carried out, or refused
    updated_at: int  # microseconds
    error: str  # why it was refused; "": it was not
    listeners: tuple[ListenerState, ...]


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
    error: str = "",
) -> None:
    """Replace what was known of a node; ``now`` in microseconds, ``error``: of the last order."""
    forget(connection, node_id)
    common = {"node_id": node_id, "generation": generation, "now": now}
    whole = ListenerState(_NODE, "", "", 0, FAILED if error else APPLIED, error)
    rows = [
        {**asdict(each), **common, "error": each.error[:MAX_ERROR]} for each in [whole, *states]
    ]
    connection.execute(_ADD, rows)


def order_others(connection: Connection, carried_out: int) -> int:
    """Order what this node has done already; the number of the last order that it has done.

    ``carried_out``: the last order when it read what is wanted. One that has come in between is
    still to be done, and its own then counts for nothing.
    """
    made = order(connection)
    return made if made == carried_out + 1 else carried_out


def forget(connection: Connection, node_id: int) -> None:
    """Drop what was known of a node: it takes no orders any more."""
    connection.execute(_CLEAR, {"node_id": node_id})


def of_node(connection: Connection, node_id: int) -> list[ListenerState]:
    return [ListenerState(*row) for row in connection.execute(_OF_NODE, {"node_id": node_id})]


def every(connection: Connection, now: int) -> list[NodeState]:
    """The nodes that take orders and live, by number; ``now`` in microseconds."""
    living = ids.running(connection, now)
    whole: dict[int, tuple[int, int, str]] = {}
    states: dict[int, list[ListenerState]] = {}
    for node_id, number, updated_at, *columns in connection.execute(_ALL):
        state = ListenerState(*columns)
        if state.name == _NODE:
            whole[node_id] = (number, updated_at, state.error)
        else:
            states.setdefault(node_id, []).append(state)
    return [
        NodeState(node_id, *about, tuple(states.get(node_id, ())))
        for node_id, about in whole.items()
        if node_id in living
    ]
