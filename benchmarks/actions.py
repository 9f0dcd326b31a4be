"""Actions of one's own: letters a second, and what bombs in expressions cost everybody else."""

from __future__ import annotations

import http.client
import json
import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any

from benchmarks import http_load
from benchmarks.rest import administrator, ask
from benchmarks.server import DOMAIN, HOST, Server
from benchmarks.sink import Sink, free_port
from benchmarks.workloads import Row

CONNECTIONS = 20
CALLS = 3_000
WARM_UP = 300
ROUNDS = 3
LIVE = "live.test"
BOMBERS = 8
PING_S = 10.0

LETTER = {
    "from": f"noreply@{DOMAIN}",
    "to": "~to",
    "subject": "Hello",
    "body": "Dear $to, this is what you asked for.\n" + "It is not long. " * 40,
}
BOMBS = (
    "!(() => { for (;;) {} })()",
    "!'a'.repeat(1 << 29)",
    "!/^(a+)+$/.test('a'.repeat(40) + 'b')",
)


def actions(database_url: str = "") -> Iterator[Row]:
    """Calls of an action with one mail.send, then pings while others set off bombs."""
    port = free_port()
    settings = {"outbound": {"tls": "none", "mx_override": {LIVE: f"{HOST}:{port}"}}}
    with (
        Sink(port=port),
        Server(accounts=1, database_url=database_url, settings=settings) as server,
    ):
        token = administrator(server.ports["http"])
        ask(server.ports["http"], token, "POST", "/_config/backend/limit.rate", '{"default": 0}')
        worlds = ask(server.ports["http"], token, "GET", "/api/world?page%5Bsize%5D=100", None)
        world = next(
            each["id"] for each in worlds["data"] if each["attributes"]["table_name"] == "world"
        )
        letter = {"Type": "mail.send", "Method": "EXECUTE", "Attributes": LETTER}
        scripted = {**LETTER, "subject": "!'Hello ' + to.toUpperCase()"}
        _define(server, token, world, "letter", [letter])
        _define(server, token, world, "scripted", [{**letter, "Attributes": scripted}])
        yield from _calls(server, token, "letter to elsewhere", "letter", f"someone@{LIVE}")
        yield from _calls(server, token, "letter to here", "letter", server.accounts[0])
        yield from _calls(server, token, "with JavaScript", "scripted", f"someone@{LIVE}")
        yield from _pings(server, token, "ping alone")
        for number, bomb in enumerate(BOMBS):
            notice = {"Type": "client.notify", "Method": "ACTIONRESPONSE"}
            _define(
                server, token, world, f"bomb{number}", [{**notice, "Attributes": {"message": bomb}}]
            )
        with _Bombers(server, token) as bombers:
            yield from _pings(server, token, "ping beside bombs")
        yield "ping beside bombs", "bombs meanwhile", bombers.answered, "bombs"


def _define(server: Server, token: str, world: str, name: str, outcomes: list[Any]) -> None:
    schema = {"Name": name, "OnType": "world", "InstanceOptional": True, "OutFields": outcomes}
    attributes = {
        "action_name": name,
        "label": name,
        "instance_optional": True,
        "action_schema": json.dumps(schema),
    }
    relation = {"world_id": {"data": {"type": "world", "id": world}}}
    data = {"type": "action", "attributes": attributes, "relationships": relation}
    ask(server.ports["http"], token, "POST", "/api/action", json.dumps({"data": data}))


def _calls(server: Server, token: str, case: str, name: str, to: str) -> Iterator[Row]:
    port = server.ports["http"]
    # Any method calls an action.
    request = http_load.request(f"/action/world/{name}?to={to}", token)
    http_load.ask(port, [request] * WARM_UP, CONNECTIONS)
    rates, times, cpu = [], [], server.cpu_s()
    for _ in range(ROUNDS):
        took, answers = http_load.ask(port, [request] * CALLS, CONNECTIONS)
        rates.append(CALLS / took)
        times += answers
    yield case, "rate", statistics.median(rates), "calls/s"
    yield case, "answer, p99", statistics.quantiles(times, n=100)[98] * 1000, "ms"
    yield case, "processor", (server.cpu_s() - cpu) / (CALLS * ROUNDS) * 1000, "ms/call"


def _pings(server: Server, token: str, case: str) -> Iterator[Row]:
    request, times = http_load.request("/ping", token), []
    end = time.monotonic() + PING_S
    while time.monotonic() < end:
        times += http_load.ask(server.ports["http"], [request] * 100, 1)[1]
    yield case, "answer, median", statistics.median(times) * 1000, "ms"
    yield case, "answer, p99", statistics.quantiles(times, n=100)[98] * 1000, "ms"
    yield case, "answer, longest", max(times) * 1000, "ms"


class _Bombers:
    """Clients who call nothing but actions that end in an error."""

    def __init__(self, server: Server, token: str) -> None:
        self._port = server.ports["http"]
        self._headers = {"Authorization": f"Bearer {token}"}
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(BOMBERS)]
        self.answered = 0

    def __enter__(self) -> _Bombers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        path = f"/action/world/bomb{number % len(BOMBS)}"
        while not self._ended.is_set():
            connection = http.client.HTTPConnection(HOST, self._port, timeout=60)
            try:
                connection.request("POST", path, "{}", self._headers)
                answer = connection.getresponse()
                answer.read()
            finally:
                connection.close()
            if answer.status < 400:
                raise RuntimeError(f"{path} went off as {answer.status}")
            self.answered += 1
