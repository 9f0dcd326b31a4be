"""One listener that runs: what it consists of, and the small steps that are taken with it."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.tcp import Port
from twisted.logger import Logger

from mailtwist.config.listeners import Listener
from mailtwist.control import sockets
from mailtwist.control.plan import Problem
from mailtwist.control.sockets import Place
from mailtwist.errors import ConfigError

log = Logger()

# Begin with a TLS handshake; the others offer STARTTLS or nothing.
IMPLICIT_TLS: Final = frozenset({"submissions", "imaps", "https"})


class Unbindable(ConfigError):
    """The set cannot run; ``problems`` tells of each listener at fault why."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(each.text for each in self.problems))


class Factory(Protocol):
    """What a front-end makes for a listener: a Twisted factory that can end its sessions."""

    @property
    def is_busy(self) -> bool:
        """Whether a session lives."""

    def doStart(self) -> None: ...  # noqa: N802
    def doStop(self) -> None: ...  # noqa: N802
    def buildProtocol(self, addr: Any) -> Any: ...  # noqa: N802
    async def drain(self, seconds: float) -> None: ...


Bound = dict[Place, socket.socket]


@dataclass(slots=True)
class Running:
    """One listener that runs: its settings, its sockets, and what serves them."""

    listener: Listener
    sockets: Bound
    factory: Factory
    outer: Any  # the factory, or TLS around it
    ports: list[IListeningPort]

    def entries(self) -> Iterator[dict[str, object]]:
        """What listeners.json says of it."""
        for place in self.sockets:
            yield {
                "name": self.listener.title,
                "protocol": self.listener.protocol,
                "address": place.host,
                "port": place.port,
                "tls": self.listener.protocol in IMPLICIT_TLS,
            }


def place_of(listener: Listener) -> tuple[str, int]:
    """Where it wants to be."""
    return listener.host, listener.port


def listen(listener: Listener, bound: Bound) -> None:
    """Let the kernel take connections. Raises: ConfigError."""
    for place, each in bound.items():
        try:
            sockets.listen([each])
        except OSError as error:
            reason = os.strerror(error.errno or errno.EIO)
            raise ConfigError(
                f"listener {listener.title}: cannot listen on {place}: {reason}"
            ) from error


def stop(ports: Iterable[IListeningPort]) -> list[Deferred[None]]:
    """Take the reactor's views away; the sockets stay."""
    stopping = [port.stopListening() for port in ports]
    return [each for each in stopping if each is not None]


def accept_waiting(port: Any) -> None:
    """Take the connections that the kernel holds ready: a close would reset them."""
    if isinstance(port, Port):
        port.numberAccepts = sockets.BACKLOG
        port.doRead()


def say(event: str, running: Running) -> None:
    """Log it."""
    log.info(
        event,
        listener=running.listener.name,
        protocol=running.listener.protocol,
        address=", ".join(map(str, running.sockets)),
    )
