"""Connections that say nothing: what each costs, and what a new client feels beside them."""

from __future__ import annotations

import os
import resource
import socket
import statistics
import time
from collections.abc import Iterator

from benchmarks.server import HOST, Server
from benchmarks.workloads import Row

CONNECTIONS = 10_000
PROBES = 100
# Of either side, for files, the store and whatever else is open.
SPARE = 500


def smtp(database_url: str) -> Iterator[Row]:
    """`MAILTWIST_BENCH_IDLE` asks for another number of connections."""
    wanted = int(os.environ.get("MAILTWIST_BENCH_IDLE", CONNECTIONS))
    count = min(wanted, raised_limit(wanted + SPARE) - SPARE)
    settings = {"limits": {"connections_per_address": count + SPARE, "idle_timeout": "1h"}}
    with Server(accounts=1, database_url=database_url, settings=settings) as server:
        port = server.ports["smtp"]
        for _ in range(PROBES):
            _greeted(port).close()
        alone = _probed(port)
        before = server.resident_kb()
        start = time.monotonic()
        held = [_greeted(port) for _ in range(count)]
        took = time.monotonic() - start
        case = f"{count:,} connections"
        yield case, "resident", (server.resident_kb() - before) / count, "KiB/connection"
        yield case, "greeted", count / took, "connections/s"
        yield "alone", "greeting, worst of 100", max(alone), "ms"
        beside = _probed(port)
        yield case, "greeting, median", statistics.median(beside), "ms"
        yield case, "greeting, worst of 100", max(beside), "ms"
        used = server.cpu_s()
        time.sleep(5)
        yield case, "processor", (server.cpu_s() - used) / 5 * 100, "%"
        for connection in held:
            connection.close()


def raised_limit(wanted: int) -> int:
    """Raise the limit of open files, which the server inherits; what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft


def _greeted(port: int) -> socket.socket:
    connection = socket.create_connection((HOST, port), timeout=60)
    said = connection.recv(4096)
    assert said.startswith(b"220 "), said
    return connection


def _probed(port: int) -> list[float]:
    """How long each of some new clients waits for its greeting, in milliseconds."""
    waits = []
    for _ in range(PROBES):
        start = time.perf_counter()
        connection = _greeted(port)
        waits.append((time.perf_counter() - start) * 1000)
        connection.close()
        time.sleep(0.01)
    return waits
