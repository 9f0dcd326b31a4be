"""TCP transports that send at once what the kernel takes at once.

Twisted's own buffer each write, ask epoll for the moment to send, send in
the next turn and take the request back: two system calls and a turn for each
reply, and each call hands the interpreter to another thread. A reply or a command
nearly always fits into the kernel's buffer; what does not goes the usual way.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from twisted.internet.address import IPv4Address
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.internet.tcp import Client, Connection, Connector, Port, Server
from typing_extensions import override

# RFC 4291 §2.5.5.2
_MAPPED: Final = "::ffff:"


class _Prompt(Connection):
    """Prompt writes. Under STARTTLS nothing changes."""

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


class PromptServer(_Prompt, Server):
    """The server's side of a connection."""

    def __init__(self, sock: Any, protocol: Any, client: Any, *more: Any) -> None:
        super().__init__(sock, protocol, unmapped(client), *more)


def unmapped(client: tuple[Any, ...]) -> tuple[Any, ...]:
    """An IPv4 peer by its own address, also on a socket of IPv6 that takes both."""
    if len(client) > 2 and str(client[0]).startswith(_MAPPED):
        return str(client[0])[len(_MAPPED) :], client[1]
    return client


class PromptClient(_Prompt, Client):
    """The client's side of a connection."""


class _PromptConnector(Connector):
    @override
    def _makeTransport(self) -> Client:
        make: Any = PromptClient
        client: Client = make(self.host, self.port, self.bindAddress, self, self.reactor)
        return client


class _PromptPair(_Prompt, Connection):
    """One end of a pair of sockets."""


def open_pair(reactor: Any, end: socket.socket, protocol: Protocol) -> None:
    """Give a protocol one end of a connected pair of stream sockets, which it then owns."""
    end.setblocking(False)
    transport: Any = _PromptPair(end, protocol, reactor)
    transport.connected = 1
    protocol.makeConnection(transport)
    transport.startReading()


def make_prompt(port: Any) -> None:
    """Let a listening port of the reactor build prompt transports from now on."""
    if isinstance(port, Port):
        transport: Any = PromptServer
        port.transport = transport
        if port.addressFamily == socket.AF_INET6:
            port._buildAddr = partial(_address, port._buildAddr)  # type: ignore[method-assign]


def _address(build: Callable[[Any], Any], client: tuple[Any, ...]) -> Any:
    """What a factory is told of its peer."""
    found = unmapped(client)
    return build(client) if found is client else IPv4Address("TCP", *found)


def connect_prompt(reactor: Any, address: str, port: int, factory: ClientFactory) -> Any:
    """Connect to an address (never a name) with a prompt transport; the caller counts the time.

    Returns Twisted's connector, whose `stopConnecting` gives up.
    """
    no_timeout: Any = None
    connector = _PromptConnector(address, port, factory, no_timeout, None, reactor)
    connector.connect()
    return connector
