"""What is learned of a message on its way to the spool, and what a submission still lacks."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from mailtwist.mail.dkim import BodyHasher, HashedMessage
from mailtwist.mail.dkim_signatures import FIELD, Candidate, Signed
from mailtwist.mail.trace import date_time
from mailtwist.store.queue.values import Priority

# Octets of a header that are looked at.
MAX_HEADER: Final = 65536

_HAS_DATE = re.compile(rb"^date[ \t]*:", re.IGNORECASE | re.MULTILINE)
_HAS_ID = re.compile(rb"^message-id[ \t]*:", re.IGNORECASE | re.MULTILINE)
_MASS_MAIL = re.compile(
    rb"^precedence[ \t]*:[ \t]*(?:bulk|list|junk)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE
)

# A header as it shall be kept.
Rewrite = Callable[[bytes], bytes]


class Passing:
    """Takes the blocks of one message and gives what the spool gets.

    The header is held back until it is whole, so that it can be rewritten. ``is_signed``: we shall
    sign it; ``is_judged``: the signatures that it has are to be checked.
    """

    def __init__(
        self, *, rewrite: Rewrite | None = None, is_signed: bool = False, is_judged: bool = False
    ) -> None:
        self.header = b""
        self.original = b""  # the header as it came, where signatures are looked for
        self.is_ascii = True
        self.too_long = False  # the header; nothing is known of it
        self._rewrite = rewrite
        self._is_judged = is_judged
        self._signatures: Signed | None = None
        self._hasher = BodyHasher() if is_signed else None
        self._held: bytearray | None = bytearray()

    def take(self, block: bytes) -> bytes:
        """The octets that may go on after a block; none while the header is incomplete."""
        held = self._held
        if held is None:
            if self._signatures is not None:
                self._signatures.feed(block)
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
        header, self.too_long = whole[:end], not is_whole
        if is_whole and self._is_judged:
            self._look_for_signatures(header, whole[end + 2 :])
        if is_whole and self._rewrite is not None:
            header = self._rewrite(header)
        self.header = header
        return self._passed(header + whole[end:])

    def _look_for_signatures(self, header: bytes, body: bytes) -> None:
        self.original = header
        if FIELD in header.lower():
            self._signatures = Signed(header)
            self._signatures.feed(body)

    def _passed(self, block: bytes) -> bytes:
        self.is_ascii = self.is_ascii and block.isascii()
        if self._hasher is not None:
            self._hasher.feed(block)
        return block

    def hashed(self) -> HashedMessage | None:
        """What a signature is made of, after :meth:`close`."""
        return self._hasher.close() if self._hasher is not None else None

    def signatures(self) -> tuple[Candidate, ...]:
        """Those that the message came with, after :meth:`close`."""
        return self._signatures.close() if self._signatures is not None else ()

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
