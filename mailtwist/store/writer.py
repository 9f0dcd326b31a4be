"""Group commit: one thread, one connection, many units to a COMMIT.

While one commit syncs, the units that arrive wait and share the next; there is
no timer, so a lone producer waits for its own sync only. What a batch is, and
who shares it, :mod:`mailtwist.store.batch` says.

Whatever fails at COMMIT, or shows that the database itself is unwell, closes the
connection, answers the units of the batch and turns health red until a commit
succeeds again.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from sqlalchemy import Connection
from twisted.logger import Logger

from mailtwist.errors import MailError, StoreFull, StoreUnavailable
from mailtwist.store import changes
from mailtwist.store.batch import Batch, Unit
from mailtwist.store.engine import Engine, failure_of, is_busy

_logger = Logger()

BATCH_UNITS = 64
BATCH_OCTETS = 4 << 20
# So many units that are rolled back run between two batches.
TURN_PREVIEWS = 16
PATIENCE_S = 60.0
# Between looks at other processes' commits while nothing is to be written.
IDLE_S = 0.05
# With an unwell database: between attempts to write to it.
PROBE_S = 1.0
# SQLite waits this long for another process's lock before the queue is looked at again.
BUSY_MS = 2000
# PostgreSQL waits this long for a row lock before the unit gives way to others.
LOCK_MS = 2000


class Owner(Protocol):
    """Who is told, in the writer's thread, what became of units and of the store."""

    healthy: bool

    def settle(self, units: Sequence[Unit], report: changes.Report) -> None: ...
    def well(self) -> None: ...
    def unwell(self, error: MailError) -> None: ...


class Log(Protocol):
    """SQLite's write-ahead log, which a batch must pass."""

    def room(self) -> MailError | None: ...
    def enter(self) -> None: ...
    def leave(self, octets: int) -> None: ...


class Writer:
    """The thread around a :class:`Batch`: takes units from its queue until it is stopped."""

    def __init__(
        self,
        engine: Engine,
        owner: Owner,
        *,
        look: Callable[[Connection], None] | None = None,
        log: Log | None = None,
    ) -> None:
        self._engine = engine
        self._owner = owner
        self._look = look
        self._log = log
        self._queue: queue.SimpleQueue[Unit | None] = queue.SimpleQueue()
        self._carried: deque[Unit] = deque()
        self._report = changes.Report()
        self._batch = Batch(engine, on_commit=self._add_report)
        self._batch.prepare = self._prepare
        self._well = True
        self._stopping = False
        self._look_at = 0.0
        self._thread = threading.Thread(target=self._loop, name="store-writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, unit: Unit) -> None:
        """Hand a unit over; in any thread."""
        self._queue.put(unit)

    def stop(self) -> None:
        """Write what is queued, then end the thread."""
        self._queue.put(None)

    def join(self) -> None:
        self._thread.join()

    # -- the thread -------------------------------------------------------------------------

    def _loop(self) -> None:
        while not (self._stopping and not self._carried):
            try:
                self._turn()
            except Exception:
                _logger.failure("the writer stumbled")
        self._batch.close()

    def _turn(self) -> None:
        units = self._collect()
        if units:
            self._write([unit for unit in units if not unit.is_preview])
            for unit in units:
                if unit.is_preview:
                    self._write([unit])
        elif not self._stopping and not self._well:
            self._probe()
        if self._well and self._look is not None and time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + IDLE_S
            self._look_around(self._look)

    def _collect(self) -> list[Unit]:
        """The next batch and previews; empty when nothing came for a while."""
        units: list[Unit] = []
        octets = previews = 0
        if not self._carried and not self._stopping:
            try:
                self._take(self._queue.get(timeout=IDLE_S if self._well else PROBE_S))
            except queue.Empty:
                return []
        self._drain()
        while self._carried and len(units) < BATCH_UNITS:
            unit = self._carried[0]
            if previews == TURN_PREVIEWS:
                break
            if units and octets + unit.octets > BATCH_OCTETS:
                break
            self._carried.popleft()
            octets += unit.octets
            previews += unit.is_preview
            units.append(unit)
        return units

    def _take(self, unit: Unit | None) -> None:
        if unit is None:
            self._stopping = True
        else:
            self._carried.append(unit)

    def _drain(self) -> None:
        # qsize() is exact here: nobody else takes from the queue.
        for _ in range(self._queue.qsize()):
            self._take(self._queue.get())

    def _write(self, units: list[Unit]) -> None:
        units = [unit for unit in units if not unit.answered]
        if not units:
            return
        full = self._log.room() if self._log is not None else None
        if full is not None:
            self._fail_all(units, full)
            self._owner.settle(units, changes.Report())
            return
        if self._log is not None:
            self._log.enter()
        try:
            waiting = self._run(units)
        except Exception as error:
            waiting = self._trouble(units, error)
        else:
            self._judge(units)
        finally:
            if self._log is not None:
                self._log.leave(sum(unit.octets for unit in units))
        self._carried.extend(waiting)
        report, self._report = self._report, changes.Report()
        self._owner.settle([unit for unit in units if unit.done], report)

    def _run(self, units: list[Unit]) -> list[Unit]:
        if units[0].is_preview:
            run = partial(self._batch.preview, units[0])
        else:
            run = partial(self._batch.run, units)
        try:
            return run()
        except Exception as error:
            # A server that restarted while we were idle: its old connection is dead, the next
            # one is not. Only before COMMIT was tried, and only once.
            if not _is_lost(error) or any(unit.done for unit in units):
                raise
            self._batch.close(discard=True)
            return run()

    def _trouble(self, units: list[Unit], error: Exception) -> list[Unit]:
        """The batch failed as a whole; returns the units that may still wait for a lock."""
        failure = failure_of(error)
        if failure is None:
            _logger.failure("a batch failed")
            failure = StoreUnavailable(detail=f"{type(error).__name__}: {error}"[:500])
        self._batch.close(discard=True)
        self._turn_red(failure)
        undone = [unit for unit in units if not unit.done]
        if not is_busy(error):
            self._fail_all(undone, failure)
            return []
        # Another process holds SQLite's lock: who came lately goes on waiting.
        limit = time.monotonic() - PATIENCE_S / 2
        late = [unit for unit in undone if unit.born < limit]
        self._fail_all(late, failure)
        return [unit for unit in undone if not unit.done]

    def _judge(self, units: list[Unit]) -> None:
        """A batch was committed; but some of it may have found no room."""
        if units[0].is_preview:
            return  # it shows nothing of what a COMMIT would do
        full = next((unit.error for unit in units if isinstance(unit.error, StoreFull)), None)
        if full is not None:
            self._turn_red(full)
        elif not self._well or not self._owner.healthy:
            self._well = True
            self._owner.well()

    def _turn_red(self, failure: MailError) -> None:
        self._well = False
        self._owner.unwell(failure)

    @staticmethod
    def _fail_all(units: list[Unit], failure: MailError) -> None:
        for unit in units:
            unit.fail(type(failure)(detail=failure.detail))

    def _look_around(self, look: Callable[[Connection], None]) -> None:
        try:
            look(self._batch.connection)
        except Exception as error:
            failure = failure_of(error)
            if failure is None:
                raise
            self._batch.close(discard=True)
            self._turn_red(failure)

    def _probe(self) -> None:
        unit = Unit(work=probe)
        try:
            self._batch.run([unit])
            if unit.error is not None:
                raise unit.error
        except Exception as error:
            self._batch.close(discard=True)
            self._turn_red(failure_of(error) or StoreUnavailable(detail=str(error)[:500]))
        else:
            self._well = True
            self._owner.well()

    def _prepare(self, connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection
        if self._engine.is_sqlite:
            # Checkpoints have a thread of their own, so that no COMMIT waits for one.
            driver.execute("PRAGMA wal_autocheckpoint=0")
            driver.execute(f"PRAGMA busy_timeout={BUSY_MS}")
        else:
            driver.execute(f"SET lock_timeout = {LOCK_MS}")
            driver.commit()

    def _add_report(self, report: changes.Report) -> None:
        self._report.modseqs.update(report.modseqs)
        self._report.kinds |= report.kinds


def probe(connection: Connection) -> None:
    """Write something that nobody reads: does the store take it?"""
    changes.bump(connection, "probe")


def _is_lost(error: Exception) -> bool:
    return bool(getattr(error, "connection_invalidated", False))
