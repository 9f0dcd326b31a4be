"""The body of a message in the two forms that DKIM hashes, block by block (RFC 6376 §3.4).

Time is linear whatever the octets, and how the blocks are cut never matters. A message that
does not end with CRLF is taken to, as it will on the wire.
"""

from __future__ import annotations

import re
from typing import Protocol

_BLANKS = re.compile(rb"  ++")


class Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...


class Body:
    """Line ends count unless they are the last: they wait until something follows."""

    def __init__(self, to: Hash) -> None:
        self._hash = to
        self._held = b""
        self._line_ends = 0
        self._is_empty = True

    def feed(self, block: bytes) -> None:
        """Take the next octets of the body."""
        raise NotImplementedError

    def close(self) -> None:
        """The body is over: what the hash has seen is all."""
        if self._held:
            self.feed(b"\r\n")
        if not self._is_empty:
            self._hash.update(b"\r\n")

    def _put(self, text: bytes) -> None:
        content = text.rstrip(b"\r\n")
        # What is stripped may hold bare CR and LF: these are content.
        ends = text[len(content) :].replace(b"\r\n", b"\0")
        bare = ends.rstrip(b"\0")
        content += bare.replace(b"\0", b"\r\n")
        if content:
            self._write_line_ends()
            self._hash.update(content)
            self._is_empty = False
        self._line_ends += len(ends) - len(bare)

    def _write_line_ends(self) -> None:
        # There may be millions.
        while self._line_ends:
            some = min(self._line_ends, 4096)
            self._hash.update(b"\r\n" * some)
            self._line_ends -= some


class RelaxedBody(Body):
    """RFC 6376 §3.4.4."""

    def feed(self, block: bytes) -> None:
        # Known only by what follows: at most a blank and a CR of a line that goes on.
        text = self._held + block
        carriage_return = b"\r" if text.endswith(b"\r") else b""
        whole = text[: len(text) - len(carriage_return)]
        text = whole.rstrip(b" \t")
        self._held = (b" " if len(text) < len(whole) else b"") + carriage_return
        self._put(single_blanks(text).replace(b" \r\n", b"\r\n"))


class SimpleBody(Body):
    """RFC 6376 §3.4.3."""

    def feed(self, block: bytes) -> None:
        text = self._held + block
        self._held = b"\r" if text.endswith(b"\r") else b""
        self._put(text[: len(text) - len(self._held)])

    def close(self) -> None:
        # Of nothing at all one line end is made.
        super().close()
        if self._is_empty:
            self._hash.update(b"\r\n")


def single_blanks(text: bytes) -> bytes:
    """Each run of blanks and tabs as one blank."""
    if b"\t" in text:
        text = text.replace(b"\t", b" ")
    return _BLANKS.sub(b" ", text) if b"  " in text else text
