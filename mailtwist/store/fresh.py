"""A new store at this code's schema, made from the tables in place of the revisions.

For stores that live as long as a test run: they are there in a fifth of the time, and nothing
of alembic is imported. A test holds that the tables and the revisions are the same.
"""

from __future__ import annotations

from sqlalchemy import Column, MetaData, String, Table, event, insert

from mailtwist.store.engine import Engine, open_engine
from mailtwist.store.migrations.schema import metadata
from mailtwist.store.upgrade import SCHEMA_HEAD

# As alembic makes it.
_VERSION = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))


def make(url: str) -> None:
    """Make all tables in a database that is empty. Raises: MailError."""
    engine = open_engine(url)
    try:
        _fill(engine)
    finally:
        engine.dispose()


def _fill(engine: Engine) -> None:
    with engine.write() as connection:
        metadata.create_all(connection, checkfirst=False)
        _VERSION.create(connection)
        connection.execute(insert(_VERSION).values(version_num=SCHEMA_HEAD))


def hurry(engine: Engine) -> None:
    """Let commits not wait for the disk: what a crash of the machine takes, nobody misses."""
    event.listen(
        engine.writing, "connect", lambda driver, _: driver.execute("PRAGMA synchronous=OFF")
    )
    engine.writing.dispose()
