"""Listeners that move while everybody is served: what fails, and how long an order takes.

Sessions of three protocols go on all the time: on listeners that no order touches, where nothing
may fail, and on rows that every order moves, where who is connected is served to the end.
"""

from __future__ import annotations

import itertools
import json
import selectors
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks import rest, smtp_load
from benchmarks.server import HOST, PASSWORD, Server
from benchmarks.workloads import Row

LISTENERS = 20
CONNECTIONS = 50
ORDERS = 100
# A session that takes longer has failed.
PATIENCE_S = 30.0
# Between two sessions of a client: it is a load, not a flood.
PAUSE_S = 0.2

# What is sent, and the octets with which the answer's last line begins.
Script = Sequence[tuple[bytes, bytes]]


def smtp_script(recipient: str) -> Script:
    return (
        (b"", b"220 "),
        (b"EHLO load.example.org\r\n", b"250 "),
        (b"MAIL FROM:<sender@example.org>\r\n", b"250 "),
        (b"RCPT TO:<" + recipient.encode() + b">\r\n", b"250 "),
        (b"DATA\r\n", b"354 "),
        (smtp_load.body(2048), b"250 "),
        (b"QUIT\r\n", b"221 "),
    )


def imap_script(user: str) -> Script:
    return (
        (b"", b"* OK"),
        (f'a LOGIN {user} "{PASSWORD}"\r\n'.encode(), b"a OK"),
        (b"b SELECT INBOX\r\n", b"b OK"),
        (b"c FETCH 1:* (FLAGS)\r\n", b"c OK"),
        (b"d NOOP\r\n", b"d OK"),
        (b"e LOGOUT\r\n", b"e OK"),
    )


HTTP_SCRIPT: Script = ((b"GET /ping HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"pong"),)


_GIVEN: set[int] = set()


@dataclass(slots=True)
class Seen:
    """What a load has seen so far."""

    sessions: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)


class _Client:
    """Runs a script over a connection, then over the next, and so on."""

    def __init__(self, name: str, port: Callable[[], int], script: Script, seen: Seen) -> None:
        self.name = name
        self._port = port
        self._script = script
        self._seen = seen
        self.socket: socket.socket | None = None
        self.begun = 0.0
        self.due = 0.0

    def connect(self) -> bool:
        try:
            self.socket = socket.create_connection((HOST, self._port()), PATIENCE_S)
        except OSError as error:
            self._seen.failures.append(f"{self.name}: connect: {error}")
            self.due = time.perf_counter() + PAUSE_S
            return False
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.begun, self._answer, self._steps = time.perf_counter(), b"", iter(self._script)
        self._next()
        return True

    def _next(self) -> bool:
        step = next(self._steps, None)
        if step is None:
            return False
        assert self.socket is not None
        sent, self._wanted = step
        self._answer = b""
        if sent:
            self.socket.sendall(sent)
        return True

    def read(self) -> bool:
        """Take what has come; False at the end of the session, good or bad."""
        assert self.socket is not None
        try:
            received = self.socket.recv(1 << 16)
            self._answer += received
            if not received:
                raise ConnectionError(f"closed after {self._answer[-100:]!r}")
            lines = self._answer.split(b"\r\n")
            last = lines[-1] or lines[-2]
            is_whole = not lines[-1] or not self._wanted.endswith(b" ")
            if not (is_whole and last.startswith(self._wanted)):
                if is_whole and last[:1] in b"45" and last[3:4] == b" ":
                    raise ConnectionError(f"said {last[:100]!r}")
                return True
            if self._next():
                return True
        except OSError as error:
            return self.fail(str(error))
        self._seen.sessions[self.name] += 1
        self._seen.times.append(time.perf_counter() - self.begun)
        return self._end()

    def fail(self, why: str) -> bool:
        self._seen.failures.append(f"{self.name}: {why}")
        return self._end()

    def _end(self) -> bool:
        assert self.socket is not None
        self.socket.close()
        self.due = time.perf_counter() + PAUSE_S
        return False


class Load:
    """Clients in a thread of their own, from ``with`` on to its end."""

    def __init__(self) -> None:
        self.seen = Seen()
        self._clients: list[_Client] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def add(self, name: str, port: Callable[[], int], script: Script, count: int = 1) -> None:
        self._clients += [_Client(name, port, script, self.seen) for _ in range(count)]

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            waiting = list(self._clients)
            for n, client in enumerate(waiting):
                client.due = time.perf_counter() + n * PAUSE_S / len(waiting)
            while not self._ended.is_set() or selector.get_map():
                self._begin_due(selector, waiting)
                for key, _ in selector.select(0.01):
                    client = key.data
                    if not client.read():
                        selector.unregister(key.fileobj)
                        waiting.append(client)
                self._give_up_late(selector, waiting)

    def _begin_due(self, selector: selectors.BaseSelector, waiting: list[_Client]) -> None:
        now = time.perf_counter()
        due = [] if self._ended.is_set() else [each for each in waiting if each.due <= now]
        for client in due:
            if client.connect():
                waiting.remove(client)
                assert client.socket is not None
                selector.register(client.socket, selectors.EVENT_READ, client)

    def _give_up_late(self, selector: selectors.BaseSelector, waiting: list[_Client]) -> None:
        late = time.perf_counter() - PATIENCE_S
        for key in [key for key in selector.get_map().values() if key.data.begun < late]:
            selector.unregister(key.fileobj)
            key.data.fail("took too long")
            waiting.append(key.data)


# -- orders -----------------------------------------------------------------------------------


Ask = Callable[[str, str, Any], Any]  # method, path, attributes


class Rows:
    """mail_server rows, each of which every turn moves, changes or closes."""

    def __init__(self, ask: Ask, count: int) -> None:
        self._ask = ask
        self._ids = [self._make(n) for n in range(count)]
        self._spare = itertools.cycle([_free_port() for _ in range(2 * count)])

    def _make(self, n: int) -> str:
        given = {
            "hostname": f"mx{n}.bench.test",
            "is_enabled": True,
            "listen_interface": f"{HOST}:{_free_port()}",
            "authentication_required": False,
            "always_on_tls": False,
            "max_clients": 1000,
            "max_size": 1 << 20,
        }
        return str(self._ask("POST", "/api/mail_server", given)["data"]["id"])

    def turn(self, n: int) -> None:
        """Make a change of each kind: a port, a limit, off or on again."""
        for kind, change in enumerate(
            (
                {"listen_interface": f"{HOST}:{next(self._spare)}", "is_enabled": True},
                {"max_size": (1 << 20) + n},
                {"is_enabled": n % 2 == 0},
                {"always_on_tls": n % 2 == 0},
            )
        ):
            id = self._ids[(n * 3 + kind) % len(self._ids)]
            self._ask("PATCH", f"/api/mail_server/{id}", change)


def _free_port() -> int:
    """One that nobody has, and that was given to nobody here before."""
    while True:
        with socket.create_server((HOST, 0)) as probe:
            port = int(probe.getsockname()[1])
        if port not in _GIVEN:
            _GIVEN.add(port)
            return port


def run(
    ports: dict[str, int],
    accounts: Sequence[str],
    ask: Ask,
    *,
    listeners: int,
    connections: int,
    orders: int,
) -> tuple[Seen, list[float]]:
    """The load, and the seconds of each order."""
    rows = Rows(ask, listeners - len(ports))
    took: list[float] = []
    load = Load()
    each = [accounts[n % len(accounts)] for n in range(connections)]
    for account in each:
        load.add("smtp", lambda: ports["smtp"], smtp_script(account))
        load.add("imap", lambda: ports["imap"], imap_script(account))
    load.add("http", lambda: ports["http"], HTTP_SCRIPT, connections)
    # All open for the first time, with certificates that are made for them.
    ask("POST", "/listeners/apply", None)
    with load:
        for n in range(orders):
            rows.turn(n)
            begin = time.perf_counter()
            ask("POST", "/listeners/apply", None)
            took.append(time.perf_counter() - begin)
    return load.seen, took


def sync(database_url: str = "") -> Iterator[Row]:
    """100 orders, 20 listeners, 50 connections of each protocol."""
    with Server(accounts=10, database_url=database_url) as server:
        port = server.ports["http"]
        token = rest.administrator(port)
        # The limits of requests would be all that is measured.
        rest.ask(port, token, "POST", "/_config/backend/limit.rate", '{"default": 0}')
        rest.ask(port, token, "POST", "/_config/backend/limit.max_connections", "0")

        def ask(method: str, path: str, attributes: Any) -> Any:
            document: Any = {}
            if attributes is not None:
                document = {"data": {"type": "mail_server", "attributes": attributes}}
                if method == "PATCH":
                    document["data"]["id"] = path.rpartition("/")[2]
            return rest.ask(port, token, method, path, json.dumps(document))

        cpu, begin = server.cpu_s(), time.perf_counter()
        seen, took = run(
            server.ports,
            server.accounts,
            ask,
            listeners=LISTENERS,
            connections=CONNECTIONS,
            orders=ORDERS,
        )
        busy = (server.cpu_s() - cpu) / (time.perf_counter() - begin)
        for failure, count in Counter(seen.failures).most_common(10):
            yield "failures", failure.replace("|", "/"), count, "sessions"
        yield "sessions", "failed", len(seen.failures), "sessions"
        for name, count in sorted(seen.sessions.items()):
            yield "sessions", f"{name}, served", count, "sessions"
        yield "sessions", "p99", statistics.quantiles(seen.times, n=100)[98] * 1000, "ms"
        yield "order", "median", statistics.median(took) * 1000, "ms"
        yield "order", "p99", statistics.quantiles(took, n=100)[98] * 1000, "ms"
        yield "order", "longest", max(took) * 1000, "ms"
        yield "server", "processor", busy, "cores"
