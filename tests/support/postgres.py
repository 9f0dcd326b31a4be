"""A PostgreSQL server of our own for the tests: a temporary folder, a free port, no fsync."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString

from mailtwist.store.upgrade import upgrade
from tests.support.ports import free_port

if TYPE_CHECKING:
    import psycopg


def _newest() -> Path:
    """Where Debian keeps the binaries of the newest version installed."""
    found = Path("/usr/lib/postgresql").glob("[0-9]*/bin")
    default = Path("/usr/lib/postgresql/15/bin")
    return max(found, key=lambda path: int(path.parent.name), default=default)


BINARIES = Path(os.environ.get("MAILTWIST_POSTGRESQL") or _newest())
TEMPLATE = "mailtwist_template"
KEPT = 4  # databases given up and not yet dropped; each has about 10 MB


def absence() -> str:
    """Why no server can be started; empty: it can."""
    if not (BINARIES / "initdb").exists():
        return f"no PostgreSQL binaries in {BINARIES}"
    if os.getuid() == 0 and shutil.which("runuser") is None:
        return "PostgreSQL does not run as root, and there is no runuser"
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "psycopg is not installed"
    return ""


class Server:
    """Runs until :meth:`stop`. ``extra``: lines of configuration."""

    def __init__(self, *, extra: str = "fsync=off\nfull_page_writes=off\n") -> None:
        # Not pytest's folder: the server's own user must be able to enter it.
        self._folder = Path(tempfile.mkdtemp(prefix="mailtwist-pg-", dir=_roomy()))
        self._data = self._folder / "data"
        self._prefix: list[str] = []
        if os.getuid() == 0:
            shutil.chown(self._folder, "postgres")
            self._prefix = ["runuser", "-u", "postgres", "--"]
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        self._given_up: deque[str] = deque()
        self._connection: psycopg.Connection | None = None
        self.port = free_port()
        try:
            self._initialise(extra)
            self._start()
        except BaseException:
            self.stop()
            raise

    def url(self, name: str) -> str:
        return f"postgresql+psycopg://mailtwist@127.0.0.1:{self.port}/{name}"

    def fresh(self) -> str:
        """The URL of a new database with the current schema."""
        if not self._has_template:
            self._sql(f"CREATE DATABASE {TEMPLATE}")
            upgrade(self.url(TEMPLATE))
            self._has_template = True
        return self.copy(self.url(TEMPLATE))

    def copy(self, url: str) -> str:
        """The URL of a new database with all that is in another one, which nobody may use now."""
        name = f"t{next(self._numbers)}"
        self._sql(f"CREATE DATABASE {name} TEMPLATE {_name(url)} STRATEGY FILE_COPY")
        return self.url(name)

    def empty(self) -> str:
        """The URL of a new database without a schema."""
        name = f"e{next(self._numbers)}"
        self._sql(f"CREATE DATABASE {name}")
        return self.url(name)

    def drop(self, url: str) -> None:
        """Give a database up. It goes a little later: while a connection is still on its way
        out, PostgreSQL would sleep for 0.1 s.
        """
        self._given_up.append(_name(url))
        if len(self._given_up) > KEPT:
            self._sql(f"DROP DATABASE IF EXISTS {self._given_up.popleft()} WITH (FORCE)")

    def restart(self) -> None:
        """Stop at once, as in a crash, and start again."""
        self._end()
        self._start()

    def stop(self) -> None:
        self._end()
        shutil.rmtree(self._folder, ignore_errors=True)

    _has_template = False

    def _initialise(self, extra: str) -> None:
        command = ["initdb", "-D", str(self._data), "-U", "mailtwist", "-A", "trust"]
        self._call(*command, "-E", "UTF8", "--locale=C", "--no-sync")
        with (self._data / "postgresql.conf").open("a") as file:
            file.write(
                f"port={self.port}\nlisten_addresses='127.0.0.1'\nunix_socket_directories=''\n"
                f"max_connections=60\nshared_buffers=32MB\n{extra}"
            )

    def _start(self) -> None:
        # In the foreground, so that it is our child and dies with nothing else.
        command = [*self._prefix, str(BINARIES / "postgres"), "-D", str(self._data)]
        log = (self._folder / "log").open("ab")
        with log:
            self._process = subprocess.Popen(
                command, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 30
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self._folder / "log").read_text()[-2000:])
            time.sleep(0.05)

    def _answers(self) -> bool:
        import psycopg

        try:
            with psycopg.connect(**self._address()):
                return True
        except psycopg.OperationalError:
            return False

    def _end(self) -> None:
        if self._connection is not None:
            self._connection.close()
        process, self._process = self._process, None
        if process is None:
            return
        pid_file = self._data / "postmaster.pid"
        if pid_file.exists():  # runuser stands between us and the server
            self._call("pg_ctl", "-D", str(self._data), "-m", "immediate", "-w", "stop")
        process.wait(30)

    def _call(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [*self._prefix, str(BINARIES / program), *arguments],
            cwd=self._folder,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def _sql(self, statement: LiteralString) -> None:
        import psycopg

        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(**self._address(), autocommit=True)
        self._connection.execute(statement)

    def _address(self) -> dict[str, Any]:
        return {"host": "127.0.0.1", "port": self.port, "user": "mailtwist", "dbname": "postgres"}


def _name(url: str) -> LiteralString:
    return url.rsplit("/", 1)[1]


def _roomy() -> str | None:
    """A folder in memory when there is room for some hundred databases; else the usual one."""
    memory = Path("/dev/shm")
    if memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2 << 30:
        return str(memory)
    return None
