"""The readable text of a message, for SEARCH BODY and TEXT.

Linear in the octets looked at, which have a bound, as has the memory used.
"""

from __future__ import annotations

import re
from binascii import a2b_qp
from collections.abc import Callable
from html.entities import html5
from typing import Final

from mailtwist.mail.parts import Kind, Part, decode
from mailtwist.mail.words import decode as decode_charset
from mailtwist.mail.words import decode_base64, decode_words, fold

MAX_OCTETS: Final = 4 * 1024 * 1024  # of one message; more is not searched

_TAG = re.compile(r"<[^<>]*+>")
_HIDDEN = re.compile(r"<(?:script|style)\b[^<]*+(?:<(?!/(?:script|style)\b)[^<]*+)*+", re.I)
_BLOCK = re.compile(
    # The letters that they begin with: one look at each "<" that begins nothing.
    r"</?(?=[bcdhlopstu])"
    r"(?:p|div|br|hr|td|th|tr|table|h[1-6]|li|ul|ol|center|section|pre|blockquote)\b[^<>]*+>",
    re.I,
)
_ENTITY = re.compile(r"&(?:#([0-9]{1,7})|#[xX]([0-9A-Fa-f]{1,6})|([A-Za-z][A-Za-z0-9]{1,30}));")


def searchable(data: bytes, parts: bytes | Part) -> str:
    """The folded text of all text parts of a content, and the headers of messages in it.

    The message's own header is not in it: BODY leaves that out, TEXT adds it.
    """
    return searchable_from(lambda start, end: data[start:end], parts)


def searchable_from(read: Callable[[int, int], bytes], parts: bytes | Part) -> str:
    """The same, with octets read by ``read(start, end)`` part by part."""
    root = decode(parts) if isinstance(parts, bytes) else parts
    texts: list[str] = []
    left = MAX_OCTETS
    for part in root.walk():
        if left <= 0:
            break
        if part.is_message:
            message = part.children[0]
            octets = read(message.start, min(message.header_end, message.start + left))
            texts.append(header_text(octets))
        elif part.kind is Kind.LEAF and part.content_type.startswith("text/"):
            octets = read(part.header_end, min(part.end, part.header_end + left))
            texts.append(part_text(octets, part))
        else:
            continue
        left -= len(octets)
    return fold("\n".join(texts))


def header_text(block: bytes) -> str:
    """A header block as text: unfolded, its encoded words decoded."""
    return decode_words(_UNFOLD.sub(rb"\1", block))


_UNFOLD = re.compile(rb"\r?\n([ \t])")


def part_text(data: bytes, part: Part) -> str:
    """The text of one text part, its encoding, charset and markup undone."""
    text = decoded(data, part)
    return strip_markup(text) if part.content_type == "text/html" else text


def decoded(data: bytes, part: Part) -> str:
    """The text of one text part, its encoding and charset undone; markup stays."""
    if part.encoding == "base64":
        data = decode_base64(data)
    elif part.encoding == "quoted-printable":
        data = a2b_qp(data)
    return decode_charset(data, part.charset)


def strip_markup(html: str) -> str:
    """What of HTML a reader sees, roughly: no tags, no scripts, entities decoded."""
    text = _TAG.sub(" ", _HIDDEN.sub(" ", html))
    return " ".join(_ENTITY.sub(_character, text).split())


def lines(html: str) -> str:
    """The same, with a line for each paragraph, row or cell."""
    pieces = _BLOCK.split(_HIDDEN.sub(" ", html))
    return "\n".join(filter(None, map(strip_markup, pieces)))


def _character(match: re.Match[str]) -> str:
    decimal, hexadecimal, name = match.groups()
    if name:
        return html5.get(f"{name};", match[0])
    code = int(decimal) if decimal else int(hexadecimal, 16)
    is_character = 0 < code < 0x110000 and not 0xD800 <= code < 0xE000
    return chr(code) if is_character else " "
