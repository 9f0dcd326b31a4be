"""The commands: a table, and for each verb what it checks and does.

A row names the argument's parser, the refusal that the session's state alone
earns, and the act. To add a command, add a row.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mailtwist.errors import MailError
from mailtwist.mail.reply import Reply
from mailtwist.queue.envelope import Envelope, Mail
from mailtwist.smtp import grammar, replies, sasl
from mailtwist.smtp.extensions import announced, may_log_in

if TYPE_CHECKING:
    from mailtwist.smtp.session import Session

MAX_FAILED_LOGINS = 5

Check = Callable[["Session"], Reply | None]


@dataclass(frozen=True, slots=True)
class Command:
    """One verb. `act` gets what `parse` made; None from it: the reply was written already."""

    parse: Callable[[bytes], Any]
    check: Check
    act: Callable[[Session, Any], Awaitable[Reply | None]]


async def run(session: Session, line: bytes) -> Reply | None:
    """Run one command line. Raises: MailError."""
    verb, _, argument = line.partition(b" ")
    command = COMMANDS.get(verb) or COMMANDS.get(verb.upper().rstrip())
    if command is None:
        return replies.UNKNOWN_COMMAND if line.strip() else replies.BAD_LINE
    refusal = command.check(session)
    if refusal is not None:
        return refusal
    return await command.act(session, command.parse(argument))


# -- what the state alone refuses -----------------------------------------------------------


def anytime(session: Session) -> Reply | None:
    return None


def _in_order(session: Session) -> Reply | None:
    """What every command of a transaction needs first: TLS, a login, a greeting."""
    terms = session.terms
    if terms.tls_required and not session.tls:
        return replies.TLS_FIRST
    if terms.login_required and session.login is None:
        return replies.LOGIN_NEEDED
    if not session.helo:
        return replies.GREET_FIRST
    return None


def check_mail(session: Session) -> Reply | None:
    return _in_order(session) or (replies.NESTED_MAIL if session.envelope else None)


def check_rcpt(session: Session) -> Reply | None:
    refusal = _in_order(session)
    if refusal is not None:
        return refusal
    if session.envelope is None:
        return replies.MAIL_FIRST
    # RFC 5321 §4.5.3.1.8 asks for room for 100; 452 so that the client sends the rest
    # in a second transaction (§4.5.3.1.10).
    if len(session.envelope.recipients) >= session.terms.max_recipients:
        return replies.TOO_MANY_RECIPIENTS
    return None


def check_data(session: Session) -> Reply | None:
    refusal = _in_order(session)
    if refusal is not None:
        return refusal
    if session.envelope is None:
        return replies.MAIL_FIRST
    return None if session.envelope.recipients else replies.RCPT_FIRST


def check_starttls(session: Session) -> Reply | None:
    if session.tls:
        return replies.TLS_ACTIVE
    return None if session.terms.offers_tls else replies.NO_TLS


def check_auth(session: Session) -> Reply | None:
    """The order is that of RFC 4954 §4: what can't be, what may not be, what is too early."""
    if not session.terms.mechanisms:
        return replies.NO_AUTH
    if session.login is not None:
        return replies.ALREADY_AUTHENTICATED
    if not may_log_in(session):
        return replies.AUTH_NEEDS_TLS
    if not session.helo:
        return replies.GREET_FIRST
    if session.envelope is not None:
        return replies.AUTH_IN_TRANSACTION
    if session.failed_logins >= MAX_FAILED_LOGINS:
        return replies.TOO_MANY_LOGINS
    return None


# -- greetings ------------------------------------------------------------------------------


async def ehlo(session: Session, name: str) -> Reply:
    # RFC 5321 §4.1.4: EHLO ends a transaction, as RSET does.
    session.helo, session.esmtp, session.envelope = name, True, None
    return Reply(250, "", (f"{session.terms.hostname} Hello {name}", *announced(session)))


async def helo(session: Session, name: str) -> Reply:
    session.helo, session.esmtp, session.envelope = name, False, None
    return Reply(250, "", f"{session.terms.hostname} Hello {name}")


# -- the transaction ------------------------------------------------------------------------


async def mail(session: Session, arguments: Mail) -> Reply:
    if arguments.is_extended and not session.esmtp:
        return replies.ESMTP_ONLY
    # RFC 1870 §6.1
    if arguments.size > session.terms.max_size:
        return replies.too_large(session.terms.max_size, arguments.size)
    if arguments.requiretls and not session.tls:
        return replies.REQUIRETLS_NEEDS_TLS
    if session.login is not None and not _owns(session, arguments):
        return replies.NOT_YOUR_ADDRESS
    session.envelope = Envelope(arguments)
    return replies.SENDER_OK


def _owns(session: Session, arguments: Mail) -> bool:
    """Whether the login may send as this address; anyone may use the null path (for an MDN)."""
    path = arguments.reverse_path
    assert session.login is not None
    if path is None or path.folded in session.login.addresses:
        return True
    base, plus, _tag = path.folded.rpartition("@")[0].partition("+")
    return bool(plus) and f"{base}@{path.domain}" in session.login.addresses


async def rcpt(session: Session, arguments: grammar.Rcpt) -> Reply:
    envelope = session.envelope
    assert envelope is not None
    if arguments.is_extended and not session.esmtp:
        return replies.ESMTP_ONLY
    if arguments.is_utf8 and not envelope.mail.smtputf8:
        return replies.UTF8_NOT_DECLARED
    try:
        recipient = await session.mailboxes.admit(
            arguments.forward_path,
            size=envelope.mail.size,
            may_relay=session.may_relay,
            is_sandbox=session.terms.dev_mode,
            is_bounce=envelope.reverse_path is None,
        )
    except MailError as error:
        session.log_refused_recipient(arguments.forward_path, envelope, error)
        raise
    if arguments.is_extended:
        recipient = replace(recipient, notify=arguments.notify, orcpt=arguments.orcpt)
    envelope.recipients.append(recipient)
    return replies.RECIPIENT_OK


async def data(session: Session, _: None) -> Reply:
    assert session.envelope is not None
    session.start_message(session.envelope)
    return replies.START_MESSAGE


async def rset(session: Session, _: None) -> Reply:
    session.envelope = None
    return replies.RESET_OK


# -- TLS and logins -------------------------------------------------------------------------


async def starttls(session: Session, _: None) -> None:
    session.wire.write(replies.wire(replies.START_TLS))
    # Forgets the octets that came behind the command: they were not protected.
    session.wire.start_tls()
    # RFC 3207 §4.2: so is all that was said before.
    session.forget()
    session.tls = True


async def auth(session: Session, arguments: grammar.Auth) -> Reply:
    mechanism = sasl.MECHANISMS.get(arguments.mechanism)
    if mechanism is None or arguments.mechanism not in session.terms.mechanisms:
        return replies.UNKNOWN_MECHANISM
    session.exchange = mechanism()
    if arguments.initial is None:
        return _challenged(session, session.exchange.start())
    if arguments.initial == b"=":
        return await _respond(session, b"")
    return await continue_auth(session, arguments.initial)


async def continue_auth(session: Session, line: bytes) -> Reply:
    """Take a line of the client in an exchange. Raises: MailError for a refused login."""
    if line == b"*":
        return _ended(session, replies.AUTH_CANCELLED)
    if len(line) > sasl.MAX_RESPONSE:
        return _ended(session, replies.AUTH_TOO_LONG)
    response = sasl.decoded(line)
    if response is None:
        return _ended(session, replies.AUTH_BAD_RESPONSE)
    return await _respond(session, response)


async def _respond(session: Session, response: bytes) -> Reply:
    assert session.exchange is not None
    outcome = session.exchange.take(response)
    if isinstance(outcome, sasl.Credentials):
        session.exchange = None
        return await _log_in(session, outcome)
    return _challenged(session, outcome)


def _challenged(session: Session, reply: Reply) -> Reply:
    if reply.code != 334:
        return _ended(session, reply)
    session.wire.start_exchange()
    return reply


def _ended(session: Session, reply: Reply) -> Reply:
    session.exchange = None
    return reply


async def _log_in(session: Session, credentials: sasl.Credentials) -> Reply:
    try:
        session.login = await session.logins.login(
            credentials.username,
            credentials.password,
            peer=session.client_address,
            service=session.terms.service,
        )
    except MailError:
        session.failed_logins += 1
        raise
    session.failed_logins = 0
    return replies.AUTHENTICATED


# -- the rest -------------------------------------------------------------------------------


async def noop(session: Session, _: bytes) -> Reply:
    return replies.OK


async def vrfy(session: Session, _: bytes) -> Reply:
    # Who has a mailbox here is nobody's business (RFC 5321 §7.3).
    return replies.CANNOT_VRFY


async def expn(session: Session, _: bytes) -> Reply:
    return replies.NO_EXPN


async def help_(session: Session, _: bytes) -> Reply:
    verbs = " ".join(verb.decode("ascii") for verb in COMMANDS)
    return Reply(214, "2.0.0", (f"Commands: {verbs}", "RFC 5321 says how to use them"))


async def quit_(session: Session, _: None) -> Reply:
    return replies.BYE


COMMANDS: dict[bytes, Command] = {
    b"EHLO": Command(grammar.parse_greeting, anytime, ehlo),
    b"HELO": Command(grammar.parse_greeting, anytime, helo),
    b"MAIL": Command(grammar.parse_mail, check_mail, mail),
    b"RCPT": Command(grammar.parse_rcpt, check_rcpt, rcpt),
    b"DATA": Command(grammar.parse_nothing, check_data, data),
    b"RSET": Command(grammar.parse_nothing, anytime, rset),
    b"NOOP": Command(grammar.parse_text, anytime, noop),
    b"QUIT": Command(grammar.parse_nothing, anytime, quit_),
    b"VRFY": Command(grammar.parse_needed, anytime, vrfy),
    b"EXPN": Command(grammar.parse_needed, anytime, expn),
    b"HELP": Command(grammar.parse_text, anytime, help_),
    b"STARTTLS": Command(grammar.parse_nothing, check_starttls, starttls),
    b"AUTH": Command(grammar.parse_auth, check_auth, auth),
}
