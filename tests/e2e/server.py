"""A mailtwist process on free ports: started, watched, stopped, killed, looked into."""

from __future__ import annotations

import imaplib
import itertools
import json
import os
import re
import shutil
import smtplib
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from mailtwist.policy.passwords import make_verifiers
from mailtwist.store import accounts
from mailtwist.store.engine import open_engine
from mailtwist.store.upgrade import upgrade
from tests.support.stores import violations

ROOT = Path(__file__).parents[2]
# Its sitecustomize makes new password hashes cheap.
CHEAP = ROOT / "tests" / "support" / "cheap"
PASSWORD = "correct horse"
DOMAIN = "example.com"
START_S = 60
STOP_S = 30

LISTENERS = [
    {"protocol": protocol, "address": "127.0.0.1:0"}
    for protocol in ("smtp", "submission", "submissions", "imap", "imaps", "http")
]

_numbers = itertools.count(1)


def tool(name: str) -> str:
    """The path of a program that Debian has; absent: skip, unless real ones are required."""
    found = shutil.which(name)
    if found is None:
        message = f"{name} is not installed"
        if os.environ.get("MAILTWIST_REQUIRE_REAL"):
            pytest.fail(message)
        pytest.skip(message)
    return found


def run(*command: str, input: bytes = b"", timeout: float = 60) -> subprocess.CompletedProcess:
    """Run a client; fails with what it said when its status is not 0."""
    done = subprocess.run(command, check=False, input=input, capture_output=True, timeout=timeout)
    assert done.returncode == 0, (command, done.stdout[-4000:], done.stderr[-4000:])
    return done


class Server:
    """One data folder and the process on it, while there is one."""

    def __init__(self, folder: Path, *, prefix: tuple[str, ...] = (), **settings: Any) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.data_dir = Path(settings.pop("data_dir", folder / "var"))
        self.prefix = prefix
        self.environment: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self.log_path = folder / "log"
        self.config = folder / "mailtwist.yaml"
        self.settings: dict[str, Any] = {
            "hostname": "mx.example.com",
            "domains": [DOMAIN],
            "data_dir": str(self.data_dir),
            "listeners": LISTENERS,
            # Everything comes from one address here.
            "limits": {"connections_per_address": 1000},
            **settings,
        }
        self.url = self.settings.get("database_url") or f"sqlite:///{self.data_dir}/mailtwist.db"

    # -- the process ------------------------------------------------------------------------

    def start(self) -> Server:
        self.launch()
        self.wait_until_up()
        return self

    def launch(self) -> None:
        assert self.process is None, "is running"
        self.config.write_text(yaml.safe_dump(self.settings))
        command = [
            *self.prefix,
            str(Path(sys.executable).with_name("twistd")),
            "-n",
            "--pidfile=",
            "mailtwist",
            "--config",
            str(self.config),
        ]
        # No MAILTWIST_ variable of the developer may leak in.
        clean = {k: v for k, v in os.environ.items() if not k.startswith("MAILTWIST_")}
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**clean, "PYTHONPATH": f"{CHEAP}{os.pathsep}{ROOT}", **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def wait_until_up(self) -> None:
        assert self.process is not None
        path = self.data_dir / "listeners.json"
        deadline = time.monotonic() + START_S
        while not path.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"no start: {self.log[-4000:]}")
            time.sleep(0.02)
        self.ports = {entry["protocol"]: entry["port"] for entry in json.loads(path.read_text())}

    def terminate(self) -> None:
        """Ask it to stop, and don't wait."""
        assert self.process is not None
        os.kill(self.server_pid, 15)

    def wait(self, seconds: float = STOP_S) -> int:
        assert self.process is not None
        status = self.process.wait(seconds)
        self.process = None
        return status

    def stop(self) -> None:
        """SIGTERM and wait; nothing when it does not run."""
        if self.process is None:
            return
        self.terminate()
        try:
            self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"did not stop: {self.log[-4000:]}") from None

    def kill(self) -> None:
        """SIGKILL, as the kernel does when memory runs out."""
        assert self.process is not None
        os.kill(self.server_pid, 9)
        self.wait()
        (self.data_dir / "listeners.json").unlink(missing_ok=True)

    def restart(self) -> None:
        self.stop()
        self.start()

    @property
    def server_pid(self) -> int:
        """The server itself, also where a program such as strace stands before it."""
        assert self.process is not None
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0]) if self.prefix and children else pid

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    # -- what it knows ------------------------------------------------------------------------

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]

    def account(self, name: str = "") -> str:
        """Make an account, beside the running server; its address."""
        address = f"{name or f'user{next(_numbers)}'}@{DOMAIN}"
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        engine = open_engine(self.url)
        try:
            upgrade(engine)
            with engine.write() as connection:
                # A cheap verifier: what a login costs is measured elsewhere.
                accounts.add(connection, address, make_verifiers(PASSWORD, cost=4)[:1])
        finally:
            engine.dispose()
        return address

    def check(self) -> None:
        """The store has nothing wrong with it."""
        engine = open_engine(self.url)
        try:
            assert violations(engine) == []
        finally:
            engine.dispose()

    # -- clients ----------------------------------------------------------------------------

    def smtp(self, protocol: str = "smtp", timeout: float = 60) -> smtplib.SMTP:
        if protocol == "submissions":
            port = self.ports[protocol]
            return smtplib.SMTP_SSL("127.0.0.1", port, context=trusting(), timeout=timeout)
        return smtplib.SMTP("127.0.0.1", self.ports[protocol], timeout=timeout)

    def imap(self, address: str = "", *, implicit: bool = True) -> imaplib.IMAP4:
        """An IMAP client under TLS, logged in when an address is given."""
        if implicit:
            client: imaplib.IMAP4 = imaplib.IMAP4_SSL(
                "127.0.0.1", self.ports["imaps"], ssl_context=trusting(), timeout=60
            )
        else:
            client = imaplib.IMAP4("127.0.0.1", self.ports["imap"], timeout=60)
            client.starttls(trusting())
        if address:
            client.login(address, PASSWORD)
        return client

    def raw(self, protocol: str) -> Talk:
        return Talk(socket.create_connection(("127.0.0.1", self.ports[protocol]), timeout=30))

    def send(self, address: str, message: bytes) -> str:
        """Deliver a message as any MX would; the queue id."""
        with self.smtp() as client:
            client.ehlo()
            client.mail("sender@elsewhere.example")
            code, text = client.rcpt(address)
            assert code == 250, text
            code, text = client.data(message)
        assert code == 250, text
        return text.split()[-1].decode()

    def mails(self, address: str, mailbox: str = "INBOX") -> dict[int, bytes]:
        """Every message of a mailbox by UID, read by IMAP."""
        client = self.imap(address)
        try:
            status, data = client.select(mailbox, readonly=True)
            assert status == "OK", data
            _, found = client.uid("FETCH", "1:*", "(UID BODY.PEEK[])")
        finally:
            client.logout()
        messages = {}
        for item in found:
            if isinstance(item, tuple):
                uid = re.search(rb"UID (\d+)", item[0])
                assert uid is not None, item[0]
                messages[int(uid[1])] = item[1]
        return messages


class Talk:
    """A connection spoken to line by line, for what no client library would send."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.file = connection.makefile("rb")

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def line(self) -> bytes:
        return self.file.readline()

    def reply(self) -> bytes:
        """The last line of an SMTP reply."""
        while True:
            line = self.line()
            if line[3:4] != b"-":
                return line

    def say(self, command: bytes) -> bytes:
        self.send(command + b"\r\n")
        return self.reply()

    def close(self) -> None:
        self.file.close()
        self.connection.close()

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def trusting() -> ssl.SSLContext:
    """Takes the self-signed certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def content_of(stored: bytes) -> bytes:
    """A stored message without the trace fields that its delivery put before it."""
    rest = stored
    while re.match(rb"(?i)(return-path|received|delivered-to):", rest):
        end = re.search(rb"\r\n(?![ \t])", rest)
        assert end is not None
        rest = rest[end.end() :]
    return rest
