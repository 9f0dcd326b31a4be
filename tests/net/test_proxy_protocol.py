"""The header of the PROXY protocol: who is believed, what is read, what ends the connection."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from mailtwist.net.networks import Networks
from mailtwist.net.proxy_protocol import (
    MAX_LINE,
    MAX_REST,
    PATIENCE_S,
    SIGNATURE,
    Malformed,
    ProxiedFactory,
    read_header,
)


def binary(
    source: str = "203.0.113.5", port: int = 4711, *, command: int = 0x21, extra: bytes = b""
) -> bytes:
    address = ip_address(source).packed
    family = 0x11 if len(address) == 4 else 0x21
    rest = address + bytes(len(address)) + struct.pack(">HH", port, 25) + extra
    return SIGNATURE + struct.pack(">BBH", command, family, len(rest)) + rest


GOOD = {
    "line-4": (b"PROXY TCP4 203.0.113.5 192.0.2.1 4711 25\r\n", ("203.0.113.5", 4711)),
    "line-6": (b"PROXY TCP6 2001:db8::5 2001:db8::1 65535 25\r\n", ("2001:db8::5", 65535)),
    "line-unknown": (b"PROXY UNKNOWN\r\n", None),
    "line-unknown-with-more": (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
    "binary-4": (binary(), ("203.0.113.5", 4711)),
    "binary-6": (binary("2001:db8::5", 1), ("2001:db8::5", 1)),
    "binary-with-more": (binary(extra=b"\x04\x00\x01x" * 20), ("203.0.113.5", 4711)),
    "binary-local": (binary(command=0x20), None),
    "binary-local-empty": (SIGNATURE + b"\x20\x00\x00\x00", None),
    "binary-unix": (SIGNATURE + b"\x21\x31\x00\xd8" + bytes(216), None),
}
BAD = {
    "nothing-of-the-kind": b"EHLO client\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01",
    "lower-case": b"proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
    "no-line-end": b"PROXY TCP4 " + b"1" * MAX_LINE,
    "family-and-address-differ": b"PROXY TCP4 ::1 ::1 1 2\r\n",
    "no-address": b"PROXY TCP4 localhost 1.2.3.4 1 2\r\n",
    "port-too-high": b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n",
    "port-negative": b"PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n",
    "words-missing": b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
    "other-family": b"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n",
    "binary-version-1": SIGNATURE + b"\x11\x11\x00\x0c" + bytes(12),
    "binary-other-command": SIGNATURE + b"\x22\x11\x00\x0c" + bytes(12),
    "binary-too-short": SIGNATURE + b"\x21\x11\x00\x04" + bytes(4),
    "binary-too-long": SIGNATURE + struct.pack(">BBH", 0x21, 0x11, MAX_REST + 1),
}


@pytest.mark.parametrize(("data", "source"), GOOD.values(), ids=GOOD)
def test_a_header_names_the_client(data: bytes, source: Any) -> None:
    assert read_header(data + b"EHLO x\r\n") == (source, len(data))
    for end in range(len(data)):
        assert read_header(data[:end]) is None


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        read_header(data)


@given(data=st.binary(max_size=300) | st.binary(max_size=40).map(lambda rest: SIGNATURE + rest))
def test_any_octets_are_a_header_or_none(data: bytes) -> None:
    try:
        found = read_header(data)
    except Malformed:
        return
    assert found is None or found[1] <= len(data)


class Echo(Protocol):
    def __init__(self, factory: Recording, address: Any) -> None:
        self.factory: Any = factory
        self.address = address

    def dataReceived(self, data: bytes) -> None:
        self.factory.heard += data

    def connectionLost(self, reason: Failure = ConnectionDone) -> None:  # type: ignore[assignment]
        self.factory.lost += 1


class Recording(ServerFactory):
    def __init__(self) -> None:
        self.addresses: list[Any] = []
        self.heard = b""
        self.lost = 0

    def buildProtocol(self, addr: Any) -> Protocol:
        self.addresses.append(addr)
        return Echo(self, addr)


class Connection(StringTransport):
    """A transport that gives octets to whatever its protocol is."""

    protocol: Any = None
    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True

    def deliver(self, data: bytes) -> None:
        for n in range(len(data)):
            if not self.aborted:
                self.protocol.dataReceived(data[n : n + 1])


def connected(factory: Recording, clock: Clock, host: str = "192.0.2.10") -> Connection:
    outer = ProxiedFactory(factory, Networks(["192.0.2.10"]), clock=clock)
    connection = Connection()
    connection.protocol = outer.buildProtocol(IPv4Address("TCP", host, 1234))
    connection.protocol.makeConnection(connection)
    return connection


def test_the_session_is_the_clients() -> None:
    factory, clock = Recording(), Clock()
    connection = connected(factory, clock)
    assert factory.addresses == []
    connection.deliver(binary() + b"\x16\x03\x01")
    (address,) = factory.addresses
    assert (address.host, address.port) == ("203.0.113.5", 4711)
    assert factory.heard == b"\x16\x03\x01"
    assert clock.getDelayedCalls() == []
    connection.protocol.connectionLost(Failure(ConnectionDone()))
    assert factory.lost == 1


def test_the_proxy_may_speak_for_itself() -> None:
    factory = Recording()
    connected(factory, Clock()).deliver(b"PROXY UNKNOWN\r\n")
    assert (factory.addresses[0].host, factory.addresses[0].port) == ("192.0.2.10", 1234)


def test_a_stranger_is_a_client_whatever_he_says() -> None:
    factory = Recording()
    connected(factory, Clock(), "198.51.100.1").deliver(GOOD["line-4"][0])
    assert factory.addresses[0].host == "198.51.100.1"
    assert factory.heard == GOOD["line-4"][0]


def test_a_bad_header_ends_the_connection() -> None:
    factory, clock = Recording(), Clock()
    connection = connected(factory, clock)
    connection.deliver(b"EHLO client\r\n")
    assert connection.aborted
    assert factory.addresses == []
    assert clock.getDelayedCalls() == []


def test_a_silent_proxy_is_not_waited_for() -> None:
    factory, clock = Recording(), Clock()
    connection = connected(factory, clock)
    connection.deliver(b"PROXY TCP4 ")
    clock.advance(PATIENCE_S)
    assert connection.aborted
    assert factory.addresses == []


def test_a_proxy_that_goes_away_leaves_nothing() -> None:
    factory, clock = Recording(), Clock()
    connection = connected(factory, clock)
    connection.protocol.connectionLost(Failure(ConnectionDone()))
    assert clock.getDelayedCalls() == []
    assert factory.lost == 0
