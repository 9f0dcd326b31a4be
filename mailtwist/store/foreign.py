"""Hear what other processes commit: the command line, a second server, other nodes.

SQLite: ``PRAGMA data_version`` on the writer's own connection differs exactly
when another connection committed, so one statement every 50 ms tells.
PostgreSQL: LISTEN. Our own reports leave by a thread of their own, after COMMIT
and without waiting for the disk: NOTIFY inside the batches would make them
commit one after the other. What is lost on the way is found by the re-check
every 30 s and after each reconnection.
"""

from __future__ import annotations

import os
import queue
import sqlite3
import threading
import time
from typing import Any, Protocol

from sqlalchemy import Connection, exc
from twisted.logger import Logger

from mailtwist.store.changes import CHANNEL, Changes, Report, decode, notify
from mailtwist.store.engine import Engine, mapped

log = Logger()

RECHECK_S = 30.0
RECONNECT_S = 1.0
POLL_S = 0.25


class Ear(Protocol):
    """Who is told, in whatever thread hears it."""

    changes: Changes

    def heard(self, report: Report) -> None: ...


class DataVersion:
    """SQLite: looks whether others committed; called by the writer's thread."""

    def __init__(self, engine: Engine, ear: Ear) -> None:
        self._engine = engine
        self._ear = ear
        self._seen: tuple[Any, int] | None = None

    def look(self, connection: Connection) -> None:
        """Tell what others changed since the last look."""
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        (version,) = driver.execute("PRAGMA data_version").fetchone()
        # A new connection counts anew; it may have missed something.
        if self._seen == (driver, version):
            return
        self._seen = (driver, version)
        with self._engine.read() as reading:
            report = self._ear.changes.recheck(reading)
        self._ear.heard(report)


class Listener:
    """PostgreSQL: one thread that listens, one that tells."""

    def __init__(self, engine: Engine, ear: Ear) -> None:
        self._engine = engine
        self._ear = ear
        self._sender = os.urandom(6).hex()
        self._reports: queue.SimpleQueue[Report | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._listen, name="store-listener", daemon=True),
            threading.Thread(target=self._tell, name="store-teller", daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the threads and wait for them."""
        self._stopping.set()
        self._reports.put(None)
        for thread in self._threads:
            thread.join()

    def send(self, report: Report) -> None:
        """Tell the other nodes, soon."""
        self._reports.put(report)

    # -- listening ----------------------------------------------------------------------------

    def _listen(self) -> None:
        while not self._stopping.is_set():
            try:
                self._listen_once()
            except Exception as error:
                if not isinstance(error, exc.SQLAlchemyError) and not hasattr(error, "sqlstate"):
                    log.failure("listening for other nodes failed")
                self._stopping.wait(RECONNECT_S)

    def _listen_once(self) -> None:
        connection = self._engine.writing.connect()
        try:
            driver: Any = connection.connection.driver_connection
            driver.set_autocommit(True)
            driver.execute(f"LISTEN {CHANNEL}")
            due = 0.0
            while not self._stopping.is_set():
                if time.monotonic() >= due:
                    self._recheck()
                    due = time.monotonic() + RECHECK_S
                for notice in driver.notifies(timeout=POLL_S):
                    self._hear(notice.payload)
                    if self._stopping.is_set() or time.monotonic() >= due:
                        break
        finally:
            connection.invalidate()
            connection.close()

    def _hear(self, payload: str) -> None:
        sender, report = decode(payload)
        if sender == self._sender:
            return
        if report is None:
            self._recheck()
        else:
            self._ear.heard(report)

    def _recheck(self) -> None:
        with self._engine.read() as connection:
            report = self._ear.changes.recheck(connection)
        self._ear.heard(report)

    # -- telling ------------------------------------------------------------------------------

    def _tell(self) -> None:
        connection: Connection | None = None
        while (report := self._reports.get()) is not None:
            for _ in range(self._reports.qsize()):
                more = self._reports.get()
                if more is None:
                    self._reports.put(None)
                    break
                report.modseqs.update(more.modseqs)
                report.kinds |= more.kinds
            try:
                connection = connection or self._open()
                with mapped(), connection.begin():
                    notify(connection, report, sender=self._sender)
            except Exception:
                # The others find it by themselves, a little later.
                log.debug("other nodes could not be told")
                if connection is not None:
                    connection.invalidate()
                    connection.close()
                    connection = None
        if connection is not None:
            connection.close()

    def _open(self) -> Connection:
        connection = self._engine.writing.connect()
        connection.exec_driver_sql("SET synchronous_commit = off")
        connection.commit()
        return connection
