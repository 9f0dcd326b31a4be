from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mailtwist.cli import env_file
from mailtwist.errors import ConfigError
from tests.cli.conftest import Mailtwist

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / ".env"


@pytest.mark.parametrize(
    "text, found",
    [
        ("A=1\nB=two words\n", {"A": "1", "B": "two words"}),
        ("# a comment\n\nexport A=1 # another\n", {"A": "1"}),
        ("A='# no comment'\nB=\"x y\"\n", {"A": "# no comment", "B": "x y"}),
        ("\ufeffA=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("A\nB=\n", {"B": ""}),
        ("A=one,two\nA=three\n", {"A": "three"}),
        ("A=pa$$word\nB=k=v\n", {"A": "pa$$word", "B": "k=v"}),
        ("", {}),
    ],
)
def test_a_file_is_read_as_its_other_readers_do(
    file: Path, text: str, found: dict[str, str]
) -> None:
    file.write_text(text, newline="")
    environ: dict[str, str] = {}
    env_file.take(str(file), environ)
    environ.pop(env_file.TAKEN)
    assert environ == found


def test_the_environment_counts_more(file: Path) -> None:
    file.write_text("A=file\nB=file\n")
    environ = {"A": "environment"}
    env_file.take(str(file), environ)
    assert (environ["A"], environ["B"]) == ("environment", "file")


def test_a_process_in_the_place_of_another_reads_the_file_anew(file: Path) -> None:
    file.write_text("A=old\nB=old\n")
    environ = {"C": "mine"}
    env_file.take(str(file), environ)
    file.write_text("A=new\nC=file\n")
    env_file.take(str(file), environ)
    environ.pop(env_file.TAKEN)
    assert environ == {"A": "new", "C": "mine"}


@pytest.mark.parametrize(
    "content, complaint",
    [
        (b"A=1\nthis is no line\n", "line 2: must be NAME=VALUE"),
        (b"A='never ends\n", "line 1: must be NAME=VALUE"),
        (b"A=\xff\n", "is not UTF-8"),
        (b"A=a\0b\n", "line 1: holds a NUL"),
        (b"A=" + b"x" * (1 << 20), "is longer than 1048576 octets"),
    ],
)
def test_a_file_that_would_be_misread_is_refused(
    file: Path, content: bytes, complaint: str
) -> None:
    file.write_bytes(content)
    environ: dict[str, str] = {}
    with pytest.raises(ConfigError) as caught:
        env_file.take(str(file), environ)
    assert complaint in caught.value.text
    assert "never ends" not in caught.value.text
    assert environ == {}


def test_the_command_line_takes_a_file(
    mailtwist: Mailtwist, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MAIL_DOMAIN", "MAIL_HOSTNAME", env_file.TAKEN):
        # Set first, so that what the command adds to the environment is taken back.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("MAIL_HOSTNAME", "of.the.environment.example")
    file.write_text("MAIL_DOMAIN=example.com\nMAIL_HOSTNAME=of.the.file.example\n")
    shown = mailtwist("--env-file", str(file), "config", "show", "--json").json
    assert shown["domains"] == {"value": ["example.com"], "source": "environment MAIL_DOMAIN"}
    assert shown["hostname"]["value"] == "of.the.environment.example"


def test_a_file_that_is_not_there_ends_the_command_with_one_line(
    mailtwist: Mailtwist, file: Path
) -> None:
    ended = mailtwist("--env-file", str(file), "config", "show")
    assert (ended.status, ended.out) == (1, "")
    assert ended.err == f"mailtwist: {file}: No such file or directory\n"


@pytest.mark.parametrize("script", ["run", "send-test-email.sh"])
def test_the_scripts_read_the_env_of_the_checkout(tmp_path: Path, script: str) -> None:
    """In a copy whose programs print what they are called with."""
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    (tmp_path / "scripts").mkdir()
    for name in ("mailtwist", "mailtwist-send-test"):
        (programs / name).write_text('#!/bin/sh\nprintf "%s\\n" "$(basename "$0")" "$@"\n')
        (programs / name).chmod(0o755)
    (tmp_path / "scripts" / "venv").write_text("#!/bin/sh\n")
    (tmp_path / "scripts" / "venv").chmod(0o755)
    copy = tmp_path / "scripts" / script
    copy.write_text((ROOT / "scripts" / script).read_text())

    def called(*arguments: str) -> list[str]:
        command = ["sh", str(copy), *arguments]
        return subprocess.run(
            command, cwd="/", check=True, capture_output=True, text=True
        ).stdout.splitlines()

    name, *command = {
        "run": ("mailtwist", "dev", "--send"),
        "send-test-email.sh": ("mailtwist-send-test", "a b@example.com"),
    }[script]
    assert called(*command[-1:]) == [name, *command]
    (tmp_path / ".env").write_text("A=1\n")
    assert called(*command[-1:]) == [name, "--env-file", str(tmp_path / ".env"), *command]


# -- mailtwist-send-test --------------------------------------------------------------------


def send_test(data_dir: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MAILTWIST_")}
    return subprocess.run(
        [sys.executable, "-c", "from mailtwist.cli import send_test; send_test()", *arguments],
        env={**clean, "MAILTWIST_DATA_DIR": str(data_dir), **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.mission("DIN-31")
def test_the_program_send_test_tells_the_truth_by_its_status(tmp_path: Path) -> None:
    from tests.support.sink import Sink

    data_dir = tmp_path / "data"
    with Sink(replies={"RCPT refused@far.test": "550 5.1.1 no such user"}) as sink:
        overridden = {"MAILTWIST_OUTBOUND_MX_OVERRIDE": f"far.test=127.0.0.1:{sink.port}"}
        taken = send_test(data_dir, "bob@far.test", **overridden)
        refused = send_test(data_dir, "refused@far.test", **overridden)
        assert [mail.recipients for mail in sink.mails] == [["bob@far.test"]]
    assert (taken.returncode, taken.stderr) == (0, "")
    assert "accepted for bob@far.test" in taken.stdout
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert "no such user" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_the_program_send_test_takes_the_global_options(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ENVIRONMENT=development\n")
    options = ("--env-file", str(tmp_path / ".env"), "--data-dir", str(tmp_path / "other"))
    done = send_test(tmp_path / "data", "bob@far.test", "--json", *options)
    assert done.returncode == 0, done.stderr
    assert '"captured": true' in done.stdout
    assert not (tmp_path / "data").exists()
    assert (tmp_path / "other" / "mailtwist.db").exists()
    usage = send_test(tmp_path / "data")
    assert usage.returncode == 2
    assert "ADDRESS" in usage.stderr
