"""One SMTP session: what is known of the client, the order of things, the loop.

The loop alone writes replies, counts errors, turns the error tree into
replies and ends the session. A message goes: MAIL and RCPT fill the envelope,
DATA or the first BDAT opens an `Incoming`, blocks go into it as they come, the
last one commits it. Whatever is wrong with a message or a chunk is remembered
and answered after its end (RFC 5321 §4.2.5: there is one reply to it), so that
its octets never run as commands.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from mailtwist.errors import MailError
from mailtwist.mail.address import Address
from mailtwist.mail.reply import Reply
from mailtwist.mail.trace import protocol_name
from mailtwist.net.networks import LOOPBACK
from mailtwist.policy.checks import NO_CHECKS, Checks, Facts, Stage
from mailtwist.policy.rates import NO_RATES, Client, Event, Rates
from mailtwist.policy.sasl import Exchange
from mailtwist.queue.envelope import Envelope, Origin
from mailtwist.queue.refusals import RELAY_DENIED, USER_UNKNOWN
from mailtwist.smtp import commands, grammar, replies
from mailtwist.smtp.chaos import Mishap
from mailtwist.smtp.examination import Examination
from mailtwist.smtp.machine import Block, LineEnds, Violation
from mailtwist.smtp.ports import Identity, Incoming, Logins, Mailboxes, Terms, Wire
from mailtwist.store.queue.values import BINARYMIME

# Refusals that a client may earn until a message of it is accepted; recipients not counted.
MAX_ERRORS = 20
MAX_UNKNOWN = 5
# Recipients that may be refused in a session: more is a dictionary being tried.
MAX_REFUSED = 100


@dataclass(slots=True)
class Message:
    """The message that is arriving. ``line_ends``: of one in chunks that are to be text."""

    incoming: Incoming
    refusal: Reply | None = None  # the answer that it already has coming
    line_ends: LineEnds | None = None
    mishap: Mishap | None = None


@dataclass(slots=True)
class Chunk:
    """The chunk whose octets are arriving; one that is refused has no message."""

    size: int
    is_last: bool
    refusal: Reply | None


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
        checks: Checks = NO_CHECKS,
        rates: Rates = NO_RATES,
        journal: Any,  # a twisted.logger.Logger
        session_id: str = "",
        client_address: str = "",
        client_port: int = 0,
    ) -> None:
        self.wire = wire
        self.terms = terms
        self.mailboxes = mailboxes
        self.logins = logins
        self.examination = Examination(checks)
        self.rates = rates
        self.journal = journal
        self.session_id = session_id
        self.client_address = client_address
        self.client_port = client_port
        self.is_from_loopback = client_address in LOOPBACK  # whatever XCLIENT says later
        self.tls = terms.implicit_tls
        self.stopping = False  # after the unit or message at work comes 421
        self.farewell = replies.SHUTTING_DOWN  # what is said then
        self.over = False  # the last reply was written
        self.lost = False  # the connection is gone
        self.errors = 0
        self.unknown = 0
        self.refused = 0
        self.failed_logins = 0
        self.message: Message | None = None
        self.chunk: Chunk | None = None
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

    def seem(self, client_address: str, client_port: int) -> None:
        """The client is somebody else's, who says for whom he speaks."""
        self.client_address, self.client_port = client_address, client_port
        self._is_relay = None

    @property
    def receiving(self) -> bool:
        """Whether a message is on its way in."""
        return self.message is not None or self.chunk is not None

    # -- the loop ---------------------------------------------------------------------------

    def greet(self) -> None:
        self.wire.write(replies.ready(self.terms.hostname).encode())

    async def run(self, unit: bytes | Violation | Block) -> None:
        """Handle one unit of input."""
        if type(unit) is bytes:
            self.answer(await self._line(unit))
        elif type(unit) is Block:
            await (self._block(unit) if self.chunk is None else self._chunk_block(unit))
        else:
            assert type(unit) is Violation
            self.answer(self._violated(unit))
        if self.stopping and not self.receiving:
            self.say_goodbye(self.farewell)

    def stop(self, farewell: Reply = replies.SHUTTING_DOWN, *, busy: bool) -> None:
        """End the session: now, or after the unit or message that is at work."""
        self.stopping = True
        self.farewell = farewell
        if not busy and not self.receiving:
            self.say_goodbye(farewell)

    async def examine(self, stage: Stage, argument: Any) -> Reply | None:
        """Ask the checks of a stage; the reply of one that refuses or defers.

        ``argument``: what the command at hand was parsed to.
        """
        if self.login is not None:
            return None
        refusal = await self.examination.ask(stage, self._facts(stage, argument))
        return None if refusal is None else Reply.of(refusal)

    async def may(self, event: Event, reverse_path: Address | None) -> bool:
        """Count what the client does; False: it did enough of it for now."""
        if not self.rates.counts(event) or self.terms.is_lmtp:
            return True
        username = "" if self.login is None else self.login.username
        return await self.rates.take(event, Client(self.client_address, username, reverse_path))

    def _facts(self, stage: Stage, argument: Any) -> Facts:
        envelope = self.envelope
        facts = Facts(
            self.client_address,
            self.helo,
            self.terms.hostname,
            self.tls,
            None if envelope is None else envelope.reverse_path,
            is_relay=self.may_relay,
        )
        if stage is Stage.HELO:
            return replace(facts, helo=argument)
        if stage is Stage.MAIL:
            return replace(facts, reverse_path=argument.reverse_path)
        return replace(facts, forward_path=argument.forward_path)

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
        self.message = Message(self._received(envelope), mishap=self._mishap_of(envelope))
        self.wire.start_message()

    def start_chunk(self, chunk: grammar.Chunk, refusal: Reply | None) -> None:
        """What follows is a chunk of this envelope's message, or one that is refused already."""
        is_first = self.message is None
        if refusal is None and is_first:
            assert self.envelope is not None
            is_text = self.envelope.mail.body != BINARYMIME
            self.message = Message(
                self._received(self.envelope),
                line_ends=LineEnds() if is_text else None,
                mishap=self._mishap_of(self.envelope),
            )
        self.chunk = Chunk(chunk.size, chunk.is_last, refusal)
        self.wire.start_chunk(chunk.size, is_first=is_first)

    def _mishap_of(self, envelope: Envelope) -> Mishap | None:
        chaos = self.terms.chaos
        if chaos is None:
            return None
        each = (chaos.at("data", str(recipient.address)) for recipient in envelope.recipients)
        return next(filter(None, each), None)

    def _received(self, envelope: Envelope) -> Incoming:
        origin = self._origin(envelope)
        return self.mailboxes.receive(envelope, origin, limit=self.terms.max_size)

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
                is_lmtp=self.terms.is_lmtp,
            ),
            is_tls=self.tls,
            is_sandbox=self.terms.dev_mode,
            account_id=self.login.account_id if self.login is not None else 0,
            is_authenticated=self.login is not None,
            may_relay=self.may_relay,
            verdict=self.examination.verdict,
        )

    async def _block(self, block: Block) -> None:
        message = self.message
        assert message is not None
        if message.refusal is None:
            self._meet(message)
            message.refusal = await self._take(message.incoming, block)
            if message.refusal is not None:
                await message.incoming.discard()
        if block.last:
            await self._end_message(message)

    async def _chunk_block(self, block: Block) -> None:
        chunk = self.chunk
        assert chunk is not None
        if chunk.refusal is None and block.data:
            await self._take_of_chunk(chunk, block)
        if not block.last:
            return
        self.chunk = None
        if chunk.refusal is not None:
            await self._end_refused(chunk.refusal)
        elif chunk.is_last:
            assert self.message is not None
            await self._end_message(self.message)
        else:
            self.answer(replies.chunk_taken(chunk.size))

    async def _take_of_chunk(self, chunk: Chunk, block: Block) -> None:
        message = self.message
        assert message is not None
        self._meet(message)
        line_ends = message.line_ends
        is_bare = line_ends is not None and line_ends.feed(block.data)
        chunk.refusal = await self._take(message.incoming, Block(block.data, is_bare, block.last))

    async def _end_refused(self, reply: Reply) -> None:
        """A chunk was refused, and with it all of its message (RFC 3030 §2)."""
        message, envelope = self.message, self.envelope
        if message is not None:
            assert envelope is not None
            await self.reset()
            self._log_outcome(reply, envelope)
            self._conclude(reply, envelope)
        else:
            self.answer(reply)

    async def _end_message(self, message: Message) -> None:
        envelope, self.envelope = self.envelope, None
        assert envelope is not None
        # From here on the message is the store's, whatever becomes of the connection.
        self.message = None
        if message.line_ends is not None and message.line_ends.end():
            message.refusal = replies.BARE_IN_MESSAGE
            await message.incoming.discard()
        if message.mishap is not None and message.refusal is None:
            await self._suffer(message, message.mishap)
        reply = message.refusal or await self._accept(message.incoming)
        self._log_outcome(reply, envelope)
        self._conclude(reply, envelope)

    async def _suffer(self, message: Message, mishap: Mishap) -> None:
        await self.wire.pause(mishap.delay_s)
        if mishap.reply is not None:
            message.refusal = mishap.reply
            await message.incoming.discard()

    def _conclude(self, reply: Reply, envelope: Envelope) -> None:
        """Answer a message: once, or once for each recipient."""
        self.answer(reply)
        if self.terms.is_lmtp:
            # RFC 2033 §4.2: in the order of RCPT.
            for _ in envelope.recipients[1:]:
                if not self.over:
                    self.wire.write(replies.wire(reply))

    async def reset(self) -> None:
        """Forget the transaction, and what of its message has come."""
        self.envelope = None
        await self.abandon()

    def _meet(self, message: Message) -> None:
        """Cut a message off that chaos has chosen."""
        if message.mishap is not None and message.mishap.is_drop:
            self.wire.cut()

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
            queue_id = await self.wire.to_its_end(incoming.accept())
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
        """Forget the message that was on its way."""
        message, self.message = self.message, None
        if message is not None and message.refusal is None:
            await message.incoming.discard()
