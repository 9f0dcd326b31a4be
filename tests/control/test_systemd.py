"""What systemd is told, and what its own tools say of the files in etc/."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from mailtwist.control.systemd import Watchdog, watchdog_s
from tests.e2e.server import tool

ETC = Path(__file__).resolve().parents[2] / "etc"
UNIT = ETC / "mailtwist.service"


@pytest.mark.parametrize(
    "environ, seconds",
    [
        ({}, 0),
        ({"WATCHDOG_USEC": "60000000"}, 60),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 60),
        # Another process is watched.
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, 0),
        ({"WATCHDOG_USEC": "0"}, 0),
        ({"WATCHDOG_USEC": "-5"}, 0),
        ({"WATCHDOG_USEC": "soon"}, 0),
        ({"WATCHDOG_USEC": "9" * 4000}, 0),
    ],
)
def test_the_watchdog_is_the_one_of_this_process(environ: dict[str, str], seconds: float) -> None:
    assert watchdog_s(environ) == seconds


def test_a_reactor_that_turns_says_so_twice_in_the_time_given() -> None:
    said: list[str] = []
    clock, main = Clock(), [True]
    environ = {"WATCHDOG_USEC": "10000000"}
    watchdog = Watchdog(clock, is_main=lambda: main[0], environ=environ, notify=said.append)
    watchdog.start()
    assert said == ["WATCHDOG=1"]
    clock.pump([4.9])
    assert len(said) == 1
    clock.pump([0.2, 5, 5])
    assert said == ["WATCHDOG=1"] * 4
    # Another process has taken this one's place.
    main[0] = False
    clock.pump([5, 5])
    assert len(said) == 4
    main[0] = True
    watchdog.stop()
    clock.pump([5, 5])
    assert len(said) == 4
    assert not clock.getDelayedCalls()


def test_without_a_watchdog_nothing_is_said() -> None:
    said: list[str] = []
    clock = Clock()
    watchdog = Watchdog(clock, environ={}, notify=said.append)
    watchdog.start()
    watchdog.stop()
    assert said == []
    assert not clock.getDelayedCalls()


# -- the files ------------------------------------------------------------------------------


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def settings_of(unit: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in unit.splitlines():
        if re.match("[A-Z]", line):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


@pytest.mark.real
def test_systemd_has_no_complaint_about_the_unit(tmp_path: Path) -> None:
    programs = Path(sys.executable).parent
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/mailtwist/bin", str(programs)))
    done = run(tool("systemd-analyze"), "verify", "--man=no", str(copy))
    assert (done.returncode, [line for line in done.stderr.splitlines() if UNIT.name in line]) == (
        0,
        [],
    )


@pytest.mark.real
def test_the_unit_is_closed_as_far_as_a_mail_server_can_be() -> None:
    options = ("--offline=true", "--no-pager", "--threshold=20")
    done = run(tool("systemd-analyze"), "security", *options, str(UNIT))
    assert done.returncode == 0, done.stdout + done.stderr
    (level,) = re.findall(r"Overall exposure level .*: ([0-9.]+)", done.stdout)
    assert float(level) < 2.0


def test_the_unit_says_what_the_server_does() -> None:
    found = settings_of(UNIT.read_text())
    assert found["Type"] == ["notify"]
    assert "WatchdogSec" in found
    # cffi's callbacks of the TLS library would raise MemoryError.
    assert "MemoryDenyWriteExecute" not in found
    assert not any("@resources" in each for each in found["SystemCallFilter"])
    (start,) = found["ExecStart"]
    assert start.endswith("--config /etc/mailtwist.yaml serve")


@pytest.mark.real
def test_the_user_and_the_folders_are_made(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("files are given to other users")
    (tmp_path / "etc").mkdir()
    config = tmp_path / "etc" / "mailtwist.yaml"
    config.write_text("relay: {password: secret}\n")
    config.chmod(0o644)
    for program, *options in (
        (tool("systemd-sysusers"), f"--root={tmp_path}", str(ETC / "sysusers.d/mailtwist.conf")),
        (
            tool("systemd-tmpfiles"),
            "--create",
            f"--root={tmp_path}",
            str(ETC / "tmpfiles.d/mailtwist.conf"),
        ),
    ):
        done = run(program, *options)
        assert done.returncode == 0, done.stderr
    (user,) = (tmp_path / "etc" / "passwd").read_text().splitlines()
    name, _, uid, gid, *_, home, shell = user.split(":")
    assert (name, home, shell) == ("mailtwist", "/var/lib/mailtwist", "/usr/sbin/nologin")
    assert int(uid) > 0
    assert config.stat().st_mode & 0o777 == 0o640
    assert config.stat().st_gid == int(gid)
    assert (tmp_path / "etc" / "mailtwist").stat().st_mode & 0o777 == 0o750
