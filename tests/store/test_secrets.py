from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from mailtwist.errors import ConfigError
from mailtwist.store.secrets import KEY_FILE, Secrets, Unreadable, load_or_make


def test_what_is_sealed_is_opened_for_its_purpose_alone() -> None:
    secrets = Secrets(b"k" * 32)
    sealed = secrets.seal("grüße", "dkim d1")
    assert sealed != secrets.seal("grüße", "dkim d1")
    assert sealed.isascii()
    assert secrets.open(sealed, "dkim d1") == "grüße"
    with pytest.raises(Unreadable):
        secrets.open(sealed, "dkim d2")


@pytest.mark.parametrize(
    "change",
    [
        lambda sealed: "",
        lambda sealed: "v1:",
        lambda sealed: "v1:AAAA",
        lambda sealed: sealed[:-4],
        lambda sealed: sealed + "é",
        lambda sealed: sealed[:10] + ("A" if sealed[10] != "A" else "B") + sealed[11:],
    ],
)
def test_a_changed_text_is_not_opened(change) -> None:
    secrets = Secrets(b"k" * 32)
    with pytest.raises(Unreadable):
        secrets.open(change(secrets.seal("text", "purpose")), "purpose")


def test_another_key_opens_nothing() -> None:
    sealed = Secrets(b"k" * 32).seal("text", "purpose")
    with pytest.raises(Unreadable):
        Secrets(b"l" * 32).open(sealed, "purpose")


def test_derived_keys_are_lasting_and_their_own() -> None:
    secrets = Secrets(b"k" * 32)
    assert secrets.derive("srs") == Secrets(b"k" * 32).derive("srs")
    assert len({secrets.derive("srs"), secrets.derive("x"), Secrets(b"l" * 32).derive("srs")}) == 3
    assert len(secrets.derive("srs")) == 32


def test_the_file_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    sealed = load_or_make(tmp_path).seal("text", "purpose")
    path = tmp_path / KEY_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_bytes()) == 32
    assert load_or_make(tmp_path).open(sealed, "purpose") == "text"
    assert [each.name for each in tmp_path.iterdir()] == [KEY_FILE]


def test_processes_that_start_at_once_have_one_key(tmp_path: Path) -> None:
    from mailtwist.store import secrets

    barrier = threading.Barrier(4)
    derived = []

    def make(n: int) -> None:
        path = tmp_path / KEY_FILE
        barrier.wait()
        derived.append(secrets._read(path) or secrets._make(path, f".{n}"))

    threads = [threading.Thread(target=make, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(derived)) == 1
    assert len(derived) == 4


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
def test_a_file_that_is_no_key_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / KEY_FILE
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="32 octets"):
        load_or_make(tmp_path)
    assert path.read_bytes() == content


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="data_dir"):
        load_or_make(tmp_path / "missing")
