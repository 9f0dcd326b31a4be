"""Numbers that any node can make alone: 41 bits of milliseconds, 10 of node, 12 of count.

They rise within a node even when its clock steps back. A process claims its
node number in table ``node`` and renews the row while it lives; a number unseen
for :data:`STALE_US` may be claimed by another.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable

from sqlalchemy import Connection, select

from mailtwist import __version__
from mailtwist.errors import StoreUnavailable
from mailtwist.store.tables import node

# 2025-01-01; 41 bits of milliseconds last until 2094.
EPOCH_MS = 1_735_689_600_000
NODES = 1024
STALE_US = 180 * 1_000_000

_COUNT_BITS = 12
_NODE_BITS = 10


def now_us() -> int:
    """The wall clock, in the store's unit."""
    return time.time_ns() // 1000


class IdSource:
    """Makes time-ordered 63-bit numbers; safe in every thread."""

    def __init__(self, node_id: int, clock_ms: Callable[[], int] | None = None) -> None:
        assert 0 <= node_id < NODES
        self.node_id = node_id
        self._clock_ms = clock_ms or (lambda: time.time_ns() // 1_000_000)
        self._lock = threading.Lock()
        self._last_ms = 0
        self._count = 0

    def next(self) -> int:
        with self._lock:
            ms = self._clock_ms() - EPOCH_MS
            if ms > self._last_ms:
                self._last_ms, self._count = ms, 0
            else:
                self._count += 1
                if self._count >> _COUNT_BITS:  # the millisecond is used up: borrow the next
                    self._last_ms, self._count = self._last_ms + 1, 0
            moved = self._last_ms << (_NODE_BITS + _COUNT_BITS)
            return moved | self.node_id << _COUNT_BITS | self._count


def made_at_us(number: int) -> int:
    """When a number was made, in microseconds, to the millisecond."""
    return ((number >> (_NODE_BITS + _COUNT_BITS)) + EPOCH_MS) * 1000


_made_here: set[str] = set()


def process_name() -> str:
    """A name that no other live process has."""
    name = f"{socket.gethostname()}/{os.getpid()}/{os.urandom(4).hex()}"
    _made_here.add(name)
    return name


def is_gone(name: str) -> bool:
    """Whether the process of a name is known to run no more; of other machines nothing is."""
    host, _, rest = name.partition("/")
    number, _, _ = rest.partition("/")
    if name in _made_here or host != socket.gethostname():
        return False
    if not number.isascii() or not number.isdigit():
        return False
    pid = int(number)
    if pid == os.getpid():
        return True  # the number came round: it is ours now, and that was another process
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


def claim(connection: Connection, name: str, now: int) -> int:
    """Take a node number that nobody uses: a new one, else the one unseen for longest.

    Raises: StoreUnavailable when all are in use.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("LOCK TABLE node IN SHARE ROW EXCLUSIVE MODE")
    rows = connection.execute(select(node.c.node_id, node.c.name, node.c.seen_at)).all()
    # Given back ("" name) or silent; the longest unused first, so that two processes never
    # make numbers with one node number in one millisecond.
    unused = set(range(NODES)) - {row.node_id for row in rows}
    values = {"name": name, "version": __version__, "seen_at": now}
    if unused:
        node_id = min(unused)
        connection.execute(node.insert().values(node_id=node_id, **values))
        return node_id
    idle = [row for row in rows if not row.name or row.seen_at < now - STALE_US]
    if not idle:
        raise StoreUnavailable(detail="all 1024 node numbers are in use")
    node_id = int(min(idle, key=lambda row: row.seen_at).node_id)
    connection.execute(node.update().where(node.c.node_id == node_id).values(**values))
    return node_id


def renew(connection: Connection, node_id: int, name: str, now: int) -> bool:
    """Say that the node lives; False: another process took its number."""
    mine = (node.c.node_id == node_id) & (node.c.name == name)
    return connection.execute(node.update().where(mine).values(seen_at=now)).rowcount == 1


def release(connection: Connection, node_id: int, name: str, now: int) -> None:
    """Give the number back."""
    mine = (node.c.node_id == node_id) & (node.c.name == name)
    connection.execute(node.update().where(mine).values(name="", seen_at=now))


def living(connection: Connection, now: int) -> set[int]:
    """The node numbers whose processes were seen lately."""
    return set(_seen_lately(connection, now))


def running(connection: Connection, now: int) -> set[int]:
    """As :func:`living`, without processes of this machine that were killed since."""
    found = _seen_lately(connection, now)
    return {node_id for node_id, name in found.items() if not is_gone(name)}


def _seen_lately(connection: Connection, now: int) -> dict[int, str]:
    alive = (node.c.name != "") & (node.c.seen_at >= now - STALE_US)
    rows = connection.execute(select(node.c.node_id, node.c.name).where(alive))
    return {row.node_id: row.name for row in rows}
