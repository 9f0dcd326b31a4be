"""`twisted.mail.smtp.ESMTP` with our engine: framing, TLS, time-outs and back-pressure.

Kept of the base class: its place (protocol, portal, challengers, delivery and
context attributes), STARTTLS through `transport.startTLS`, and `authenticated`
and `startedTLS`. Every other method of it is replaced, because it parses lines
that we read as blocks, answers out of order or raises on hostile input;
`KEPT` lists what may still run, and a test makes all else raise.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import LoginFailed, UnauthorizedLogin
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.mail.smtp import ESMTP, IMessageDelivery
from twisted.python.failure import Failure
from typing_extensions import override

from mailtwist.errors import MailError, Refusal, TemporaryFailure
from mailtwist.net import channel_binding
from mailtwist.net.factory import SessionFactory, Tracked
from mailtwist.net.pump import Pump, shielded
from mailtwist.net.session_id import new_session_id, session_id
from mailtwist.policy.checks import NO_CHECKS, Checks
from mailtwist.policy.passwords import Scram
from mailtwist.policy.rates import NO_RATES, Rates
from mailtwist.policy.scram import Proof
from mailtwist.smtp import replies
from mailtwist.smtp.machine import Input
from mailtwist.smtp.ports import Identity, Logins, Mailboxes, Terms
from mailtwist.smtp.session import Session

T = TypeVar("T")

log = Logger()

# Methods of the base classes that may run in a session.
KEPT = frozenset({"__init__", "makeConnection", "host", "logPrefix"})


class Authenticator(Logins, Protocol):
    """The logins, and word of those that end."""

    def watch(self, login: Any, gone: Callable[[], object]) -> Callable[[], None]: ...


def _nothing() -> None:
    pass


class MailESMTP(Tracked, ESMTP):
    """One connection. The session has the state, the pump the octets."""

    factory: SessionFactory
    portal: Any = None
    transport: Any

    def __init__(
        self,
        terms: Terms,
        *,
        mailboxes: Mailboxes,
        logins: Authenticator,
        checks: Checks = NO_CHECKS,
        rates: Rates = NO_RATES,
        tls: Any = None,
        client_address: str = "",
        client_port: int = 0,
    ) -> None:
        ESMTP.__init__(self, contextFactory=tls)
        self.host = terms.hostname.encode("ascii")
        self.idle_timeout_s = terms.idle_timeout_s
        self.startedTLS = terms.implicit_tls
        self.session_id = new_session_id()
        self.input = Input()
        self.session = Session(
            self,
            terms=terms,
            mailboxes=mailboxes,
            logins=_Logins(self, logins),
            checks=checks,
            rates=rates,
            journal=log,
            session_id=self.session_id,
            client_address=client_address,
            client_port=client_port,
        )
        self.pump = Pump(self.input, self.session.run, on_error=self._failed, later=self.next_turn)
        self.pump.context.run(session_id.set, self.session_id)
        self._began = self._message_began = 0.0
        self.leave: Callable[[], None] = _nothing  # ends the watch over the login

    # -- twisted.internet.protocol -----------------------------------------------------------

    @override
    def connectionMade(self) -> None:
        self.pump.connect(self.transport)
        self._began = self.last_active
        log.debug("connection", session=self.session_id, client=self.session.client_address)
        self.session.greet()
        self.pump.flush()

    @override
    def dataReceived(self, data: bytes) -> None:
        self.last_active = self.factory.clock.seconds()
        self.pump.data_received(data)

    @override
    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        session = self.session
        session.lost = True
        self.pump.connection_lost(reason)
        if session.message is not None:
            _finish(session.abandon())
        self.leave()
        self.factory.forget(self)

    def login_gone(self) -> None:
        """Who logged in may be here no longer."""
        self.session.stop(replies.LOGIN_GONE, busy=self.pump.busy)

    # -- what a session does to its connection ------------------------------------------------

    def write(self, data: bytes) -> None:
        self.pump.write(data)

    def start_exchange(self) -> None:
        self.input.start_exchange()

    def start_message(self) -> None:
        self._message_began = self.last_active
        self.input.start_message()

    def start_chunk(self, size: int, *, is_first: bool) -> None:
        if is_first:
            self._message_began = self.last_active
        self.input.start_chunk(size)

    @property
    def can_bind(self) -> bool:
        return channel_binding.is_possible(self.transport)

    def channel_bindings(self) -> dict[str, bytes]:
        return channel_binding.bindings(self.transport)

    def start_tls(self) -> None:
        # RFC 3207 §4.2: octets that came in the clear must not be run as if protected.
        self.input.clear()
        self.pump.flush()
        self.transport.startTLS(self.ctx)
        self.startedTLS = True

    async def pause(self, seconds: float) -> None:
        if seconds:
            await deferLater(self.factory.clock, seconds)  # type: ignore[arg-type]

    def to_its_end(self, work: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
        return self.pump.to_its_end(work)

    def cut(self) -> None:
        self.pump.abort()

    def close(self) -> None:
        self.pump.close()

    def _failed(self, failure: Failure) -> None:
        if failure.check(CancelledError) and self.pump.lost:
            return
        self.session.failed(failure=failure)

    # -- what the factory asks -----------------------------------------------------------------

    @override
    def overdue(self, now: float) -> bool:
        limit = self.session.terms.session_timeout_s
        if limit:
            began = self._message_began if self.session.receiving else self._began
            if now - began > limit and not self.pump.busy:
                return True
        return super().overdue(now)

    def timed_out(self) -> None:
        self.session.say_goodbye(replies.TIMEOUT)

    def shut_down(self) -> None:
        self.session.stop(busy=self.pump.busy)


class _Logins:
    """Checks a login by our authenticator or, when the protocol has one, by its portal."""

    def __init__(self, protocol: MailESMTP, logins: Authenticator) -> None:
        self._protocol = protocol
        self._logins = logins

    async def login(self, username: str, password: str, *, peer: str, service: str) -> Identity:
        if self._protocol.portal is not None:
            check = self._by_portal(username, password)
        else:
            check = self._logins.login(username, password, peer=peer, service=service)
        return await self._entered(check)

    async def scram_keys(self, username: str, *, peer: str) -> Scram:
        return await self._logins.scram_keys(username, peer=peer)

    async def prove(self, username: str, proof: Proof, *, peer: str, service: str) -> Identity:
        if self._protocol.portal is not None:  # which knows passwords alone
            raise Refusal("Authentication credentials invalid", code=535, status="5.7.8")
        return await self._entered(self._logins.prove(username, proof, peer=peer, service=service))

    async def _entered(self, check: Coroutine[Any, Any, Identity]) -> Identity:
        # A client that hangs up does not stop the count of its bad logins.
        login = await shielded(check)
        protocol = self._protocol
        protocol.authenticated = True
        if protocol.portal is None:
            protocol.leave()
            protocol.leave = self._logins.watch(login, protocol.login_gone)
        return login

    async def _by_portal(self, username: str, password: str) -> Identity:
        """twisted.cred: the avatar is an IMessageDelivery that knows its `login`."""
        credentials = UsernamePassword(username.encode(), password.encode())
        try:
            _, avatar, logout = await self._protocol.portal.login(
                credentials, None, IMessageDelivery
            )
        except UnauthorizedLogin as error:
            cause = error.__cause__
            if isinstance(cause, MailError):
                raise cause from None
            raise Refusal("Authentication credentials invalid", code=535, status="5.7.8") from error
        except LoginFailed as error:
            raise TemporaryFailure(
                "Temporary authentication failure", code=454, status="4.7.0"
            ) from error
        logout()
        login: Identity = avatar.login
        return login


def _finish(work: Coroutine[Any, Any, None]) -> None:
    """Run clean-up that nobody waits for; what it raises is logged."""
    Deferred.fromCoroutine(work).addErrback(lambda failure: log.failure("clean-up", failure))


def builder(
    current: Callable[[], Terms],
    *,
    mailboxes: Mailboxes,
    logins: Authenticator,
    checks: Checks = NO_CHECKS,
    rates: Rates = NO_RATES,
    tls: Callable[[], Any],
) -> Callable[[SessionFactory, IAddress], MailESMTP]:
    """What a factory builds sessions with; terms and TLS are those of the moment."""

    def build(factory: SessionFactory, address: IAddress) -> MailESMTP:
        return MailESMTP(
            current(),
            mailboxes=mailboxes,
            logins=logins,
            checks=checks,
            rates=rates,
            tls=tls(),
            client_address=str(getattr(address, "host", "")),
            client_port=int(getattr(address, "port", 0)),
        )

    return build
