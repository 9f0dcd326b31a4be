"""What happens to messages becomes rows for a while: received, delivered, deferred, bounced.

They are written by the units that make it happen, in as many statements for one as for sixty,
and only where the engine was told to keep them (:func:`keep`). Who follows them reads
:mod:`mailtwist.store.event_feed`; he is woken by the kind :data:`KIND`, which has no generation:
a row that every delivery raises would put all deliveries into one line.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection

from mailtwist.store import changes
from mailtwist.store.engine import Engine
from mailtwist.store.ids import now_us
from mailtwist.store.sql import Statement

KIND: Final = "event"

RECEIVED: Final = "received"
DELIVERED: Final = "delivered"
DEFERRED: Final = "deferred"
BOUNCED: Final = "bounced"
KINDS: Final = (RECEIVED, DELIVERED, DEFERRED, BOUNCED)

MAX_TEXT: Final = 200
SWEPT_AT_ONCE: Final = 1_000

_OPTION: Final = "mailtwist_events"
_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

_INSERT = Statement("INSERT INTO event (account_id, kind, at, data) VALUES (?, ?, ?, ?)")
_LATEST = Statement("SELECT max(event_id) FROM event")
_OLD = Statement("SELECT event_id, at FROM event ORDER BY event_id LIMIT 1 OFFSET ?")
_FIRST = Statement("SELECT event_id, at FROM event ORDER BY event_id LIMIT ?")
_SWEEP = Statement("DELETE FROM event WHERE event_id <= ?")

# The account, the kind, and what there is to say.
Told = tuple[int, str, dict[str, Any]]


def keep(engine: Engine, *, is_wanted: bool) -> None:
    """Say whether the connections that this engine opens from here on write events."""
    engine.writing.update_execution_options(**{_OPTION: is_wanted})


def are_kept(connection: Connection) -> bool:
    return bool(connection.get_execution_options().get(_OPTION, False))


def write(connection: Connection, told: Sequence[Told]) -> None:
    """Write events in their order, and wake who follows them after the commit."""
    if not told:
        return
    at = now_us()
    rows: list[tuple[Any, ...]] = [
        (account_id, kind, at, _encode(data)) for account_id, kind, data in told
    ]
    _INSERT.each(connection, rows)
    changes.pending(connection).kinds.add(KIND)


def latest(connection: Connection) -> int:
    """The number of the last event, 0 without any."""
    return int(_LATEST(connection).scalar() or 0)


def sweep(connection: Connection, now: int, retention: int) -> bool:
    """Remove at most :data:`SWEPT_AT_ONCE` events older than ``retention`` microseconds.

    True: nothing is left to do.
    """
    limit = now - retention
    # The usual case costs one look: a thousand of them are old, and go at once.
    row = _OLD(connection, (SWEPT_AT_ONCE - 1,)).first()
    if row is not None and row[1] < limit:
        _SWEEP(connection, (row[0],))
        return False
    old = [event_id for event_id, at in _FIRST(connection, (SWEPT_AT_ONCE,)) if at < limit]
    if old:
        _SWEEP(connection, (old[-1],))
    return True
