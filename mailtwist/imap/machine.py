"""Octets to units: cuts the input into whole commands, under bounds.

A command is whole when its last line and all its literals are there; the
literals stay in place behind their ``{n}CRLF``. The message literal of APPEND
is the exception: it is handed on block by block and never held. The units
depend on the octets alone, not on how they were cut into chunks.

Whatever is refused here leaves client and server in step: the octets of a
literal that the client sends without waiting are skipped by count, never
looked at (RFC 7888 §4). When that would be too many, the violation is fatal
and the connection is closed.

Only CRLF ends a line; a bare CR or LF is part of it, and no token may hold one.
"""

from __future__ import annotations

import re

from mailtwist.errors import MailError, ProtocolViolation, Refusal
from mailtwist.imap.grammar import TAG
from mailtwist.imap.limits import BEFORE_LOGIN, TAG_OCTETS
from mailtwist.imap.units import (
    AppendEnd,
    AppendStart,
    Block,
    Continue,
    Line,
    Unit,
    Violation,
    Wake,
    Whole,
)

# The largest block of a streamed message: one read of the reactor.
BLOCK = 65536
# A literal header and the CRLF behind it are found in the last octets of an over-long line.
_TAIL = 32

_HEADER = re.compile(rb"~?\{([0-9]+)(\+?)\}")
# Digits that a number of octets may have; more of them are more than can ever come.
_DIGITS = 18
# Up to where the argument begins that may be the mailbox name as literal.
_APPEND = re.compile(rb"[^ ]+ append ", re.IGNORECASE)

_CONTINUE = Continue()
_WAKE = Wake()


class Machine:
    """The input side of one session.

    Exactly one of these is true at a time: a line is looked for (`_skip` and
    `_want` are 0), the literal of a command is being collected (`_want`), a
    message is being handed on (`_streaming`), octets are being skipped
    (`_skip`), or the rest of a refused line is being dropped (`_dropping`).
    """

    __slots__ = (
        "_buffer",
        "_dead",
        "_dropped",
        "_dropping",
        "_held",
        "_left",
        "_parts",
        "_pending",
        "_scanned",
        "_skip",
        "_streaming",
        "_tail_of_message",
        "_want",
        "_woken",
        "expects_line",
        "limits",
    )

    def __init__(self) -> None:
        self.limits = BEFORE_LOGIN
        # A continuation is open: the next line is no command.
        self.expects_line = False
        self._buffer = bytearray()
        self._woken = False
        self._reset()

    def _reset(self) -> None:
        self._scanned = 0  # no CRLF ends before here in the buffer
        self._parts: list[bytes] = []  # lines and literals of the command so far
        self._held = 0  # their octets
        self._want = 0  # octets of a literal to collect
        self._skip = 0  # octets to throw away
        self._dropping = False  # the line at hand is thrown away to its end
        self._dropped = 0  # how much of it, and of what else belongs to its command
        self._pending: AppendStart | None = None
        self._streaming = False
        self._left = 0  # octets of the message still to come
        self._tail_of_message = False  # the line behind the message comes next
        self._dead = False

    @property
    def buffered(self) -> int:
        return len(self._buffer)

    @property
    def in_literal(self) -> bool:
        """Whether the client is in the middle of a command that holds a literal."""
        return bool(self._parts or self._streaming or self._tail_of_message)

    def feed(self, data: bytes) -> None:
        if not self._dead:
            self._buffer += data

    def clear(self) -> None:
        """Forget every octet, and the command it belongs to."""
        self._buffer = bytearray()
        self._reset()

    def wake(self) -> None:
        """Make one Wake unit, if a continuation is still open when it is its turn."""
        self._woken = True

    def accept(self) -> None:
        """The message of the AppendStart is wanted: Blocks follow, then AppendEnd."""
        assert self._pending is not None, "no message is announced"
        self._left = self._pending.octets
        self._streaming = True
        self._pending = None

    def decline(self) -> None:
        """The message of the AppendStart is not wanted; skip it if it comes all the same."""
        assert self._pending is not None, "no message is announced"
        announced, self._pending = self._pending, None
        if not announced.synchronising:
            self._skip = announced.octets
            self._dropping = True
            self._dropped = 0

    def next(self) -> Unit | None:
        """The next unit, None when more octets are needed."""
        if self._woken:
            self._woken = False
            if self.expects_line:
                return _WAKE
        while not (self._dead or self._pending is not None):
            goes_on, unit = self._step()
            if unit is not None or not goes_on:
                return unit
        return None

    def _step(self) -> tuple[bool, Unit | None]:
        """Do what the state asks for. False: more octets are needed for it."""
        if self._skip:
            return self._skipped(), None
        if self._streaming:
            return self._message()
        if self._want:
            return self._collected(), None
        if self._dropping:
            return self._drop()
        return self._line()

    # -- octets by count --------------------------------------------------------------------

    def _take(self, octets: int) -> bytes:
        data = bytes(memoryview(self._buffer)[:octets])
        del self._buffer[:octets]
        self._scanned = 0
        return data

    def _skipped(self) -> bool:
        octets = min(self._skip, len(self._buffer))
        self._take(octets)
        self._skip -= octets
        return self._skip == 0

    def _collected(self) -> bool:
        """Move what is there of a literal to the command; True when it is complete."""
        octets = min(self._want, len(self._buffer))
        if octets:
            self._parts.append(self._take(octets))
            self._want -= octets
        return self._want == 0

    def _message(self) -> tuple[bool, Unit | None]:
        if not self._left:
            self._streaming = False
            self._tail_of_message = True
            return True, None
        octets = min(self._left, len(self._buffer), BLOCK)
        if not octets:
            return False, None
        self._left -= octets
        return True, Block(self._take(octets))

    # -- lines ------------------------------------------------------------------------------

    def _find_line(self) -> int:
        """The length of the line at hand, -1 when its end is not there yet."""
        end = self._buffer.find(b"\r\n", self._scanned)
        if end < 0:
            # A CR at the end may be half of it.
            self._scanned = max(0, len(self._buffer) - 1)
        return end

    def _line(self) -> tuple[bool, Unit | None]:
        """Look for a line. False: more octets are needed; else a unit or what belongs to one."""
        bound = self.limits.answer if self.expects_line else self.limits.line
        length = self._find_line()
        if length > bound or (length < 0 and len(self._buffer) > bound + 1):
            return True, self._too_long()
        if length < 0:
            return False, None
        line = self._take(length + 2)[:-2]
        if self._tail_of_message:
            self._tail_of_message = False
            if _header_start(line) >= 0:
                return True, self._extra_literal(line)
            return True, AppendEnd(line)
        if self.expects_line:
            return True, Line(line)
        return True, self._command_line(line)

    def _command_line(self, line: bytes) -> Unit | None:
        """One more line of a command: the last one, or one that announces a literal."""
        self._held += len(line) + 2
        if self._held > self.limits.command:
            return self._refuse(line, ProtocolViolation("Command too long", imap_code="TOOBIG"))
        start = _header_start(line)
        if start < 0:
            self._parts.append(line)
            data = b"".join(self._parts) if len(self._parts) > 1 else line
            self._parts = []
            self._held = 0
            return Whole(data)
        return self._announced(line, start)

    def _announced(self, line: bytes, start: int) -> Unit | None:
        """A line that ends in the literal header at ``start``."""
        octets, synchronising = _header(line, start)
        if octets < 0:  # {-1}, {}, {5-}, {10x}
            return self._refuse(line, ProtocolViolation("Invalid literal"))
        is_message = self._is_message(line, start)
        if octets > (self.limits.message if is_message else self.limits.command - self._held):
            error: MailError = ProtocolViolation("Literal too long", imap_code="TOOBIG")
            if is_message:
                error = Refusal("Message too large", imap_code="TOOBIG")
            return self._refuse(line, error)
        if line[start : start + 1] == b"~":
            # RFC 3516 §4.4: literal8 only where BINARY allows it.
            error = Refusal("Binary literals are not supported", imap_code="UNKNOWN-CTE")
            return self._refuse(line, error)
        if is_message:
            return self._message_announced(line[:start], octets, synchronising)
        self._parts.append(line + b"\r\n")
        self._held += octets
        self._want = octets
        return _CONTINUE if synchronising else None

    def _is_message(self, line: bytes, start: int) -> bool:
        """Whether the literal at ``start`` is the message of an APPEND, not its mailbox name."""
        if not self.limits.message:
            return False
        if self._parts:
            # Behind a mailbox name that is a literal itself.
            return _APPEND.match(self._parts[0]) is not None
        named = _APPEND.match(line)
        return named is not None and named.end() < start

    def _message_announced(self, before: bytes, octets: int, synchronising: bool) -> Unit:
        if not before.endswith(b" "):
            error = ProtocolViolation("Space expected before the message")
            return self._refuse(
                b"%b{%d%b}" % (before, octets, b"" if synchronising else b"+"), error
            )
        data = b"".join(self._parts) + before[:-1]
        self._parts = []
        self._held = 0
        self._pending = AppendStart(data, octets, synchronising)
        return self._pending

    def _extra_literal(self, line: bytes) -> Unit:
        """A second message in one APPEND: refused as a whole, and skipped if it comes."""
        self._drop_literal(_unasked(line))
        if self._dead:
            return Violation(b"*", Refusal("Too much data"), is_fatal=True)
        return AppendEnd(line)

    # -- refusing ---------------------------------------------------------------------------

    def _refuse(self, line: bytes, error: MailError) -> Violation:
        """Refuse the command that ``line`` belongs to, and stay in step with the client."""
        tag = _tag_of(self._parts[0] if self._parts else line)
        self._parts = []
        self._held = 0
        self._drop_literal(_unasked(line))
        return Violation(tag, error, is_fatal=self._dead)

    def _too_long(self) -> Violation:
        tag = (
            b"*"
            if self.expects_line
            else _tag_of(self._parts[0] if self._parts else bytes(self._buffer[: _TAIL * 4]))
        )
        self._parts = []
        self._held = 0
        self._tail_of_message = False
        self._dropping = True
        self._dropped = 0
        return Violation(tag, ProtocolViolation("Line too long", imap_code="TOOBIG"))

    def _drop_literal(self, octets: int) -> None:
        """Skip a literal and the rest of its command, or give up on the connection."""
        if not octets:
            return
        self._dropped += octets
        if self._dropped > self.limits.skip:
            self._die()
            return
        self._skip = octets
        self._dropping = True

    def _drop(self) -> tuple[bool, Violation | None]:
        """Throw the line at hand away. False: its end is not there yet."""
        length = self._find_line()
        octets = len(self._buffer) if length < 0 else length + 2
        # Counted before anything is taken, so that chunks make no difference.
        if self._dropped + octets > self.limits.skip:
            self._die()
            return True, Violation(b"*", Refusal("Too much data"), is_fatal=True)
        if length < 0:
            # The end may announce a literal, and is needed to see it.
            spare = max(0, octets - _TAIL)
            self._take(spare)
            self._dropped += spare
            return False, None
        self._dropped += octets
        line = self._take(octets)[:-2]
        self._dropping = False
        self._drop_literal(_unasked(line[-_TAIL:]))
        if self._dead:
            return True, Violation(b"*", Refusal("Too much data"), is_fatal=True)
        if not self._dropping:
            self._dropped = 0
        return True, None

    def _die(self) -> None:
        """Nothing that follows can be trusted to be where we think it is."""
        self._dead = True
        self._buffer = bytearray()


def _tag_of(line: bytes) -> bytes:
    """The tag of a command that will not be parsed; ``*`` when there is none."""
    found = TAG.match(line)
    if found is None or found.end() > TAG_OCTETS or line[found.end() : found.end() + 1] != b" ":
        return b"*"
    return found[0]


def _header_start(line: bytes) -> int:
    """Where the literal header begins that ``line`` ends in, -1 when it ends in none."""
    if not line.endswith(b"}"):
        return -1
    start = line.rfind(b"{")
    return start - 1 if start > 0 and line[start - 1 : start] == b"~" else start


def _header(line: bytes, start: int) -> tuple[int, bool]:
    """Octets announced (-1: it is no number), and whether the client waits for a ``+``."""
    found = _HEADER.fullmatch(line, start)
    if found is None:
        return -1, True
    return (int(found[1]) if len(found[1]) <= _DIGITS else 10**_DIGITS), not found[2]


def _unasked(line: bytes) -> int:
    """How many octets follow ``line`` as a literal that the client doesn't wait to send."""
    start = _header_start(line)
    if start < 0:
        # A header that is longer than what was kept of its line: no honest one is.
        return 10**_DIGITS if line.endswith(b"+}") and len(line) == _TAIL else 0
    octets, waits = _header(line, start)
    return 0 if waits else octets
