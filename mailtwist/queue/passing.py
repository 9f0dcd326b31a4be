"""What is learned of a message on its way to the spool, and what a submission still lacks."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from mailtwist.mail.dkim import BodyHasher, HashedMessage
from mailtwist.mail.trace import date_time
from mailtwist.store.queue.values import Priority

# Octets of a header that are looked at.
MAX_HEADER: Final = 65536

_HAS_DATE = re.compile(rb"^date[ \t]*:", re.IGNORECASE | re.MULTILINE)
_HAS_ID = re.compile(rb"^message-id[ \t]*:", re.IGNORECASE | re.MULTILINE)
_MASS_MAIL = re.compile(
    rb"^precedence[ \t]*:[ \t]*(?:bulk|list|junk)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE
)

# What to put above a header.
Complete = Callable[[bytes], bytes]


class Passing:
    """Takes the blocks of one message and gives what the spool gets.

    The header is held back until it is whole, so that fields can be put above it.
    """

    def __init__(self, *, complete: Complete | None = None, is_signed: bool = False) -> None:
        self.header = b""
        self.is_ascii = True
        self._complete = complete
        self._hasher = BodyHasher() if is_signed else None
        self._held: bytearray | None = bytearray()

    def take(self, block: bytes) -> bytes:
        """The octets that may go on after a block; none while the header is incomplete."""
        held = self._held
        if held is None:
            return self._passed(block)
        begin = max(len(held) - 3, 0)
        held += block
        end = 0 if held.startswith(b"\r\n") else held.find(b"\r\n\r\n", begin) + 2
        if end != 1:
            return self._release(end)
        # What stands further down a header so long is not known: nothing is put above it.
        return b"" if len(held) < MAX_HEADER else self._release(MAX_HEADER, is_whole=False)

    def close(self) -> bytes:
        """The message has ended: what was still held back."""
        return b"" if self._held is None else self._release(len(self._held))

    def _release(self, end: int, *, is_whole: bool = True) -> bytes:
        assert self._held is not None
        whole, self._held = bytes(self._held), None
        header = whole[:end]
        above = self._complete(header) if self._complete is not None and is_whole else b""
        self.header = above + header
        return self._passed(above + whole)

    def _passed(self, block: bytes) -> bytes:
        self.is_ascii = self.is_ascii and block.isascii()
        if self._hasher is not None:
            self._hasher.feed(block)
        return block

    def hashed(self) -> HashedMessage | None:
        """What a signature is made of, after :meth:`close`."""
        return self._hasher.close() if self._hasher is not None else None

    @property
    def priority(self) -> Priority:
        return Priority.LOW if _MASS_MAIL.search(self.header) else Priority.NORMAL


def missing_fields(header: bytes, *, message_id: str, seconds: float) -> bytes:
    """The fields that a submission must have and lacks (RFC 6409 §8.2, §8.3).

    ``message_id`` without brackets.
    """
    fields = b""
    if not _HAS_DATE.search(header):
        fields += f"Date: {date_time(seconds)}\r\n".encode("ascii")
    if not _HAS_ID.search(header):
        fields += f"Message-ID: <{message_id}>\r\n".encode("ascii")
    return fields
