from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mailtwist.policy import passwords
from mailtwist.store import accounts, mailboxes
from mailtwist.store.engine import Engine
from tests.cli.conftest import Mailtwist


def test_an_account_needs_no_init_and_has_its_mailboxes(
    mailtwist: Mailtwist, store: Engine, data_dir: Path
) -> None:
    ended = mailtwist("account", "add", "Bob@Example.com", "--password", "sesame open", "--json")
    assert (ended.status, ended.err) == (0, "")
    assert ended.json["address"] == "bob@example.com"
    assert "password" not in ended.json
    with store.read() as connection:
        account = accounts.find(connection, "bob@example.com")
        assert account is not None
        names = {each.name for each in mailboxes.list(connection, account.account_id)}
        verifiers = accounts.secrets(connection, account.account_id)
    assert names == {"INBOX", "Sent", "Draft", "Trash", "Spam", "Archive"}
    assert passwords.check(verifiers, "sesame open")
    assert mailtwist("domain", "list", "--json").json[0]["name"] == "example.com"
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700


@pytest.mark.parametrize("command", ["add", "passwd"])
def test_a_password_comes_from_the_line_from_stdin_or_is_made_up(
    mailtwist: Mailtwist, store: Engine, command: str
) -> None:
    address = "a@example.com"
    if command == "passwd":
        mailtwist("account", "add", address, "--password", "old")
    ended = mailtwist("account", command, address, "--password-stdin", stdin="from stdin\nrest\n")
    assert ended.status == 0
    assert _opens(store, address, "from stdin")
    assert not _opens(store, address, "old")
    made_up = mailtwist("account", "passwd", address, "--json").json["password"]
    assert len(made_up) == 20
    assert _opens(store, address, made_up)
    assert f"changed {address}\npassword " in mailtwist("account", "passwd", address).out


def _opens(store: Engine, address: str, password: str) -> bool:
    with store.read() as connection:
        account = accounts.find(connection, address)
        assert account is not None
        return passwords.check(accounts.secrets(connection, account.account_id), password)


def test_accounts_and_domains_are_listed_and_removed(mailtwist: Mailtwist) -> None:
    for name in ("b@example.com", "a@example.org"):
        assert mailtwist("account", "add", name, "--quota", "5M").status == 0
    rows = mailtwist("account", "list", "--json").json
    assert [(row["address"], row["quota_octets"]) for row in rows] == [
        ("a@example.org", 5 << 20),
        ("b@example.com", 5 << 20),
    ]
    lines = mailtwist("account", "list").out.splitlines()
    assert lines[0].split() == ["address", "state", "messages", "octets", "quota_octets"]
    assert lines[1].split() == ["a@example.org", "active", "0", "0", str(5 << 20)]
    refused = mailtwist("domain", "remove", "example.org")
    assert (refused.status, refused.err) == (
        1,
        "mailtwist: The domain example.org still has accounts\n",
    )
    assert mailtwist("account", "remove", "a@example.org").out == "removed a@example.org\n"
    assert mailtwist("domain", "remove", "example.org").out == "removed example.org\n"
    assert mailtwist("domain", "add", "BÜCHER.example").out == "added xn--bcher-kva.example\n"
    names = [row["name"] for row in mailtwist("domain", "list", "--json").json]
    assert names == ["example.com", "xn--bcher-kva.example"]


def test_domains_of_the_configuration_are_listed_too(
    mailtwist: Mailtwist, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAILTWIST_DOMAINS", "conf.example")
    (row,) = mailtwist("domain", "list", "--json").json
    assert (row["name"], row["source"]) == ("conf.example", "environment MAILTWIST_DOMAINS")


@pytest.mark.parametrize(
    "arguments, line",
    [
        (("account", "passwd", "x@example.com"), "no account x@example.com"),
        (("account", "remove", "x@example.com"), "no account x@example.com"),
        (("account", "add", "nonsense"), "Invalid address"),
        (("account", "add", "a@example.com", "--password", ""), "The password is empty"),
        (("domain", "remove", "none.example"), "No domain none.example"),
        (("config", "explain", "hostnam"), "hostnam: unknown key; did you mean hostname?"),
        (("--config", "/none.yaml", "config", "show"), "/none.yaml: No such file or directory"),
        (("--config", "/none.yaml", "serve"), "/none.yaml: No such file or directory"),
        (("--data-dir", "/dev/null/x", "init"), "/dev/null/x: Not a directory"),
        (("import", "x@example.com", "INBOX", "/usr"), "neither a Maildir nor an mbox"),
        (
            ("--database-url", "sqlite:////dev/null/x.db", "account", "list"),
            "Store unavailable",
        ),
    ],
)
def test_a_failure_is_one_line_and_status_1(
    mailtwist: Mailtwist, arguments: tuple[str, ...], line: str
) -> None:
    ended = mailtwist(*arguments)
    assert ended.status == 1
    assert ended.out == ""
    assert ended.err.startswith("mailtwist: ")
    assert line in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("account", "add"),
        ("account", "nonsense"),
        ("nonsense",),
        ("--nonsense",),
        ("account", "add", "a@example.com", "--password", "x", "--password-stdin"),
        ("account", "add", "a@example.com", "--quota", "much"),
        ("import", "a@example.com", "INBOX"),
    ],
)
def test_wrong_usage_is_status_2(mailtwist: Mailtwist, arguments: tuple[str, ...]) -> None:
    ended = mailtwist(*arguments)
    assert ended.status == 2
    assert "Error: " in ended.err


def test_an_account_is_made_once(mailtwist: Mailtwist) -> None:
    assert mailtwist("account", "add", "a@example.com", "--password", "x").status == 0
    again = mailtwist("account", "add", "A@EXAMPLE.com", "--password", "x")
    assert again.status == 1
    assert "exists already" in again.err


def test_init_makes_the_store_once_and_a_sample_never_over_a_file(
    mailtwist: Mailtwist, tmp_path: Path
) -> None:
    sample = tmp_path / "mailtwist.yaml"
    first = mailtwist("init", "--write-config", str(sample), "--json")
    assert first.status == 0
    assert sample.read_text().startswith("# mailtwist")
    assert f'\ndata_dir: "{first.json["data_dir"]}"\n' in sample.read_text()
    assert mailtwist("init").status == 0
    assert mailtwist("init", "--write-config", str(sample)).err == (
        f"mailtwist: {sample}: File exists\n"
    )
    assert mailtwist("db", "upgrade", "--json").json["changed"] is False
    assert mailtwist("db", "check").out == "the store agrees with itself\n"


def test_the_schema_is_made_by_upgrade_too(mailtwist: Mailtwist) -> None:
    assert mailtwist("db", "upgrade", "--json").json["changed"] is True
    assert mailtwist("db", "check", "--json").json == {"ok": True, "violations": []}


def test_config_show_and_explain_tell_values_and_sources(
    mailtwist: Mailtwist, tmp_path: Path
) -> None:
    file = tmp_path / "c.toml"
    file.write_text('[limits]\nrecipients = 7\n[send]\napi_key = "geheim"\n')
    shown = mailtwist("--config", str(file), "config", "show", "--json").json
    assert shown["limits.recipients"] == {"value": 7, "source": f"file {file}"}
    assert shown["send.api_key"]["value"] == "********"
    assert shown["data_dir"]["source"] == "environment MAILTWIST_DATA_DIR"
    plain = mailtwist("--config", str(file), "config", "show").out
    assert f"limits.recipients: 7  # file {file}\n" in plain
    assert 'limits.idle_timeout: "5m"\n' in plain
    about = mailtwist("--config", str(file), "config", "explain", "limits.recipients", "--json")
    assert about.json["default"] == 100
    assert about.json["value"] == 7
    assert "Recipients of one message." in mailtwist("config", "explain", "max_recipients").out


@pytest.mark.mission("ELE-05")
def test_config_check_names_every_fault_and_the_server_does_not_start(
    mailtwist: Mailtwist, tmp_path: Path
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("limits: {recipient: 5}\nqueue_dir: x\n")
    wrong = mailtwist("--config", str(file), "config", "check", "--json")
    expected = f"{file}: limits.recipient: unknown key; did you mean limits.recipients?"
    assert wrong.status == 1
    assert wrong.json["errors"] == [expected]
    assert wrong.err == f"mailtwist: {expected}\n"
    serving = mailtwist("--config", str(file), "serve")
    assert (serving.status, serving.err) == (1, f"mailtwist: {expected}\n")
    file.write_text("queue_dir: x\n")
    right = mailtwist("--config", str(file), "config", "check")
    assert right.status == 0
    assert "warning: " in right.out


def test_a_test_message_reaches_a_local_mailbox(mailtwist: Mailtwist) -> None:
    mailtwist("account", "add", "a@example.com", "--password", "x")
    assert mailtwist("send-test", "a+tag@example.com").out == "accepted for a+tag@example.com\n"
    assert mailtwist("send-test", "A@example.com", "--json").json["accepted"] is True
    assert mailtwist("account", "list", "--json").json[0]["messages"] == 2
    unknown = mailtwist("send-test", "b@example.com")
    assert (unknown.status, unknown.err) == (
        1,
        "mailtwist: 550 5.1.1 User unknown: b@example.com\n",
    )


def test_in_dev_mode_a_test_message_is_captured_unless_it_has_a_mailbox(
    mailtwist: Mailtwist, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAILTWIST_DEV_MODE", "true")
    mailtwist("account", "add", "a@example.com", "--password", "x")
    assert mailtwist("send-test", "a@example.com").out == "accepted for a@example.com\n"
    assert mailtwist("send-test", "b@example.com").out.startswith("captured for b@example.com")
    # The domain of what is captured is nobody's.
    assert [row["name"] for row in mailtwist("domain", "list", "--json").json] == ["example.com"]


def test_help_imports_no_command_and_no_server() -> None:
    code = (
        "import sys, mailtwist.cli.app as a\n"
        "try: a.run(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('sqlalchemy', 'twisted', 'yaml',"
        " 'rich', 'bcrypt')], file=sys.stderr)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stderr.strip() == "[]"
    assert "import" in ended.stdout


def test_the_console_script_works_from_any_folder(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("mailtwist")
    if not script.exists():
        pytest.skip("mailtwist is not installed beside this Python")
    environ = {**os.environ, "MAILTWIST_DATA_DIR": str(tmp_path / "data")}
    ended = subprocess.run(
        [script, "account", "list", "--json"],
        cwd=tmp_path,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert json.loads(ended.stdout) == []
