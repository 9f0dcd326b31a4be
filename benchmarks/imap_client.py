"""An IMAP client for measuring: it reads to the tagged line and parses nothing."""

from __future__ import annotations

import re
import socket

from benchmarks.server import HOST, PASSWORD

TIMEOUT_S = 120.0


class Client:
    """One connection, one command at a time."""

    def __init__(self, port: int, user: str) -> None:
        self.socket = socket.create_connection((HOST, port), TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(1 << 20)
        self._count = 0
        self._line()
        self.run(f'LOGIN {user} "{PASSWORD}"')

    def run(self, command: str, literal: bytes = b"") -> tuple[int, bytes]:
        """Run a command; the octets of the whole answer, and its last 4 KiB."""
        self._count += 1
        tag = b"t%d" % self._count
        self.socket.sendall(tag + b" " + command.encode() + b"\r\n")
        if literal:
            self._line()
            self.socket.sendall(literal + b"\r\n")
        return self._answer(tag)

    def messages(self) -> int:
        """Count the messages of INBOX by STATUS."""
        found = re.search(rb"MESSAGES (\d+)", self.run("STATUS INBOX (MESSAGES)")[1])
        assert found
        return int(found[1])

    def idle(self) -> None:
        """Enter IDLE and stay there."""
        self.socket.sendall(b"i IDLE\r\n")
        self._line()

    def close(self) -> None:
        self.socket.close()

    def _answer(self, tag: bytes) -> tuple[int, bytes]:
        view = memoryview(self._buffer)
        octets, tail = 0, b""
        while True:
            n = self.socket.recv_into(self._buffer)
            if not n:
                raise ConnectionError("the server closed the connection")
            octets += n
            tail = (tail + bytes(view[max(0, n - 4096) : n]))[-4096:]
            if tail.endswith(b"\r\n"):
                last = tail[tail[:-2].rfind(b"\n") + 1 :]
                if last.startswith(tag + b" "):
                    if not last.startswith(tag + b" OK"):
                        raise RuntimeError(last.decode(errors="replace"))
                    return octets, tail

    def _line(self) -> bytes:
        line = b""
        while not line.endswith(b"\r\n"):
            received = self.socket.recv(4096)
            if not received:
                raise ConnectionError("the server closed the connection")
            line += received
        return line
