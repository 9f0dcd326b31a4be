"""XDEBUG: what a session knows of itself, for developers (dev_mode alone)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.reply import Reply

if TYPE_CHECKING:
    from mailtwist.smtp.session import Session

Lines = Iterator[str]


def state_of(session: Session) -> str:
    """How far the transaction is."""
    if session.envelope is None:
        return "INIT"
    if session.message is not None:
        return "DATA"
    return "RCPT" if session.envelope.recipients else "MAIL"


def _everything(session: Session) -> Lines:
    envelope = session.envelope
    sender = "" if envelope is None else str(envelope.reverse_path or "<>")
    recipients = [] if envelope is None else [str(each.address) for each in envelope.recipients]
    yield "Debug information:"
    yield f"Session ID: {session.session_id}"
    yield f"Client IP: {_client(session)}"
    yield f"Hostname: {session.terms.hostname}"
    yield f"State: {state_of(session)}"
    yield f"Mail From: {sender}"
    yield f"Rcpt To: {', '.join(recipients)}"
    yield "Context:"


def _context(session: Session) -> Lines:
    yield "Context:"
    yield f"Greeting: {session.helo}"
    yield f"Protocol: {'ESMTP' if session.esmtp else 'SMTP'}"
    yield f"Login: {session.login.username if session.login is not None else ''}"
    yield f"May relay: {'yes' if session.may_relay else 'no'}"
    yield f"Errors: {session.errors}"


def _state(session: Session) -> Lines:
    yield f"State: {state_of(session)}"


def _connection(session: Session) -> Lines:
    yield "Connection:"
    yield f"Client IP: {_client(session)}"
    yield f"Service: {session.terms.service}"
    yield f"TLS: {'yes' if session.tls else 'no'}"


def _client(session: Session) -> str:
    address = session.client_address
    return f"{f'[{address}]' if ':' in address else address}:{session.client_port}"


TOPICS: Final[dict[bytes, Callable[[Session], Lines]]] = {
    b"": _everything,
    b"CONTEXT": _context,
    b"STATE": _state,
    b"CONNECTION": _connection,
}


async def xdebug(session: Session, argument: bytes) -> Reply:
    """Raises: ProtocolViolation."""
    topic = TOPICS.get(argument.strip().upper())
    if topic is None:
        raise ProtocolViolation("Syntax: XDEBUG [CONTEXT|STATE|CONNECTION]")
    return Reply(250, "", tuple(line.rstrip() for line in topic(session)))
