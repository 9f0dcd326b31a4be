"""Who the client is: STARTTLS, LOGIN, AUTHENTICATE (RFC 9051 §6.2; RFC 4959; RFC 4616).

No password crosses a connection without TLS unless the configuration allows
it, and no octet that came before the handshake counts behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mailtwist.errors import ProtocolViolation, Refusal
from mailtwist.imap.capabilities import announced
from mailtwist.imap.grammar import Parser, decode_base64, no_arguments
from mailtwist.imap.session import Session
from mailtwist.imap.table import NOT_AUTHENTICATED, Command, Completion

_USERNAME = b"VXNlcm5hbWU6"  # Username:
_PASSWORD = b"UGFzc3dvcmQ6"  # Password:


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


async def _enter(session: Session, credentials: Credentials, name: str) -> Completion:
    session.enter(await session.wire.login(credentials.username, credentials.password))
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
    return await _enter(session, arguments, "LOGIN")


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


class Exchange(Protocol):
    """One run of a mechanism."""

    prompt: bytes

    def answer(self, response: bytes) -> Credentials | None:
        """Take a response; None when `prompt` asks for another."""


class Plain:
    """RFC 4616: authzid NUL authcid NUL password."""

    prompt = b""

    def answer(self, response: bytes) -> Credentials | None:
        parts = response.split(b"\0")
        if len(parts) != 3:
            raise ProtocolViolation("Invalid PLAIN response")
        acting_as, username, password = map(_text, parts)
        # Nobody acts for another here; to ignore the wish would act as the wrong one.
        if acting_as and acting_as.casefold() != username.casefold():
            raise Refusal("May not act as another user", imap_code="AUTHORIZATIONFAILED")
        return Credentials(username, password)


class Login:
    """The old two questions."""

    def __init__(self) -> None:
        self.prompt = _USERNAME
        self._username: str | None = None

    def answer(self, response: bytes) -> Credentials | None:
        if self._username is None:
            self._username = _text(response)
            self.prompt = _PASSWORD
            return None
        return Credentials(self._username, _text(response))


MECHANISMS: dict[str, type[Plain] | type[Login]] = {"PLAIN": Plain, "LOGIN": Login}


class Dialogue:
    """The lines of one AUTHENTICATE."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def line(self, session: Session, data: bytes) -> Completion | None:
        if data == b"*":  # RFC 9051 §6.2.2
            raise ProtocolViolation("AUTHENTICATE cancelled")
        return await self.take(session, decode_base64(data))

    async def take(self, session: Session, response: bytes) -> Completion | None:
        credentials = self._exchange.answer(response)
        if credentials is None:
            session.ask(self, self._exchange.prompt)
            return None
        return await _enter(session, credentials, "AUTHENTICATE")

    async def woken(self, session: Session) -> None:
        """Nothing is selected yet."""


async def authenticate(session: Session, arguments: Attempt) -> Completion | None:
    mechanism = MECHANISMS.get(arguments.mechanism)
    if mechanism is None:
        raise Refusal("Unsupported authentication mechanism", imap_code="CANNOT")
    _require_privacy(session)
    exchange = mechanism()
    dialogue = Dialogue(exchange)
    if arguments.initial is not None:
        return await dialogue.take(session, arguments.initial)
    session.ask(dialogue, exchange.prompt)
    return None


def _text(octets: bytes) -> str:
    if b"\0" in octets:  # in no user name (RFC 4616 §2), and in no text of a database
        raise ProtocolViolation("NUL in credentials")
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise ProtocolViolation("Credentials are not valid UTF-8") from None


ROWS = (
    Command("STARTTLS", no_arguments, starttls, NOT_AUTHENTICATED, starts_tls=True),
    Command("LOGIN", parse_login, login, NOT_AUTHENTICATED),
    Command("AUTHENTICATE", parse_authenticate, authenticate, NOT_AUTHENTICATED),
)
