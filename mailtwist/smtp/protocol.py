"""`twisted.mail.smtp.ESMTP` with our engine: framing, TLS, time-outs and back-pressure.

Kept of the base class: its place (protocol, portal, challengers, delivery and
context attributes), STARTTLS through `transport.startTLS`, and `authenticated`
and `startedTLS`. Every other method of it is replaced, because it parses lines
that we read as blocks, answers out of order or raises on hostile input;
`KEPT` lists what may still run, and a test makes all else raise.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import LoginFailed, UnauthorizedLogin
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.mail.smtp import ESMTP, IMessageDelivery
from twisted.python.failure import Failure
from typing_extensions import override

from mailtwist.errors import MailError, Refusal, TemporaryFailure
from mailtwist.net.factory import SessionFactory, Tracked
from mailtwist.net.pump import Pump, shielded
from mailtwist.net.session_id import new_session_id, session_id
from mailtwist.smtp import replies
from mailtwist.smtp.machine import Input
from mailtwist.smtp.session import Identity, Logins, Mailboxes, Session, Terms

log = Logger()

# Methods of the base classes that may run in a session.
KEPT = frozenset({"__init__", "makeConnection", "host", "logPrefix"})
# A message that takes longer than this is a connection held open (RFC 5321 §4.5.3.2.5, .6
# ask for minutes between blocks, not for hours in all).
LONGEST_MESSAGE_S = 3600.0


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
        logins: Logins,
        tls: Any = None,
        client_address: str = "",
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
            journal=log,
            session_id=self.session_id,
            client_address=client_address,
        )
        self.pump = Pump(self.input, self.session.run, on_error=self._failed, later=self.next_turn)
        self.pump.context.run(session_id.set, self.session_id)
        self._message_began = 0.0

    # -- twisted.internet.protocol -----------------------------------------------------------

    @override
    def connectionMade(self) -> None:
        self.pump.connect(self.transport)
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
        self.factory.forget(self)

    # -- what a session does to its connection ------------------------------------------------

    def write(self, data: bytes) -> None:
        self.pump.write(data)

    def start_exchange(self) -> None:
        self.input.start_exchange()

    def start_message(self) -> None:
        self._message_began = self.last_active
        self.input.start_message()

    def start_tls(self) -> None:
        # RFC 3207 §4.2: octets that came in the clear must not be run as if protected.
        self.input.clear()
        self.pump.flush()
        self.transport.startTLS(self.ctx)
        self.startedTLS = True

    def close(self) -> None:
        self.pump.close()

    def _failed(self, failure: Failure) -> None:
        if failure.check(CancelledError) and self.pump.lost:
            return
        self.session.failed(failure=failure)

    # -- what the factory asks -----------------------------------------------------------------

    @override
    def overdue(self, now: float) -> bool:
        if self.session.receiving and now - self._message_began > LONGEST_MESSAGE_S:
            return True
        return super().overdue(now)

    def timed_out(self) -> None:
        self.session.say_goodbye(replies.TIMEOUT)

    def shut_down(self) -> None:
        self.session.stop(busy=self.pump.busy)


class _Logins:
    """Checks a login by our authenticator or, when the protocol has one, by its portal."""

    def __init__(self, protocol: MailESMTP, logins: Logins) -> None:
        self._protocol = protocol
        self._logins = logins

    async def login(self, username: str, password: str, *, peer: str, service: str) -> Identity:
        if self._protocol.portal is not None:
            check = self._by_portal(username, password)
        else:
            check = self._logins.login(username, password, peer=peer, service=service)
        # A client that hangs up does not stop the count of its bad logins.
        login = await shielded(check)
        self._protocol.authenticated = True
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
    logins: Logins,
    tls: Callable[[], Any],
) -> Callable[[SessionFactory, IAddress], MailESMTP]:
    """What a factory builds sessions with; terms and TLS are those of the moment."""

    def build(factory: SessionFactory, address: IAddress) -> MailESMTP:
        return MailESMTP(
            current(),
            mailboxes=mailboxes,
            logins=logins,
            tls=tls(),
            client_address=str(getattr(address, "host", "")),
        )

    return build
