"""Fixtures that all tests share: a fresh store on each of the two databases.

``engine`` and ``database`` run a test on SQLite and on PostgreSQL; after each
test that used one, the store's own check must find nothing wrong.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import event

from mailtwist.store.database import Inline
from mailtwist.store.engine import Engine, open_engine
from tests.support import postgres
from tests.support.stores import SqliteStores, violations


def pytest_collection() -> None:
    """Ten thousand tests are made, and stay to the end: the collector need not look at them."""
    gc.disable()


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def sqlite_stores(tmp_path_factory: pytest.TempPathFactory) -> SqliteStores:
    return SqliteStores(tmp_path_factory.mktemp("stores"))


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[postgres.Server]:
    """One server for the whole run; absent: skip, unless the real thing is required."""
    reason = postgres.absence()
    if reason and os.environ.get("MAILTWIST_REQUIRE_REAL"):
        pytest.fail(f"PostgreSQL is required: {reason}")
    if reason:
        pytest.skip(reason)
    server = postgres.Server()
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(
    request: pytest.FixtureRequest, sqlite_stores: SqliteStores, tmp_path: Path
) -> Iterator[str]:
    """The URL of a fresh store, on one database after the other."""
    if request.param == "sqlite":
        yield sqlite_stores.fresh(tmp_path)
        return
    server: postgres.Server = request.getfixturevalue("postgresql_server")
    url = server.fresh()
    yield url
    server.drop(url)


@pytest.fixture
def engine(store_url: str) -> Iterator[Engine]:
    """A fresh store for plain synchronous use, checked for consistency at the end.

    Its commits do not wait for the disk: no test switches the machine off.
    """
    opened = open_engine(store_url)
    if opened.is_sqlite:
        hurry = "PRAGMA synchronous=OFF"
        event.listen(opened.writing, "connect", lambda driver, _: driver.execute(hurry))
    yield opened
    try:
        assert violations(opened) == []
    finally:
        opened.dispose()


@pytest.fixture
def database(engine: Engine) -> Iterator[Inline]:
    """The same store with the methods of Database; nothing ever waits (see support.now)."""
    inline = Inline(engine)
    yield inline
    inline.release()


@pytest.fixture
def sqlite_url(sqlite_stores: SqliteStores, tmp_path: Path) -> str:
    """The URL of a fresh SQLite store, for tests that only one database can be in."""
    return sqlite_stores.fresh(tmp_path)


@pytest.fixture
def postgresql_url(postgresql_server: postgres.Server) -> Iterator[str]:
    """The URL of a fresh PostgreSQL store."""
    url = postgresql_server.fresh()
    yield url
    postgresql_server.drop(url)
