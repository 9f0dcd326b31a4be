"""Inboxes over HTTP, for the modules that ask them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mailtwist.store.database import Inline
from mailtwist.store.engine import open_engine
from tests.http.inboxes import Desk
from tests.support.stores import SqliteStores, violations


@pytest.fixture
def database(sqlite_stores: SqliteStores, tmp_path: Path) -> Iterator[Inline]:
    engine = open_engine(sqlite_stores.fresh(tmp_path))
    database = Inline(engine)
    yield database
    assert violations(engine) == []
    database.release()


@pytest.fixture
def desk(database: Inline) -> Desk:
    return Desk(database)
