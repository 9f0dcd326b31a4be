"""A client of ``/events`` that is no part of the server: reads the stream line by line."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlencode

from tests.support.rest import Rest

PATIENCE_S = 30.0


class EventStream:
    """One request; ``status`` other than 200: ``body`` says why."""

    def __init__(self, rest: Rest, last: str = "", **query: str) -> None:
        path = "/events" + (f"?{urlencode(query)}" if query else "")
        headers = rest.headers | ({"Last-Event-ID": last} if last else {})
        self._connection = http.client.HTTPConnection("127.0.0.1", rest.port, timeout=PATIENCE_S)
        self._connection.request("GET", path, headers=headers)
        self._answer = self._connection.getresponse()
        self.status = self._answer.status
        self.headers = self._answer.headers
        self.body = b""
        if self.status == 200:
            assert self._block() == {"retry": "3000"}
        else:
            self.body = self._answer.read()
            self.close()

    def _block(self) -> dict[str, str] | None:
        """The fields up to the next empty line; None: the stream has ended."""
        fields: dict[str, str] = {}
        while True:
            line = self._answer.readline().decode()
            if not line:
                return None
            if line == "\n":
                return fields
            name, _, value = line.rstrip("\n").partition(":")
            if name:
                fields[name] = value.removeprefix(" ")

    def next(self) -> tuple[str, str, Any]:
        """Number, kind and document of the next event."""
        while True:
            block = self._block()
            assert block is not None, "the stream has ended"
            if "data" in block:
                return block["id"], block["event"], json.loads(block["data"])

    def take(self, count: int) -> list[tuple[str, str, Any]]:
        return [self.next() for _ in range(count)]

    def end(self) -> None:
        """Wait for the server to end it."""
        while self._block() is not None:
            pass

    def close(self) -> None:
        self._answer.close()
        self._connection.close()

    def __enter__(self) -> EventStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
