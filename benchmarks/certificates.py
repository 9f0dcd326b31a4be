"""Handshakes with few and with ten thousand certificate rows: the number must not matter."""

from __future__ import annotations

import random
import socket
import ssl
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial

from benchmarks.server import HOST, Server
from benchmarks.workloads import Row
from mailtwist.store import certificates as store
from mailtwist.store.engine import open_engine
from mailtwist.store.ids import now_us
from mailtwist.store.reference import reference_id
from mailtwist.store.secrets import load_or_make
from mailtwist.tls import issuing, rows

FEW, MANY = 10, 10_000
HANDSHAKES = 300
BATCH = 500


def certificates(database_url: str = "") -> Iterator[Row]:
    """Milliseconds of a handshake by SNI, of the first for a name and of later ones."""
    for count in (FEW, MANY):
        listeners = [{"protocol": each, "address": f"{HOST}:0"} for each in ("imaps", "http")]
        server = Server(accounts=1, database_url=database_url, settings={"listeners": listeners})
        server.command("account", "list")
        _fill(server, count)
        started = time.monotonic()
        with server:
            case = f"{count} rows"
            yield case, "start", time.monotonic() - started, "s"
            handshake = partial(_handshake, server.ports["imaps"])
            chosen = random.Random(1).sample(range(count), min(count, HANDSHAKES))
            for what, numbers in (("first", chosen), ("later", chosen[:100] * 3)):
                took = sorted(handshake(number) for number in numbers)
                yield case, f"{what} handshake, median", statistics.median(took), "ms"
                yield case, f"{what} handshake, p99", took[len(took) * 99 // 100], "ms"
            yield case, "resident", server.resident_kb() / 1024, "MB"
        database_url = ""


def _fill(server: Server, count: int) -> None:
    engine = open_engine(server.url)
    secrets = load_or_make(server.folder / "data")
    key, now = issuing.make_key(), datetime.now(UTC)
    for start in range(0, count, BATCH):
        with engine.write() as connection:
            for n in range(start, min(start + BATCH, count)):
                name, at = _name(n), now_us()
                made = rows.material(issuing.issue([name], now, key=key), secrets)
                number = store.add(connection, name, reference_id(at), now=at)
                store.store_issued(connection, number, made, issuer=store.IMPORTED, now=at)
    engine.dispose()


def _name(n: int) -> str:
    return f"host{n}.bench.test"


def _handshake(port: int, n: int) -> float:
    """Milliseconds; fails when it is not the certificate that was asked for."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection((HOST, port), timeout=30) as raw:
        started = time.monotonic()
        with context.wrap_socket(raw, server_hostname=_name(n)) as connection:
            took = time.monotonic() - started
            octets = connection.getpeercert(binary_form=True)
    if octets is None or _name(n).encode() not in octets:
        raise RuntimeError(f"another certificate than that of {_name(n)}")
    return took * 1000
