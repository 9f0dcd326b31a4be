"""An HTTP load that costs little: one thread, connections that are kept, no parsing to speak of."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Iterator, Sequence

from benchmarks.server import HOST

LIMIT_S = 120.0


def request(path: str, token: str) -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\n\r\n"
    ).encode()


class _Connection:
    """One client; it asks again as soon as it has its answer."""

    def __init__(self, port: int, requests: Iterator[bytes]) -> None:
        self.socket = socket.create_connection((HOST, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._requests = requests
        self._answer = b""
        self._wanted = 0
        self._since = 0.0

    def ask(self) -> bool:
        """Send the next request; False when there is none."""
        asked = next(self._requests, None)
        if asked is None:
            return False
        self._answer, self._wanted, self._since = b"", 0, time.perf_counter()
        self.socket.sendall(asked)
        return True

    def take(self) -> float | None:
        """What has come; the seconds that the answer took once it is whole."""
        received = self.socket.recv(1 << 18)
        if not received:
            raise ConnectionError("the server closed a connection")
        self._answer += received
        if not self._wanted:
            head, separator, _ = self._answer.partition(b"\r\n\r\n")
            if not separator:
                return None
            if not head.startswith(b"HTTP/1.1 200 "):
                raise RuntimeError(f"refused: {self._answer[:500]!r}")
            _, _, length = head.lower().partition(b"content-length:")
            self._wanted = len(head) + 4 + int(length.split(b"\r", 1)[0])
        if len(self._answer) < self._wanted:
            return None
        return time.perf_counter() - self._since


def ask(port: int, requests: Sequence[bytes], connections: int) -> tuple[float, list[float]]:
    """Seconds for all requests, and the time of each in order of the answers."""
    left, times = iter(requests), []
    end = time.monotonic() + LIMIT_S
    with selectors.DefaultSelector() as selector:
        start = time.perf_counter()
        for _ in range(connections):
            connection = _Connection(port, left)
            if connection.ask():
                selector.register(connection.socket, selectors.EVENT_READ, connection)
        while selector.get_map():
            if time.monotonic() > end:
                raise TimeoutError("the load took too long")
            for key, _ in selector.select(1.0):
                taken = key.data.take()
                if taken is None:
                    continue
                times.append(taken)
                if not key.data.ask():
                    selector.unregister(key.fileobj)
                    key.data.socket.close()
        return time.perf_counter() - start, times
