"""The server name in the first octets of a TLS connection, before TLS itself reads them.

Only a hint: what is chosen by it is chosen again by OpenSSL, from the same octets. So whatever
looks unusual here counts as a client that names nobody.

Standards: RFC 8446 §4.1.2, §5.1; RFC 6066 §3.
"""

from __future__ import annotations

from typing import Final

# RFC 8446 §5.1: a record holds 2^14 octets at most; who needs more for a hello is no client.
MAX_OCTETS: Final = (1 << 14) + 5

_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_SERVER_NAME: Final = 0
_HOST_NAME: Final = 0
_RECORD: Final = 5
_MESSAGE: Final = 4


class Incomplete(Exception):
    """The name is not known before there are so many ``octets`` at least.

    Who asks again at each octet would read all of them each time.
    """

    def __init__(self, octets: int) -> None:
        super().__init__(octets)
        self.octets = min(octets, MAX_OCTETS)


def server_name(octets: bytes) -> str:
    """The name that the client asks for, in lower case; "" when it asks for none.

    Raises: Incomplete, until all of the hello or :data:`MAX_OCTETS` are there.
    """
    try:
        return _name(_hello(octets))
    except Incomplete:
        if len(octets) >= MAX_OCTETS:
            return ""
        raise
    except (IndexError, UnicodeDecodeError):
        return ""


def _hello(octets: bytes) -> bytes:
    """The body of the ClientHello; it may lie in several records."""
    message = b""
    at = 0
    while len(message) < _MESSAGE or len(message) < _MESSAGE + _length(message[1:4]):
        header = octets[at : at + _RECORD]
        if header and header[0] != _HANDSHAKE:
            raise IndexError
        if message and message[0] != _CLIENT_HELLO:
            raise IndexError
        end = at + _RECORD + _length(header[3:5])
        if len(header) < _RECORD or len(octets) < end:
            missing = _MESSAGE + _length(message[1:4]) - len(message)
            raise Incomplete(max(end, at + _RECORD + missing))
        if end == at + _RECORD:
            raise IndexError  # RFC 8446 §5.1: never empty
        message += octets[at + _RECORD : end]
        at = end
    if message[0] != _CLIENT_HELLO:
        raise IndexError
    return message[_MESSAGE : _MESSAGE + _length(message[1:4])]


def _name(hello: bytes) -> str:
    at = 2 + 32  # version, random
    at += 1 + hello[at]  # session
    at += 2 + _length(hello[at : at + 2])  # cipher suites
    at += 1 + hello[at]  # compression
    end = at + 2 + _length(hello[at : at + 2])
    at += 2
    while at + 4 <= min(end, len(hello)):
        kind, size = _length(hello[at : at + 2]), _length(hello[at + 2 : at + 4])
        at += 4
        if kind == _SERVER_NAME:
            return _host_name(hello[at : at + size])
        at += size
    return ""


def _host_name(extension: bytes) -> str:
    at = 2
    while at + 3 <= len(extension):
        kind, size = extension[at], _length(extension[at + 1 : at + 3])
        at += 3
        if kind == _HOST_NAME:
            return extension[at : at + size].decode("ascii").lower().rstrip(".")
        at += size
    return ""


def _length(octets: bytes) -> int:
    return int.from_bytes(octets, "big")
