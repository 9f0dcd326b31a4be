"""`twisted.mail.imap4.IMAP4Server` with our engine: framing, TLS, time-outs and back-pressure.

Kept of the base class: its place (protocol, portal, account and context
attributes), the names of its states, and STARTTLS through
`transport.startTLS`. Every other method of it is replaced, because it runs the
octets of literals as commands, answers out of order and has no bounds; `KEPT`
lists what may still run, and a test makes all else raise.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionClosed
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.mail.imap4 import IMAP4Server
from twisted.python.failure import Failure
from typing_extensions import override

from mailtwist.imap.capabilities import announced
from mailtwist.imap.machine import Machine
from mailtwist.imap.ports import Services
from mailtwist.imap.session import Session
from mailtwist.net import channel_binding
from mailtwist.net.factory import SessionFactory, Tracked
from mailtwist.net.pump import Pump, shielded
from mailtwist.net.session_id import new_session_id, session_id

if TYPE_CHECKING:
    from mailtwist.policy.auth import Login
    from mailtwist.policy.passwords import Scram
    from mailtwist.policy.scram import Proof

log = Logger()

# Methods of the base classes that may run in a session.
KEPT = frozenset({"makeConnection", "logPrefix"})
# Nobody needs longer to log in, however busily it sends octet by octet.
LOGIN_S = 600.0
# RFC 9051 §5.4: at least 30 minutes. Clients in IDLE speak up every 29.
IDLE_S = 30 * 60.0 + 60.0


def _nothing() -> None:
    pass


class MailIMAP4(Tracked, IMAP4Server):
    """One connection. The session has the state, the pump the octets."""

    factory: SessionFactory

    # The base class's constructor makes what only its own engine uses.
    def __init__(
        self, services: Services, *, tls: Any = None, secure: bool = False, peer: str = ""
    ) -> None:
        self.ctx = tls
        self.startedTLS = secure
        self.peer = peer
        self.session_id = new_session_id()
        self._began = 0.0
        self._leave: Callable[[], None] = _nothing  # ends the watch over the login
        machine = Machine()
        self.session = Session(services, self, machine)
        self.pump = Pump(machine, self.session.run, on_error=self._failed, later=self.next_turn)
        self.pump.context.run(session_id.set, self.session_id)

    @property
    def state(self) -> str:  # type: ignore[override]
        """The base class's name of where the session stands."""
        return self.session.state.value

    # -- twisted.internet.protocol -----------------------------------------------------------

    @override
    def connectionMade(self) -> None:
        self.pump.connect(self.transport)
        self._began = self.last_active
        log.debug("connection", session=self.session_id, client=self.peer)
        greeting = f"* OK [{announced(self.session)}] mailtwist ready\r\n"
        self.pump.write(greeting.encode())
        self.pump.flush()

    @override
    def dataReceived(self, data: bytes) -> None:
        self.last_active = self.factory.clock.seconds()
        self.pump.data_received(data)
        if self.session.machine.in_literal:
            self._acknowledge()

    def _acknowledge(self) -> None:
        """Send the TCP acknowledgement now, for there is no answer to carry it.

        Many clients (imaplib) write a literal and the CRLF behind it one after the
        other; with Nagle's algorithm the CRLF then waits 40 ms for our delayed one.
        """
        transport: Any = self.transport
        with contextlib.suppress(AttributeError, OSError):
            transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    @override
    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._leave()
        self.pump.connection_lost(reason)
        _finish(self.session.ended())
        self.factory.forget(self)

    # -- what a session asks of its connection ------------------------------------------------

    @property
    def secure(self) -> bool:
        return bool(self.startedTLS)

    @property
    def lost(self) -> bool:
        return self.pump.lost

    def write(self, data: bytes) -> None:
        self.pump.write(data)

    def flush(self) -> None:
        self.pump.flush()

    async def drained(self) -> None:
        await self.pump.drained()

    def close(self) -> None:
        self.pump.close()

    def kick(self) -> None:
        self.pump.kick()

    @property
    def can_bind(self) -> bool:
        return channel_binding.is_possible(self.transport)

    def channel_bindings(self) -> dict[str, bytes]:
        return channel_binding.bindings(self.transport)

    def start_tls(self) -> None:
        transport: Any = self.transport
        transport.startTLS(self.ctx)
        self.startedTLS = True

    async def login(self, username: str, password: str) -> Login:
        services = self.session.services
        check = services.authenticator.login(
            username, password, peer=self.peer, service=services.name
        )
        return await self._entered(check)

    async def scram_keys(self, username: str) -> Scram:
        return await self.session.services.authenticator.scram_keys(username, peer=self.peer)

    async def prove(self, username: str, proof: Proof) -> Login:
        services = self.session.services
        check = services.authenticator.prove(username, proof, peer=self.peer, service=services.name)
        return await self._entered(check)

    async def _entered(self, check: Coroutine[Any, Any, Login]) -> Login:
        # A client that hangs up does not stop the count of its bad logins.
        login: Login = await shielded(check)
        self._leave()
        self._leave = self.session.services.authenticator.watch(login, self._login_gone)
        self.idle_timeout_s = IDLE_S
        return login

    def _login_gone(self) -> None:
        """Who logged in may be here no longer."""
        self.session.stop("The login is no longer valid", busy=self.pump.busy)

    def note(self, text: str, **fields: object) -> None:
        log.info(text, session=self.session_id, **fields)

    def report(self, text: str, error: Exception) -> None:
        log.failure(text, Failure(error), session=self.session_id)

    def _failed(self, failure: Failure) -> None:
        """The session itself is broken: nobody knows where its input stands."""
        if self.pump.lost and failure.check(CancelledError, ConnectionClosed):
            return
        log.failure("bug in an IMAP session", failure, session=self.session_id)
        self.session.bye("Internal error")

    # -- what the factory asks -----------------------------------------------------------------

    @override
    def overdue(self, now: float) -> bool:
        if self.session.login is None and now - self._began > LOGIN_S:
            return True
        return super().overdue(now)

    def timed_out(self) -> None:
        self.session.bye("Idle for too long")

    def shut_down(self) -> None:
        self.session.stop(busy=self.pump.busy)


def _finish(work: Coroutine[Any, Any, None]) -> None:
    """Run clean-up that nobody waits for; what it raises is logged."""
    Deferred.fromCoroutine(work).addErrback(lambda failure: log.failure("clean-up", failure))


def builder(
    current: Callable[[], Services], *, tls: Callable[[], Any], secure: bool
) -> Callable[[SessionFactory, IAddress], MailIMAP4]:
    """What a factory builds sessions with; services and TLS are those of the moment."""

    def build(factory: SessionFactory, address: IAddress) -> MailIMAP4:
        return MailIMAP4(
            current(), tls=tls(), secure=secure, peer=str(getattr(address, "host", ""))
        )

    return build
