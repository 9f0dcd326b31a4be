"""What a Redis answers, read from the octets as they come.

One pass over each octet, and no more than the bounds below in memory, whatever a peer sends.
Of version 2 of the protocol, which is what a server speaks to a client that asks for nothing
else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, TypeAlias

from mailtwist.errors import ProtocolViolation

MAX_LINE: Final = 1 << 12
MAX_VALUE: Final = 1 << 22
MAX_REPLY: Final = 1 << 26
MAX_ITEMS: Final = 4096
MAX_DEPTH: Final = 3
_END: Final = b"\r\n"


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """``text``: begins with a word in capitals, such as NOSCRIPT."""

    text: str


Reply: TypeAlias = "bytes | int | ErrorReply | list[Reply] | None"


@dataclass(slots=True)
class _Array:
    """One that is not complete."""

    size: int
    items: list[Reply] = field(default_factory=list)


class Replies:
    """Give it octets, take replies out."""

    __slots__ = ("_arrays", "_buffer", "_octets", "_searched", "_wanted")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0  # octets at the front that hold no end of a line
        self._wanted = -1  # octets of the value that comes; -1: a line comes
        self._octets = 0  # of values of the reply that comes
        self._arrays: list[_Array] = []

    def feed(self, data: bytes) -> list[Reply]:
        """The replies that are complete now. Raises: ProtocolViolation."""
        self._buffer += data
        found: list[Reply] = []
        at = 0
        while (taken := self._read(at, found)) > at:
            at = taken
        del self._buffer[:at]
        self._searched = max(0, self._searched - at)
        return found

    def _read(self, at: int, found: list[Reply]) -> int:
        """Read one line or value; where it ends, or ``at`` while it is not all there."""
        if self._wanted >= 0:
            return self._read_value(at, found)
        end = self._buffer.find(_END, max(at, self._searched - 1))
        if (len(self._buffer) if end < 0 else end) - at > MAX_LINE:
            raise ProtocolViolation("a line of a reply is too long")
        if end < 0:
            self._searched = len(self._buffer)
            return at
        self._read_line(bytes(self._buffer[at:end]), found)
        return end + len(_END)

    def _read_value(self, at: int, found: list[Reply]) -> int:
        end = at + self._wanted
        if len(self._buffer) < end + len(_END):
            return at
        if self._buffer[end : end + len(_END)] != _END:
            raise ProtocolViolation("a value of a reply does not end")
        self._wanted = -1
        self._add(bytes(self._buffer[at:end]), found)
        return end + len(_END)

    def _read_line(self, line: bytes, found: list[Reply]) -> None:
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            self._add(rest, found)
        elif kind == b"-":
            self._add(ErrorReply(rest.decode("ascii", "backslashreplace")), found)
        elif kind == b":":
            self._add(_number(rest), found)
        elif kind == b"$":
            self._begin_value(_number(rest), found)
        elif kind == b"*":
            self._begin_array(_number(rest), found)
        else:
            raise ProtocolViolation("this is no reply")

    def _begin_value(self, octets: int, found: list[Reply]) -> None:
        if octets == -1:
            self._add(None, found)
            return
        self._octets += octets
        if not 0 <= octets <= MAX_VALUE or self._octets > MAX_REPLY:
            raise ProtocolViolation("a value of a reply is too large")
        self._wanted = octets

    def _begin_array(self, size: int, found: list[Reply]) -> None:
        if size == -1:
            self._add(None, found)
        elif size == 0:
            self._add([], found)
        elif 0 < size <= MAX_ITEMS and len(self._arrays) < MAX_DEPTH:
            self._arrays.append(_Array(size))
        else:
            raise ProtocolViolation("a list of a reply is too large")

    def _add(self, item: Reply, found: list[Reply]) -> None:
        """Put what is complete into the list that it is in, and that list into its own."""
        while self._arrays:
            array = self._arrays[-1]
            array.items.append(item)
            if len(array.items) < array.size:
                return
            item = self._arrays.pop().items
        self._octets = 0
        found.append(item)


def _number(text: bytes) -> int:
    digits = text[1:] if text[:1] in {b"-", b"+"} else text
    if not digits.isdigit() or len(digits) > 19:
        raise ProtocolViolation("a number of a reply is none")
    return int(text)
