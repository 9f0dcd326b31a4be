"""Listening sockets that are ours: bound here, kept here, lent to the reactor as a number.

A port of the reactor is only a view on such a socket. It can be replaced or closed
without the socket noticing, and a socket bound while the process is still root goes on
after it has given its rights up.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from mailtwist.errors import ConfigError

# As many may wait for accept as the kernel allows (net.core.somaxconn).
BACKLOG: Final = 4096
# A free port of IPv4 may be taken on IPv6; so often another one is tried.
FREE_PORT_TRIES: Final = 20

# The machine has no IPv6, or not this address of a name that has several.
_ABSENT: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT})


@dataclass(frozen=True, slots=True)
class Place:
    """Where a socket is bound."""

    family: socket.AddressFamily
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if self.family == socket.AF_INET6 else self.host
        return f"{host}:{self.port}"


NOTHING: Final[Mapping[Place, socket.socket]] = MappingProxyType({})
EVERYWHERE: Final = (
    (socket.AF_INET, "0.0.0.0"),  # noqa: S104
    (socket.AF_INET6, "::"),
)


def resolve(host: str) -> tuple[tuple[socket.AddressFamily, str], ...]:
    """Name the addresses of a listener's host; "" means every interface, IPv4 and IPv6.

    IPv6 gets a socket of its own, so that IPv4 peers are not seen as ::ffff:a.b.c.d.
    Raises: OSError.
    """
    if not host:
        return EVERYWHERE
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def bind(
    name: str, host: str, port: int, *, ours: Mapping[Place, socket.socket] = NOTHING
) -> dict[Place, socket.socket]:
    """Bind every address of ``host``; nothing is accepted before :func:`listen`.

    A place in ``ours`` is bound by this process already: its socket is duplicated.
    Raises: ConfigError that names the listener and the address.
    """
    try:
        addresses = resolve(host)
    except OSError as error:
        raise ConfigError(f"listener {name}: cannot resolve {host}: {error.strerror}") from error
    for attempt in range(FREE_PORT_TRIES):
        try:
            return _bind_all(addresses, port, ours)
        except OSError as error:
            if port == 0 and error.errno == errno.EADDRINUSE and attempt < FREE_PORT_TRIES - 1:
                continue
            reason = os.strerror(error.errno or 0)
            place = error.filename or f"{host}:{port}"
            raise ConfigError(f"listener {name}: cannot bind {place}: {reason}") from error
    raise AssertionError("not reached: the last attempt raises")


def _bind_all(
    addresses: Iterable[tuple[socket.AddressFamily, str]],
    port: int,
    ours: Mapping[Place, socket.socket],
) -> dict[Place, socket.socket]:
    bound: dict[Place, socket.socket] = {}
    try:
        for family, host in addresses:
            # The first address takes a free port, the others the same one.
            wanted = port or next((place.port for place in bound), 0)
            place = Place(family, host, wanted)
            try:
                made = ours[place].dup() if place in ours else _bind_one(place)
            except OSError as error:
                if bound and error.errno in _ABSENT:
                    continue
                raise OSError(error.errno, os.strerror(error.errno or 0), str(place)) from error
            bound[Place(family, host, made.getsockname()[1])] = made
    except OSError:
        close(bound.values())
        raise
    return bound


def _bind_one(place: Place) -> socket.socket:
    made = socket.socket(place.family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        # Else a restart would have to wait for the old connections' TIME_WAIT.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if place.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((place.host, place.port))
    except OSError:
        made.close()
        raise
    return made


def listen(sockets: Iterable[socket.socket]) -> None:
    """Let the kernel take connections. Raises: OSError (another process listens there)."""
    for each in sockets:
        each.listen(BACKLOG)


def close(sockets: Iterable[socket.socket]) -> None:
    for each in sockets:
        each.close()
