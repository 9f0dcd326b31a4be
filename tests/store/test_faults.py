"""The store in trouble: what callers are told, that nothing is lost, that it recovers by itself."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, text

from mailtwist.errors import MailError, StoreFull, StoreUnavailable
from mailtwist.store import checkpoint, content, writer
from mailtwist.store.batch import Unit
from mailtwist.store.checkpoint import Checkpointer
from mailtwist.store.database import Inline
from mailtwist.store.engine import Engine, open_engine
from mailtwist.store.tables import content as content_table
from tests.support.now import now
from tests.support.postgres import Server
from tests.support.stores import violations
from tests.support.writers import Running, note, notes


@pytest.fixture
def sqlite(sqlite_url: str) -> Iterator[Engine]:
    engine = open_engine(sqlite_url)
    yield engine
    assert violations(engine) == []
    engine.dispose()


# -- read-only and full -----------------------------------------------------------------------


def test_a_read_only_store_takes_nothing_until_it_is_writable_again(sqlite: Engine) -> None:
    readonly = [True]

    def prepare(driver: sqlite3.Connection, _: object) -> None:
        driver.execute(f"PRAGMA query_only={'ON' if readonly else 'OFF'}")

    event.listen(sqlite.writing, "connect", prepare)
    with Running(sqlite) as running:
        refused = note("a")
        running.run(refused)
        assert isinstance(refused.error, StoreUnavailable)
        assert refused.error.code == 451
        assert not running.owner.healthy
        with sqlite.read() as connection:
            assert connection.execute(text("SELECT count(*) FROM generation")).scalar() == 0
        readonly.clear()
        again = note("a")
        running.run(again)
        assert again.error is None
        assert running.owner.healthy


def test_a_read_only_file_is_told_to_the_command_line(sqlite: Engine) -> None:
    sqlite.dispose()  # the log is written back
    engine = open_engine(f"sqlite:///file:{sqlite.path}?mode=ro&uri=true")
    with pytest.raises(StoreUnavailable) as raised, engine.write() as connection:
        connection.execute(text("INSERT INTO generation (kind) VALUES ('a')"))
    assert "generation" not in raised.value.text
    engine.dispose()


def limit_pages(engine: Engine, spare: int) -> list[int]:
    """Let the database file grow by so many pages only, while the answer holds anything."""
    full = [spare]

    def prepare(driver: sqlite3.Connection, _: object) -> None:
        (pages,) = driver.execute("PRAGMA page_count").fetchone()
        driver.execute(f"PRAGMA max_page_count={pages + full[0] if full else 1 << 30}")

    event.listen(engine.writing, "connect", prepare)
    engine.writing.dispose()
    return full


def store_octets(database: Inline, octets: int) -> None:
    def work(connection: Connection) -> None:
        content_id = database.ids.next()
        values = {"content_id": content_id, "octets": octets, "sha256": b"", "data": bytes(octets)}
        connection.execute(content_table.insert(), values)
        content.doubt(connection, [content_id])

    now(database.write(work))


def test_a_full_disk_is_told_and_smaller_things_still_fit(sqlite: Engine) -> None:
    full = limit_pages(sqlite, 40)
    database = Inline(sqlite)
    with pytest.raises(StoreFull) as raised:
        store_octets(database, 60 * 4096)
    assert (raised.value.code, raised.value.status) == (452, "4.3.1")
    store_octets(database, 4096)
    full.clear()
    sqlite.writing.dispose()
    store_octets(database, 60 * 4096)


def test_on_a_full_disk_the_writer_answers_452_and_recovers(
    sqlite: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "PROBE_S", 0.02)
    full = limit_pages(sqlite, 0)

    def large(connection: Connection) -> None:
        connection.execute(text("CREATE TABLE filler AS SELECT zeroblob(100000) AS z"))
        connection.execute(text("DROP TABLE filler"))

    with Running(sqlite) as running:
        units = [Unit(work=large), note("a"), Unit(work=large)]
        running.run(*units)
        assert [type(unit.error) for unit in units] == [StoreFull, type(None), StoreFull]
        assert isinstance(running.owner.health.get(timeout=20), StoreFull)
        full.clear()
        while running.owner.health.get(timeout=20) is not None:
            pass


# A process that may write files up to a size only: what the kernel does when a disk is full.
FULL_DISK = """
import resource, signal, sys
from sqlalchemy import text
from mailtwist.errors import MailError
from mailtwist.store.engine import open_engine
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
engine = open_engine(sys.argv[1])
def write(n):
    with engine.write() as connection:
        connection.execute(text("INSERT INTO generation (kind, n) VALUES (:k, zeroblob(500000))"),
                           {"k": f"n{n}"})
write(0)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
written = [0]
for n in range(1, 9):
    try:
        write(n)
        written.append(n)
    except MailError as error:
        assert error.code in (451, 452), error
        break
else:
    raise SystemExit("the limit had no effect")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
write(10)
print(*written, 10)
"""


def test_a_write_that_the_kernel_refuses_is_told_and_nothing_committed_is_lost(
    sqlite: Engine,
) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(sqlite.url)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert notes(sqlite) == {f"n{n}" for n in answer.stdout.split()}


# -- others hold the lock ---------------------------------------------------------------------

HOLD_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.readline()
connection.execute("COMMIT")
print("free", flush=True)
"""


@pytest.fixture
def locked(sqlite: Engine) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK, sqlite.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.communicate("\n", timeout=20)


def test_units_wait_while_another_process_holds_the_lock(
    sqlite: Engine, locked: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "BUSY_MS", 20)
    with Running(sqlite) as running:
        unit = note("a")
        running.writer.submit(unit)
        assert isinstance(running.owner.health.get(timeout=20), StoreUnavailable)
        assert not unit.done
        assert locked.stdin is not None
        locked.stdin.write("\n")
        locked.stdin.flush()
        running.owner.wait_for(unit)
        assert unit.error is None


def test_a_store_that_stays_locked_is_answered_451(
    sqlite: Engine, locked: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "BUSY_MS", 20)
    monkeypatch.setattr(writer, "PATIENCE_S", 0.2)
    with Running(sqlite) as running:
        units = [note(f"n{n}") for n in range(100)]
        running.run(*units)
    assert {type(unit.error) for unit in units} == {StoreUnavailable}
    assert units[0].error.code == 451


def test_reading_goes_on_while_another_process_holds_the_lock(
    sqlite: Engine, locked: subprocess.Popen[str]
) -> None:
    assert notes(sqlite) == set()


# -- PostgreSQL -------------------------------------------------------------------------------


def with_accounts(engine: Engine) -> Iterator[Engine]:
    with engine.write() as connection:
        for account_id in (1, 2):
            connection.execute(
                text("INSERT INTO account_state (account_id) VALUES (:n)"), {"n": account_id}
            )
    yield engine
    with engine.write() as connection:
        connection.execute(text("DELETE FROM account_state"))


@pytest.fixture
def accounts(engine: Engine) -> Iterator[Engine]:
    yield from with_accounts(engine)


@pytest.fixture
def locking(postgresql_url: str) -> Iterator[Engine]:
    """PostgreSQL with two accounts and little patience; SQLite knows no row locks."""
    engine = open_engine(postgresql_url)
    limit = text("SET LOCAL lock_timeout = '50ms'")
    event.listen(engine.writing, "begin", lambda connection: connection.execute(limit))
    yield from with_accounts(engine)
    assert violations(engine) == []
    engine.dispose()


def raise_modseqs(connection: Connection, order: list[int]) -> None:
    for account_id in order:
        connection.execute(
            text("UPDATE account_state SET modseq = modseq + 1 WHERE account_id = :n"),
            {"n": account_id},
        )


def modseqs(engine: Engine) -> list[int]:
    with engine.read() as connection:
        return list(
            connection.execute(
                text("SELECT modseq FROM account_state ORDER BY account_id")
            ).scalars()
        )


def test_writers_that_change_the_same_accounts_lose_no_change(accounts: Engine) -> None:
    engine = accounts
    writers = 1 if engine.is_sqlite else 4
    running = [Running(engine) for _ in range(writers)]
    units: dict[int, list[Unit]] = {}
    for n, each in enumerate(running):
        order = [1, 2] if n % 2 else [2, 1]
        units[n] = [
            Unit(work=lambda c, order=order: raise_modseqs(c, order), accounts=order)  # type: ignore[misc]
            for _ in range(100)
        ]
        for unit in units[n]:
            each.writer.submit(unit)
    for each in running:
        each.writer.start()
    for n, each in enumerate(running):
        each.owner.wait_for(*units[n])
        each.writer.stop()
        each.writer.join()
    assert [unit.error for group in units.values() for unit in group] == [None] * 100 * writers
    assert modseqs(engine) == [1 + 100 * writers] * 2


def raising(account_id: int) -> Unit:
    return Unit(
        work=lambda connection: raise_modseqs(connection, [account_id]), accounts=[account_id]
    )


def test_a_unit_that_meets_a_lock_moves_to_a_later_batch(locking: Engine) -> None:
    other = open_engine(locking.url)
    with Running(locking) as running, other.write() as holding:
        raise_modseqs(holding, [1])
        held, free = raising(1), raising(2)
        running.writer.submit(held)
        running.run(free)
        holding.commit()
        if not held.done:
            running.owner.wait_for(held)
    other.dispose()
    assert free.error is None
    # Freed in time, or given up with a temporary failure: never lost, never done twice.
    assert modseqs(locking) == [2 if held.error else 3, 2]


def test_a_lock_that_is_never_freed_is_answered_451_and_delays_nobody_else(locking: Engine) -> None:
    other = open_engine(locking.url)
    with Running(locking) as running, other.write() as holding:
        raise_modseqs(holding, [1])
        held, free = [raising(1) for _ in range(5)], [raising(2) for _ in range(5)]
        running.run(*held, *free)
        holding.rollback()
    other.dispose()
    assert {type(unit.error) for unit in held} == {StoreUnavailable}
    assert {type(unit.error) for unit in free} == {type(None)}
    assert modseqs(locking) == [1, 6]


def test_a_server_that_restarts_is_found_again() -> None:
    from tests.support import postgres

    reason = postgres.absence()
    if reason:
        assert not os.environ.get("MAILTWIST_REQUIRE_REAL"), reason
        pytest.skip(reason)
    server = Server()
    try:
        engine = open_engine(server.fresh())
        with Running(engine) as running:
            running.run(note("before"))
            server.restart()
            after = note("after")
            running.run(after)
            assert after.error is None, "nothing was sent on the dead connection"
        assert notes(engine) == {"before", "after"}
        engine.dispose()
    finally:
        server.stop()


# -- the log ----------------------------------------------------------------------------------


def fill(connection: Connection) -> None:
    connection.execute(
        text("INSERT INTO generation (kind, n) VALUES ('filler', zeroblob(1000000))")
    )
    connection.execute(text("DELETE FROM generation WHERE kind = 'filler'"))


def wal(engine: Engine) -> int:
    return Path(f"{engine.path}-wal").stat().st_size


def test_under_load_the_log_is_written_back_by_its_own_thread(
    sqlite: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SOFT_OCTETS", 1 << 20)
    monkeypatch.setattr(checkpoint, "EVERY_OCTETS", 1 << 20)
    thread = Checkpointer(sqlite.path)
    thread.start()
    with Running(sqlite, log=thread) as running:
        for _ in range(60):
            unit = Unit(work=fill, octets=1 << 20)
            running.run(unit)
            assert unit.error is None
        assert wal(sqlite) < 30 << 20
    thread.stop()


def test_a_log_that_cannot_be_written_back_is_answered_as_a_full_store(
    sqlite: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SOFT_OCTETS", 1 << 20)
    monkeypatch.setattr(checkpoint, "EVERY_OCTETS", 1 << 20)
    monkeypatch.setattr(checkpoint, "RETRY_S", 0.02)
    thread = Checkpointer(sqlite.path, hard_octets=6 << 20)
    thread.start()
    with Running(sqlite, log=thread) as running:
        with sqlite.read() as reading:  # a reader that does not end
            reading.execute(text("SELECT count(*) FROM generation"))
            errors: list[MailError | None] = []
            while len(errors) < 50 and not (errors and errors[-1]):
                unit = Unit(work=fill, octets=1 << 20)
                running.run(unit)
                errors.append(unit.error)  # type: ignore[arg-type]
        assert isinstance(errors[-1], StoreFull)
        assert set(errors[:-1]) == {None}
        for _ in range(500):
            unit = Unit(work=fill, octets=1 << 20)
            running.run(unit)
            if unit.error is None:
                break
            threading.Event().wait(0.02)
        assert unit.error is None, "it recovers by itself when the reader ends"
    thread.stop()


# -- SIGKILL ----------------------------------------------------------------------------------

# A real reactor, forty producers; each answered unit is printed, in order.
WRITE_UNTIL_KILLED = """
import itertools, os, sys
from sqlalchemy import text
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from mailtwist.store.database import Database
from mailtwist.store.engine import open_engine
numbers = itertools.count()
database = Database(open_engine(sys.argv[1]), reactor=reactor)
def write_all(connection, values):
    connection.execute(text("INSERT INTO generation (kind, n) VALUES (:kind, 1)"),
                       [{"kind": value} for value in values])
    return values
async def produce():
    while True:
        kind = await database.write_set(write_all, f"n{next(numbers)}", octets=100)
        os.write(1, kind.encode() + b"\\n")
async def main():
    await database.start()
    for _ in range(40):
        Deferred.fromCoroutine(produce())
reactor.callWhenRunning(lambda: Deferred.fromCoroutine(main()))
reactor.run()
"""


@pytest.mark.parametrize("answers", [1, 300, 2000])
def test_what_was_answered_survives_a_kill(engine: Engine, answers: int) -> None:
    url = engine.url.render_as_string(hide_password=False)
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE_UNTIL_KILLED, url], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    seen = [process.stdout.readline() for _ in range(answers)]
    process.send_signal(signal.SIGKILL)
    seen += process.stdout.readlines()
    process.wait(20)
    process.stdout.close()
    answered = {line.strip() for line in seen if line.endswith("\n")}
    assert len(answered) >= answers
    assert answered <= notes(engine)
    with engine.write() as connection:
        connection.execute(text("DELETE FROM generation"))
