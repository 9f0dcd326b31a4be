"""Write SQLite's log back into the database file, in a thread of its own.

A checkpoint does not wait for anybody, so under steady load it never catches up
and the log would grow. Above :data:`SOFT_OCTETS` the writer is held between two
batches for what little a first pass left over; the next commit then begins the
log anew. A log above :data:`HARD_OCTETS` (a reader that never ends, a foreign
process) is answered as a full store.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import suppress

from twisted.logger import Logger

from mailtwist.errors import StoreFull

log = Logger()

PAGE = 4096
EVERY_OCTETS = 4 << 20
SOFT_OCTETS = 16 << 20
HARD_OCTETS = 512 << 20
# A batch changes about this much beside the octets of its units: pages of tables and indexes.
BATCH_OVERHEAD = 64 << 10
RETRY_S = 1.0


class Checkpointer(threading.Thread):
    """The thread; :meth:`room`, :meth:`enter` and :meth:`leave` belong to the writer's."""

    def __init__(self, path: str, *, hard_octets: int = HARD_OCTETS) -> None:
        super().__init__(name="store-checkpointer", daemon=True)
        self._path = path
        self._hard_octets = hard_octets
        self._written = 0
        self._wake = threading.Event()
        self._batch = threading.Lock()
        self._open = threading.Event()
        self._open.set()
        self._stopping = False
        self._connection: sqlite3.Connection | None = None

    def room(self) -> StoreFull | None:
        """What to answer when the log is at its bound."""
        try:
            size = os.stat(f"{self._path}-wal").st_size
        except OSError:
            return None
        if size <= self._hard_octets:
            return None
        self._wake.set()
        return StoreFull(detail=f"the write-ahead log has {size} octets")

    def enter(self) -> None:
        """A batch begins."""
        self._open.wait(5)
        self._batch.acquire()

    def leave(self, octets: int) -> None:
        """A batch ended."""
        self._batch.release()
        self._written += octets + BATCH_OVERHEAD
        if self._written >= EVERY_OCTETS:
            self._written = 0
            self._wake.set()

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._stopping = True
        self._wake.set()
        self.join()

    def run(self) -> None:
        again = False
        while True:
            self._wake.wait(RETRY_S if again else None)
            self._wake.clear()
            if self._stopping:
                break
            try:
                again = self._checkpoint()
            except sqlite3.Error as error:
                again = True
                log.warn("a checkpoint failed: {error}", error=str(error))
                self._close()
        self._close()

    def _checkpoint(self) -> bool:
        """Write the log back as far as readers allow; whether too much is left."""
        length, done = self._run("PASSIVE")
        if length * PAGE > SOFT_OCTETS:
            self._open.clear()
            try:
                with self._batch:
                    # A log near its bound is cut off, as far as readers allow: its size counts.
                    much = length * PAGE > self._hard_octets // 2
                    length, done = self._run("TRUNCATE" if much else "PASSIVE")
            finally:
                self._open.set()
        return (length - done) * PAGE > SOFT_OCTETS

    def _run(self, mode: str) -> tuple[int, int]:
        if self._connection is None:
            self._connection = sqlite3.connect(
                self._path, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.execute("PRAGMA busy_timeout=0")
        _, length, done = self._connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        return length, done

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()
