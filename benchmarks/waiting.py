"""Clients that wait for mail by HTTP: what each costs, and how soon each has its message."""

from __future__ import annotations

import os
import smtplib
import socket
import statistics
import time
from collections.abc import Iterator

from benchmarks.idle import SPARE, raised_limit
from benchmarks.server import HOST, Server
from benchmarks.workloads import Row

CLIENTS = 1_000
DOMAIN = "inbox.test"
KEY = "a key for the bench"
HEAD = b"From: ann@example.net\r\nSubject: your code\r\n\r\n"
LETTER = HEAD + b"Your code is 482913.\r\n" + b"x" * 1000


def waiting(database_url: str) -> Iterator[Row]:
    """`MAILTWIST_BENCH_WAITING` asks for another number of clients."""
    wanted = int(os.environ.get("MAILTWIST_BENCH_WAITING", CLIENTS))
    count = min(wanted, raised_limit(wanted + SPARE) - SPARE)
    settings = {
        "inbox": {"domain": DOMAIN, "api_keys": [KEY], "api_rate": 0, "smtp_rate": 0},
        "limits": {"connections_per_address": count + SPARE},
    }
    with Server(accounts=0, database_url=database_url, settings=settings) as server:
        port = server.ports["http"]
        with smtplib.SMTP(HOST, server.ports["smtp"]) as smtp:
            _send(smtp, "warm")
            _answered(_asking(port, "warm"))
            _waits(port, smtp, "warm", 20)
            before, start = server.resident_kb(), time.monotonic()
            clients = {f"user{n}": _asking(port, f"user{n}") for n in range(count)}
            took = time.monotonic() - start
            _settled(port)
            case = f"{count:,} clients"
            yield case, "resident", (server.resident_kb() - before) / count, "KiB/client"
            yield case, "asked", count / took, "clients/s"
            waits = sorted(_wait(smtp, name, client) for name, client in clients.items())
            yield case, "250 to answer, median", statistics.median(waits), "ms"
            yield case, "250 to answer, 99th percentile", waits[len(waits) * 99 // 100], "ms"
            yield case, "250 to answer, worst", waits[-1], "ms"
            together = [_asking(port, "all") for _ in _slowly(count)]
            _settled(port)
            _send(smtp, "all")
            start = time.perf_counter()
            for client in together:
                _answered(client)
            took = (time.perf_counter() - start) * 1000
            yield f"{case} for one message", "250 to the last answer", took, "ms"


def _slowly(count: int) -> Iterator[int]:
    """One path is asked 500 times a second at most (`limit.rate`)."""
    for n in range(count):
        if n % 40 == 0:
            time.sleep(0.1)
        yield n


def _waits(port: int, smtp: smtplib.SMTP, name: str, count: int) -> list[float]:
    path = f"{name}/wait?timeout=60&subject=code&after={time.time():.6f}"
    return [_wait(smtp, name, _asking(port, name, path)) for _ in range(count)]


def _asking(port: int, name: str, path: str = "") -> socket.socket:
    """A client that has asked, and waits."""
    connection = socket.create_connection((HOST, port), timeout=60)
    path = path or f"{name}/wait?timeout=300&subject=code"
    head = f"GET /emails/{path} HTTP/1.1\r\nHost: {HOST}\r\nX-API-KEY: {KEY}\r\n\r\n"
    connection.sendall(head.encode("ascii"))
    return connection


def _settled(port: int) -> None:
    """Until the server has read what was asked before."""
    _answered(_asking(port, "warm"))
    time.sleep(0.5)


def _wait(smtp: smtplib.SMTP, name: str, client: socket.socket) -> float:
    """Milliseconds from the 250 of a message to the answer of the client that waits for it."""
    _send(smtp, name)
    start = time.perf_counter()
    _answered(client)
    return (time.perf_counter() - start) * 1000


def _send(smtp: smtplib.SMTP, name: str) -> None:
    assert not smtp.sendmail("ann@example.net", [f"{name}@{DOMAIN}"], LETTER)


def _answered(client: socket.socket) -> None:
    answer = client.recv(1 << 16)
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    assert b'"codes":["482913"]' in answer, answer
    client.close()
