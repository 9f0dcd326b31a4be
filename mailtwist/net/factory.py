"""The listener's side of a session: counting in and out, the idle sweep, the clean stop.

One factory serves one listener. Its settings are replaced in place while
sessions run: `build` reads them when the next connection comes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import ServerFactory
from twisted.internet.task import LoopingCall
from typing_extensions import override

from mailtwist.net.counters import Connections
from mailtwist.net.pump import Pump

# How often idle sessions are looked for: a time-out is late by this at most.
SWEEP_S = 1.0
# A peer that does not even take our farewell is cut off after this.
LINGER_S = 10.0


class Session(Protocol):
    """What the factory asks of a protocol. `Tracked` brings all but the last two."""

    pump: Pump
    last_active: float  # seconds() of the clock when the peer last did something
    idle_timeout_s: float

    def overdue(self, now: float) -> bool: ...
    def timed_out(self) -> None:
        """Say 421 or BYE and close."""

    def shut_down(self) -> None:
        """Say 421 or BYE and close, after the running command or message."""


class Tracked:
    """Mix-in: when a session was silent for too long, and how it goes on after a long turn."""

    factory: SessionFactory
    pump: Pump
    last_active: float = 0.0
    idle_timeout_s: float = 300.0

    def overdue(self, now: float) -> bool:
        """Whether the peer keeps us waiting; our own work is never the peer's idleness."""
        if self.pump.busy and not self.pump.clogged:
            self.last_active = now
            return False
        return now - self.last_active > self.idle_timeout_s

    def next_turn(self, advance: Callable[[], None]) -> None:
        """Go on when the other sessions had their turn: the pump's `later`."""
        self.factory.clock.callLater(0, advance)


class Clock(Protocol):
    def seconds(self) -> float: ...
    def callLater(self, delay: float, function: Callable[..., Any], /, *args: Any) -> Any: ...  # noqa: N802


class Refused(TwistedProtocol):
    """Says why a connection is not served, and closes it."""

    def __init__(self, farewell: bytes) -> None:
        self.farewell = farewell

    @override
    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self.farewell)
        self.transport.loseConnection()


class SessionFactory(ServerFactory):
    """Builds the sessions of one listener and knows those that live.

    `build(factory, address)` makes a protocol that has the methods of
    `Session` and calls `forget(self)` from its connectionLost. `refusal(text)`
    makes the octets for a peer that is not served.
    """

    noisy = False

    def __init__(
        self,
        build: Callable[[SessionFactory, IAddress], Any],
        *,
        refusal: Callable[[str], bytes],
        clock: Clock,
        counters: Connections,
        max_clients: int = 0,
        gate: Callable[[str], bool] | None = None,
    ) -> None:
        self.build = build
        self.refusal = refusal
        self.clock = clock
        self.counters = counters
        self.max_clients = max_clients  # 0: no limit of this listener's own
        self.gate = gate  # counts an address in, or not
        self.stopping = False
        self.sessions: dict[Any, str] = {}  # session -> the address it was counted under
        self._sweeper: LoopingCall | None = None
        self._empty: list[Deferred[None]] = []

    @property
    def is_busy(self) -> bool:
        """Whether a session lives."""
        return bool(self.sessions)

    @override
    def buildProtocol(self, addr: Any) -> Any:
        if self.stopping:
            return Refused(self.refusal("stopping"))
        if self.max_clients and len(self.sessions) >= self.max_clients:
            return Refused(self.refusal("max_clients"))
        host = str(getattr(addr, "host", ""))
        if self.gate is not None and not self.gate(host):
            return Refused(self.refusal("rate"))
        if not self.counters.enter(host):
            return Refused(self.refusal("per_address"))
        session = self.build(self, addr)
        session.factory = self
        session.last_active = self.clock.seconds()
        self.sessions[session] = host
        self._start_sweeping()
        return session

    def forget(self, session: Any) -> None:
        """Count a session out; called once, from its connectionLost."""
        host = self.sessions.pop(session, None)
        if host is None:
            return
        self.counters.leave(host)
        if not self.sessions:
            self._stop_sweeping()
            waiting, self._empty = self._empty, []
            for deferred in waiting:
                deferred.callback(None)

    # -- the idle sweep: one timer for all sessions, none when there is no session ------------

    def _start_sweeping(self) -> None:
        if self._sweeper is None:
            self._sweeper = LoopingCall(self.sweep)
            self._sweeper.clock = self.clock  # type: ignore[assignment]
            self._sweeper.start(SWEEP_S, now=False)

    def _stop_sweeping(self) -> None:
        if self._sweeper is not None:
            self._sweeper.stop()
            self._sweeper = None

    def sweep(self) -> None:
        """End the sessions whose peer has been silent for too long."""
        now = self.clock.seconds()
        for session in list(self.sessions):
            if session.pump.closing:
                if now - session.last_active > LINGER_S:
                    session.pump.abort()
            elif session.overdue(now):
                session.last_active = now  # from here on the farewell has LINGER_S
                session.timed_out()

    # -- the clean stop ---------------------------------------------------------------------

    async def drain(self, seconds: float) -> None:
        """Take no new session, let the living end; cut off what remains after `seconds`."""
        self.stopping = True
        for session in list(self.sessions):
            if not session.pump.closing:
                session.shut_down()
        if not self.sessions:
            return
        deadline = self.clock.callLater(seconds, self._cut_off)
        empty: Deferred[None] = Deferred()
        self._empty.append(empty)
        await empty
        if deadline.active():
            deadline.cancel()

    def _cut_off(self) -> None:
        for session in list(self.sessions):
            session.pump.abort()
