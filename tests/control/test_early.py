from __future__ import annotations

import io
import json
import os
import sys

import pytest
from sqlalchemy import text

from mailtwist.config import load
from mailtwist.control import early
from mailtwist.store.engine import open_engine
from mailtwist.store.upgrade import upgrade

ADD = (
    "INSERT INTO mail_server (hostname, is_enabled, listen_interface, max_size, max_clients,"
    " xclient_on, always_on_tls, authentication_required, reference_id, permission, created_at,"
    " updated_at) VALUES (:name, :enabled, :address, 1, 1, 0, 0, 1, :name, 0, 1, 1)"
)


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/mailtwist.db"


def what_the_child_says(url, monkeypatch):
    said = io.StringIO()
    monkeypatch.setattr(sys, "stdin", io.StringIO(url))
    monkeypatch.setattr(sys, "stdout", said)
    early.main()
    return json.loads(said.getvalue())


def test_the_child_reads_rows_and_keys(url, monkeypatch):
    engine = open_engine(url)
    upgrade(engine)
    with engine.write() as connection:
        given = {"name": "mx.example.com", "enabled": 1, "address": "127.0.0.1:25"}
        connection.execute(text(ADD), given)
    engine.dispose()
    found = what_the_child_says(url, monkeypatch)
    (row,) = found["rows"]
    assert (row["hostname"], row["listen_interface"]) == ("mx.example.com", "127.0.0.1:25")
    assert found["values"] == {}


def test_a_new_database_has_nothing_that_listens(url, monkeypatch):
    assert what_the_child_says(url, monkeypatch) == {}


@pytest.fixture
def settings(tmp_path):
    return load(None, {"MAILTWIST_DATA_DIR": str(tmp_path), "MAILTWIST_HOSTNAME": "mx.example"})


def row(name, address, *, enabled=True):
    return {
        "reference_id": name,
        "hostname": name,
        "is_enabled": enabled,
        "listen_interface": address,
        "max_size": 1,
        "max_clients": 1,
        "xclient_on": False,
        "always_on_tls": True,
        "authentication_required": True,
    }


def test_only_low_ports_are_bound_before_the_start(settings, monkeypatch):
    rows = [
        row("low.example", "127.0.0.1:465"),
        row("off.example", "127.0.0.1:466", enabled=False),
        row("high.example", "127.0.0.1:4650"),
        row("odd.example", "nonsense"),
    ]
    values = {"imap.enabled": "true", "imap.listen_interface": ":993"}
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(early, "_owner", lambda settings: (1234, 1234))
    monkeypatch.setattr(early, "_asked", lambda *arguments: {"rows": rows, "values": values})
    monkeypatch.setattr(early, "first_free_port", lambda: 1024)
    found = early.privileged(settings)
    assert [(each.title, each.port) for each in found] == [
        ("low.example", 465),
        ("config/imap", 993),
    ]


def test_who_is_not_root_asks_nobody(settings, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(early, "_asked", lambda *arguments: pytest.fail("asked"))
    assert early.privileged(settings) == ()


def test_roots_own_store_is_left_for_the_start(settings, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(early, "_owner", lambda settings: (0, 0))
    monkeypatch.setattr(early, "_asked", lambda *arguments: pytest.fail("asked"))
    assert early.privileged(settings) == ()
