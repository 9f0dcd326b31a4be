"""Content on its way out: dot-stuffed, and never with a line end of its own making.

A next hop may take a lone LF or CR for a line end; then a dot beside it would end the message
and the rest would run as commands. So content with a bare CR or LF never leaves (it
was refused on the way in), and stuffing sees across the borders of blocks.

RFC 5321 §2.3.8; RFC 5321 §4.5.2.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from mailtwist.queue.values import Outgoing
from mailtwist.store.queue.values import BINARYMIME

# Content up to this is sent from memory in one go; more goes block by block.
SMALL: Final = 256 * 1024


class BareLineEnd(Exception):
    """The content holds a CR or LF that is not half of a CRLF."""


class ShortContent(Exception):
    """The blocks are not as many octets as the message has."""


class LineEnds:
    """Checks blocks one after the other. `tail`: the last two octets that went by."""

    __slots__ = ("tail",)

    def __init__(self) -> None:
        # Content begins at the start of a line.
        self.tail = b"\r\n"

    def check(self, block: bytes) -> None:
        """Raises: BareLineEnd."""
        if not block:
            return
        # The LF of a CRLF that the border cuts in two, and a CR that may be half of the next.
        behind_cr = self.tail.endswith(b"\r")
        if behind_cr and not block.startswith(b"\n"):
            raise BareLineEnd
        pairs = block.count(b"\r\n")
        if block.count(b"\n") - pairs != behind_cr:
            raise BareLineEnd
        if block.count(b"\r") - pairs != block.endswith(b"\r"):
            raise BareLineEnd
        self.tail = (self.tail + block)[-2:] if len(block) < 2 else block[-2:]

    def close(self) -> bytes:
        """What is missing at the end so that the content ends with a line. Raises: BareLineEnd."""
        if self.tail.endswith(b"\r"):
            raise BareLineEnd
        return b"" if self.tail == b"\r\n" else b"\r\n"


class Stuffer:
    """Makes of blocks what follows 354."""

    __slots__ = ("_ends",)

    def __init__(self) -> None:
        self._ends = LineEnds()

    def feed(self, block: bytes) -> bytes:
        """Raises: BareLineEnd; the connection must then end without the final dot."""
        tail = self._ends.tail
        self._ends.check(block)
        stuffed = block.replace(b"\r\n.", b"\r\n..")
        # RFC 5321 §4.5.2, where the line began in the block before.
        if tail == b"\r\n" and block.startswith(b"."):
            return b"." + stuffed
        if tail.endswith(b"\r") and block.startswith(b"\n."):
            return b"\n." + stuffed[1:]
        return stuffed

    def close(self) -> bytes:
        """The end of the content. Raises: BareLineEnd."""
        return self._ends.close() + b".\r\n"


def stuffed(content: bytes) -> bytes:
    """A whole content as it follows 354, its end included. Raises: BareLineEnd."""
    stuffer = Stuffer()
    return stuffer.feed(content) + stuffer.close()


class Content:
    """The content of one message: in memory when it is small, else read block by block."""

    __slots__ = ("_mail", "_stuffed", "is_checked", "whole")

    def __init__(self, mail: Outgoing, whole: bytes | None) -> None:
        self.whole = whole
        # RFC 3030 §3: only BINARYMIME may hold what is no line.
        self.is_checked = mail.body != BINARYMIME
        self._mail = mail
        self._stuffed = b""
        if whole is not None and self.is_checked:
            self._stuffed = stuffed(whole)

    @classmethod
    async def of(cls, mail: Outgoing) -> Content:
        """Raises: BareLineEnd, ShortContent."""
        if mail.octets > SMALL:
            return cls(mail, None)
        whole = b"".join([block async for block in mail.blocks()])
        if len(whole) != mail.octets:
            raise ShortContent
        return cls(mail, whole)

    @property
    def stuffed(self) -> bytes:
        """The whole as it follows 354."""
        return self._stuffed

    async def has_8bit(self) -> bool:
        """Read all of it for octets beyond ASCII."""
        if self.whole is not None:
            return not self.whole.isascii()
        async with aclosing(self.blocks()) as blocks:
            async for block in blocks:
                if not block.isascii():
                    return True
        return False

    async def blocks(self) -> AsyncGenerator[bytes, None]:
        """The blocks, none empty. Raises: ShortContent instead of an end that is none."""
        if self.whole is not None:
            yield self.whole
            return
        left = self._mail.octets
        async for block in self._mail.blocks():
            left -= len(block)
            if left < 0:
                break
            if block:
                yield block
        if left:
            raise ShortContent
