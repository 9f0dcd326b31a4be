"""One client's session: its state, and the loop from a unit of input to its answer.

The loop alone writes tagged answers, turns errors into NO and BAD, counts
them, and announces what changed behind each command as the command's row
allows. It knows nothing of sockets: :mod:`mailtwist.imap.ports` says what it asks
of them.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from mailtwist.errors import MailError, NotFound, ProtocolViolation, Refusal
from mailtwist.imap import sync
from mailtwist.imap.grammar import Parser
from mailtwist.imap.limits import BEFORE_LOGIN, Limits
from mailtwist.imap.machine import Machine
from mailtwist.imap.ports import Clock, Services, Wire
from mailtwist.imap.selected import Selected
from mailtwist.imap.table import Command, Completion, Continuation, Receiver, State, Sync
from mailtwist.imap.units import (
    AppendEnd,
    AppendStart,
    Block,
    Continue,
    Line,
    Violation,
    Wake,
    Whole,
)
from mailtwist.policy.sasl import usable

if TYPE_CHECKING:
    from mailtwist.policy.auth import Login
    from mailtwist.store.database import Database
    from mailtwist.store.snapshot import Snapshots

__all__ = ["Selected", "Services", "Session", "Wire"]


class Session:
    """The state of one connection. Small: most of a server's sessions are silent."""

    __slots__ = (
        "_errors",
        "_pending",
        "_receiver",
        "_refused",
        "_stopping",
        "enabled",
        "heard",
        "login",
        "machine",
        "selected",
        "services",
        "state",
        "wire",
    )

    def __init__(self, services: Services, wire: Wire, machine: Machine) -> None:
        self.services = services
        self.wire = wire
        self.machine = machine
        self.state = State.NOT_AUTHENTICATED
        self.login: Login | None = None
        self.selected: Selected | None = None
        self.enabled: frozenset[str] = frozenset()
        # A hint came while nothing was selected yet (SELECT looks at it).
        self.heard = False
        self._errors = 0
        self._stopping = ""  # the farewell
        # The command that asked for lines, and the one whose message is being read.
        self._pending: tuple[bytes, Command, Continuation] | None = None
        self._receiver: tuple[bytes, Command, Receiver] | None = None
        # A refusal that waits for the rest of its literal.
        self._refused: tuple[bytes, Exception] | None = None
        machine.limits = BEFORE_LOGIN

    # -- for commands -----------------------------------------------------------------------

    @property
    def database(self) -> Database:
        return self.services.database

    @property
    def snapshots(self) -> Snapshots:
        return self.services.snapshots

    @property
    def clock(self) -> Clock:
        return self.services.clock

    @property
    def limits(self) -> Limits:
        return self.machine.limits

    @property
    def account_id(self) -> int:
        assert self.login is not None, "only after the login"
        return self.login.account_id

    @property
    def utf8(self) -> bool:
        return "UTF8=ACCEPT" in self.enabled

    @property
    def may_login(self) -> bool:
        """Whether a password may cross this connection."""
        return self.wire.secure or self.services.allow_plaintext

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """What AUTHENTICATE takes on this connection."""
        return usable(self.services.mechanisms, can_bind=self.wire.can_bind)

    @property
    def tag(self) -> bytes:
        """The tag of the command that runs."""
        assert self._pending is not None, "only while a command runs"
        return self._pending[0]

    def mailbox(self) -> Selected:
        """The selected mailbox; only for commands of the selected state."""
        assert self.selected is not None, "only in the selected state"
        return self.selected

    def writable(self) -> Selected:
        """The selected mailbox, to be changed. Raises Refusal after EXAMINE."""
        selected = self.mailbox()
        if selected.read_only:
            raise Refusal("Mailbox is open read-only", imap_code="READ-ONLY")
        return selected

    def write(self, data: bytes) -> None:
        """Collect octets for the client; a chunk of input is answered by one write."""
        self.wire.write(data)

    def untagged(self, data: bytes) -> None:
        """Write one untagged response, given without its star and CRLF."""
        self.wire.write(b"* %b\r\n" % data)

    async def drained(self) -> None:
        """Let out what is written and wait for a slow reader."""
        await self.wire.drained()

    def ask(self, continuation: Continuation, prompt: bytes) -> None:
        """Send ``+ prompt`` and give the lines that follow to ``continuation``.

        Only for a command that then returns None.
        """
        assert self._pending is not None, "only while a command runs"
        tag, command, _ = self._pending
        self._pending = (tag, command, continuation)
        self.machine.expects_line = True
        self.write(b"+ " + prompt + b"\r\n")

    def enter(self, login: Login) -> None:
        """The client is who it says."""
        self.login = login
        self.state = State.AUTHENTICATED
        self._errors = 0
        self.machine.limits = self.services.limits

    def _start_tls(self) -> None:
        """Begin the handshake; nothing that came before it counts (RFC 9051 §11.1)."""
        self.wire.flush()
        self.machine.clear()
        self.enabled = frozenset()
        self.wire.start_tls()

    def select(self, selected: Selected) -> None:
        self.selected = selected
        self.state = State.SELECTED

    async def deselect(self) -> None:
        """Leave the selected mailbox, without a word to the client."""
        selected, self.selected = self.selected, None
        if selected is None:
            return
        self.state = State.AUTHENTICATED
        selected.unsubscribe()
        await sync.leave(self.database, selected)

    # -- events -----------------------------------------------------------------------------

    def changed(self, mailbox_id: int, modseq: int) -> None:
        """Hear of a change in the account; 0 stands for the list of mailboxes."""
        selected = self.selected
        if selected is None:
            self.heard = True
            return
        if mailbox_id not in {0, selected.mailbox_id}:
            return
        selected.stale = True
        if self.machine.expects_line:
            self.machine.wake()
            self.wire.kick()

    def bye(self, text: str) -> None:
        """Say farewell and close."""
        if self.state is State.LOGOUT:
            return
        self.state = State.LOGOUT
        self.untagged(b"BYE " + text.encode())
        self.wire.close()

    def stop(self, text: str = "Server shutting down", *, busy: bool = False) -> None:
        """End the session: say so as soon as nothing runs and no message is half read."""
        self._stopping = self._stopping or text
        if not busy and self._receiver is None and self._refused is None:
            self.bye(self._stopping)

    async def ended(self) -> None:
        """The connection is gone: undo what is not done, free what is shared."""
        if self._receiver is not None:
            _, _, receiver = self._receiver
            self._receiver = None
            await receiver.abandon()
        await self.deselect()

    # -- the loop ---------------------------------------------------------------------------

    async def run(self, unit: Any) -> None:
        """One unit of input, to the end of its answer."""
        await _UNITS[type(unit)](self, unit)
        if self._stopping:
            self.stop()

    async def _whole(self, unit: Whole) -> None:
        found = self._begin(unit.data)
        if found is not None:
            tag, command, parser = found
            await self._perform(tag, command, self._called(command, parser))

    async def _called(self, command: Command, parser: Parser) -> Completion | None:
        if command.stream is not None:
            raise ProtocolViolation(f"{command.name} needs a message literal")
        return await command.run(self, command.parse(parser))

    def _begin(self, data: bytes) -> tuple[bytes, Command, Parser] | None:
        """Read tag and name; None when that was answered with BAD."""
        parser = Parser(data, utf8=self.utf8)
        tag = b"*"
        try:
            tag = parser.tag()
            parser.space()
            command = self._named(parser)
            if self.state not in command.states:
                raise ProtocolViolation(f"{command.name} is not allowed in this state")
        except ProtocolViolation as error:
            self._refuse(tag, error)
            return None
        return tag, command, parser

    def _named(self, parser: Parser) -> Command:
        name = parser.keyword()
        if name == "UID":
            parser.space()
            name = f"UID {parser.keyword()}"
        command = self.services.commands.get(name)
        if command is None:
            raise ProtocolViolation("Unknown command")
        if not parser.at_end:
            parser.space()
        return command

    async def _perform(
        self, tag: bytes, command: Command, work: Coroutine[Any, Any, Completion | None]
    ) -> None:
        """Await ``work``, announce, answer."""
        self._pending = (tag, command, _SILENT)
        try:
            completion = await work
            if completion is None and self.machine.expects_line:
                return
            self._pending = None
            if completion is not None:
                before = self.state
                await self._synchronise(command.sync)
                if self.state is before:  # no farewell was said meanwhile
                    self._complete(tag, completion)
                if command.starts_tls:
                    self._start_tls()
        except Exception as error:
            self._pending = None
            self.machine.expects_line = False
            if self.wire.lost:
                raise
            self._refuse(tag, error)
        if self.state is State.LOGOUT:
            self.wire.close()

    def _complete(self, tag: bytes, completion: Completion) -> None:
        code = f"[{completion.code}] " if completion.code else ""
        self.write(b"%b OK %b\r\n" % (tag, _line(code + completion.text)))

    def _refuse(self, tag: bytes, error: Exception) -> None:
        """Answer NO or BAD."""
        if isinstance(error, ProtocolViolation):
            self._errors += 1
            status, code, text = b"BAD", error.imap_code, error.text
        elif isinstance(error, MailError):
            self._errors += self.login is None
            status, code, text = b"NO", error.imap_code, error.text
        else:
            self.wire.report("bug in an IMAP command", error=error)
            # RFC 5530 §3
            status, code, text = b"NO", "SERVERBUG", "Internal error"
        if code:
            text = f"[{code}] {text}"
        self.write(b"%b %b %b\r\n" % (tag, status, _line(text)))
        bound = self.limits.errors
        if bound and self._errors >= bound:
            self.bye("Too many errors")

    async def _synchronise(self, extent: Sync) -> None:
        selected = self.selected
        if selected is None or extent is Sync.NONE or not selected.stale:
            return
        try:
            await sync.synchronise(self, selected, may_expunge=extent is Sync.FULL)
        except NotFound:
            # RFC 2180 §3.3: the mailbox is gone under its reader.
            self.bye("The selected mailbox was deleted")
        except MailError as error:
            # The command itself is done; what changed is told another time.
            selected.stale = True
            self.wire.report("changes not announced", error=error)

    async def announce(self) -> None:
        """Announce everything now (IDLE)."""
        await self._synchronise(Sync.FULL)
        self.wire.flush()

    # -- lines behind a "+" -----------------------------------------------------------------

    async def _line(self, unit: Line) -> None:
        assert self._pending is not None
        tag, command, continuation = self._pending
        self.machine.expects_line = False
        await self._perform(tag, command, self._answered(continuation, unit.data))

    async def _answered(self, continuation: Continuation, data: bytes) -> Completion | None:
        return await continuation.line(self, data)

    async def _wake(self, unit: Wake) -> None:
        if self._pending is not None:
            await self._pending[2].woken(self)

    async def _continue(self, unit: Continue) -> None:
        self.write(b"+ Ready for literal data\r\n")
        self.wire.flush()

    async def _violation(self, unit: Violation) -> None:
        tag = unit.tag
        if self._pending is not None:
            tag, self._pending = self._pending[0], None
            self.machine.expects_line = False
        elif self._receiver is not None:
            (tag, _, receiver), self._receiver = self._receiver, None
            await receiver.abandon()
        elif self._refused is not None:
            tag, self._refused = self._refused[0], None
        self._refuse(tag, unit.error)
        if unit.is_fatal:
            self.bye("Too much data")

    # -- a message literal ------------------------------------------------------------------

    async def _append_start(self, unit: AppendStart) -> None:
        found = self._begin(unit.data)
        if found is None:
            self.machine.decline()
            return
        tag, command, parser = found
        try:
            if command.stream is None:
                raise ProtocolViolation(f"{command.name} takes no message")
            arguments = command.parse(parser)
            receiver = await command.stream(self, arguments, unit.octets)
        except Exception as error:
            if self.wire.lost:
                raise
            self.machine.decline()
            self._refuse(tag, error)
            return
        self._receiver = (tag, command, receiver)
        self.machine.accept()
        if unit.synchronising:
            self.write(b"+ Ready for literal data\r\n")
            self.wire.flush()

    async def _block(self, unit: Block) -> None:
        if self._receiver is None:
            return
        tag, _, receiver = self._receiver
        try:
            await receiver.block(unit.data)
        except Exception as error:
            if self.wire.lost:
                raise
            # The rest of the literal is on its way: it is read and dropped before the answer.
            self._receiver, self._refused = None, (tag, error)
            await receiver.abandon()

    async def _append_end(self, unit: AppendEnd) -> None:
        if self._refused is not None:
            (tag, error), self._refused = self._refused, None
            self._refuse(tag, error)
        elif self._receiver is not None:
            (tag, command, receiver), self._receiver = self._receiver, None
            await self._perform(tag, command, self._appended(receiver, unit.rest))

    async def _appended(self, receiver: Receiver, rest: bytes) -> Completion:
        if rest:
            await receiver.abandon()
            raise ProtocolViolation("Unexpected text behind the message")
        return await receiver.finish()


class _Silent:
    """What takes lines while nobody asked for any: no one."""

    async def line(self, session: Session, data: bytes) -> Completion | None:
        raise ProtocolViolation("Nothing was asked")

    async def woken(self, session: Session) -> None:
        pass


_SILENT = _Silent()

_UNITS: dict[type, Callable[[Session, Any], Coroutine[Any, Any, None]]] = {
    Whole: Session._whole,
    Line: Session._line,
    Wake: Session._wake,
    Continue: Session._continue,
    Violation: Session._violation,
    AppendStart: Session._append_start,
    Block: Session._block,
    AppendEnd: Session._append_end,
}


def _line(text: str) -> bytes:
    """``text`` as it may stand in one response line, whatever is in it."""
    return bytes(
        octet if 0x20 <= octet != 0x7F else 0x3F for octet in text.encode("utf-8", "replace")
    )
