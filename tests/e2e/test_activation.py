"""Sockets that systemd has bound, and those bound before root's rights are given up."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.relaying import until
from tests.e2e.server import ROOT, START_S, Server, Talk
from tests.support.ports import free_port
from tests.support.rest import Rest

pytestmark = [pytest.mark.real]

# Binds as systemd does and becomes the server; "6:0" is a socket for both IP versions.
ACTIVATE = textwrap.dedent(
    """
    import os, socket, sys
    count = int(sys.argv[1])
    for n, given in enumerate(sys.argv[2 : 2 + count]):
        host, port = given.rsplit(":", 1)
        made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ":" in host:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind((host, int(port)))
        made.listen()
        os.dup2(made.detach(), 100 + n)
    for n in range(count):
        os.dup2(100 + n, 3 + n)
        os.set_inheritable(3 + n, True)
    os.closerange(3 + count, 200)
    names = ":".join(f"mail{n}" for n in range(count))
    given = {"LISTEN_FDS": str(count), "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": names}
    command = sys.argv[2 + count :]
    os.execve(command[0], command, {**os.environ, **given})
    """
)


def row_on(port: int) -> dict[str, object]:
    address = f"127.0.0.1:{port}"
    return {"is_enabled": True, "always_on_tls": False, "listen_interface": address}


def greets(port: int, host: str = "127.0.0.1") -> bool:
    try:
        with Talk(socket.create_connection((host, port), timeout=30)) as client:
            return client.reply().startswith(b"220")
    except ConnectionRefusedError:
        return False


def activated(server: Server, *addresses: str) -> Server:
    """Start it with these sockets."""
    server.prefix = (sys.executable, "-c", ACTIVATE, str(len(addresses)), *addresses)
    server.start()
    server.prefix = ()  # it has become the server itself
    return server


def test_passed_sockets_are_used_and_kept_and_the_rest_is_closed(make_server):
    smtp, row, spare, http = (free_port() for _ in range(4))
    server = make_server(
        listeners=[
            {"protocol": "smtp", "address": f"127.0.0.1:{smtp}"},
            {"protocol": "http", "address": f"127.0.0.1:{http}"},
        ]
    )
    activated(server, f"127.0.0.1:{smtp}", f"127.0.0.1:{spare}")
    assert greets(smtp)
    assert not greets(spare)
    (line,) = [each for each in server.log.splitlines() if "no listener for the socket" in each]
    assert f"127.0.0.1:{spare}" in line
    assert "mail1" in line
    admin = Rest(http).become_administrator()
    given = row_on(row)
    admin.make("mail_server", {"hostname": "mx.row.example", **given})
    assert admin.post("/listeners/apply", {}).status == 200
    server.stop()
    # The row's socket now comes from outside, too.
    activated(server, f"127.0.0.1:{smtp}", f"127.0.0.1:{row}")
    assert greets(row)
    (id,) = admin.rows("mail_server").ids
    for enabled in (False, True, False, True):
        admin.change("mail_server", id, is_enabled=enabled)
        assert admin.post("/listeners/apply", {}).status == 200
        assert greets(row) is enabled
        # It stays bound all the time: nobody could take it.
        assert is_bound(row)


def is_bound(port: int) -> bool:
    """Whether somebody holds the port, listening or not."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def test_one_socket_for_both_ip_versions_serves_both_by_their_own_addresses(make_server):
    port = free_port()
    server = make_server(
        listeners=[{"protocol": "smtp", "address": f":{port}"}],
        allowed_relays=["127.0.0.1"],
    )
    activated(server, f":::{port}")
    assert greets(port, "::1")
    # Relaying is for 127.0.0.1, not for ::ffff:127.0.0.1.
    for host, code in (("127.0.0.1", b"250"), ("::1", b"5")):
        with Talk(socket.create_connection((host, port), timeout=30)) as client:
            client.reply()
            client.say(b"EHLO x.example")
            client.say(b"MAIL FROM:<x@elsewhere.example>")
            assert client.say(b"RCPT TO:<y@foreign.example>").startswith(code)


# -- root ----------------------------------------------------------------------------------------


# The interpreter may be another one than ours: of the same version, with its own library.
PACKAGES = os.pathsep.join([str(ROOT), *(each for each in sys.path if "site-packages" in each)])


@pytest.fixture
def interpreter() -> str:
    """A Python that nobody (the user) can run the server with."""
    if os.geteuid() != 0:
        pytest.skip("only root can bind low ports and give its rights up")
    for each in (sys.executable, shutil.which("python3", path="/usr/bin:/bin")):
        if each is None:
            continue
        try:
            done = subprocess.run(
                [each, "-c", "import mailtwist.control.services, twisted.scripts.twistd"],
                check=False,
                env={"PYTHONPATH": PACKAGES},
                cwd="/",
                user="nobody",
                group="nogroup",
                extra_groups=[],
                capture_output=True,
            )
        except PermissionError:
            continue
        if done.returncode == 0:
            return each
    pytest.skip("no user but root may read this Python or this checkout")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that nobody owns and can reach; that of pytest belongs to root alone."""
    made = Path("/var/tmp") / f"mailtwist-test-{os.getpid()}-{time.monotonic_ns()}"
    made.mkdir()
    shutil.chown(made, "nobody", "nogroup")
    yield made
    shutil.rmtree(made)


def low_ports(count: int) -> list[int]:
    """Ports that only root may bind, unused here."""
    found = []
    for port in range(1023, 512, -1):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    pytest.skip("no low port is free")


class Dropped:
    """A server that root starts and that runs as nobody."""

    def __init__(self, interpreter: str, folder: Path, **settings) -> None:
        self.folder = folder
        config = folder / "mailtwist.yaml"
        data_dir = folder / "var"
        config.write_text(
            json.dumps({"hostname": "mx.example.com", "data_dir": str(data_dir), **settings})
        )
        self.listeners = data_dir / "listeners.json"
        nobody = pwd.getpwnam("nobody")
        command = "from twisted.scripts.twistd import run; run()"
        self.log = (folder / "log").open("ab")
        self.process = subprocess.Popen(
            [
                *(interpreter, "-c", command, "-n", "--pidfile="),
                *("--uid", str(nobody.pw_uid), "--gid", str(nobody.pw_gid)),
                *("mailtwist", "--config", str(config)),
            ],
            cwd=folder,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": PACKAGES,
            },
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
        )
        deadline = time.monotonic() + START_S
        while not self.listeners.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((folder / "log").read_text()[-4000:])
            time.sleep(0.02)

    def ports(self) -> set[int]:
        return {each["port"] for each in json.loads(self.listeners.read_text())}

    def stop(self) -> None:
        self.process.terminate()
        # twistd ends by the signal that it was sent.
        assert self.process.wait(60) in {0, -signal.SIGTERM}
        self.log.close()


def test_low_ports_of_file_and_rows_outlive_roots_rights(interpreter, folder):
    smtp, row = low_ports(2)
    http = free_port()
    settings = {
        "listeners": [
            {"protocol": "smtp", "address": f"127.0.0.1:{smtp}"},
            {"protocol": "http", "address": f"127.0.0.1:{http}"},
        ]
    }
    server = Dropped(interpreter, folder, **settings)
    try:
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        (uids,) = [line.split()[1:] for line in status.splitlines() if line.startswith("Uid:")]
        assert set(uids) == {str(pwd.getpwnam("nobody").pw_uid)}
        assert greets(smtp)
        admin = Rest(http).become_administrator()
        given = row_on(row)
        id = admin.make("mail_server", {"hostname": "mx.low.example", **given})["id"]
        answer = admin.post("/listeners/apply", {})
        assert answer.status == 409
        for said in ("mx.low.example", f"127.0.0.1:{row}", "privileges"):
            assert said in answer.error
        assert greets(smtp)
    finally:
        server.stop()
    server = Dropped(interpreter, folder, **settings)
    try:
        until(lambda: row in server.ports())
        for enabled in (False, True):
            admin.change("mail_server", id, is_enabled=enabled)
            assert admin.post("/listeners/apply", {}).status == 200
            assert greets(row) is enabled
        owners = {each.stat().st_uid for each in (folder / "var").iterdir()}
        assert owners == {pwd.getpwnam("nobody").pw_uid}
    finally:
        server.stop()
