r"""Cuts the octets of an SMTP client into lines and blocks, under bounds.

A command line ends with CRLF alone. A bare LF ends a line too, so that a
person at a raw socket is not left waiting, but such a line is never run.

A message ends with CRLF "." CRLF alone: no variant with a bare CR or LF
counts, and one anywhere makes the whole message `bare` (RFC 5321 §4.1.1.4).
Its octets are never split into lines: three searches over each block do.
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
    """Octets of a message, dots unstuffed.

    bare: a CR or LF stands alone in it. last: the message ends with it.
    """

    data: bytes
    bare: bool
    last: bool


class Input:
    """The machine of one session: `next` gives lines, violations and blocks.

    A line comes without its CRLF. After DATA was answered with 354 the session
    calls `start_message`; after the last block lines follow again.
    """

    __slots__ = ("_buffer", "_eating", "_exchange", "_in_message", "_position", "_scanned", "_skip")

    def __init__(self) -> None:
        self._buffer = b""
        self._position = 0
        self._scanned = 0  # up to here no line end was found
        self._eating = False  # inside a line that is too long
        self._exchange = False  # the line belongs to an AUTH exchange
        self._in_message = False
        self._skip = 0  # octets of the message that were never sent

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

    def next(self) -> bytes | Violation | Block | None:
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
