"""Listening sockets that are ours: bound here, kept here, lent to the reactor as a number.

A port of the reactor is only a view on such a socket. It can be replaced or closed
without the socket noticing, and a socket bound while the process is still root goes on
after it has given its rights up. So does one that another process has bound and given us:
systemd (socket activation, sd_listen_fds(3)), or the process that this one replaces.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from mailtwist.errors import ConfigError

# As many may wait for accept as the kernel allows (net.core.somaxconn).
BACKLOG: Final = 4096
# A free port of IPv4 may be taken on IPv6; so often another one is tried.
FREE_PORT_TRIES: Final = 20

# sd_listen_fds(3): the variables, and the first descriptor.
_ACTIVATION: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
_FIRST_PASSED: Final = 3
_MAX_PASSED: Final = 1000

# The machine has no IPv6, or not this address of a name that has several.
_ABSENT: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT})


@dataclass(frozen=True, slots=True)
class Place:
    """Where a socket is bound."""

    family: socket.AddressFamily
    host: str
    port: int

    def overlaps(self, other: Place) -> bool:
        """Whether a connection could be meant for either."""
        return (self.family, self.port) == (other.family, other.port) and (
            self.host == other.host or bool({self.host, other.host} & _EVERY)
        )

    def __str__(self) -> str:
        host = f"[{self.host}]" if self.family == socket.AF_INET6 else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Given:
    """A bound socket that another process has handed to this one."""

    name: str  # of the listener that it was made for, or what systemd calls it; "": unknown
    place: Place
    socket: socket.socket
    # Whether it outlives the listener that uses it: it could not be bound again.
    is_kept: bool = True


NOTHING: Final[Mapping[Place, socket.socket]] = MappingProxyType({})
EVERYWHERE: Final = (
    (socket.AF_INET, "0.0.0.0"),  # noqa: S104
    (socket.AF_INET6, "::"),
)
_EVERY: Final = frozenset(host for _, host in EVERYWHERE)


def resolve(host: str) -> tuple[tuple[socket.AddressFamily, str], ...]:
    """Name the addresses of a listener's host; "" means every interface, IPv4 and IPv6.

    IPv6 gets a socket of its own, so that IPv4 peers are not seen as ::ffff:a.b.c.d.
    Raises: OSError.
    """
    if not host:
        return EVERYWHERE
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


Addresses = Sequence[tuple[socket.AddressFamily, str]]


def addresses_of(name: str, host: str) -> Addresses:
    """As :func:`resolve`. Raises: ConfigError that names the listener."""
    try:
        return resolve(host)
    except OSError as error:
        raise ConfigError(f"listener {name}: cannot resolve {host}: {error.strerror}") from error


def bind(
    name: str,
    addresses: Addresses,
    port: int,
    *,
    ours: Mapping[Place, socket.socket] = NOTHING,
) -> dict[Place, socket.socket]:
    """Bind every address; nothing need be accepted before :func:`listen`.

    A place in ``ours`` is bound by this process already: its socket is duplicated.
    Raises: ConfigError that names the listener and the address.
    """
    for attempt in range(FREE_PORT_TRIES):
        try:
            return _bind_all(addresses, port, ours)
        except OSError as error:
            if port == 0 and error.errno == errno.EADDRINUSE and attempt < FREE_PORT_TRIES - 1:
                continue
            raise ConfigError(
                f"listener {name}: cannot bind {error.filename}: {_reason(error, port)}"
            ) from error
    raise AssertionError("not reached: the last attempt raises")


def _reason(error: OSError, port: int) -> str:
    said = os.strerror(error.errno or errno.EIO)
    if error.errno != errno.EACCES:
        return said
    return f"{said}: port {port} needs privileges, or a socket that systemd passes"


def _bind_all(
    addresses: Addresses, port: int, ours: Mapping[Place, socket.socket]
) -> dict[Place, socket.socket]:
    bound: dict[Place, socket.socket] = {}
    try:
        for family, host in addresses:
            # The first address takes a free port, the others the same one.
            wanted = port or next((place.port for place in bound), 0)
            place = Place(family, host, wanted)
            if _is_covered(place, addresses, ours):
                continue
            try:
                made = ours[place].dup() if place in ours else _bind_one(place, ours)
            except OSError as error:
                if bound and error.errno in _ABSENT:
                    continue
                raise OSError(error.errno, os.strerror(error.errno or 0), str(place)) from error
            bound[Place(family, host, made.getsockname()[1])] = made
    except OSError:
        close(bound.values())
        raise
    return bound


def _is_covered(place: Place, addresses: Addresses, ours: Mapping[Place, socket.socket]) -> bool:
    """Whether a socket of systemd for IPv6 takes the IPv4 connections of all interfaces too."""
    both = ours.get(Place(socket.AF_INET6, "::", place.port))
    return (
        both is not None
        and (place.family, place.host) == EVERYWHERE[0]
        and EVERYWHERE[1] in addresses
        and not both.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    )


def _bind_one(place: Place, ours: Mapping[Place, socket.socket]) -> socket.socket:
    made = socket.socket(place.family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        # Else a restart would have to wait for the old connections' TIME_WAIT.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if place.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            made.bind((place.host, place.port))
        except OSError as error:
            beside = [each for other, each in ours.items() if place.overlaps(other)]
            if error.errno != errno.EADDRINUSE or not beside:
                raise
            _listen_beside(made, place, beside)
    except OSError:
        made.close()
        raise
    return made


def _listen_beside(made: socket.socket, place: Place, ours: Sequence[socket.socket]) -> None:
    """Listen on one address of a port of which we have all addresses, or the reverse.

    The kernel gives a connection to the socket of the narrower address; so a listener moves
    between the two without a gap. Raises: OSError when somebody else is on that address.
    """
    shared = [made, *ours]
    try:
        for each in shared:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind((place.host, place.port))
        made.listen(BACKLOG)
    finally:
        # For this moment only: else a second server of this user could bind what is ours.
        for each in shared:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)


def listen(sockets: Iterable[socket.socket]) -> None:
    """Let the kernel take connections. Raises: OSError (another process listens there)."""
    for each in sockets:
        each.listen(BACKLOG)


def close(sockets: Iterable[socket.socket]) -> None:
    for each in sockets:
        each.close()


# -- sockets that others have bound ---------------------------------------------------------


def adopt(
    descriptors: Iterable[int], names: Sequence[str] = (), *, is_kept: bool = True
) -> tuple[Given, ...]:
    """Take over bound TCP sockets by their descriptors, and own them from here on.

    The n-th of ``names`` belongs to the n-th descriptor; those without one are called "". Give
    the result to :meth:`mailtwist.control.listeners.Listeners.inherit` before ``bind``. With
    ``is_kept`` a socket stays bound (and silent) when its listener is closed, so that the
    listener can open again; without, it is closed as one that was bound here.

    Sockets are non-blocking and close-on-exec afterwards. Raises: ConfigError that names the
    descriptor which is no bound TCP socket; none is closed or changed in its flags before then.
    """
    return tuple(
        _adopt_one(descriptor, names[n] if n < len(names) else "", is_kept)
        for n, descriptor in enumerate(descriptors)
    )


def _adopt_one(descriptor: int, name: str, is_kept: bool) -> Given:
    try:
        given = socket.socket(fileno=descriptor)
    except OSError as error:
        reason = error.strerror
        raise ConfigError(f"descriptor {descriptor} is no socket: {reason}") from error
    is_tcp = given.type == socket.SOCK_STREAM and given.family in (socket.AF_INET, socket.AF_INET6)
    host, port = given.getsockname()[:2] if is_tcp else ("", 0)
    if not port:
        given.detach()
        raise ConfigError(f"descriptor {descriptor} is no TCP socket that is bound")
    given.setblocking(False)
    given.set_inheritable(False)
    return Given(name, Place(given.family, host, port), given, is_kept)


def activated(environ: MutableMapping[str, str]) -> tuple[Given, ...]:
    """The sockets that systemd has passed to this process; () when it has passed none.

    The variables that say so are removed: they are not meant for our children.
    Raises: ConfigError.
    """
    pid, count, names = (environ.pop(key, "") for key in _ACTIVATION)
    # They may have been meant for the process that has started us.
    if pid != str(os.getpid()) or not count.isdigit():
        return ()
    descriptors = range(_FIRST_PASSED, _FIRST_PASSED + min(int(count), _MAX_PASSED))
    return adopt(descriptors, names.split(":") if names else ())
