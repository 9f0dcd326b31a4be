"""FETCH, SEARCH and STORE inside one process: our whole path but for the socket.

    python -m benchmarks.fetch [messages]

Prints messages a second (MB/s where bodies are read) of the commands that mail
clients send most, and the same by processor time, which a busy machine changes
less. The reader takes everything at once, so the figures are those of the store,
the renderer and the session together.
"""

from __future__ import annotations

import gc
import hashlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport

from benchmarks.corpus import messages
from mailtwist.imap.limits import AFTER_LOGIN
from mailtwist.imap.protocol import MailIMAP4
from mailtwist.imap.session import Services
from mailtwist.imap.verbs import COMMANDS
from mailtwist.mail.structure import Parser
from mailtwist.policy.auth import Login
from mailtwist.store import accounts
from mailtwist.store.content import Spooled
from mailtwist.store.database import Database
from mailtwist.store.deliver import Acceptance, Entry, deliver
from mailtwist.store.engine import Engine, open_engine
from mailtwist.store.snapshot import Snapshots
from mailtwist.store.upgrade import upgrade

reactor: Any = _reactor
NOW = 1_790_000_000_000_000
ENVELOPE = b"(UID FLAGS RFC822.SIZE INTERNALDATE ENVELOPE BODYSTRUCTURE)"

# Name, command, unit: msg (all messages of the mailbox), MB or ms.
STEPS = (
    ("envelope first", b"FETCH 1:* " + ENVELOPE, "msg"),
    ("envelope", b"FETCH 1:* " + ENVELOPE, "msg"),
    ("uid flags", b"UID FETCH 1:* (FLAGS)", "msg"),
    ("headers", b"UID FETCH 1:* (BODY.PEEK[HEADER.FIELDS (FROM TO SUBJECT DATE)])", "msg"),
    ("bodies first", b"FETCH 1:* (BODY.PEEK[])", "MB"),
    ("bodies", b"FETCH 1:* (BODY.PEEK[])", "MB"),
    ("one body", b"UID FETCH 7 (BODY.PEEK[])", "ms"),
    ("search subject", b"SEARCH SUBJECT zebrafish", "ms"),
    ("search text", b"SEARCH TEXT quokka", "ms"),
    ("search flagged", b"SEARCH FLAGGED", "ms"),
    ("store 1000", b"STORE 1:1000 +FLAGS (\\Flagged)", "ms"),
    ("copy 1000", b"COPY 1:1000 Archive", "ms"),
    ("delete 1000", b"STORE 1:1000 +FLAGS.SILENT (\\Deleted)", "ms"),
    ("expunge 1000", b"EXPUNGE", "ms"),
)


class Sink(StringTransport):
    """Counts what is written and keeps the end of it."""

    def __init__(self) -> None:
        super().__init__()
        self.octets = 0
        self.tail = b""
        self.waiting: tuple[bytes, Deferred[None]] | None = None

    def write(self, data: bytes) -> None:
        self.octets += len(data)
        self.tail = (self.tail + data[-200:])[-200:]
        if self.waiting is not None and self.tail.endswith(b"\r\n"):
            tag, done = self.waiting
            if tag in self.tail:
                self.waiting = None
                done.callback(None)

    def setTcpNoDelay(self, enabled: bool) -> None:  # noqa: N802
        pass


def fill(engine: Engine, account_id: int, count: int) -> None:
    """Put the corpus into INBOX, some thousand a transaction."""
    for part in _grouped(_spooled(count), 2000):
        acceptances = [
            Acceptance(one, (Entry(account_id, "INBOX", internaldate=NOW + n),), None, NOW)
            for n, one in enumerate(part)
        ]
        with engine.write() as connection:
            deliver(connection, acceptances)


def _spooled(count: int) -> Iterator[Spooled]:
    for n, message in enumerate(messages(count)):
        subject = b"Subject: zebrafish " if n % 500 == 0 else b"Subject: "
        data = message.replace(b"Subject: ", subject, 1)
        data += b"\r\nquokka\r\n" if n % 700 == 0 else b""
        parser = Parser()
        parser.feed(data)
        digest = hashlib.sha256(data).digest()
        yield Spooled(n + 1, len(data), digest, data, parser.close())


def _grouped(items: Iterator[Spooled], size: int) -> Iterator[list[Spooled]]:
    part: list[Spooled] = []
    for item in items:
        part.append(item)
        if len(part) == size:
            yield part
            part = []
    yield part


class Factory:
    """The little that a connection wants of its factory."""

    clock = reactor

    def forget(self, protocol: object) -> None:
        pass


async def measure(engine: Engine, account_id: int, count: int) -> None:
    database = Database(engine, reactor=reactor)
    await database.start()
    services = Services(
        database=database,
        snapshots=Snapshots(database),
        authenticator=None,  # type: ignore[arg-type]
        clock=reactor,
        commands=COMMANDS,
        limits=AFTER_LOGIN,
    )
    protocol = MailIMAP4(services)
    protocol.factory = Factory()  # type: ignore[assignment]
    sink = Sink()
    protocol.makeConnection(sink)
    protocol.session.enter(Login(account_id, "user", frozenset()))
    await ask(protocol, sink, b"SELECT INBOX")
    print(f"{'':16} {'elapsed':>10} {'processor':>10}")
    for name, line, unit in STEPS:
        seconds, used, octets = await ask(protocol, sink, line)
        if unit == "msg":
            show(name, count / seconds / 1000, count / used / 1000, "k messages/s")
        elif unit == "MB":
            show(name, octets / seconds / 1e6, octets / used / 1e6, "MB/s")
        else:
            show(name, seconds * 1000, used * 1000, "ms")
    await database.close()


def show(name: str, elapsed: float, used: float, unit: str) -> None:
    print(f"{name:16} {elapsed:10.1f} {used:10.1f}  {unit}")


async def ask(protocol: MailIMAP4, sink: Sink, line: bytes) -> tuple[float, float, int]:
    """Seconds, seconds of processor time and octets of one command."""
    done: Deferred[None] = Deferred()
    before = sink.octets
    sink.waiting = (b"T1 OK ", done)
    start, used = time.perf_counter(), time.process_time()
    protocol.dataReceived(b"T1 " + line + b"\r\n")
    await done
    return time.perf_counter() - start, time.process_time() - used, sink.octets - before


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'mailtwist.db'}"
        upgrade(url)
        engine = open_engine(url)
        with engine.write() as connection:
            account_id = accounts.add(connection, "user@bench.test", [], now=NOW).account_id
        start = time.perf_counter()
        fill(engine, account_id, count)
        print(f"{'fill':16} {count / (time.perf_counter() - start):10.0f} messages/s")
        run(engine, account_id, count)


def run(engine: Engine, account_id: int, count: int) -> None:
    # As the service does at its start.
    sys.setswitchinterval(0.0005)
    gc.collect()
    gc.freeze()

    def begin() -> None:
        running = Deferred.fromCoroutine(measure(engine, account_id, count))
        running.addErrback(lambda failure: failure.printTraceback())
        running.addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(begin)
    reactor.run()


if __name__ == "__main__":
    main()
