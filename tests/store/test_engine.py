"""Connections: what they promise, and what their errors mean."""

from __future__ import annotations

import shutil
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import event, exc, text

from mailtwist.errors import ConfigError, Conflict, StoreFull, StoreUnavailable
from mailtwist.store import shrink
from mailtwist.store.engine import Engine, failure_of, is_contention, is_fatal, open_engine
from tests.support.writers import write_note


def settings(engine: Engine, *names: str) -> list[object]:
    word = "PRAGMA" if engine.is_sqlite else "SHOW"
    with engine.write() as connection:
        return [connection.exec_driver_sql(f"{word} {name}").scalar() for name in names]


def test_a_commit_is_on_the_disk_when_it_is_answered(store_url: str) -> None:
    """With less, a killed process loses nothing, but a power cut does."""
    engine = open_engine(store_url)
    if engine.is_sqlite:
        assert settings(engine, "synchronous", "journal_mode") == [2, "wal"]
    else:
        assert settings(engine, "synchronous_commit") == ["on"]
    engine.dispose()


SYNC = """
import sys
from mailtwist.store.engine import open_engine
from tests.support.writers import write_note
engine = open_engine(sys.argv[1])
for n in range(20):
    with engine.write() as connection:
        write_note(connection, f"n{n}")
"""


def test_each_commit_of_sqlite_is_a_call_to_the_disk(sqlite_url: str, tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("no strace")
    log = tmp_path / "calls"
    trace = ["strace", "-f", "-qq", "-e", "trace=fsync,fdatasync", "-o", str(log)]
    subprocess.run([*trace, sys.executable, "-c", SYNC, sqlite_url], check=True)
    assert len(log.read_text().splitlines()) >= 20


def test_the_file_is_made_to_last_and_for_its_owner_only(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/new.db")
    with engine.write() as connection:
        write = connection.exec_driver_sql
        write("CREATE TABLE t (a)")
    assert settings(engine, "auto_vacuum", "page_size") == [2, 4096]
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {0o600}
    engine.dispose()


def test_waiting_for_locks_and_statements_ends(postgresql_url: str) -> None:
    engine = open_engine(postgresql_url)
    assert settings(engine, "lock_timeout", "statement_timeout") == ["5s", "30s"]
    engine.dispose()


def test_a_writing_transaction_that_raises_leaves_nothing(engine: Engine) -> None:
    def refuse() -> None:
        with engine.write() as connection:
            write_note(connection, "a")
            raise Conflict

    with pytest.raises(Conflict):
        refuse()
    with engine.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM generation")).scalar() == 0


def test_a_writing_transaction_holds_the_lock_from_its_beginning(sqlite_url: str) -> None:
    """A transaction that only reads at first cannot be upgraded when another wrote meanwhile."""
    engine = open_engine(sqlite_url)
    event.listen(
        engine.writing, "connect", lambda driver, _: driver.execute("PRAGMA busy_timeout=1")
    )
    with engine.write():
        second = engine.write()
        with pytest.raises(StoreUnavailable):
            second.__enter__()
    engine.dispose()


@pytest.mark.parametrize(
    "url", ["", "nonsense", "mysql://x/y", "sqlite://", "sqlite:///:memory:", "postgresql//x"]
)
def test_a_database_that_we_do_not_know_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="database_url"):
        open_engine(url)


def test_a_folder_that_is_not_there_makes_the_store_unavailable(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/missing/mailtwist.db")
    with pytest.raises(StoreUnavailable), engine.write():
        pass
    with pytest.raises(StoreUnavailable), engine.read() as connection:
        connection.execute(text("SELECT 1"))
    engine.dispose()


def test_a_server_that_does_not_answer_makes_the_store_unavailable() -> None:
    engine = open_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    with pytest.raises(StoreUnavailable) as raised, engine.write():
        pass
    assert "127.0.0.1" not in raised.value.text
    engine.dispose()


def test_a_file_that_is_no_database_makes_the_store_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "mailtwist.db"
    path.write_bytes(b"something else" * 1000)
    engine = open_engine(f"sqlite:///{path}")
    with pytest.raises(StoreUnavailable), engine.write():
        pass
    engine.dispose()


def sqlite_error(code: int) -> BaseException:
    error = sqlite3.OperationalError("INSERT INTO secrets")
    error.sqlite_errorcode = code
    return exc.OperationalError("INSERT INTO secrets", {}, error)


def postgresql_error(state: str | None, kind: str = "DatabaseError") -> BaseException:
    error = type(kind, (Exception,), {"sqlstate": state})("INSERT INTO secrets")
    return exc.OperationalError("INSERT INTO secrets", {}, error)


SQLITE_IOERR_FSYNC = 10 | 4 << 8


@pytest.mark.parametrize(
    "error, meaning, contention, fatal",
    [
        (sqlite_error(13), StoreFull, False, False),
        (sqlite_error(5), StoreUnavailable, False, True),
        (sqlite_error(8), StoreUnavailable, False, True),
        (sqlite_error(SQLITE_IOERR_FSYNC), StoreUnavailable, False, True),
        (sqlite_error(19), type(None), False, False),
        (postgresql_error("53100"), StoreFull, False, False),
        (postgresql_error("40001"), StoreUnavailable, True, False),
        (postgresql_error("40P01"), StoreUnavailable, True, False),
        (postgresql_error("55P03"), StoreUnavailable, True, False),
        (postgresql_error("57014"), StoreUnavailable, False, False),
        (postgresql_error("57P01"), StoreUnavailable, False, True),
        (postgresql_error("25006"), StoreUnavailable, False, True),
        (postgresql_error("23505"), type(None), False, False),
        (postgresql_error(None, "OperationalError"), StoreUnavailable, False, True),
        (postgresql_error(None, "ProgrammingError"), type(None), False, False),
        (ZeroDivisionError(), type(None), False, False),
    ],
)
def test_errors_of_the_driver_have_a_meaning(
    error: BaseException, meaning: type, contention: bool, fatal: bool
) -> None:
    failure = failure_of(error)
    assert type(failure) is meaning
    assert (is_contention(error), is_fatal(error)) == (contention, fatal)
    assert failure is None or "secrets" not in failure.text


def test_a_file_with_many_free_pages_shrinks_in_steps(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shrink, "KEEP", 100)
    engine = open_engine(sqlite_url)

    def pages() -> object:
        return settings(engine, "page_count")[0]

    small = pages()
    with engine.write() as connection:
        connection.execute(text("CREATE TABLE filler AS SELECT zeroblob(6000000) AS z"))
    with engine.write() as connection:
        connection.execute(text("DROP TABLE filler"))
    large, steps = pages(), 0
    finished = False
    while not finished:
        with engine.write() as connection:
            finished = shrink.step(connection)
        steps += 1
    assert steps > 2
    assert int(str(pages())) < int(str(small)) + 100 < int(str(large))
    engine.dispose()
