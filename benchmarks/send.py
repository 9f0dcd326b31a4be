"""``POST /send``: durable letters a second, to mailboxes here and to a host elsewhere."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator

from benchmarks import http_load
from benchmarks.rest import administrator, ask
from benchmarks.server import HOST, Server
from benchmarks.sink import Sink
from benchmarks.workloads import Row

REQUESTS = 5_000
WARM_UP = 500
CONNECTIONS = 20
ROUNDS = 3
LIVE = "live.test"
TEXT = "Name: Zoë\nEmail: zoe@site.example\nMessage: " + "How are you? " * 20


def send(database_url: str = "") -> Iterator[Row]:
    """Requests at once of 20 clients, each answered when its mail is safe."""
    with Sink() as sink:
        server = Server(
            database_url=database_url,
            settings={
                "send": {"rate": 0},
                "outbound": {"tls": "none", "mx_override": {LIVE: f"{HOST}:{sink.port}"}},
            },
        )
        with server:
            token = administrator(server.ports["http"])
            # The limit of requests a second would be all that is measured.
            ask(
                server.ports["http"],
                token,
                "POST",
                "/_config/backend/limit.rate",
                '{"default": 0}',
            )
            accounts = server.accounts
            yield from _case(server, "to a mailbox here", lambda n: accounts[n % len(accounts)])
            yield from _case(server, "to another host, send.wait 2 s", lambda n: f"u{n}@{LIVE}")


def _case(server: Server, case: str, to: Callable[[int], str]) -> Iterator[Row]:
    port = server.ports["http"]
    requests = [_request(to(n)) for n in range(REQUESTS)]
    http_load.ask(port, requests[:WARM_UP], CONNECTIONS)
    rates = []
    for _ in range(ROUNDS):
        cpu = server.cpu_s()
        took, times = http_load.ask(port, requests, CONNECTIONS)
        rates.append(len(requests) / took)
        cpu = server.cpu_s() - cpu
    yield case, "rate, median of rounds", statistics.median(rates), "requests/s"
    yield case, "answer, median", statistics.median(times) * 1000, "ms"
    yield case, "answer, p99", statistics.quantiles(times, n=100)[98] * 1000, "ms"
    yield case, "processor", cpu / len(requests) * 1000, "ms/request"


def _request(to: str) -> bytes:
    body = json.dumps({"to": to, "subject": "Contact form", "body": TEXT}).encode()
    head = (
        f"POST /send HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
