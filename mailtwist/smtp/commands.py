"""The commands: a table, and for each verb what it checks and does.

A row names the argument's parser, the refusal that the session's state alone
earns, and the act. To add a command, add a row.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from mailtwist.errors import MailError, ProtocolViolation
from mailtwist.mail.reply import Reply
from mailtwist.policy.checks import Stage
from mailtwist.policy.rates import Event
from mailtwist.queue.envelope import Envelope, Mail
from mailtwist.smtp import debug, grammar, replies, sasl
from mailtwist.smtp.extensions import announced, may_log_in, mechanisms_of
from mailtwist.store.queue.values import BINARYMIME

if TYPE_CHECKING:
    from mailtwist.smtp.session import Session

MAX_FAILED_LOGINS = 5

Check = Callable[["Session"], Reply | None]


@dataclass(frozen=True, slots=True)
class Command:
    """One verb. `act` gets what `parse` made; None from it: the reply was written already.

    `stage`: at which checks of strangers are asked before it.
    """

    parse: Callable[[bytes], Any]
    check: Check
    act: Callable[[Session, Any], Awaitable[Reply | None]]
    stage: Stage | None = None


async def run(session: Session, line: bytes) -> Reply | None:
    """Run one command line. Raises: MailError."""
    verb, _, argument = line.partition(b" ")
    known = LMTP_COMMANDS if session.terms.is_lmtp else COMMANDS
    command = known.get(verb) or known.get(verb.upper().rstrip())
    if command is None:
        return replies.UNKNOWN_COMMAND if line.strip() else replies.BAD_LINE
    refusal = command.check(session)
    if refusal is not None:
        return refusal
    parsed = command.parse(argument)
    if command.stage is not None and session.examination.is_asked(command.stage):
        refusal = await session.examine(command.stage, parsed)
        if refusal is not None:
            return refusal
    return await command.act(session, parsed)


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
    if session.message is not None:
        return replies.OUT_OF_ORDER
    # RFC 5321 §4.5.3.1.8 asks for room for 100; 452 so that the client sends the rest
    # in a second transaction (§4.5.3.1.10).
    if len(session.envelope.recipients) >= session.terms.max_recipients:
        return replies.TOO_MANY_RECIPIENTS
    return None


def check_data(session: Session) -> Reply | None:
    refusal = check_content(session)
    if refusal is not None:
        return refusal
    if session.message is not None:
        # RFC 3030 §2: one message is not sent in two ways.
        return replies.OUT_OF_ORDER
    assert session.envelope is not None
    # RFC 3030 §3
    is_binary = session.envelope.mail.body == BINARYMIME
    return replies.IN_CHUNKS_ALONE if is_binary else None


def check_content(session: Session) -> Reply | None:
    """What a message needs before it."""
    refusal = _in_order(session)
    if refusal is not None:
        return refusal
    if session.envelope is None:
        return replies.MAIL_FIRST
    return None if session.envelope.recipients else replies.RCPT_FIRST


def check_xclient(session: Session) -> Reply | None:
    if not (session.terms.xclient_on and session.is_from_loopback):
        return replies.NOT_TRUSTED
    return replies.OUT_OF_ORDER if session.envelope is not None else None


def check_xdebug(session: Session) -> Reply | None:
    return None if session.terms.dev_mode else replies.NOT_HERE


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
    await session.reset()
    session.helo, session.esmtp = name, True
    return Reply(250, "", (f"{session.terms.hostname} Hello {name}", *announced(session)))


async def helo(session: Session, name: str) -> Reply:
    await session.reset()
    session.helo, session.esmtp = name, False
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
    if session.login is not None and not await _may_send_as(session, arguments):
        return replies.NOT_YOUR_ADDRESS
    if not await session.may(Event.MESSAGE, arguments.reverse_path):
        return replies.RATE_EXCEEDED
    session.envelope = Envelope(arguments)
    return replies.SENDER_OK


async def _may_send_as(session: Session, arguments: Mail) -> bool:
    assert session.login is not None
    # What a project sends goes nowhere: it may play anybody.
    return _owns(session, arguments) or await session.mailboxes.captures(session.login.account_id)


def _owns(session: Session, arguments: Mail) -> bool:
    """Whether the login may send as this address; anyone may use the null path (for an MDN)."""
    path = arguments.reverse_path
    assert session.login is not None
    if path is None or path.folded in session.login.addresses:
        return True
    base, plus, _tag = path.folded.rpartition("@")[0].partition("+")
    return bool(plus) and f"{base}@{path.domain}" in session.login.addresses


async def rcpt(session: Session, arguments: grammar.Rcpt) -> Reply | None:
    envelope = session.envelope
    assert envelope is not None
    if arguments.is_extended and not session.esmtp:
        return replies.ESMTP_ONLY
    if arguments.is_utf8 and not envelope.mail.smtputf8:
        return replies.UTF8_NOT_DECLARED
    if session.terms.chaos is not None:
        mishap = session.terms.chaos.at("rcpt", str(arguments.forward_path))
        if mishap is not None:
            await session.wire.pause(mishap.delay_s)
            if mishap.is_drop:
                session.wire.cut()
                return None
            if mishap.reply is not None:
                return mishap.reply
    try:
        recipient = await session.mailboxes.admit(
            arguments.forward_path,
            size=envelope.mail.size,
            may_relay=session.may_relay,
            is_sandbox=session.terms.dev_mode,
            is_bounce=envelope.reverse_path is None,
            account_id=0 if session.login is None else session.login.account_id,
        )
    except MailError as error:
        session.log_refused_recipient(arguments.forward_path, envelope, error)
        raise
    if not await session.may(Event.RECIPIENT, envelope.reverse_path):
        return replies.RATE_EXCEEDED
    if arguments.is_extended:
        recipient = replace(recipient, notify=arguments.notify, orcpt=arguments.orcpt)
    envelope.recipients.append(recipient)
    return replies.RECIPIENT_OK


async def data(session: Session, _: None) -> Reply:
    assert session.envelope is not None
    session.start_message(session.envelope)
    return replies.START_MESSAGE


async def bdat(session: Session, chunk: grammar.Chunk) -> None:
    """The answer follows the octets, of a chunk that is refused too."""
    refusal = Reply(501, "5.5.4", chunk.problem) if chunk.problem else check_content(session)
    session.start_chunk(chunk, refusal)


async def rset(session: Session, _: None) -> Reply:
    await session.reset()
    return replies.RESET_OK


# -- TLS and logins -------------------------------------------------------------------------


async def starttls(session: Session, _: None) -> None:
    session.wire.write(replies.wire(replies.START_TLS))
    # Forgets the octets that came behind the command: they were not protected.
    session.wire.start_tls()
    # RFC 3207 §4.2: so is all that was said before.
    await session.reset()
    session.forget()
    session.tls = True


async def auth(session: Session, arguments: grammar.Auth) -> Reply:
    if arguments.mechanism not in mechanisms_of(session):
        return replies.UNKNOWN_MECHANISM
    session.exchange = sasl.begin(session, arguments.mechanism)
    if arguments.initial is None:
        return await sasl.respond(session, None)
    if arguments.initial == b"=":
        return await _admitted(session, await sasl.respond(session, b""))
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
    return await _admitted(session, await sasl.respond(session, response))


async def _admitted(session: Session, reply: Reply) -> Reply:
    """Who logged in may have come too often."""
    if reply is not replies.AUTHENTICATED or await session.may(Event.LOGIN, None):
        return reply
    session.login = None
    return replies.TOO_MANY_CONNECTIONS


def _ended(session: Session, reply: Reply) -> Reply:
    session.exchange = None
    return reply


# -- the rest -------------------------------------------------------------------------------


async def noop(session: Session, _: bytes) -> Reply:
    return replies.OK


async def vrfy(session: Session, _: bytes) -> Reply:
    # Who has a mailbox here is nobody's business (RFC 5321 §7.3).
    return replies.CANNOT_VRFY


async def expn(session: Session, _: bytes) -> Reply:
    return replies.NO_EXPN


async def help_(session: Session, _: bytes) -> Reply:
    known = LMTP_COMMANDS if session.terms.is_lmtp else COMMANDS
    verbs = " ".join(verb.decode("ascii") for verb in known if verb not in _UNTOLD)
    return Reply(214, "2.0.0", (f"Commands: {verbs}", "RFC 5321 says how to use them"))


async def quit_(session: Session, _: None) -> Reply:
    return replies.BYE


async def xclient(session: Session, attributes: dict[str, str]) -> Reply:
    """A trusted neighbour tells whose connection this really is."""
    address, port = attributes.get("ADDR"), attributes.get("PORT", "")
    if address is not None:
        session.seem(_ip_address(address), int(port) if port.isdigit() else 0)
    if name := attributes.get("HELO"):
        session.helo = grammar.parse_greeting(name.encode())
    if protocol := attributes.get("PROTO"):
        session.esmtp = protocol.upper() == "ESMTP"
    return replies.OK


def _ip_address(text: str) -> str:
    """Of what XCLIENT says, "" for an unknown one. Raises: ProtocolViolation."""
    try:
        return str(ip_address(text[5:] if text[:5].lower() == "ipv6:" else text)) if text else ""
    except ValueError:
        raise ProtocolViolation("Bad XCLIENT attribute") from None


COMMANDS: dict[bytes, Command] = {
    b"EHLO": Command(grammar.parse_greeting, anytime, ehlo, Stage.HELO),
    b"HELO": Command(grammar.parse_greeting, anytime, helo, Stage.HELO),
    b"MAIL": Command(grammar.parse_mail, check_mail, mail, Stage.MAIL),
    b"RCPT": Command(grammar.parse_rcpt, check_rcpt, rcpt, Stage.RCPT),
    b"DATA": Command(grammar.parse_nothing, check_data, data),
    b"RSET": Command(grammar.parse_nothing, anytime, rset),
    b"NOOP": Command(grammar.parse_text, anytime, noop),
    b"QUIT": Command(grammar.parse_nothing, anytime, quit_),
    b"VRFY": Command(grammar.parse_needed, anytime, vrfy),
    b"EXPN": Command(grammar.parse_needed, anytime, expn),
    b"HELP": Command(grammar.parse_text, anytime, help_),
    b"STARTTLS": Command(grammar.parse_nothing, check_starttls, starttls),
    b"AUTH": Command(grammar.parse_auth, check_auth, auth),
    b"BDAT": Command(grammar.parse_chunk, anytime, bdat),
    b"XCLIENT": Command(grammar.parse_xclient, check_xclient, xclient),
    b"XDEBUG": Command(grammar.parse_text, check_xdebug, debug.xdebug),
}
# RFC 2033 §4.1
LMTP_COMMANDS: dict[bytes, Command] = {
    b"LHLO": COMMANDS[b"EHLO"],
    **{verb: command for verb, command in COMMANDS.items() if verb not in {b"EHLO", b"HELO"}},
}
# For neighbours and developers.
_UNTOLD = frozenset({b"XCLIENT", b"XDEBUG"})
