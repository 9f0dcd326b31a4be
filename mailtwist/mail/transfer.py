"""Content-Transfer-Encoding undone block by block, so that no attachment is ever whole in memory.

Forgiving, as :mod:`mailtwist.mail.words` is: what is no base64 is skipped. RFC 2045 §6.
"""

from __future__ import annotations

from binascii import a2b_qp
from typing import Final, Protocol

from mailtwist.mail.words import decode_base64

_BASE64: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
_FOREIGN: Final = bytes(set(range(256)).difference(_BASE64))
_MAX_LINE: Final = 65_536


class Decoder(Protocol):
    def feed(self, block: bytes) -> bytes:
        """The octets that are certain now."""
        ...

    def close(self) -> bytes:
        """The last octets."""
        ...


class Plain:
    """7bit, 8bit, binary, and what nobody knows: as it is."""

    def feed(self, block: bytes) -> bytes:
        return block

    def close(self) -> bytes:
        return b""


class Base64:
    def __init__(self) -> None:
        self._rest = b""
        self._has_ended = False

    def feed(self, block: bytes) -> bytes:
        if self._has_ended:
            return b""
        data = self._rest + block.translate(None, _FOREIGN)
        # Padding ends it, whatever follows.
        end = data.find(b"=")
        if end >= 0:
            self._has_ended, self._rest = True, b""
            return decode_base64(data[:end])
        whole = len(data) // 4 * 4
        self._rest = data[whole:]
        return decode_base64(data[:whole]) if whole else b""

    def close(self) -> bytes:
        return decode_base64(self._rest) if self._rest else b""


class QuotedPrintable:
    def __init__(self) -> None:
        self._rest = b""

    def feed(self, block: bytes) -> bytes:
        data = self._rest + block
        end = data.rfind(b"\n") + 1
        if not end and len(data) > _MAX_LINE:
            # No line of this encoding is so long; an escape is not cut, though.
            end = len(data) - 3
        self._rest = data[end:]
        return a2b_qp(data[:end])

    def close(self) -> bytes:
        return a2b_qp(self._rest)


def decoder(encoding: str) -> Decoder:
    """A new decoder for an encoding in lower case."""
    if encoding == "base64":
        return Base64()
    return QuotedPrintable() if encoding == "quoted-printable" else Plain()
