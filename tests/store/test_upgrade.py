"""The schema arrives, agrees with the tables of the code, and is refused when newer."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, text

from mailtwist.errors import ConfigError
from mailtwist.store import upgrade as upgrading
from mailtwist.store.engine import Engine, open_engine
from mailtwist.store.migrations.schema import metadata
from mailtwist.store.upgrade import SCHEMA_HEAD, current_revision, upgrade


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/empty.db"
        return
    server = request.getfixturevalue("postgresql_server")
    url = server.empty()
    yield url
    server.drop(url)


@pytest.fixture
def empty(empty_url: str) -> Iterator[Engine]:
    engine = open_engine(empty_url)
    yield engine
    engine.dispose()


def test_the_revisions_make_exactly_the_tables_of_the_code(empty: Engine) -> None:
    assert upgrade(empty)
    with empty.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert current_revision(connection) == SCHEMA_HEAD


def sqlite_schema(engine: Engine) -> set[str]:
    with engine.read() as connection:
        statements = connection.execute(text("SELECT sql FROM sqlite_schema")).scalars()
        return {_sorted(sql) for sql in statements if sql}


def _sorted(sql: str) -> str:
    """A statement whose spacing and order within the brackets mean nothing.

    A column that was added stands on the line of the one before it.
    """
    head, _, rest = " ".join(sql.split()).partition("(")
    body, _, tail = rest.rpartition(")")
    pieces = re.split(r",\s*(?![^(]*\))", body)
    return "\n".join([head.strip(), *sorted(piece.strip() for piece in pieces), tail.strip()])


POSTGRESQL_SCHEMA = """
    SELECT relname || relkind::text || coalesce(array_to_string(reloptions, ','), '') FROM pg_class
     WHERE relnamespace = 'public'::regnamespace
    UNION ALL
    SELECT attrelid::regclass::text || '.' || attname || ' ' || format_type(atttypid, atttypmod)
           || attnotnull::text || coalesce(pg_get_expr(adbin, adrelid), '')
      FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
     WHERE attnum > 0 AND attrelid IN (
           SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r')
    UNION ALL
    SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'"""


def postgresql_schema(engine: Engine) -> set[str]:
    with engine.read() as connection:
        return set(connection.execute(text(POSTGRESQL_SCHEMA)).scalars())


def test_the_tables_of_the_code_made_directly_are_the_same(
    empty: Engine, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """What alembic's comparison overlooks: WITHOUT ROWID, partial indexes, fill factors."""
    upgrade(empty)
    if empty.is_sqlite:
        made, schema = open_engine(f"sqlite:///{tmp_path}/made.db"), sqlite_schema
    else:
        made = open_engine(request.getfixturevalue("postgresql_server").empty())
        schema = postgresql_schema
    try:
        with made.write() as connection:
            metadata.create_all(connection)
        expected = schema(made)
    finally:
        made.dispose()
    versions = {line for line in schema(empty) if line and "alembic_version" in line}
    assert versions
    assert schema(empty) - versions == expected


def test_a_new_database_gets_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "of" / "mail"
    assert upgrade(f"sqlite:///{folder}/mailtwist.db")
    assert folder.stat().st_mode & 0o777 == 0o700


def test_an_upgrade_with_nothing_to_do_imports_no_alembic(sqlite_url: str) -> None:
    code = (
        "import sys; from mailtwist.store.upgrade import upgrade;"
        f" assert not upgrade({sqlite_url!r}); assert 'alembic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_processes_that_start_together_upgrade_once(empty_url: str) -> None:
    code = f"from mailtwist.store.upgrade import upgrade; print(upgrade({empty_url!r}))"
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    answers = sorted(process.communicate(timeout=60)[0].strip() for process in processes)
    assert answers == ["False", "False", "True"]


def test_a_newer_database_is_refused(engine: Engine) -> None:
    with engine.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999_later'"))
    with pytest.raises(ConfigError, match="newer than this mailtwist"):
        upgrade(engine)
    with engine.read() as connection, pytest.raises(ConfigError, match="newer"):
        upgrading.check(connection)


def test_an_empty_database_is_refused_where_nothing_may_be_changed(empty: Engine) -> None:
    with empty.read() as connection, pytest.raises(ConfigError, match="db upgrade"):
        upgrading.check(connection)


def test_an_upgrade_that_fails_leaves_nothing_behind(
    empty: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = upgrading._run

    def run_and_fail(connection: Connection, current: str | None, to: str, is_shared: bool) -> None:
        run(connection, current, to, is_shared)
        raise ZeroDivisionError

    monkeypatch.setattr(upgrading, "_run", run_and_fail)
    with pytest.raises(ZeroDivisionError):
        upgrade(empty)
    with empty.read() as connection:
        assert inspect(connection).get_table_names() == []


def test_the_head_is_the_last_revision() -> None:
    from alembic.script import ScriptDirectory

    assert ScriptDirectory.from_config(upgrading._config()).get_heads() == [SCHEMA_HEAD]
