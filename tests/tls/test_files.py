from __future__ import annotations

import os

import pytest

from mailtwist.config import load
from mailtwist.errors import ConfigError
from mailtwist.tls import files
from mailtwist.tls.files import KeyFiles, named_by
from tests.support.chains import Chain

ONE, OTHER = Chain("mx.example.com"), Chain("mx.example.com")


def write(folder, chain, *, cert="fullchain.pem", key="privkey.pem"):
    folder.mkdir(exist_ok=True)
    (folder / cert).write_text(chain.middle.pem + chain.leaf.pem)
    (folder / key).write_text(chain.key)


def settings(folder, **tls):
    given = {f"MAILTWIST_TLS_{name.upper()}": str(value) for name, value in tls.items()}
    return load(None, {"MAILTWIST_DATA_DIR": str(folder / "var"), **given})


def test_what_is_read_is_put_in_order(tmp_path):
    write(tmp_path, ONE)
    chain, key = files.read_pair(str(tmp_path / "fullchain.pem"), str(tmp_path / "privkey.pem"))
    assert chain.decode() == ONE.leaf.pem + ONE.middle.pem
    assert key.decode() == ONE.key


@pytest.mark.mission("ADG-23")
@pytest.mark.parametrize("missing", ["cert_file", "key_file"])
def test_a_file_that_is_named_and_missing_is_an_error_that_says_what_helps(tmp_path, missing):
    write(tmp_path, ONE)
    named = {"cert_file": tmp_path / "fullchain.pem", "key_file": tmp_path / "privkey.pem"}
    named[missing].unlink()
    with pytest.raises(ConfigError, match=rf"tls\.{missing}: cannot read .* tls\.self_signed"):
        named_by(settings(tmp_path, **named))
    assert named_by(settings(tmp_path, **named, self_signed="yes")).pair is None


def test_a_file_that_is_there_and_wrong_is_an_error_all_the_same(tmp_path):
    write(tmp_path, ONE)
    (tmp_path / "privkey.pem").write_text(OTHER.key)
    named = {"cert_file": tmp_path / "fullchain.pem", "key_file": tmp_path / "privkey.pem"}
    with pytest.raises(ConfigError, match="does not belong"):
        named_by(settings(tmp_path, **named, self_signed="yes"))


@pytest.mark.parametrize("place", [".", "var"], ids=["working folder", "data folder"])
def test_certs_are_found_where_predecessors_keep_them(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "var").mkdir()
    assert named_by(settings(tmp_path)).pair is None
    write(tmp_path / place / "certs", ONE)
    found = named_by(settings(tmp_path))
    # Whoever detaches from the terminal changes the folder.
    monkeypatch.chdir("/")
    assert not found.has_changed()
    assert found.pair is not None
    assert found.pair[1].decode() == ONE.key


def test_files_that_are_named_come_before_those_that_are_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "certs", ONE)
    write(tmp_path, OTHER)
    named = {"cert_file": tmp_path / "fullchain.pem", "key_file": tmp_path / "privkey.pem"}
    pair = named_by(settings(tmp_path, **named)).pair
    assert pair is not None
    assert pair[1].decode() == OTHER.key


def test_a_change_is_seen_also_when_size_and_time_stay(tmp_path):
    write(tmp_path, ONE)
    paths = [tmp_path / "fullchain.pem", tmp_path / "privkey.pem"]
    found = KeyFiles([(str(paths[0]), str(paths[1]))], is_required=True)
    found.read()
    assert not found.has_changed()
    for path in paths:
        before = path.stat()
        other = path.with_suffix(".new")
        other.write_bytes(path.read_bytes())
        os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
        other.replace(path)
        assert found.has_changed()
        found.read()
        assert not found.has_changed()


def test_half_a_pair_leaves_the_one_in_use(tmp_path):
    write(tmp_path, ONE)
    paths = [tmp_path / "fullchain.pem", tmp_path / "privkey.pem"]
    found = KeyFiles([(str(paths[0]), str(paths[1]))], is_required=True)
    before = found.read()
    (tmp_path / "fullchain.pem").write_text(OTHER.leaf.pem)
    with pytest.raises(ConfigError, match="does not belong"):
        found.read()
    assert found.pair == before
    assert not found.has_changed(), "said once"
    (tmp_path / "privkey.pem").write_text(OTHER.key)
    assert found.has_changed()
    assert found.read() != before
