"""Open the database: connections, pragmas, transactions and what their errors mean.

:func:`open_engine` serves the command line, tests and migrations directly, and
:mod:`mailtwist.store.database` inside the reactor. It hides which of the two
databases answers: a writing transaction on SQLite begins IMMEDIATE and so never
meets another writer half-way, a reading one sees one snapshot on both.

Errors of the driver become :class:`StoreUnavailable` or :class:`StoreFull`; the
SQL stays in ``detail`` and ``__cause__``, which are for the log.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, event, exc
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import QueuePool

from mailtwist.errors import ConfigError, MailError, StoreFull, StoreUnavailable
from mailtwist.store import changes

__all__ = [
    "Connection",
    "Engine",
    "failure_of",
    "is_busy",
    "is_contention",
    "is_fatal",
    "lock_accounts",
    "mapped",
    "open_engine",
]

# A foreign writer (a backup, the command line) may hold the lock this long before we give up.
BUSY_TIMEOUT_S = 30.0
STATEMENT_TIMEOUT_S = 30
LOCK_TIMEOUT_S = 5
CONNECT_TIMEOUT_S = 5
PAGE_SIZE = 4096
CACHE_KIB = 8192

# SQLite's primary result codes; everything else (constraint, misuse, schema) is our bug.
_SQLITE_FULL = 13
_SQLITE_UNAVAILABLE = {
    5: "busy",
    6: "locked",
    7: "out of memory",
    8: "read-only",
    9: "interrupted",
    10: "I/O error",
    11: "corrupt",
    14: "cannot open",
    15: "protocol",
    26: "not a database",
}
# PostgreSQL: disk full; and the classes connection, transaction rollback, resources, operator
# intervention, system error. 25006: read-only server, 55P03: lock time-out.
_POSTGRESQL_FULL = "53100"
_POSTGRESQL_UNAVAILABLE = ("08", "40", "53", "57", "58", "25006", "55P03", "F0", "XX")
_CONTENTION = ("40001", "40P01", "55P03")


class Engine:
    """One database: ``write()`` and ``read()`` transactions for whoever may block."""

    def __init__(self, url: URL, writing: sqlalchemy.Engine, reading: sqlalchemy.Engine) -> None:
        self.url = url
        self.writing = writing
        self.reading = reading
        self.is_sqlite = url.get_backend_name() == "sqlite"

    @property
    def path(self) -> str:
        """The database file of SQLite."""
        return self.url.database or ""

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A writing transaction: committed and synced on leaving, rolled back when the body raises.

        Other processes hear what the body reported through :mod:`mailtwist.store.changes`.
        """
        with mapped(), self.writing.connect() as connection:
            changes.forget(connection)
            with connection.begin():
                yield connection
                if not self.is_sqlite:
                    changes.notify(connection, changes.pending(connection), sender="")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A reading transaction: one snapshot for all statements of the body."""
        with mapped(), self.reading.connect() as connection:
            yield connection

    def dispose(self) -> None:
        """Close all connections; the last one out writes SQLite's log back."""
        self.reading.dispose()
        self.writing.dispose()


def open_engine(url: str | URL) -> Engine:
    """Open the database at an SQLAlchemy URL; nothing is connected yet.

    Raises: ConfigError when the URL names no database that we know.
    """
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except exc.ArgumentError as error:
        raise ConfigError("database_url cannot be understood") from error
    if backend == "sqlite" and parsed.database and parsed.database != ":memory:":
        return Engine(parsed, _sqlite(parsed, writes=True), _sqlite(parsed, writes=False))
    if backend == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
        return Engine(parsed, _postgresql(parsed, writes=True), _postgresql(parsed, writes=False))
    raise ConfigError("database_url must begin with sqlite:/// or postgresql+psycopg://")


def _sqlite(url: URL, *, writes: bool) -> sqlalchemy.Engine:
    engine = sqlalchemy.create_engine(
        url,
        poolclass=QueuePool,
        pool_size=4,
        max_overflow=8,
        connect_args={"check_same_thread": False, "cached_statements": 256},
    )

    def prepare(driver: sqlite3.Connection, record: object) -> None:
        driver.isolation_level = None  # the driver begins nothing by itself
        driver.execute(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_S * 1000)}")
        driver.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        if writes:
            _make_durable(driver)
        else:
            driver.execute("PRAGMA query_only=ON")

    def create(dialect: object, record: object, arguments: list[Any], options: object) -> None:
        _create_private(arguments[0])

    begin_statement = "BEGIN IMMEDIATE" if writes else "BEGIN"

    def begin(connection: Connection) -> None:
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.execute(begin_statement)

    event.listen(engine, "do_connect", create)
    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", begin)
    return engine


def _create_private(path: str) -> None:
    """Make the database file readable by its owner only; SQLite's log files take the same mode."""
    if path.startswith("file:"):
        return
    with suppress(OSError):  # there already, or not creatable: connecting tells
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _make_durable(driver: sqlite3.Connection) -> None:
    """Settle the file's format (first connection only) and how this connection commits."""
    # Each of these takes the write lock, and counts only before the first table.
    if driver.execute("PRAGMA page_count").fetchone() == (0,):
        driver.execute(f"PRAGMA page_size={PAGE_SIZE}")
        driver.execute("PRAGMA auto_vacuum=INCREMENTAL")
    if driver.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        _switch_to_wal(driver)
    driver.execute("PRAGMA synchronous=FULL")
    driver.execute("PRAGMA journal_size_limit=33554432")


def _switch_to_wal(driver: sqlite3.Connection) -> None:
    # The switch does not wait for the busy time-out when another process makes it too.
    deadline = time.monotonic() + 5
    while True:
        try:
            driver.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def _postgresql(url: URL, *, writes: bool) -> sqlalchemy.Engine:
    settings = {
        "lock_timeout": f"{LOCK_TIMEOUT_S}s",
        "statement_timeout": f"{STATEMENT_TIMEOUT_S}s",
        "idle_in_transaction_session_timeout": "60s",
    }
    if writes:
        settings["synchronous_commit"] = "on"
    else:
        settings["default_transaction_read_only"] = "on"
        # All statements of a reading transaction see one snapshot, as on SQLite.
        settings["default_transaction_isolation"] = "repeatable\\ read"
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    theirs = url.query.get("options", "")
    if isinstance(theirs, str) and theirs:
        options = f"{options} {theirs}"
    try:
        return sqlalchemy.create_engine(
            url,
            pool_size=4,
            max_overflow=8,
            pool_pre_ping=True,
            connect_args={"options": options, "connect_timeout": CONNECT_TIMEOUT_S},
        )
    except ImportError as error:
        raise ConfigError(
            "database_url names PostgreSQL: install mailtwist[postgresql]", detail=str(error)
        ) from error


def lock_accounts(connection: Connection, accounts: Collection[int]) -> None:
    """Lock accounts before anything else, in order: writers that do so never wait in a circle.

    SQLite has one writer, who needs none.
    """
    if accounts and connection.dialect.name == "postgresql":
        connection.exec_driver_sql(
            "SELECT account_id FROM account_state WHERE account_id = ANY(%s)"
            " ORDER BY account_id FOR UPDATE",
            (sorted(set(accounts)),),
        )


# -- what an error means --------------------------------------------------------------------


@contextmanager
def mapped() -> Iterator[None]:
    """Turn errors of the database into those of :mod:`mailtwist.errors`; our bugs pass."""
    try:
        yield
    except (exc.SQLAlchemyError, sqlite3.Error) as error:
        failure = failure_of(error)
        if failure is None:
            raise
        raise failure from error


def failure_of(error: BaseException) -> MailError | None:
    """Say what a driver's error means to the peer; None: it is our bug, not the store's state."""
    if isinstance(error, MailError):
        return error
    if isinstance(error, exc.TimeoutError):
        return StoreUnavailable(detail="no free connection")
    original: Any = error.orig if isinstance(error, exc.DBAPIError) else error
    detail = f"{type(original).__name__}: {original}".strip()[:500]
    if isinstance(original, sqlite3.Error):
        code = getattr(original, "sqlite_errorcode", 0) & 0xFF
        if code == _SQLITE_FULL:
            return StoreFull(detail=detail)
        return StoreUnavailable(detail=detail) if code in _SQLITE_UNAVAILABLE else None
    if not hasattr(original, "sqlstate"):
        return None
    state = original.sqlstate
    if state == _POSTGRESQL_FULL:
        return StoreFull(detail=detail)
    # psycopg tells a lost or refused connection without a state.
    lost = state is None and type(original).__name__ in ("OperationalError", "ConnectionTimeout")
    if lost or (state or "").startswith(_POSTGRESQL_UNAVAILABLE):
        return StoreUnavailable(detail=detail)
    return None


def is_contention(error: BaseException) -> bool:
    """Whether another transaction stood in the way: the same unit may succeed at once."""
    original = error.orig if isinstance(error, exc.DBAPIError) else error
    return getattr(original, "sqlstate", None) in _CONTENTION


def is_fatal(error: BaseException) -> bool:
    """Whether the database is unwell rather than the statement: no other would fare better."""
    if is_contention(error) or not isinstance(failure_of(error), StoreUnavailable):
        return False
    original = error.orig if isinstance(error, exc.DBAPIError) else error
    state = getattr(original, "sqlstate", None)
    return state is None or state.startswith(("08", "57P", "58", "25006"))


def is_busy(error: BaseException) -> bool:
    """Whether another process holds SQLite's write lock."""
    original = error.orig if isinstance(error, exc.DBAPIError) else error
    return getattr(original, "sqlite_errorcode", 0) & 0xFF in (5, 6)
