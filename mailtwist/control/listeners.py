"""Desired listeners -> running ones, moved in place by their difference.

:meth:`Listeners.reconcile` binds what is new before it touches what runs: if one bind fails,
what was opened is closed again and the old set goes on. An unchanged listener is not
touched. A changed one gets its new settings in place, or a new factory on its old socket when
it speaks another protocol now, so that no connection is refused meanwhile. Sessions go on with
the settings that they began with, and those of a removed listener end by themselves.

``listeners.json`` in the data folder says what is bound; tools wait for it. It appears
whole, after the last listener is up, and again after each reconciliation.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, cast

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import (
    IListeningPort,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
)
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory

from mailtwist.config.listeners import Listener
from mailtwist.control import sockets
from mailtwist.control.sockets import Place
from mailtwist.errors import ConfigError
from mailtwist.net.transport import make_prompt

log = Logger()

FILE_NAME: Final = "listeners.json"
# Begin with a TLS handshake; the others offer STARTTLS or nothing.
IMPLICIT_TLS: Final = frozenset({"submissions", "imaps", "https"})


class Factory(Protocol):
    """What a front-end makes for a listener: a Twisted factory that can end its sessions."""

    def doStart(self) -> None: ...  # noqa: N802
    def doStop(self) -> None: ...  # noqa: N802
    def buildProtocol(self, addr: Any) -> Any: ...  # noqa: N802
    async def drain(self, seconds: float) -> None: ...


@dataclass(slots=True)
class Running:
    """One listener that runs: its settings, its sockets, and what serves them."""

    listener: Listener
    sockets: dict[Place, socket.socket]
    factory: Factory
    outer: Any  # the factory, or TLS around it
    ports: list[IListeningPort]


class Listeners:
    """The sockets of this process and what answers on them.

    ``make`` makes the factory of a listener, ``configure`` gives one other settings of the same
    protocol, ``creator`` is the TLS side of those that begin with TLS. ``directory`` is where
    listeners.json goes.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        make: Callable[[Listener], Factory],
        configure: Callable[[Factory, Listener], None],
        creator: Callable[[Listener], IOpenSSLServerConnectionCreator],
        directory: Path,
    ) -> None:
        self._reactor = reactor
        self._make = make
        self._configure = configure
        self._creator = creator
        self._path = directory / FILE_NAME
        self._running: dict[str, Running] = {}
        self._bound_early: dict[str, tuple[Listener, dict[Place, socket.socket]]] = {}
        self._retired: list[Factory] = []

    @property
    def running(self) -> tuple[Running, ...]:
        return tuple(self._running.values())

    def bind(self, desired: Iterable[Listener]) -> None:
        """Bind the addresses and accept nothing yet: while the process is still privileged.

        Raises: ConfigError.
        """
        for listener in desired:
            try:
                bound = sockets.bind(listener.title, listener.host, listener.port)
            except ConfigError:
                self._release_early()
                raise
            self._bound_early[listener.name] = (listener, bound)

    async def reconcile(self, desired: Sequence[Listener]) -> None:
        """Make ``desired`` the set that runs, all or nothing.

        Raises: ConfigError that names the listener and the address; nothing has changed then.
        """
        kept = self._kept(desired)
        opened, built = self._prepare(desired, kept)
        self._release_early()
        closing = self._close_others(kept)
        for listener in desired:
            if listener.name in opened:
                self._start(listener, opened[listener.name], built[listener.name])
            elif listener.name in built:
                self._exchange(listener, built[listener.name])
            elif kept[listener.name] != listener:
                self._change(listener)
        await gatherResults(closing, consumeErrors=True)
        self.publish()

    def _prepare(
        self, desired: Iterable[Listener], kept: dict[str, Listener]
    ) -> tuple[dict[str, dict[Place, socket.socket]], dict[str, Factory]]:
        """Open and build all that is new; close it again when one thing fails."""
        opened: dict[str, dict[Place, socket.socket]] = {}
        built: dict[str, Factory] = {}
        early = dict(self._bound_early)
        try:
            for listener in desired:
                if listener.name not in kept:
                    opened[listener.name] = self._open(listener)
            self._refuse_conflicts(desired, opened)
            for listener in desired:
                if self._needs_factory(listener, kept):
                    built[listener.name] = self._make(listener)
        except BaseException:
            # What was bound with privileges stays: it could not be bound again.
            self._bound_early = early
            for name, each in opened.items():
                if name not in early or early[name][1] is not each:
                    sockets.close(each.values())
            raise
        return opened, built

    async def stop(self, drain_s: float) -> None:
        """Accept nothing more, let sessions end within ``drain_s``, then close the sockets."""
        self._release_early()
        self.withdraw()
        closing = [
            stopping for running in self._running.values() for stopping in self._stop_ports(running)
        ]
        factories = [running.factory for running in self._running.values()] + self._retired
        self._running.clear()
        self._retired.clear()
        await gatherResults(closing, consumeErrors=True)
        await gatherResults(
            [Deferred.fromCoroutine(factory.drain(drain_s)) for factory in factories],
            consumeErrors=True,
        )

    def refresh(self) -> None:
        """Give every listener the server's settings as they are now."""
        for running in self._running.values():
            self._configure(running.factory, running.listener)

    def withdraw(self) -> None:
        """Say no more what is bound; also what a process that was killed said."""
        self._path.unlink(missing_ok=True)

    def publish(self) -> None:
        """Write listeners.json, whole or not at all."""
        entries = [
            {
                "name": running.listener.title,
                "protocol": running.listener.protocol,
                "address": place.host,
                "port": place.port,
                "tls": running.listener.protocol in IMPLICIT_TLS,
            }
            for running in self._running.values()
            for place in running.sockets
        ]
        temporary = self._path.with_name(FILE_NAME + ".new")
        temporary.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
        temporary.replace(self._path)

    # -- the steps --------------------------------------------------------------------------

    def _kept(self, desired: Iterable[Listener]) -> dict[str, Listener]:
        """What runs and stays on its sockets, by name."""
        return {
            listener.name: self._running[listener.name].listener
            for listener in desired
            if listener.name in self._running
            and _place(self._running[listener.name].listener) == _place(listener)
        }

    @staticmethod
    def _needs_factory(listener: Listener, kept: dict[str, Listener]) -> bool:
        running = kept.get(listener.name)
        return running is None or running.protocol != listener.protocol

    def _open(self, listener: Listener) -> dict[Place, socket.socket]:
        early = self._bound_early.get(listener.name)
        if early is not None and _place(early[0]) == _place(listener):
            del self._bound_early[listener.name]
            bound = early[1]
        else:
            ours = {
                place: each
                for running in self._running.values()
                for place, each in running.sockets.items()
            }
            bound = sockets.bind(listener.title, listener.host, listener.port, ours=ours)
        try:
            sockets.listen(bound.values())
        except OSError as error:
            sockets.close(bound.values())
            place = ", ".join(map(str, bound))
            reason = os.strerror(error.errno or errno.EIO)
            raise ConfigError(
                f"listener {listener.title}: cannot listen on {place}: {reason}"
            ) from error
        return bound

    def _refuse_conflicts(
        self, desired: Iterable[Listener], opened: dict[str, dict[Place, socket.socket]]
    ) -> None:
        """Two listeners on one address are a conflict of the plan."""
        taken: dict[Place, str] = {}
        # What is opened now is at fault, not what is there.
        for listener in sorted(desired, key=lambda listener: listener.name in opened):
            bound = opened.get(listener.name) or self._running[listener.name].sockets
            for place in bound:
                if place in taken:
                    raise ConfigError(
                        f"listener {listener.title}: cannot bind {place}:"
                        f" listener {taken[place]} is there"
                    )
                taken[place] = listener.title

    def _start(
        self, listener: Listener, bound: dict[Place, socket.socket], factory: Factory
    ) -> None:
        outer = self._wrap(listener, factory)
        ports = [
            self._reactor.adoptStreamPort(each.fileno(), place.family, outer)
            for place, each in bound.items()
        ]
        for port in ports:
            make_prompt(port)
        self._running[listener.name] = Running(listener, bound, factory, outer, ports)
        log.info(
            "listening",
            listener=listener.name,
            protocol=listener.protocol,
            address=", ".join(map(str, bound)),
        )

    def _change(self, listener: Listener) -> None:
        """Give a listener other settings; those of its protocol stay on their factory."""
        running = self._running[listener.name]
        self._configure(running.factory, listener)
        running.listener = listener
        log.info("listener changed", listener=listener.name, protocol=listener.protocol)

    def _exchange(self, listener: Listener, factory: Factory) -> None:
        running = self._running[listener.name]
        outer = self._wrap(listener, factory)
        for port in running.ports:
            outer.doStart()
            before, port.factory = port.factory, outer  # type: ignore[attr-defined]
            before.doStop()
        self._retire(running.factory)
        running.listener, running.factory, running.outer = listener, factory, outer
        log.info("listener changed", listener=listener.name, protocol=listener.protocol)

    def _close_others(self, kept: dict[str, Listener]) -> list[Deferred[None]]:
        closing: list[Deferred[None]] = []
        for name in [name for name in self._running if name not in kept]:
            running = self._running.pop(name)
            closing += self._stop_ports(running)
            self._retire(running.factory)
            log.info("listener closed", listener=name)
        return closing

    def _stop_ports(self, running: Running) -> list[Deferred[None]]:
        """Close a listener's sockets: the reactor's view on them and our own."""
        stopping = [port.stopListening() for port in running.ports]
        sockets.close(running.sockets.values())
        running.ports, running.sockets = [], {}
        return [each for each in stopping if each is not None]

    def _retire(self, factory: Factory) -> None:
        """Remember a factory whose sessions go on, for the clean stop."""
        self._retired = [each for each in self._retired if getattr(each, "sessions", None)]
        self._retired.append(factory)

    def _release_early(self) -> None:
        for _, bound in self._bound_early.values():
            sockets.close(bound.values())
        self._bound_early.clear()

    def _wrap(self, listener: Listener, factory: Factory) -> Any:
        if listener.protocol not in IMPLICIT_TLS:
            return factory
        inner = cast(IProtocolFactory, factory)
        creator = self._creator(listener)
        wrapped = TLSMemoryBIOFactory(creator, False, inner, clock=self._reactor)
        wrapped.noisy = False
        return wrapped


def _place(listener: Listener) -> tuple[str, int]:
    return listener.host, listener.port
