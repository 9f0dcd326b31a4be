"""Fresh stores for tests: a database with the current schema, quickly."""

from __future__ import annotations

import shutil
from pathlib import Path

from mailtwist.store import check
from mailtwist.store.engine import Engine
from mailtwist.store.upgrade import upgrade


class SqliteStores:
    """Copies one migrated file for each test."""

    def __init__(self, folder: Path) -> None:
        self._template = folder / "template.db"
        upgrade(f"sqlite:///{self._template}")

    def fresh(self, folder: Path) -> str:
        """The URL of a new database in the folder."""
        path = folder / "mailtwist.db"
        shutil.copyfile(self._template, path)
        return f"sqlite:///{path}"


def violations(engine: Engine) -> list[str]:
    """What ``store.check.verify`` finds wrong."""
    with engine.read() as connection:
        return check.verify(connection)
