"""Modified UTF-7, the spelling of mailbox names on the wire (RFC 3501 §5.1.3).

Both directions are linear. Decoding is strict: a name has one spelling, so
that two spellings can never name one mailbox.
"""

from __future__ import annotations

import binascii
import re

from mailtwist.errors import ProtocolViolation

# A shift sequence, or a run of what stands for itself.
_PIECE = re.compile(rb"&([A-Za-z0-9+,]*)-|[\x20-\x25\x27-\x7e]+")
_DIRECT = re.compile(r"[\x20-\x25\x27-\x7e]+|&|[^\x20-\x7e]+")


def encode(name: str) -> bytes:
    """Spell ``name`` for the wire."""
    return b"".join(_shift(piece) for piece in _DIRECT.findall(name))


def decode(data: bytes) -> str:
    """Read a name. Raises ProtocolViolation for anything but its one spelling."""
    pieces: list[str] = []
    position = 0
    while position < len(data):
        match = _PIECE.match(data, position)
        if match is None:
            raise _bad()
        position = match.end()
        shifted = match[1]
        pieces.append(match[0].decode("ascii") if shifted is None else _unshift(shifted))
    name = "".join(pieces)
    if encode(name) != data:
        raise _bad()
    return name


def _shift(piece: str) -> bytes:
    if piece == "&":
        return b"&-"
    if " " <= piece[0] <= "~":
        return piece.encode("ascii")
    base64 = binascii.b2a_base64(piece.encode("utf-16-be", "surrogatepass"), newline=False)
    return b"&" + base64.rstrip(b"=").replace(b"/", b",") + b"-"


def _unshift(shifted: bytes) -> str:
    if not shifted:
        return "&"
    try:
        octets = binascii.a2b_base64(
            shifted.replace(b",", b"/") + b"=" * (-len(shifted) % 4), strict_mode=True
        )
        return octets.decode("utf-16-be")
    except ValueError:
        raise _bad() from None


def _bad() -> ProtocolViolation:
    return ProtocolViolation("Mailbox name is not valid modified UTF-7")
