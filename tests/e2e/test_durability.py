"""What was acknowledged is there: after SIGKILL at any moment, and synced before the answer."""

from __future__ import annotations

import imaplib
import random
import re
import smtplib
import threading
import time
from collections import defaultdict

import pytest

from tests.e2e import mails
from tests.e2e.server import Server, content_of, tool

pytestmark = [pytest.mark.real, pytest.mark.slow]

ROUNDS = 6
SENDERS = 6
# Together with the starts of the server, the kill test stays below a minute.
LOAD_S = (0.2, 1.5)


class Load:
    """Clients that send until they are cut off, and note what was acknowledged."""

    def __init__(self, server: Server, people: list[str], round_: int) -> None:
        self.server = server
        self.people = people
        self.round = round_
        self.acknowledged: dict[str, list[bytes]] = defaultdict(list)
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.threads = [
            threading.Thread(target=self.run, args=(n, work), daemon=True)
            for n, work in enumerate([self.one, self.two, self.append] * (SENDERS // 3))
        ]

    def __enter__(self) -> Load:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join(30)
            assert not thread.is_alive()

    def run(self, n, work) -> None:
        try:
            for message in self.messages(n):
                work(n, message)
        except (OSError, EOFError, smtplib.SMTPException, imaplib.IMAP4.error):
            pass  # the server was killed
        finally:
            self.close(n)

    def messages(self, n):
        chance = random.Random(f"{self.round} {n}")
        number = 0
        while not self.stopping.is_set():
            number += 1
            octets = chance.choice([0, 0, 5_000, 100_000, 2_000_000])
            yield mails.simple(f"kill {self.round} {n} {number}", octets=octets)

    def note(self, message: bytes, *people: str) -> None:
        with self.lock:
            for each in people:
                self.acknowledged[each].append(message)

    # One connection for each thread, opened when it is first needed.

    def client(self, n, make):
        if not hasattr(self, f"client{n}"):
            setattr(self, f"client{n}", make())
        return getattr(self, f"client{n}")

    def close(self, n) -> None:
        client = getattr(self, f"client{n}", None)
        if isinstance(client, smtplib.SMTP):
            client.close()
        elif client is not None:
            client.shutdown()

    def one(self, n, message: bytes) -> None:
        self.deliver(n, message, self.people[0])

    def two(self, n, message: bytes) -> None:
        self.deliver(n, message, *self.people[:2])

    def deliver(self, n, message: bytes, *people: str) -> None:
        client = self.client(n, self.server.smtp)
        assert client.sendmail("x@elsewhere.example", people, message) == {}
        self.note(message, *people)

    def append(self, n, message: bytes) -> None:
        client = self.client(n, lambda: self.server.imap(self.people[2]))
        status, _ = client.append("INBOX", None, None, message)
        assert status == "OK"
        self.note(message, self.people[2])


@pytest.mark.mission("ELE-50", "ELE-51", "DAP-235")
def test_a_kill_at_any_moment_loses_nothing_that_was_acknowledged(make_server):
    server = make_server().start()
    people = [server.account() for _ in range(3)]
    chance = random.Random(20261120)
    acknowledged: dict[str, list[bytes]] = defaultdict(list)
    known: dict[str, dict[int, bytes]] = {}
    validity: dict[str, bytes] = {}
    for round_ in range(ROUNDS):
        with Load(server, people, round_) as load:
            time.sleep(chance.uniform(*LOAD_S))
            server.kill()
        server.check()
        server.start()
        for each in people:
            acknowledged[each] += load.acknowledged[each]
            found = server.mails(each)
            # Byte for byte, and nothing but what was sent.
            contents = [content_of(mail) for mail in found.values()]
            assert not set(acknowledged[each]) - set(contents)
            # UIDs rise and stay with their message; what was read before is still there.
            before = known.get(each, {})
            assert before == {uid: found[uid] for uid in before}
            assert all(uid > max(before, default=0) for uid in set(found) - set(before))
            known[each] = found
            validity.setdefault(each, uidvalidity(server, each))
            assert uidvalidity(server, each) == validity[each]
    assert sum(map(len, acknowledged.values())) > ROUNDS * 10


def uidvalidity(server: Server, address: str) -> bytes:
    client = server.imap(address)
    try:
        _, (status,) = client.status("INBOX", "(UIDVALIDITY)")
        return status
    finally:
        client.logout()


# One line of strace -f -y: "pid call(arguments) = result", or its two halves.
SYNC = re.compile(r"^(\d+)\s+f(?:data)?sync\(\d+<[^>]*mailtwist\.db-wal>(\)\s+= 0| <unfinished)")
RESUMED = re.compile(r"^(\d+)\s+<\.\.\. f(?:data)?sync resumed>\)\s+= 0")
ANSWER = re.compile(r'(?:sendto|send|write)\(\d+<[^>]*>, "250 2\.0\.0 Message accepted')


@pytest.mark.mission("ELE-51")
def test_every_250_stands_behind_a_sync(make_server, tmp_path):
    """Without synchronous=FULL a SIGKILL loses nothing, but a power cut does; strace tells."""
    trace = tmp_path / "trace"
    calls = "trace=fsync,fdatasync,sendto,write"
    prefix = (tool("strace"), "-f", "-y", "-s", "80", "-e", calls, "-o", str(trace))
    server = make_server(prefix=prefix).start()
    alice = server.account()
    with server.smtp() as smtp:
        for n in range(10):
            smtp.sendmail("x@elsewhere.example", [alice], mails.simple(f"synced {n}"))
    server.stop()

    accepted = synced = 0
    begun: set[str] = set()
    for line in trace.read_text(errors="replace").splitlines():
        if call := SYNC.search(line):
            if call[2].endswith("unfinished"):
                begun.add(call[1])
            else:
                synced += 1
        elif (call := RESUMED.search(line)) and call[1] in begun:
            begun.remove(call[1])
            synced += 1
        elif ANSWER.search(line):
            accepted += 1
            assert synced, f"answer {accepted} came before its sync"
            synced = 0
    assert accepted == 10
