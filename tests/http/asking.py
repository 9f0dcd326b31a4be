"""The HTTP front-end over a transport in memory: requests as octets, answers as values."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from mailtwist.http.app import make_front
from mailtwist.http.ports import Parts
from mailtwist.http.service import make_factory
from mailtwist.net.counters import Connections


@dataclass
class Health:
    is_good: bool = True
    detail: str = ""


class Transport(StringTransport):
    aborted = False
    protocol: Any

    def abortConnection(self):
        self.aborted = self.disconnected = True

    def loseConnection(self):
        self.disconnecting = True


class Server:
    def __init__(self, *, limit=100, clients=0, clock=None, **parts):
        self.clock = clock or Clock()
        self.health: Any = Health()
        self.counters = Connections(limit)
        self.site = make_factory(
            make_front(Parts(health=self.check, **parts), self.clock),
            reactor=self.clock,
            counters=self.counters,
            max_clients=clients,
        )
        self.site.doStart()

    async def check(self):
        if isinstance(self.health, Exception):
            raise self.health
        if isinstance(self.health, Deferred):
            return await self.health
        return self.health

    def connect(self, host="192.0.2.1"):
        transport = Transport(peerAddress=IPv4Address("TCP", host, 4321))
        channel = self.site.buildProtocol(transport.getPeer())
        transport.protocol = channel
        channel.makeConnection(transport)
        return transport

    def ask(self, request, host="192.0.2.1"):
        transport = self.connect(host)
        transport.protocol.dataReceived(request)
        return transport

    def hang_up(self, transport):
        transport.protocol.connectionLost(Failure(ConnectionDone()))

    def answer(self, method, path, body=None, *, host="192.0.2.1", **headers) -> Answer:
        """``headers``: ``content_type="..."``; a body that is no octets is sent as JSON."""
        data = body if isinstance(body, bytes) else b"" if body is None else _json(body)
        given = {"Host": "mail.example.com", "Connection": "close"}
        if body is not None:
            given["Content-Length"] = str(len(data))
        given |= {name.replace("_", "-"): value or "" for name, value in headers.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in given.items() if value)
        transport = self.ask(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + data, host)
        raw = transport.value()
        self.hang_up(transport)
        return read(raw)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]  # lower case
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        """The only error of a JSON:API document."""
        assert self.headers["content-type"] == "application/vnd.api+json"
        (error,) = self.json["errors"]
        assert error["status"] == str(self.status)
        return error


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def read(raw: bytes) -> Answer:
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        body = _unchunked(body)
    if headers.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    version, status, words = first.split(" ", 2)
    # RFC 9112 §4: the words are those of the registry, of later codes too.
    assert (version, words) == ("HTTP/1.1", HTTPStatus(int(status)).phrase)
    return Answer(int(status), headers, body)


def _unchunked(body: bytes) -> bytes:
    """RFC 9112 §7.1."""
    pieces: list[bytes] = []
    while True:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            assert body == b"\r\n"
            return b"".join(pieces)
        pieces.append(body[:length])
        body = body[length + 2 :]
