"""One SMTP session: what is known of the client, the order of things, the loop.

The loop alone writes replies, counts errors, turns the error tree into
replies and ends the session. A message goes: MAIL and RCPT fill the envelope,
DATA opens an `Incoming`, blocks go into it as they come, its last one commits
it. Whatever is wrong with a message is remembered and answered after its end
(RFC 5321 §4.2.5: there is one reply to it), so that its octets never run as
commands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from mailtwist.errors import MailError
from mailtwist.mail.address import Address
from mailtwist.mail.reply import Reply
from mailtwist.mail.trace import protocol_name
from mailtwist.queue.envelope import Envelope, Origin, Recipient
from mailtwist.queue.refusals import RELAY_DENIED, USER_UNKNOWN
from mailtwist.smtp import commands, replies
from mailtwist.smtp.machine import Block, Violation
from mailtwist.smtp.sasl import Exchange

# Refusals that a client may earn until a message of it is accepted; recipients not counted.
MAX_ERRORS = 20
MAX_UNKNOWN = 5
# Recipients that may be refused in a session: more is a dictionary being tried.
MAX_REFUSED = 100


class Networks(Protocol):
    def __contains__(self, address: str, /) -> bool: ...


@dataclass(frozen=True, slots=True)
class Terms:
    """What a listener grants; one value for all its sessions, replaced when settings change."""

    hostname: str
    service: str = "smtp"  # smtp | submission | submissions
    max_size: int = 26_214_400
    max_recipients: int = 100
    idle_timeout_s: float = 300.0
    implicit_tls: bool = False
    offers_tls: bool = False
    tls_required: bool = False
    login_required: bool = False
    mechanisms: tuple[str, ...] = ()  # of AUTH; empty: no AUTH
    plaintext_logins: bool = False  # from loopback, without TLS
    relays: Networks = ()  # clients that may relay without a login
    dev_mode: bool = False


class Identity(Protocol):
    """Who logged in."""

    @property
    def account_id(self) -> int: ...
    @property
    def username(self) -> str: ...
    @property
    def addresses(self) -> frozenset[str]: ...


class Incoming(Protocol):
    """One message on its way in."""

    async def write(self, block: bytes) -> None:
        """Take a block. Raises: MailError; nothing is written after that."""

    async def accept(self) -> str:
        """Commit the message to all its recipients; its queue id.

        Raises: MailError, and has then forgotten the message.
        """

    async def discard(self) -> None:
        """Forget it. Never raises."""


class Mailboxes(Protocol):
    """Where mail goes: recipients are admitted, messages received."""

    async def admit(
        self, address: Address, *, size: int, may_relay: bool, is_sandbox: bool, is_bounce: bool
    ) -> Recipient:
        """The recipient that an address names. Raises: MailError."""

    def receive(self, envelope: Envelope, origin: Origin, *, limit: int) -> Incoming: ...


class Logins(Protocol):
    async def login(self, username: str, password: str, *, peer: str, service: str) -> Identity: ...


class Wire(Protocol):
    """The connection, as far as commands touch it."""

    def write(self, data: bytes) -> None: ...
    def start_exchange(self) -> None: ...
    def start_message(self) -> None: ...
    def start_tls(self) -> None: ...
    def close(self) -> None: ...


@dataclass(slots=True)
class Message:
    """The message that is arriving."""

    incoming: Incoming
    refusal: Reply | None = None  # the answer that it already has coming


class Session:
    """The state of one connection, and the loop over its input."""

    terms: Terms

    def __init__(
        self,
        wire: Wire,
        *,
        terms: Terms,
        mailboxes: Mailboxes,
        logins: Logins,
        journal: Any,  # a twisted.logger.Logger
        session_id: str = "",
        client_address: str = "",
    ) -> None:
        self.wire = wire
        self.terms = terms
        self.mailboxes = mailboxes
        self.logins = logins
        self.journal = journal
        self.session_id = session_id
        self.client_address = client_address
        self.tls = terms.implicit_tls
        self.stopping = False  # after the unit or message at work comes 421
        self.over = False  # the last reply was written
        self.lost = False  # the connection is gone
        self.errors = 0
        self.unknown = 0
        self.refused = 0
        self.failed_logins = 0
        self.message: Message | None = None
        self.helo = ""  # the argument of EHLO or HELO
        self.esmtp = False
        self.login: Identity | None = None
        self.envelope: Envelope | None = None
        self.exchange: Exchange | None = None
        self._is_relay: bool | None = None

    def forget(self) -> None:
        """Back to the state after the greeting (RFC 3207 §4.2)."""
        self.helo = ""
        self.esmtp = False
        self.login = self.envelope = self.exchange = None

    @property
    def may_relay(self) -> bool:
        """Whether the client may send to foreign domains."""
        if self.login is not None:
            return True
        if self._is_relay is None:
            # Networks are compared one by one, and neither side ever changes in a session.
            self._is_relay = self.client_address in self.terms.relays
        return self._is_relay

    @property
    def receiving(self) -> bool:
        """Whether a message is on its way in."""
        return self.message is not None

    # -- the loop ---------------------------------------------------------------------------

    def greet(self) -> None:
        self.wire.write(replies.ready(self.terms.hostname).encode())

    async def run(self, unit: bytes | Violation | Block) -> None:
        """Handle one unit of input."""
        if type(unit) is bytes:
            self.answer(await self._line(unit))
        elif type(unit) is Block:
            await self._block(unit)
        else:
            assert type(unit) is Violation
            self.answer(self._violated(unit))
        if self.stopping and self.message is None:
            self.say_goodbye(replies.SHUTTING_DOWN)

    def stop(self, *, busy: bool) -> None:
        """End the session: now, or after the unit or message that is at work."""
        self.stopping = True
        if not busy and self.message is None:
            self.say_goodbye(replies.SHUTTING_DOWN)

    async def _line(self, line: bytes) -> Reply | None:
        try:
            if self.exchange is not None:
                return await commands.continue_auth(self, line)
            return await commands.run(self, line)
        except MailError as error:
            if error.detail:
                self.journal.info(
                    "command failed", session=self.session_id, detail=error.detail, code=error.code
                )
            return Reply.of(error)

    def _violated(self, violation: Violation) -> Reply:
        if self.exchange is not None:
            self.exchange = None
            return replies.AUTH_TOO_LONG if violation is Violation.TOO_LONG else replies.BAD_LINE
        if violation is Violation.TOO_LONG:
            return replies.LINE_TOO_LONG
        return replies.BARE_LINE_END

    def answer(self, reply: Reply | None) -> None:
        """Write a reply and count it; some replies end the session."""
        if reply is None:
            return
        code = reply.code
        if code >= 500:
            reply = self._counted(reply)
            code = reply.code
        self.wire.write(replies.wire(reply))
        if code in {421, 221} or reply is replies.TOO_MANY_UNKNOWN:
            self.end()

    def _counted(self, reply: Reply) -> Reply:
        """The reply itself, or the last one, when there were too many of its kind."""
        if reply is replies.UNKNOWN_COMMAND:
            self.unknown += 1
            if self.unknown >= MAX_UNKNOWN:
                return replies.TOO_MANY_UNKNOWN
        # A suppressed address has the status of an unknown one.
        if reply.status == USER_UNKNOWN.status or reply == RELAY_DENIED:
            self.refused += 1
            return replies.TOO_MANY_REFUSED if self.refused >= MAX_REFUSED else reply
        self.errors += 1
        if self.errors >= MAX_ERRORS:
            return replies.TOO_MANY_ERRORS
        return reply

    def failed(self, **fields: Any) -> None:
        """A bug of ours ended a unit: the client may try again (RFC 5321 §4.2.4.1)."""
        self.journal.failure("command raised", session=self.session_id, **fields)
        self.exchange = None
        self.answer(replies.LOCAL_ERROR)

    def say_goodbye(self, reply: Reply) -> None:
        if not self.over:
            self.wire.write(replies.wire(reply))
            self.end()

    def end(self) -> None:
        self.over = True
        self.wire.close()

    # -- a message --------------------------------------------------------------------------

    def start_message(self, envelope: Envelope) -> None:
        """What follows is the message of this envelope."""
        limit = self.terms.max_size
        origin = self._origin(envelope)
        self.message = Message(self.mailboxes.receive(envelope, origin, limit=limit))
        self.wire.start_message()

    def _origin(self, envelope: Envelope) -> Origin:
        return Origin(
            hostname=self.terms.hostname,
            session_id=self.session_id,
            client_address=self.client_address,
            helo=self.helo,
            protocol=protocol_name(
                is_esmtp=self.esmtp,
                is_tls=self.tls,
                is_authenticated=self.login is not None,
                is_utf8=envelope.mail.smtputf8,
            ),
            is_tls=self.tls,
            is_sandbox=self.terms.dev_mode,
            account_id=self.login.account_id if self.login is not None else 0,
            is_authenticated=self.login is not None,
            may_relay=self.may_relay,
        )

    async def _block(self, block: Block) -> None:
        message = self.message
        assert message is not None
        if message.refusal is None:
            message.refusal = await self._take(message.incoming, block)
            if message.refusal is not None:
                await message.incoming.discard()
        if block.last:
            envelope, self.envelope = self.envelope, None
            assert envelope is not None
            # From here on the message is the store's, whatever becomes of the connection.
            self.message = None
            reply = message.refusal or await self._accept(message.incoming)
            self._log_outcome(reply, envelope)
            self.answer(reply)

    async def _take(self, incoming: Incoming, block: Block) -> Reply | None:
        """Hand a block on; the refusal that it earns, or None."""
        if block.bare:
            return replies.BARE_IN_MESSAGE
        try:
            await incoming.write(block.data)
        except MailError as error:
            return self._refusal(error)
        except Exception:
            if self.lost:
                raise  # the wait was ended because the client is gone
            self.journal.failure("message raised", session=self.session_id)
            return replies.LOCAL_ERROR
        return None

    async def _accept(self, incoming: Incoming) -> Reply:
        try:
            queue_id = await incoming.accept()
        except MailError as error:
            return self._refusal(error)
        except Exception:
            if self.lost:
                raise  # the wait was ended because the client is gone
            self.journal.failure("message raised", session=self.session_id)
            return replies.LOCAL_ERROR
        self.errors = 0
        return replies.queued(queue_id)

    def _refusal(self, error: MailError) -> Reply:
        if error.detail:
            self.journal.info(
                "message not stored", session=self.session_id, detail=error.detail, code=error.code
            )
        if error.code == 552:
            return replies.too_large(self.terms.max_size)
        return Reply.of(error)

    def _log_outcome(self, reply: Reply, envelope: Envelope) -> None:
        """Acceptance is logged where it is committed; here what was not accepted."""
        if reply.code >= 400:
            self.journal.info(
                "message refused",
                session=self.session_id,
                code=reply.code,
                status=reply.status,
                text=reply.text,
                reverse_path=str(envelope.reverse_path or "<>"),
                recipients=len(envelope.recipients),
                client=self.client_address,
            )

    def log_refused_recipient(
        self, forward_path: Address, envelope: Envelope, error: MailError
    ) -> None:
        self.journal.info(
            "recipient refused",
            session=self.session_id,
            code=error.code,
            status=error.status,
            text=error.text,
            reverse_path=str(envelope.reverse_path or "<>"),
            forward_path=str(forward_path),
            client=self.client_address,
        )

    async def abandon(self) -> None:
        """The client is gone: forget the message that was on its way."""
        message, self.message = self.message, None
        if message is not None and message.refusal is None:
            await message.incoming.discard()
