r"""Cuts the octets of an SMTP client into lines and blocks, under bounds.

A command line ends with CRLF alone. A bare LF ends a line too, so that a
person at a raw socket is not left waiting, but such a line is never run.

A message ends with CRLF "." CRLF alone: no variant with a bare CR or LF
counts, and one anywhere makes the whole message `bare` (RFC 5321 §4.1.1.4).
Its octets are never split into lines: three searches over each block do.

A chunk of BDAT is so many octets, whatever they are (RFC 3030 §2).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

# Octets of a line, CRLF included. RFC 5321 §4.5.3.1.4, and room for parameters
# (RFC 1870 §3; RFC 4954 §4; RFC 3461 §5.4 add up to 1036 for MAIL and RCPT).
LINE = 512
LINES = {b"MAIL": 2048, b"RCPT": 2048, b"AUTH": 12288}
# RFC 4954 §4.
LONGEST_LINE = 12288

_END = b"\r\n.\r\n"
_STUFFED = b"\r\n."


class Violation(Enum):
    """A line that is no command; it was eaten to its end."""

    TOO_LONG = "Line too long"
    BARE = "Lines end with CRLF"


@dataclass(frozen=True, slots=True)
class Block:
    """Octets of a message, dots unstuffed; or of a chunk, as they came.

    bare: a CR or LF of the message stands alone in it (of a chunk :class:`LineEnds` tells).
    last: the message, or the chunk, ends with it.
    """

    data: bytes
    bare: bool
    last: bool


class LineEnds:
    """Whether each CR and LF of a message is half of a pair, however the message is cut."""

    __slots__ = ("_ends_in_cr", "_is_bare")

    def __init__(self) -> None:
        self._ends_in_cr = False
        self._is_bare = False

    def feed(self, data: bytes) -> bool:
        """Look at the next octets; whether one stands alone so far."""
        if not data:
            return self._is_bare
        pairs, feeds, returns = data.count(b"\r\n"), data.count(b"\n"), data.count(b"\r")
        if self._ends_in_cr:
            if data[0] == 10:
                feeds -= 1
            else:
                self._is_bare = True
        self._ends_in_cr = data[-1] == 13
        if self._ends_in_cr:
            returns -= 1
        self._is_bare = self._is_bare or feeds != pairs or returns != pairs
        return self._is_bare

    def end(self) -> bool:
        """The message is over: whether one stood alone."""
        return self._is_bare or self._ends_in_cr


class Input:
    """The machine of one session: `next` gives lines, violations and blocks.

    A line comes without its CRLF. After DATA was answered with 354 the session calls
    `start_message`, for BDAT `start_chunk`; after the last block lines follow again.
    """

    __slots__ = (
        "_buffer",
        "_chunk",
        "_eating",
        "_exchange",
        "_in_message",
        "_position",
        "_scanned",
        "_skip",
    )

    def __init__(self) -> None:
        self._buffer = b""
        self._position = 0
        self._scanned = 0  # up to here no line end was found
        self._eating = False  # inside a line that is too long
        self._exchange = False  # the line belongs to an AUTH exchange
        self._in_message = False
        self._skip = 0  # octets of the message that were never sent
        self._chunk: int | None = None  # octets of the chunk that are still to come

    @property
    def buffered(self) -> int:
        return len(self._buffer) - self._position

    def feed(self, data: bytes) -> None:
        if self._position == len(self._buffer):
            self._buffer = data
        else:
            self._buffer = self._buffer[self._position :] + data
        self._scanned -= self._position
        self._position = 0

    def clear(self) -> None:
        """Forget what is buffered and what it was part of."""
        self._buffer = b""
        self._position = self._scanned = self._skip = 0
        self._eating = self._exchange = self._in_message = False
        self._chunk = None

    def start_exchange(self) -> None:
        """The next line answers a challenge of AUTH and may be long."""
        self._exchange = True

    def start_message(self) -> None:
        """What follows is a message."""
        self._in_message = True
        # A CRLF that was never sent: so the very first line may be the end, or stuffed.
        self._buffer = b"\r\n" + self._buffer[self._position :]
        self._position = 0
        self._scanned = 0
        self._skip = 2

    def start_chunk(self, size: int) -> None:
        """What follows are so many octets."""
        self._chunk = size

    def next(self) -> bytes | Violation | Block | None:
        if self._chunk is not None:
            return self._chunk_block(self._chunk)
        return self._block() if self._in_message else self._line()

    # -- lines ------------------------------------------------------------------------------

    def _line(self) -> bytes | Violation | None:
        buffer, start = self._buffer, self._position
        end = buffer.find(b"\n", max(self._scanned, start))
        if end < 0:
            self._scanned = len(buffer)
            if len(buffer) - start >= LONGEST_LINE:
                # Its end will be answered; what came of it is forgotten at once.
                self._eating = True
                self._position = len(buffer)
            return None
        self._position = self._scanned = end + 1
        if self._eating:
            self._eating = self._exchange = False
            return Violation.TOO_LONG
        limit = LINE
        if self._exchange:
            limit = LONGEST_LINE
            self._exchange = False
        elif end - start >= LINE:
            limit = LINES.get(buffer[start : start + 4].upper(), LINE)
        if end + 1 - start > limit:
            return Violation.TOO_LONG
        # RFC 5321 §2.3.8: nothing but CRLF ends a line.
        line = buffer[start : end - 1]
        if end == start or buffer[end - 1] != 13 or b"\r" in line:
            return Violation.BARE
        return line

    # -- messages ---------------------------------------------------------------------------

    def _block(self) -> Block | None:
        buffer, start = self._buffer, self._position
        end = buffer.find(_END, start)
        if end >= 0:
            # The CRLF before the dot belongs to the message.
            cut = end + 2
            self._position = self._scanned = end + len(_END)
            self._in_message = False
        else:
            cut = _safe_cut(buffer, start)
            if cut <= start + self._skip:
                return None
            self._position = cut
        data = buffer[start:cut]
        pairs = data.count(b"\r\n")
        bare = data.count(b"\n") != pairs or data.count(b"\r") != pairs
        if _STUFFED in data:
            data = data.replace(_STUFFED, b"\r\n")
        if self._skip:
            data = data[self._skip :]
            self._skip = 0
        return Block(data, bare, end >= 0)

    # -- chunks -----------------------------------------------------------------------------

    def _chunk_block(self, rest: int) -> Block | None:
        data = self._buffer[self._position : self._position + rest]
        if rest and not data:
            return None
        self._position = self._scanned = self._position + len(data)
        rest -= len(data)
        self._chunk = rest or None
        return Block(data, False, not rest)


def _safe_cut(buffer: bytes, start: int) -> int:
    """Where an unfinished message may be cut: never inside CRLF, CRLF "." or its end."""
    cut = len(buffer) - (len(_END) - 1)
    if cut <= start:
        return start
    if buffer[cut - 1] == 13:
        return cut - 1
    if buffer[cut - 2 : cut] == b"\r\n":
        return cut - 2
    return cut
