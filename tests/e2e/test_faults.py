"""A store that takes nothing: temporary refusals, a red health page, and recovery by itself."""

from __future__ import annotations

import http.client
import os
import resource
import smtplib
import sqlite3
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e import mails
from tests.e2e.server import Server, content_of

pytestmark = [pytest.mark.real, pytest.mark.slow]

SMALL = 16 << 20


def health(server: Server) -> int:
    return ask(server, "/health")


def ask(server: Server, path: str) -> int:
    client = http.client.HTTPConnection("127.0.0.1", server.ports["http"], timeout=10)
    try:
        client.request("GET", path)
        return client.getresponse().status
    finally:
        client.close()


def until(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come to pass"
        time.sleep(0.1)


def deliver(server: Server, address: str, message: bytes) -> int:
    with server.smtp() as client:
        client.ehlo()
        for code, _ in (client.mail("x@elsewhere.example"), client.rcpt(address)):
            if code != 250:
                return code
        try:
            return client.data(message)[0]
        except smtplib.SMTPDataError as error:
            return error.smtp_code


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 16 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", str(folder)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("may not mount a file system here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.mission("DAP-115")
def test_a_full_disk_is_452_and_no_and_recovers(small_disk, make_server):
    server = make_server(data_dir=small_disk / "var").start()
    alice = server.account()
    kept = []
    assert deliver(server, alice, mails.simple("first")) == 250
    kept.append(mails.simple("first"))
    ballast = small_disk / "ballast"
    with ballast.open("wb") as file:
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        file.write(b"x" * (free - 200_000))
    codes = set()
    for n in range(20):
        message = mails.simple(f"filling {n}", octets=100_000)
        code = deliver(server, alice, message)
        codes.add(code)
        if code == 250:
            kept.append(message)
    assert codes <= {250, 452, 451}
    assert 452 in codes
    client = server.imap()
    try:
        # Reading goes on: the store is full, not gone.
        client.login(alice, "correct horse")
        assert client.select("INBOX")[0] == "OK"
        status, _ = client.append("INBOX", None, None, mails.simple("no room", octets=500_000))
        assert status == "NO"
    finally:
        client.logout()
    ballast.unlink()
    until(lambda: health(server) == 200)
    assert deliver(server, alice, mails.simple("afterwards")) == 250
    kept.append(mails.simple("afterwards"))
    assert [content_of(mail) for mail in server.mails(alice).values()] == kept


@pytest.mark.mission("DAP-115", "ADG-25")
def test_a_file_that_may_not_grow_is_a_temporary_failure_and_recovers(make_server):
    server = make_server().start()
    alice = server.account()
    assert deliver(server, alice, mails.simple("first")) == 250
    wal = server.data_dir / "mailtwist.db-wal"
    before = resource.prlimit(server.server_pid, resource.RLIMIT_FSIZE)
    limit = wal.stat().st_size
    resource.prlimit(server.server_pid, resource.RLIMIT_FSIZE, (limit, before[1]))
    codes = [deliver(server, alice, mails.simple(f"n {n}", octets=2_000_000)) for n in range(3)]
    assert set(codes) <= {451, 452}
    assert health(server) == 503
    resource.prlimit(server.server_pid, resource.RLIMIT_FSIZE, before)
    until(lambda: health(server) == 200)
    assert deliver(server, alice, mails.simple("afterwards")) == 250
    assert len(server.mails(alice)) == 2


@pytest.mark.mission("DAP-115", "GEN-02")
def test_a_store_that_stays_locked_is_451_within_a_minute(make_server):
    server = make_server().start()
    alice = server.account()
    other = sqlite3.connect(server.data_dir / "mailtwist.db", isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        begin = time.monotonic()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(deliver, server, alice, mails.simple("waits"))
            while not waiting.done():
                # Whoever waits for the store waits alone.
                asked = time.monotonic()
                assert ask(server, "/ping") == 200
                assert time.monotonic() - asked < 0.5
                time.sleep(0.2)
        assert waiting.result() == 451
        assert time.monotonic() - begin < 60
        # Who only reads does not notice.
        assert server.mails(alice) == {}
        other.execute("ROLLBACK")
    finally:
        other.close()
    until(lambda: health(server) == 200)
    assert deliver(server, alice, mails.simple("afterwards")) == 250
