"""The workloads: each yields rows of (case, metric, figure, unit)."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator

from benchmarks import corpus, smtp_load
from benchmarks.imap_client import Client
from benchmarks.server import Server

Row = tuple[str, str, float, str]

#           case      messages  connections  octets
INBOUND = (
    ("1 KB, 1 connection", 1500, 1, 1024),
    ("1 KB, 20 connections", 6000, 20, 1024),
    ("1 KB, 100 connections", 6000, 100, 1024),
    ("100 KB, 20 connections", 600, 20, 100 * 1024),
    ("10 MB, 4 connections", 16, 4, 10 << 20),
)
FETCH = (
    ("FETCH envelopes", "FETCH 1:* (UID FLAGS RFC822.SIZE INTERNALDATE ENVELOPE BODYSTRUCTURE)"),
    ("UID FETCH flags", "UID FETCH 1:* (FLAGS)"),
)
IDLE = 500
LARGE = 50 << 20


def inbound(server: Server) -> Iterator[Row]:
    """Durable messages a second, until IMAP counts them all."""
    smtp_load.send(server.ports["smtp"], server.accounts, 200, 20, 1024)  # warm up
    watchers = [Client(server.ports["imap"], account) for account in server.accounts]
    for case, messages, connections, octets in INBOUND:
        before = sum(client.messages() for client in watchers)
        cpu, start = server.cpu_s(), time.monotonic()
        smtp_load.send(server.ports["smtp"], server.accounts, messages, connections, octets)
        while sum(client.messages() for client in watchers) < before + messages:
            time.sleep(0.01)
        took, cpu = time.monotonic() - start, server.cpu_s() - cpu
        yield case, "visible", messages / took, "messages/s"
        yield case, "processor", cpu / messages * 1000, "s/1000 messages"


def imap(server: Server, size: int) -> Iterator[Row]:
    """The commands of a mail program on a mailbox of this size."""
    user = server.accounts[0]
    folder = server.folder / f"seed-{size}"
    folder.mkdir()
    for n, message in enumerate(corpus.messages(size)):
        (folder / f"{n:07d}.eml").write_bytes(message)
    took, _ = _timed(lambda: server.command("import", user, "INBOX", str(folder)))
    case = f"{size} messages"
    yield case, "import", size / took, "messages/s"
    client = Client(server.ports["imap"], user)
    for when in ("first", "again"):
        took, _ = _timed(lambda: client.run("SELECT INBOX"))
        yield case, f"SELECT {when}", took * 1000, "ms"
        for name, command in FETCH:
            took, _ = _timed(lambda command=command: client.run(command))
            yield case, f"{name} {when}", size / took, "messages/s"
        took, octets = _timed(lambda: client.run("FETCH 1:* (BODY.PEEK[])")[0])
        yield case, f"FETCH bodies {when}", octets / took / 1e6, "MB/s"
        for key in ("SUBJECT zebra", "FLAGGED", "TEXT zebra"):
            took, _ = _timed(lambda key=key: client.run(f"SEARCH {key}"))
            yield case, f"SEARCH {key.split()[0]} {when}", took * 1000, "ms"
    yield from _changes(client, case)


def _changes(client: Client, case: str) -> Iterator[Row]:
    client.run("CREATE Other")
    for name, command in (
        ("STORE of 1000", "STORE 1:1000 +FLAGS (\\Flagged)"),
        ("COPY of 1000", "COPY 1:1000 Other"),
        ("STORE deleted", "STORE 1:1000 +FLAGS.SILENT (\\Deleted)"),
        ("EXPUNGE of 1000", "EXPUNGE"),
    ):
        took, _ = _timed(lambda command=command: client.run(command))
        yield case, name, took * 1000, "ms"
    batch = list(corpus.messages(500, seed=2))

    def append() -> None:
        for message in batch:
            client.run(f"APPEND INBOX {{{len(message)}}}", message)

    took, _ = _timed(append)
    yield case, "APPEND", len(batch) / took, "messages/s"


def idle(server: Server) -> Iterator[Row]:
    """Memory of connections that wait in IDLE, and of the process without them."""
    port, case = server.ports["imap"], f"{IDLE} connections"
    warm = Client(port, server.accounts[0])
    warm.run("SELECT INBOX")
    yield "idle process", "resident", server.resident_kb() / 1024, "MiB"
    before = server.resident_kb()
    clients = []
    for n in range(IDLE):
        client = Client(port, server.accounts[n % len(server.accounts)])
        client.run("SELECT INBOX")
        client.idle()
        clients.append(client)
    yield case, "resident", (server.resident_kb() - before) / IDLE, "KiB/connection"
    for client in clients:
        client.close()


def stall(server: Server) -> Iterator[Row]:
    """Answer time of NOOP on one connection while a large message arrives on another."""
    client = Client(server.ports["imap"], server.accounts[0])
    client.run("SELECT INBOX")
    before = peak = server.resident_kb()
    sender = threading.Thread(
        target=smtp_load.send,
        args=(server.ports["smtp"], server.accounts[1:2], 1, 1, LARGE),
    )
    times: list[float] = []
    sender.start()
    while sender.is_alive():
        took, _ = _timed(lambda: client.run("NOOP"))
        times.append(took * 1000)
        peak = max(peak, server.resident_kb())
        time.sleep(0.002)
    sender.join()
    case = f"{LARGE >> 20} MB arriving"
    yield case, "NOOP p99", statistics.quantiles(times, n=100)[98], "ms"
    yield case, "memory", (peak - before) / 1024, "MiB"


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    start = time.monotonic()
    result = work()
    return time.monotonic() - start, result if isinstance(result, int) else 0
