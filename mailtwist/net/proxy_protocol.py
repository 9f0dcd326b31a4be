"""PROXY protocol, versions 1 and 2: a load balancer tells whose connection it hands on.

The header comes before the first octet of the client, before TLS too. It is asked of named
networks alone; whoever else connects is a client himself, and what he says of others is never
believed. Specification: proxy-protocol.txt of HAProxy, §2.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, Final, Protocol, TypeAlias

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import override

from mailtwist.net.networks import Networks

log = Logger()

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
# §2.1: 107 octets with the line end.
MAX_LINE: Final = 107
# §2.2: addresses and what is told beside them; 16 octets stand before it.
FIXED: Final = 16
MAX_REST: Final = 4096
# A proxy sends it at once.
PATIENCE_S: Final = 5.0

_LOCAL, _PROXY = 0, 1
# By family and transport: the octets of one address.
_WIDTHS: Final = {0x11: 4, 0x21: 16}
_FAMILIES: Final = {"TCP4": 4, "TCP6": 6}

# Host and port of the client; None: the proxy speaks for itself.
Source: TypeAlias = "tuple[str, int] | None"


class Malformed(Exception):
    """No header that the specification knows."""


def read_header(data: bytes) -> tuple[Source, int] | None:
    """The client and where his octets begin; None: more is needed. Raises: Malformed."""
    if data.startswith(SIGNATURE):
        return _read_binary(data)
    if SIGNATURE.startswith(data[: len(SIGNATURE)]):
        return None
    return _read_line(data)


def _read_line(data: bytes) -> tuple[Source, int] | None:
    end = data.find(b"\r\n", 0, MAX_LINE)
    if end < 0:
        if len(data) >= MAX_LINE or not b"PROXY ".startswith(data[:6]):
            raise Malformed
        return None
    words = data[:end].decode("ascii", "replace").split(" ")
    if words[0] != "PROXY" or len(words) < 2:
        raise Malformed
    if words[1] == "UNKNOWN":
        return None, end + 2
    if words[1] not in _FAMILIES or len(words) != 6:
        raise Malformed
    return (_address(words[2], _FAMILIES[words[1]]), _port(words[4])), end + 2


def _address(text: str, version: int) -> str:
    try:
        found = ip_address(text)
    except ValueError:
        raise Malformed from None
    if found.version != version:
        raise Malformed
    return str(found)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535):
        raise Malformed
    return int(text)


def _read_binary(data: bytes) -> tuple[Source, int] | None:
    if len(data) < FIXED:
        return None
    version, command = data[12] >> 4, data[12] & 15
    length = int.from_bytes(data[14:16], "big")
    if version != 2 or command not in {_LOCAL, _PROXY} or length > MAX_REST:
        raise Malformed
    end = FIXED + length
    if len(data) < end:
        return None
    width = _WIDTHS.get(data[13])
    # §2.2: a family that we don't know is passed over, as the proxy's own connections are.
    if command == _LOCAL or width is None:
        return None, end
    if length < 2 * width + 4:
        raise Malformed
    ports = FIXED + 2 * width
    host = str(ip_address(data[FIXED : FIXED + width]))
    return (host, int.from_bytes(data[ports : ports + 2], "big")), end


class Clock(Protocol):
    def callLater(self, delay: float, function: Callable[..., Any], /, *args: Any) -> Any: ...  # noqa: N802


class ProxiedFactory:
    """Serves a factory's protocols behind proxies of these networks, and to others as ever."""

    noisy = False

    def __init__(self, factory: Any, proxies: Networks, *, clock: Clock) -> None:
        self.factory = factory
        self.clock = clock
        self._proxies = proxies

    def doStart(self) -> None:  # noqa: N802
        self.factory.doStart()

    def doStop(self) -> None:  # noqa: N802
        self.factory.doStop()

    def buildProtocol(self, addr: IAddress) -> Any:  # noqa: N802
        if getattr(addr, "host", "") in self._proxies:
            return Header(self, addr)
        return self.factory.buildProtocol(addr)


class Header(TwistedProtocol):
    """Reads the header, and then makes room for the protocol that is meant."""

    def __init__(self, parent: ProxiedFactory, peer: Any) -> None:
        self._parent = parent
        self._peer = peer
        self._data = b""
        self._deadline: Any = None

    @override
    def connectionMade(self) -> None:
        self._deadline = self._parent.clock.callLater(PATIENCE_S, self._refuse, "no header")

    @override
    def dataReceived(self, data: bytes) -> None:
        self._data += data
        try:
            found = read_header(self._data)
        except Malformed:
            self._refuse("bad header")
            return
        if found is not None:
            source, start = found
            self._hand_over(source or (self._peer.host, self._peer.port), self._data[start:])

    def _hand_over(self, source: tuple[str, int], rest: bytes) -> None:
        self._forget_deadline()
        host, port = source
        kind = IPv6Address if ":" in host else IPv4Address
        protocol = self._parent.factory.buildProtocol(kind("TCP", host, port))
        transport: Any = self.transport
        if protocol is None:
            transport.abortConnection()
            return
        # From here on the transport and the protocol are among themselves.
        transport.protocol = protocol
        protocol.makeConnection(transport)
        if rest:
            protocol.dataReceived(rest)

    def _refuse(self, why: str) -> None:
        self._forget_deadline()
        log.warn("PROXY: {why}", why=why, proxy=self._peer.host)
        transport: Any = self.transport
        transport.abortConnection()

    def _forget_deadline(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()

    @override
    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._forget_deadline()
