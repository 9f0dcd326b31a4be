"""A TCP transport that sends at once what the kernel takes at once.

Twisted's own buffers each write, asks epoll for the moment to send, sends in
the next turn and takes the request back: two system calls and a turn for each
reply, and each call hands the interpreter to another thread. A reply nearly
always fits into the kernel's buffer; what does not goes the usual way.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.tcp import Port, Server
from typing_extensions import override


class PromptServer(Server):
    """The server's side of a connection, with prompt writes. Under STARTTLS nothing changes."""

    @override
    def write(self, data: bytes) -> None:
        # TLS has a buffer and an order of its own (twisted.protocols.tls).
        if not self.TLS and self._is_empty() and self.connected and not self._writeDisconnected:
            try:
                sent = self.socket.send(data)
            except OSError:
                # Not now, or never again: the usual way finds out which.
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        super().write(data)  # type: ignore[no-untyped-call]

    def _is_empty(self) -> bool:
        """Whether nothing waits to be sent; else octets would overtake others."""
        return not self._tempDataBuffer and len(self.dataBuffer) == self.offset


def make_prompt(port: Any) -> None:
    """Let a listening port of the reactor build prompt transports from now on."""
    if isinstance(port, Port):
        port.transport = PromptServer
