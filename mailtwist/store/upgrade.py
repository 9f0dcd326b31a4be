"""Bring the database to the schema of this code, before any listener opens.

One transaction under a lock, so that two processes may start together and a
crash half-way leaves the old schema. Alembic is imported only when there is
something to do: it costs megabytes that an idle server would keep.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from mailtwist.errors import ConfigError
from mailtwist.store.engine import Engine, open_engine

if TYPE_CHECKING:
    from alembic.config import Config

SCHEMA_HEAD = "0009_send"

# Any number that only we use: the advisory lock of migrations on PostgreSQL.
_LOCK = 0x6D61_696C_7477


def current_revision(connection: Connection) -> str | None:
    """The revision that the database is at; None: it is empty."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    row = connection.execute(text("SELECT version_num FROM alembic_version")).first()
    return None if row is None else str(row[0])


def upgrade(store: Engine | str, *, to: str = SCHEMA_HEAD, is_shared: bool = False) -> bool:
    """Run the revisions that are missing; False when there were none.

    ``is_shared``: a process of the version before goes on using the database, so that only
    revisions are run with which it can (``EXPANDS = True`` in their module: they add what the
    older code need not know).

    A new SQLite file gets its folder here, and nowhere later: that of a disk which went away
    under a running server must not be made anew.
    Raises: ConfigError when the database was made by a newer mailtwist, or must not be shared.
    """
    if isinstance(store, str):
        engine = open_engine(store)
        try:
            return upgrade(engine, to=to, is_shared=is_shared)
        finally:
            engine.dispose()
    if store.is_sqlite:
        with suppress(OSError):  # connecting tells
            Path(store.path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with store.write() as connection:
        _lock(connection)
        current = current_revision(connection)
        if current == to:
            return False
        _run(connection, current, to, is_shared)
        return True


def check(connection: Connection) -> None:
    """Refuse a database that is not at this code's schema.

    Raises: ConfigError, whose text says what to do.
    """
    current = current_revision(connection)
    if current == SCHEMA_HEAD:
        return
    if current is not None and not _knows(current):
        raise _too_new(current)
    raise ConfigError("database_url: the schema is not up to date; run: mailtwist db upgrade")


def _lock(connection: Connection) -> None:
    # SQLite: BEGIN IMMEDIATE holds it already.
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL lock_timeout = '120s'")
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")


def _run(connection: Connection, current: str | None, to: str, is_shared: bool) -> None:
    from alembic import command

    config = _config()
    if current is not None and not _knows(current):
        raise _too_new(current)
    if is_shared and current is not None:
        _refuse_to_share(config, current, to)
    config.attributes["connection"] = connection
    command.upgrade(config, to)


def _refuse_to_share(config: Config, current: str, to: str) -> None:
    from alembic.script import ScriptDirectory

    for script in ScriptDirectory.from_config(config).iterate_revisions(to, current):
        if not getattr(script.module, "EXPANDS", False):
            raise ConfigError(
                f"the schema {script.revision} cannot be shared with the version that runs now:"
                " stop it and start anew"
            )


def _knows(revision: str) -> bool:
    from alembic.script import ScriptDirectory

    revisions = ScriptDirectory.from_config(_config()).walk_revisions()
    return any(script.revision == revision for script in revisions)


def _too_new(revision: str) -> ConfigError:
    return ConfigError(
        f"database_url: the database is newer than this mailtwist"
        f" (schema {revision}, known up to {SCHEMA_HEAD})"
    )


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config
