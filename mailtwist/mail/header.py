"""Header blocks as octets: parted into fields, chosen from, and fields made anew.

Choosing keeps original octets and order, so that a signature over the header
still verifies. A field that is made anew never carries a line break of its
value into the block.

RFC 5322 §2.1.1, §2.2; RFC 2047; RFC 9051 §6.4.5.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Collection
from typing import Final

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.words import decode_words

__all__ = [
    "MAX_BLOCK",
    "MAX_LINE",
    "decode_words",
    "encode_words",
    "fold_line",
    "format_field",
    "select_fields",
    "split_fields",
]

MAX_LINE: Final = 78  # RFC 5322 §2.1.1
# Of a header longer than this only the start is read: a block of 25 MB made of
# one-letter fields would cost seconds and half a gigabyte.
MAX_BLOCK: Final = 1024 * 1024

# A line and the folded lines behind it; of a line without a colon the name is empty.
_FIELD = re.compile(rb"((?:([!-9;-~]++)[ \t]*+(?=:))?[^\n]*+(?:\n|\Z)(?:[ \t][^\n]*+(?:\n|\Z))*+)")
_BLANK_LINES: Final = frozenset((b"", b"\n", b"\r\n"))

_NAME = re.compile(r"[!-9;-~]{1,76}")
# What some program somewhere takes for the end of a line.
_BREAKS = re.compile("[\r\n\0\v\f\x1c-\x1e\x85\u2028\u2029]")
_WORD_OCTETS: Final = 39  # 64 characters a word, so that a line of one keeps within 78


def split_fields(block: bytes) -> list[tuple[bytes, bytes]]:
    """Name and raw octets, line ends included, of each field up to the blank line.

    Joined, the raw octets are the block again, up to ``MAX_BLOCK``. A line that is
    no field has the name ``b""``.
    """
    fields: list[tuple[bytes, bytes]] = []
    for raw, name in _FIELD.findall(block[:MAX_BLOCK]):
        if raw in _BLANK_LINES:
            break
        fields.append((name, raw))
    return fields


def select_fields(block: bytes, names: Collection[bytes], *, exclude: bool = False) -> bytes:
    """BODY[HEADER.FIELDS (names)] of a header block, or .NOT with ``exclude``.

    Names match without regard to case. The answer ends with the blank line.
    """
    wanted = {name.lower() for name in names}
    chosen = [raw for name, raw in split_fields(block) if (name.lower() in wanted) != exclude]
    if chosen and not chosen[-1].endswith(b"\n"):
        chosen.append(b"\r\n")
    chosen.append(b"\r\n")
    return b"".join(chosen)


def format_field(name: str, value: str) -> bytes:
    """A whole field, folded, CRLF included; text beyond ASCII as encoded words.

    Raises: ProtocolViolation when name or value could begin another line.
    """
    if _NAME.fullmatch(name) is None or _BREAKS.search(value) is not None:
        raise ProtocolViolation("Header field with a line break or an invalid name")
    return fold_line(f"{name}: {encode_words(value)}".encode("ascii"))


def fold_line(line: bytes) -> bytes:
    """One logical line, folded before words so that lines stay within 78 octets, with CRLF.

    A single word that is longer stays whole.
    """
    if len(line) <= MAX_LINE:
        return line + b"\r\n"
    folded: list[bytes] = []
    length = 0
    for n, word in enumerate(line.split(b" ")):
        if n == 0 or not word or length + 1 + len(word) <= MAX_LINE or n == 1:
            folded.append(b" " + word if n else word)
            length += len(folded[-1])
        else:
            folded.append(b"\r\n " + word)
            length = len(word) + 1
    return b"".join(folded) + b"\r\n"


def encode_words(text: str) -> str:
    """Text as it may stand in a header: ASCII as it is, else as encoded words."""
    if text.isascii():
        return text
    words: list[str] = []
    octets = b""
    for character in text:
        encoded = character.encode("utf-8", "replace")
        # RFC 2047 §5: a character is never parted between two words.
        if len(octets) + len(encoded) > _WORD_OCTETS:
            words.append(_encoded_word(octets))
            octets = b""
        octets += encoded
    words.append(_encoded_word(octets))
    return " ".join(words)


def _encoded_word(octets: bytes) -> str:
    return f"=?utf-8?b?{b64encode(octets).decode('ascii')}?="
