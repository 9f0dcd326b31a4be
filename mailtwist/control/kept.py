"""Bound sockets that wait for the listener that will use them.

Some were bound before the process gave up its privileges, some come from systemd or from the
process that this one replaces. Those that could not be bound again stay bound while their
listener is closed; they refuse connections then.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final

from mailtwist.config import Listener
from mailtwist.control import sockets
from mailtwist.control.sockets import Given, Place

_START: Final = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


def first_free_port() -> int:
    """The lowest port that a process without privileges may bind."""
    with contextlib.suppress(OSError, ValueError):
        return int(_START.read_text(encoding="ascii"))
    return 1024


def may_bind(port: int) -> bool:
    """Whether this process, as it is now, may bind a port."""
    return os.geteuid() == 0 or port >= first_free_port()


class Kept:
    """One in a process. A listener uses a duplicate; the socket here stays."""

    def __init__(self) -> None:
        self._given: dict[Place, Given] = {}
        self._was_used: set[Place] = set()

    def add(self, given: Iterable[Given]) -> None:
        """Own more sockets; one of two on one place is closed."""
        for each in given:
            before = self._given.get(each.place)
            if before is not None:
                before.socket.close()
            self._given[each.place] = each

    @property
    def given(self) -> Mapping[Place, Given]:
        return self._given

    @property
    def sockets(self) -> dict[Place, socket.socket]:
        return {place: each.socket for place, each in self._given.items()}

    def port_for(self, listener: Listener, in_use: Collection[Place]) -> int:
        """The port of the socket that was made for a listener which takes any free one; 0: none.

        Made for it means: called by its name, or on its address by its host name or protocol.
        """
        names = {listener.title, listener.protocol}
        hosts = {listener.host, *_every(listener.host)}
        for place, each in self._given.items():
            is_its = each.name in names and place.host in hosts
            if place not in in_use and (is_its or each.name == listener.name):
                return place.port
        return 0

    def used(self, places: Collection[Place], *, is_shared: bool = False) -> None:
        """Say which places listeners are on now; what no listener uses refuses connections.

        Unless the sockets are shared with a process that may still want them.
        """
        self._was_used.update(places)
        for place, each in self._given.items():
            if not is_shared and place in self._was_used and place not in places:
                silence(each.socket)

    def unused(self, places: Iterable[Place]) -> None:
        """Take back that listeners wanted these places: the plan has failed."""
        for place in places:
            each = self._given.get(place)
            # At the start the next plan wants them: connections may wait there already.
            if each is not None and place in self._was_used:
                silence(each.socket)

    def settle(self) -> list[Given]:
        """Close what no listener has used so far, and what need not be kept; tell the former."""
        unused = [each for place, each in self._given.items() if place not in self._was_used]
        needless = [
            each for place, each in self._given.items() if not each.is_kept and may_bind(place.port)
        ]
        for each in [*unused, *needless]:
            self._given.pop(each.place, None)
            each.socket.close()
        return unused

    def close(self, *, is_shared: bool = False) -> None:
        """Give everything back; systemd finds its sockets listening again.

        Of shared ones the other process decides what they do.
        """
        for each in self._given.values():
            if each.is_kept and not is_shared:
                with contextlib.suppress(OSError):
                    sockets.listen([each.socket])
            each.socket.close()
        self._given.clear()


def silence(bound: socket.socket) -> None:
    """Let the kernel refuse connections; the address stays ours, and listen() ends it.

    Only for a socket that was bound to a port by its number: a free one would be lost.
    """
    # On Linux this takes a listening socket back to one that is only bound.
    with contextlib.suppress(OSError):
        bound.shutdown(socket.SHUT_RD)


def _every(host: str) -> tuple[str, ...]:
    return () if host else tuple(address for _, address in sockets.EVERYWHERE)
