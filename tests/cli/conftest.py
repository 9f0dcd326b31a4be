from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from mailtwist.cli.app import run
from mailtwist.policy import passwords
from mailtwist.store.check import verify
from mailtwist.store.engine import Engine, open_engine
from tests.support.stores import SqliteStores


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Mailtwist = Callable[..., Ended]


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The data folder of the commands, checked for consistency at the end."""
    for name in ("MAILTWIST_CONFIG", "MAILTWIST_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "data"
    monkeypatch.setenv("MAILTWIST_DATA_DIR", str(folder))
    # What a password costs is not what is tested.
    salt = bcrypt.gensalt
    monkeypatch.setattr(bcrypt, "gensalt", lambda _cost: salt(4))
    monkeypatch.setattr(passwords, "SCRAM_ITERATIONS", 4096)
    yield folder
    if (folder / "mailtwist.db").exists():
        engine = open_engine(f"sqlite:///{folder}/mailtwist.db")
        try:
            with engine.read() as connection:
                assert verify(connection) == []
        finally:
            engine.dispose()


@pytest.fixture
def ready(data_dir: Path, sqlite_stores: SqliteStores) -> None:
    """A store that the first command finds there, with the current schema."""
    data_dir.mkdir(mode=0o700)
    sqlite_stores.fresh(data_dir)


@pytest.fixture
def store(data_dir: Path) -> Iterator[Engine]:
    """What the commands left, for a look."""
    engine = open_engine(f"sqlite:///{data_dir}/mailtwist.db")
    yield engine
    engine.dispose()


@pytest.fixture
def mailtwist(
    data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Mailtwist:
    """Runs one command line in this process."""

    def mailtwist(*arguments: str, stdin: str = "") -> Ended:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run(list(arguments))
        captured = capsys.readouterr()
        code = ended.value.code
        return Ended(code if isinstance(code, int) else 1, captured.out, captured.err)

    return mailtwist
