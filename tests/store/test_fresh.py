"""A store made from the tables is the one that the revisions make."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import text

from mailtwist.store import fresh
from mailtwist.store.engine import Engine, open_engine
from mailtwist.store.upgrade import check, upgrade
from tests.support.stores import violations


def schema(engine: Engine) -> set[str]:
    with engine.read() as connection:
        return set(connection.execute(text("SELECT name FROM sqlite_schema")).scalars())


def test_a_fresh_store_is_ready_and_up_to_date(sqlite_url: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/fresh.db"
    fresh.make(url)
    made, migrated = open_engine(url), open_engine(sqlite_url)
    try:
        fresh.hurry(made)
        with made.write() as connection:
            check(connection)
            assert connection.execute(text("PRAGMA synchronous")).scalar() == 0
        assert not upgrade(made)
        assert schema(made) == schema(migrated)
        assert violations(made) == []
    finally:
        made.dispose()
        migrated.dispose()
