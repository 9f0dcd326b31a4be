"""Who the client is: STARTTLS, LOGIN, AUTHENTICATE (RFC 9051 §6.2; RFC 4959).

No password crosses a connection without TLS unless the configuration allows
it, and no octet that came before the handshake counts behind it.
"""

from __future__ import annotations

from binascii import b2a_base64
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mailtwist.errors import ProtocolViolation, Refusal
from mailtwist.imap.capabilities import announced
from mailtwist.imap.grammar import Parser, decode_base64, no_arguments
from mailtwist.imap.session import Session
from mailtwist.imap.table import NOT_AUTHENTICATED, Command, Completion
from mailtwist.policy.sasl import MECHANISMS, Challenge, Channel, Exchange

if TYPE_CHECKING:
    from mailtwist.policy.auth import Login


@dataclass(frozen=True, slots=True)
class Credentials:
    username: str
    password: str


async def starttls(session: Session, arguments: None) -> Completion:
    if session.wire.secure:
        raise ProtocolViolation("TLS is on already")
    if not session.services.can_start_tls:
        raise Refusal("TLS is not available", imap_code="UNAVAILABLE")
    return Completion("Begin TLS negotiation now")


def _require_privacy(session: Session) -> None:
    if not session.may_login:
        # RFC 9051 §6.2.3
        raise Refusal("Use STARTTLS first", imap_code="PRIVACYREQUIRED")


def _enter(session: Session, login: Login, name: str) -> Completion:
    if not login.account_id:
        # A user of another back-end, who may send mail and has no mailbox.
        raise Refusal("No mailbox belongs to this user", imap_code="AUTHORIZATIONFAILED")
    session.enter(login)
    # RFC 9051 §6.2.3: spares the client a CAPABILITY.
    return Completion(f"{name} completed", code=announced(session))


# -- LOGIN ----------------------------------------------------------------------------------


def parse_login(parser: Parser) -> Credentials:
    username = parser.text()
    parser.space()
    password = parser.text()
    parser.end()
    return Credentials(username, password)


async def login(session: Session, arguments: Credentials) -> Completion:
    _require_privacy(session)
    if not session.services.takes_passwords:
        raise Refusal("Use AUTHENTICATE", imap_code="CANNOT")
    login = await session.wire.login(arguments.username, arguments.password)
    return _enter(session, login, "LOGIN")


# -- AUTHENTICATE ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Attempt:
    mechanism: str
    initial: bytes | None


def parse_authenticate(parser: Parser) -> Attempt:
    mechanism = parser.keyword()
    initial = None
    if parser.accept(b" "):
        initial = parser.base64()
    parser.end()
    return Attempt(mechanism, initial)


class Dialogue:
    """The lines of one AUTHENTICATE."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def line(self, session: Session, data: bytes) -> Completion | None:
        if data == b"*":  # RFC 9051 §6.2.2
            raise ProtocolViolation("AUTHENTICATE cancelled")
        return await self.take(session, decode_base64(data))

    async def take(self, session: Session, response: bytes | None) -> Completion | None:
        outcome = await self._exchange.take(response)
        if isinstance(outcome, Challenge):
            session.ask(self, b2a_base64(outcome.octets, newline=False))
            return None
        return _enter(session, outcome, "AUTHENTICATE")

    async def woken(self, session: Session) -> None:
        """Nothing is selected yet."""


async def authenticate(session: Session, arguments: Attempt) -> Completion | None:
    offered = session.mechanisms
    if arguments.mechanism not in offered:
        raise Refusal("Unsupported authentication mechanism", imap_code="CANNOT")
    _require_privacy(session)
    mechanism = MECHANISMS[arguments.mechanism]
    # Octets are exported from TLS for nobody who does not ask.
    bindings = session.wire.channel_bindings() if mechanism.needs_channel else {}
    has_plus = any(MECHANISMS[name].needs_channel for name in offered)
    exchange = mechanism.make(session.wire, Channel(bindings, offers_plus=has_plus))
    return await Dialogue(exchange).take(session, arguments.initial)


ROWS = (
    Command("STARTTLS", no_arguments, starttls, NOT_AUTHENTICATED, starts_tls=True),
    Command("LOGIN", parse_login, login, NOT_AUTHENTICATED),
    Command("AUTHENTICATE", parse_authenticate, authenticate, NOT_AUTHENTICATED),
)
