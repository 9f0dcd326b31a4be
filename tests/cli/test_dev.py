from __future__ import annotations

import imaplib
import json
import smtplib
import ssl
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from mailtwist.cli import sandbox as marking
from mailtwist.cli.commands.dev import _places
from mailtwist.store.engine import open_engine
from tests.cli.sandbox import Sandbox, announced_by


@contextmanager
def sandbox(data_dir: Path, *arguments: str) -> Iterator[Sandbox]:
    running = Sandbox(data_dir, *arguments)
    try:
        yield running
    finally:
        assert running.stop() == 0


def port(announced: dict[str, Any], protocol: str) -> int:
    found = {row["protocol"]: row["port"] for row in announced["listeners"]}
    return int(found[protocol])


@contextmanager
def logged_in(announced: dict[str, Any]) -> Iterator[imaplib.IMAP4_SSL]:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    account = announced["account"]
    with imaplib.IMAP4_SSL(
        "127.0.0.1", port(announced, "imaps"), ssl_context=context, timeout=20
    ) as client:
        client.login(account["address"], account["password"])
        client.select("INBOX", readonly=True)
        yield client


@pytest.mark.reactor
@pytest.mark.mission("GEN-04")
def test_the_sandbox_starts_with_a_readable_message_and_again_unchanged(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with sandbox(data_dir, "--json") as running:
        announced = announced_by(running)
        account = announced["account"]
        assert {row["protocol"] for row in announced["listeners"]} == {
            "smtp", "imap", "imaps", "http",
        }  # fmt: skip
        assert json.loads((data_dir / "listeners.json").read_text()) == announced["listeners"]
        with logged_in(announced) as client:
            (found,) = client.search(None, "SUBJECT", "Welcome")[1]
            assert found == b"1"
        with smtplib.SMTP("127.0.0.1", port(announced, "smtp"), timeout=20) as smtp:
            smtp.sendmail("you@far.example", [account["address"]], b"Subject: hi\r\n\r\nhi\r\n")
        with logged_in(announced) as client:
            assert client.search(None, "ALL")[1] == [b"1 2"]
    credentials = data_dir / "sandbox.json"
    assert stat.S_IMODE(credentials.stat().st_mode) == 0o600
    with sandbox(data_dir, "--json") as running:
        again = announced_by(running)
        assert again["account"] == account
        with logged_in(again) as client:
            assert client.search(None, "ALL")[1] == [b"1 2"]


@pytest.mark.reactor
def test_the_sandbox_prints_lines_to_paste_that_work(tmp_path: Path) -> None:
    with sandbox(tmp_path / "data") as running:
        running.until("mailtwist is up")
        _, lines = running.until("Ctrl-C ends it")
        commands = {line.split()[0]: line.strip() for line in lines if line.startswith("  ")}
        # The Python line reads the newest message over IMAPS.
        done = subprocess.run(
            ["sh", "-c", commands["python3"]],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert "Welcome to mailtwist" in done.stdout
        for name in ("swaks", "printf", "curl"):
            assert name in commands
        # The last two ask for the same over HTTP, as the administrator.
        script = f"{commands['TOKEN=$(curl']}\n{commands['curl']}"
        done = subprocess.run(
            ["sh", "-c", script], capture_output=True, text=True, timeout=60, check=True
        )
        (mail,) = json.loads(done.stdout)["data"]
        assert "Welcome" in mail["attributes"]["subject"]
        # One is sent by HTTP, and both ways to read it show it.
        script = "\n".join(
            line.strip()
            for line in lines
            if "curl" in line and ("/send" in line or "/emails" in line)
        )
        done = subprocess.run(
            ["sh", "-ec", script], capture_output=True, text=True, timeout=60, check=True
        )
        assert done.stdout.count("482913") >= 3, done.stdout


@pytest.mark.reactor
def test_a_sandbox_keeps_its_administrator_unless_somebody_else_is_it(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with sandbox(data_dir, "--json") as running:
        administrator = announced_by(running)["administrator"]
    assert administrator["email"] == "admin@sandbox.test"
    with sandbox(data_dir, "--json") as running:
        assert announced_by(running)["administrator"] == administrator
    with open_engine(f"sqlite:///{data_dir}/mailtwist.db").write() as connection:
        connection.execute(text("UPDATE user_account SET email = 'other@sandbox.test'"))
    with sandbox(data_dir, "--json") as running:
        assert "administrator" not in announced_by(running)


def test_the_lines_to_paste_name_an_address_where_all_interfaces_are_bound() -> None:
    rows = [
        {"protocol": "smtp", "address": "0.0.0.0", "port": 2525},
        {"protocol": "smtp", "address": "::", "port": 2525},
        {"protocol": "imaps", "address": "::1", "port": 2993},
        {"protocol": "http", "address": "::", "port": 6336},
    ]
    assert _places(rows) == {
        "smtp": "127.0.0.1:2525",
        "imaps": "[::1]:2993",
        "http": "[::1]:6336",
    }


def test_the_mark_of_a_sandbox_counts_while_it_runs(tmp_path: Path) -> None:
    marking.mark(tmp_path, is_on=True)
    assert marking.is_running(tmp_path)
    marking.mark(tmp_path, is_on=False)
    assert not marking.is_running(tmp_path)
    ended = subprocess.Popen(["true"])
    ended.wait()
    for left in (str(ended.pid), "", "x", "9" * 30):
        (tmp_path / marking.FILE).write_text(left)
        assert not marking.is_running(tmp_path)
