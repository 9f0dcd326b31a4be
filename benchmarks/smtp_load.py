"""An SMTP load that costs little: one thread, many connections, no parsing beyond the code."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Iterator

from benchmarks.server import HOST

LIMIT_S = 120.0


SENDER = "sender@example.org"


def body(octets: int, sender: str = SENDER) -> bytes:
    """Make a message of about this size, ready for DATA."""
    head = (
        b"From: " + sender.encode() + b"\r\nTo: user@bench.test\r\nSubject: load\r\n"
        b"Date: Fri, 20 Nov 2026 12:00:00 +0000\r\nMessage-ID: <load@example.org>\r\n\r\n"
    )
    line = b"x" * 70 + b"\r\n"
    return head + line * max(1, (octets - len(head)) // len(line)) + b".\r\n"


class _Connection:
    """One client: a step for each answer, a new transaction while messages are left."""

    def __init__(
        self, port: int, sender: str, recipient: str, data: bytes, left: Iterator[int]
    ) -> None:
        self.socket = socket.create_connection((HOST, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._left = left
        self._data = data
        self._envelope = (
            b"MAIL FROM:<" + sender.encode() + b">\r\n",
            b"RCPT TO:<" + recipient.encode() + b">\r\n",
            b"DATA\r\n",
        )
        self._steps = self._script()
        self._out = memoryview(b"")
        self._answer = b""

    def _script(self) -> Iterator[bytes]:
        yield b"EHLO load.example.org\r\n"
        for _ in self._left:
            yield from self._envelope
            yield self._data
        yield b"QUIT\r\n"

    def readable(self) -> bool:
        """Take an answer and go on; False at the end."""
        received = self.socket.recv(65536)
        if not received:
            raise ConnectionError("the server closed a connection")
        self._answer += received
        last = self._answer[self._answer[:-2].rfind(b"\n") + 1 :]
        if not last.endswith(b"\r\n") or last[3:4] == b"-":
            return True
        if last[:1] not in b"23":
            raise RuntimeError(f"refused: {last!r}")
        self._answer = b""
        step = next(self._steps, None)
        if step is None:
            self.socket.close()
            return False
        self._out = memoryview(step)
        self.writable()
        return True

    def writable(self) -> bool:
        """Send what fits; True while something is left."""
        while self._out:
            try:
                sent = self.socket.send(self._out)
            except BlockingIOError:
                return True
            self._out = self._out[sent:]
        return False

    @property
    def pending(self) -> bool:
        return bool(self._out)


def send(
    port: int,
    recipients: list[str],
    messages: int,
    connections: int,
    octets: int,
    sender: str = SENDER,
) -> float:
    """Send the messages over the connections; the seconds until the last was answered."""
    left = iter(range(messages))
    data = body(octets, sender)
    selector = selectors.DefaultSelector()
    clients = [
        _Connection(port, sender, recipients[n % len(recipients)], data, left)
        for n in range(connections)
    ]
    for client in clients:
        client.socket.setblocking(False)
        selector.register(client.socket, selectors.EVENT_READ, client)
    start = time.monotonic()
    alive = connections
    while alive:
        if time.monotonic() > start + LIMIT_S:
            raise TimeoutError(f"{alive} connections still at work")
        for key, events in selector.select(1.0):
            client = key.data
            if events & selectors.EVENT_READ and not client.readable():
                selector.unregister(key.fileobj)
                alive -= 1
                continue
            if events & selectors.EVENT_WRITE:
                client.writable()
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.pending else 0)
            if wanted != key.events:
                selector.modify(key.fileobj, wanted, client)
    return time.monotonic() - start
