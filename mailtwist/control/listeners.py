"""Desired listeners -> running ones, moved in place by their difference.

:meth:`Listeners.reconcile` makes what is new before it touches what runs: sockets, factories,
ports. If one thing fails, what was made is closed again and the old set goes on. An unchanged
listener is not touched. A changed one gets its new settings in place, or a new factory on its
old socket when it speaks another protocol now, or its factory gets other sockets when it moves;
no connection is refused meanwhile. Sessions go on with the settings that they began with. Those
of a listener that is gone end by themselves, or after the drain time by 421 or BYE.

``listeners.json`` in the data folder says what is bound; tools wait for it. It appears
whole, after the last listener is up, and again after each reconciliation.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import (
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
)
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory

from mailtwist.config.listeners import Listener
from mailtwist.control import sockets
from mailtwist.control.kept import Kept
from mailtwist.control.plan import Problem
from mailtwist.control.serving import (
    IMPLICIT_TLS,
    Bound,
    Factory,
    Running,
    Unbindable,
    accept_waiting,
    listen,
    place_of,
    say,
    stop,
)
from mailtwist.control.sockets import Addresses, Given, Place
from mailtwist.errors import ConfigError
from mailtwist.net.networks import Networks
from mailtwist.net.proxy_protocol import ProxiedFactory
from mailtwist.net.transport import make_prompt

log = Logger()

FILE_NAME: Final = "listeners.json"
# A message or an answer that is under way when a session is sent home may take so long.
LONGEST_WORK_S: Final = 3600.0
# How often a process that has retired looks whether a session is left.
LOOK_AGAIN_S: Final = 0.2


class Listeners:
    """The sockets of this process and what answers on them.

    ``make`` makes the factory of a listener, ``configure`` gives one other settings of the same
    protocol, ``creator`` is the TLS side of those that begin with TLS. ``directory`` is where
    listeners.json goes. ``drain_s`` says after how many seconds the sessions of a listener that
    is gone are sent away; 0: never. ``in_thread`` runs what may block.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        make: Callable[[Listener], Factory],
        configure: Callable[[Factory, Listener], None],
        creator: Callable[[Listener], IOpenSSLServerConnectionCreator],
        directory: Path,
        drain_s: Callable[[], float] = lambda: 0.0,
        in_thread: Callable[..., Awaitable[Any]] | None = None,
    ) -> None:
        self._reactor = reactor
        self._make = make
        self._configure = configure
        self._creator = creator
        self._path = directory / FILE_NAME
        self._drain_s = drain_s
        self._in_thread = in_thread or self._in_pool
        self._running: dict[str, Running] = {}
        self._kept = Kept()
        self._retired: list[Factory] = []
        self._farewells: list[Any] = []
        self.is_shared = False
        """While another process has the sockets too, what it does with them is left alone."""

    @property
    def running(self) -> tuple[Running, ...]:
        return tuple(self._running.values())

    @property
    def _places(self) -> set[Place]:
        return {place for running in self._running.values() for place in running.sockets}

    # -- sockets from before --------------------------------------------------------------------

    def inherit(self, given: Iterable[Given]) -> None:
        """Use these sockets for the listeners of their addresses. Before :meth:`bind`."""
        self._kept.add(given)

    def lend(self) -> tuple[Given, ...]:
        """Every socket of this process, for one that takes over; they stay ours too.

        The name is that of the listener which uses it, so that one on "any free port" is found.
        """
        lent = {place: each for place, each in self._kept.given.items()}
        for name, running in self._running.items():
            for place, each in running.sockets.items():
                is_kept = place in lent and lent[place].is_kept
                lent[place] = Given(name, place, each, is_kept)
        return tuple(lent.values())

    def bind(self, desired: Iterable[Listener], *, is_essential: bool = True) -> None:
        """Bind the addresses and accept nothing yet: while the process is still privileged.

        Blocks while a host name is resolved. Raises: ConfigError; nothing new is bound then.
        What is not essential is left out instead, for the reconciliation to say why.
        """
        bound: list[Given] = []
        for listener in desired:
            try:
                addresses = sockets.addresses_of(listener.title, listener.host)
                found = self._bind(listener, addresses)
            except ConfigError:
                if not is_essential:
                    continue
                sockets.close(each.socket for each in bound)
                raise
            for place, each in found.items():
                if place in self._kept.sockets:
                    each.close()
                else:
                    bound.append(Given(listener.name, place, each, is_kept=False))
        self._kept.add(bound)

    def settle(self) -> None:
        """Close the sockets from before that no listener uses, now that all are known."""
        for each in self._kept.settle():
            if each.is_kept:
                log.warn(
                    "no listener for the socket {name} on {address}: closed",
                    name=each.name or "without name",
                    address=str(each.place),
                )

    # -- moving ---------------------------------------------------------------------------------

    async def reconcile(self, desired: Sequence[Listener]) -> None:
        """Make ``desired`` the set that runs, all or nothing.

        Raises: Unbindable that names each listener at fault and its address; nothing has
        changed then.
        """
        addresses = await self._resolved(desired)
        made = self._prepare(desired, addresses)
        leaving = self._commit(desired, made)
        closing = self._close(leaving)
        self._kept.used(self._places, is_shared=self.is_shared)
        await gatherResults(closing, consumeErrors=True)
        self.publish()

    async def stop(self, drain_s: float) -> None:
        """Accept nothing more, let sessions end within ``drain_s``, then close the sockets."""
        if not self.is_shared:
            self.withdraw()
        factories = [each.factory for each in self.running] + self._retired
        closing = self._close_all()
        for farewell in self._farewells:
            if farewell.active():
                farewell.cancel()
        self._retired, self._farewells = [], []
        await gatherResults(closing, consumeErrors=True)
        await gatherResults(
            [Deferred.fromCoroutine(factory.drain(drain_s)) for factory in factories],
            consumeErrors=True,
        )

    async def retire(self) -> None:
        """Another process has the sockets: accept nothing more from this very call on.

        Sessions end by themselves, or are sent away after the drain time; none lives on return.
        """
        self.is_shared = True
        factories = [each.factory for each in self.running]
        for factory in factories:
            self._retire(factory)
        factories = list(self._retired)
        await gatherResults(self._close_all(), consumeErrors=True)
        while any(factory.is_busy for factory in factories):
            await deferLater(self._reactor, LOOK_AGAIN_S)

    def _close_all(self) -> list[Deferred[None]]:
        running = list(self._running.values())
        self._running.clear()
        closing = [stopping for each in running for stopping in self._stop_ports(each)]
        self._kept.close(is_shared=self.is_shared)
        return closing

    def refresh(self) -> None:
        """Give every listener the server's settings as they are now."""
        for running in self._running.values():
            self._configure(running.factory, running.listener)

    def withdraw(self) -> None:
        """Say no more what is bound; also what a process that was killed said."""
        self._path.unlink(missing_ok=True)

    def publish(self) -> None:
        """Write listeners.json, whole or not at all; the log tells of the latter."""
        entries = [entry for running in self.running for entry in running.entries()]
        temporary = self._path.with_name(FILE_NAME + ".new")
        try:
            temporary.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
            temporary.replace(self._path)
        except OSError as error:
            # What is bound is bound: a full disk takes nothing of that back.
            log.error("{file} was not written: {error}", file=FILE_NAME, error=error)

    # -- what may fail: everything new is made ----------------------------------------------------

    async def _resolved(self, desired: Iterable[Listener]) -> dict[str, Addresses]:
        """The addresses of all hosts that are to be bound; names are looked up in a thread."""
        found: dict[str, Addresses] = {}
        problems: list[Problem] = []
        for listener in desired:
            host = listener.host
            if self._stays(listener) or host in found:
                continue
            try:
                if not host or isIPAddress(host) or isIPv6Address(host):
                    found[host] = sockets.addresses_of(listener.title, host)
                else:
                    look_up = sockets.addresses_of
                    found[host] = await self._in_thread(look_up, listener.title, host)
            except ConfigError as error:
                problems.append(Problem((listener.name,), error.text))
        if problems:
            raise Unbindable(problems)
        return found

    def _in_pool(self, work: Callable[..., Any], *arguments: Any) -> Awaitable[Any]:
        pool = self._reactor.getThreadPool()
        return deferToThreadPool(self._reactor, pool, work, *arguments)

    def _stays(self, listener: Listener) -> bool:
        """Whether it runs already, on the very sockets that it wants."""
        running = self._running.get(listener.name)
        return running is not None and place_of(running.listener) == place_of(listener)

    def _prepare(
        self, desired: Sequence[Listener], addresses: Mapping[str, Addresses]
    ) -> dict[str, Running]:
        """Make whatever is new or other, without touching what runs; unmake it on a failure."""
        opened: dict[str, Bound] = {}
        made: dict[str, Running] = {}
        try:
            self._open(desired, addresses, opened)
            self._refuse_conflicts(desired, opened)
            for listener in desired:
                before = self._running.get(listener.name)
                if before is None or before.listener != listener:
                    made[listener.name] = self._build(listener, before, opened)
            self._lend_to_reactor(made)
        except BaseException:
            for each in made.values():
                if each.sockets is opened.get(each.listener.name):
                    stop(each.ports)
            for bound in opened.values():
                sockets.close(bound.values())
                if not self.is_shared:
                    self._kept.unused(place for place in bound if place not in self._places)
            raise
        return made

    def _open(
        self,
        desired: Iterable[Listener],
        addresses: Mapping[str, Addresses],
        opened: dict[str, Bound],
    ) -> None:
        problems: list[Problem] = []
        for listener in desired:
            if self._stays(listener):
                continue
            try:
                bound = opened[listener.name] = self._bind(listener, addresses[listener.host])
                listen(listener, bound)
            except ConfigError as error:
                problems.append(Problem((listener.name,), error.text))
        if problems:
            raise Unbindable(problems)

    def _bind(self, listener: Listener, addresses: Addresses) -> Bound:
        ours = self._kept.sockets
        for running in self._running.values():
            ours.update(running.sockets)
        port = listener.port or self._kept.port_for(listener, self._places)
        return sockets.bind(listener.title, addresses, port, ours=ours)

    def _refuse_conflicts(self, desired: Iterable[Listener], opened: Mapping[str, Bound]) -> None:
        """Two listeners on one address are a conflict of the plan."""
        taken: dict[tuple[socket.AddressFamily, int], list[tuple[Place, Listener]]] = {}
        # What is opened now is at fault, not what is there.
        for listener in sorted(desired, key=lambda listener: listener.name in opened):
            bound = opened.get(listener.name) or self._running[listener.name].sockets
            for place in bound:
                beside = taken.setdefault((place.family, place.port), [])
                for other, its in beside:
                    if place.overlaps(other):
                        text = f"listener {listener.title}: cannot bind {place}:"
                        text += f" listener {its.title} is there"
                        raise Unbindable([Problem((listener.name, its.name), text)])
                beside.append((place, listener))

    def _build(
        self, listener: Listener, before: Running | None, opened: Mapping[str, Bound]
    ) -> Running:
        """What serves a listener from now on: of what runs, whatever can go on."""
        bound = opened.get(listener.name)
        if before is None or before.listener.protocol != listener.protocol:
            factory, outer = self._make(listener), None
        else:
            factory = before.factory
            outer = before.outer if self._is_dressed_alike(before, listener) else None
        if outer is None:
            outer = self._wrap(listener, factory)
        if bound is None:
            assert before is not None
            return Running(listener, before.sockets, factory, outer, before.ports)
        return Running(listener, bound, factory, outer, [])

    def _lend_to_reactor(self, made: Mapping[str, Running]) -> None:
        """Let the reactor accept on the new sockets, from its next turn on."""
        for running in made.values():
            if running.ports:
                continue
            for place, each in running.sockets.items():
                port = self._reactor.adoptStreamPort(each.fileno(), place.family, running.outer)
                running.ports.append(port)
                make_prompt(port)

    # -- what cannot fail: it takes the place of what was ------------------------------------------

    def _commit(self, desired: Iterable[Listener], made: Mapping[str, Running]) -> list[Running]:
        """Put what was made into use; what is left over, to be closed."""
        before, self._running = self._running, {}
        leaving: list[Running] = []
        for listener in desired:
            old = before.pop(listener.name, None)
            new = made.get(listener.name)
            if new is None:
                assert old is not None
                new = old
            elif old is None:
                say("listening", new)
            else:
                self._replace(old, new, leaving)
                say("listener changed", new)
            self._running[listener.name] = new
        for gone in before.values():
            self._retire(gone.factory)
            say("listener closed", gone)
            leaving.append(gone)
        return leaving

    def _replace(self, old: Running, new: Running, leaving: list[Running]) -> None:
        if new.factory is old.factory:
            self._configure(new.factory, new.listener)
        else:
            self._retire(old.factory)
        if new.sockets is not old.sockets:
            leaving.append(old)
        elif new.outer is not old.outer:
            for port in new.ports:
                new.outer.doStart()
                port.factory = new.outer  # type: ignore[attr-defined]
                old.outer.doStop()

    def _close(self, leaving: Iterable[Running]) -> list[Deferred[None]]:
        """Close sockets that no listener wants. Who has connected is served all the same."""
        taken = self._places
        closing: list[Deferred[None]] = []
        for running in leaving:
            for place, port in zip(running.sockets, running.ports, strict=True):
                if place not in taken:
                    accept_waiting(port)
            closing += self._stop_ports(running)
        return closing

    def _stop_ports(self, running: Running) -> list[Deferred[None]]:
        """Close a listener's sockets: the reactor's view on them and our own."""
        stopping = stop(running.ports)
        sockets.close(running.sockets.values())
        running.ports, running.sockets = [], {}
        return stopping

    def _retire(self, factory: Factory) -> None:
        """Remember a factory whose sessions go on, for their farewell or the clean stop."""
        self._retired = [each for each in self._retired if each.is_busy]
        self._farewells = [each for each in self._farewells if each.active()]
        self._retired.append(factory)
        # HTTP has no farewell: its connections end with their next answer.
        getattr(factory, "retire", lambda: None)()
        seconds = self._drain_s()
        if seconds:
            self._farewells.append(self._reactor.callLater(seconds, self._send_home, factory))

    def _send_home(self, factory: Factory) -> None:
        if factory.is_busy:
            Deferred.fromCoroutine(factory.drain(LONGEST_WORK_S)).addErrback(
                lambda failure: log.failure("sessions of a closed listener", failure)
            )

    @staticmethod
    def _is_dressed_alike(before: Running, listener: Listener) -> bool:
        """Whether what is around the factory is right for the listener as it is now."""
        if before.outer is before.factory:
            return not listener.proxies
        now = before.listener
        return (now.hostname, now.proxies) == (listener.hostname, listener.proxies)

    def _wrap(self, listener: Listener, factory: Factory) -> Any:
        outer = self._with_tls(listener, factory)
        if not listener.proxies:
            return outer
        return ProxiedFactory(outer, Networks(listener.proxies), clock=self._reactor)

    def _with_tls(self, listener: Listener, factory: Factory) -> Any:
        if listener.protocol not in IMPLICIT_TLS:
            return factory
        inner = cast(IProtocolFactory, factory)
        creator = self._creator(listener)
        wrapped = TLSMemoryBIOFactory(creator, False, inner, clock=self._reactor)
        wrapped.noisy = False
        return wrapped
