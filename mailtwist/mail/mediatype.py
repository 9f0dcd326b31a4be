"""Content-Type, Content-Disposition and their parameters, forgiving and bounded.

Names and values keep their spelling. The pieces of RFC 2231 are joined; a value
with a charset keeps its encoded form under a name that ends in ``*``, as
RFC 2231 §8 asks of IMAP servers, and :func:`decoded_parameter` makes text of it.

RFC 2045 §5.1; RFC 2183; RFC 2231.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import unquote_to_bytes

from mailtwist.mail.fields import unquote
from mailtwist.mail.words import decode, decode_words

MAX_PARAMETERS: Final = 100

Parameters: TypeAlias = tuple[tuple[bytes, bytes], ...]

_TOKEN = rb"[!#-'*+.0-9A-Z^-~-]"
_TYPE = re.compile(rb"\s*+(%b++)\s*+/\s*+(%b++)" % (_TOKEN, _TOKEN))
_WORD = re.compile(rb"\s*+(%b++)" % _TOKEN)
_PARAMETER = re.compile(
    rb';\s*+([^\s;="\\()]++)\s*+=\s*+(?:"([^"\\]*+(?:\\[\s\S][^"\\]*+)*+)|([^;]*+))',
)
# "us-ascii (Plain text)": RFC 2045 §5.1 shows such a comment.
_TRAILING_COMMENT = re.compile(rb"(?<!\s)\s++\([^()]*+\)$")
_PIECE = re.compile(rb"([^*]++)(?:\*(0|[1-9][0-9]{0,2}))?(\*)?")
_NOT_ATTRIBUTE_CHAR = re.compile(rb"[^A-Za-z0-9!#$&+.^_`{|}~-]")


@dataclass(frozen=True, slots=True)
class MediaType:
    """A Content-Type; ``parameters`` in the order of the header."""

    main: bytes
    sub: bytes
    parameters: Parameters

    def get(self, name: bytes) -> bytes:
        """The first parameter of this name (lower case), empty if there is none."""
        return parameter(self.parameters, name)


TEXT_PLAIN: Final = MediaType(b"text", b"plain", ((b"charset", b"us-ascii"),))
MESSAGE: Final = MediaType(b"message", b"rfc822", ())


def parse_media_type(value: bytes | None, default: MediaType = TEXT_PLAIN) -> MediaType:
    """The type of an unfolded Content-Type value; absent or invalid: the default."""
    if value is None:
        return default
    match = _TYPE.match(value)
    if match is None:
        # RFC 2045 §5.2: what cannot be understood is text/plain.
        return TEXT_PLAIN
    return MediaType(match[1], match[2], parse_parameters(value, match.end()))


def parse_word(value: bytes) -> tuple[bytes, Parameters] | None:
    """A word with parameters, as in Content-Disposition. None: no word there."""
    match = _WORD.match(value)
    if match is None:
        return None
    return match[1], parse_parameters(value, match.end())


def parse_token(value: bytes | None) -> bytes:
    """The one token of e.g. Content-Transfer-Encoding, empty when there is none."""
    match = _WORD.match(value) if value else None
    return match[1] if match else b""


def parse_parameters(value: bytes, start: int = 0) -> Parameters:
    """All parameters behind ``start``; what is no parameter is skipped."""
    found: list[tuple[bytes, bytes]] = []
    pieces = False
    for match in _PARAMETER.finditer(value, start):
        name, quoted, bare = match.groups()
        if quoted is not None:
            text = unquote(quoted) if b"\\" in quoted else quoted
        else:
            text = bare.rstrip()
            if b"(" in text:
                text = _TRAILING_COMMENT.sub(b"", text)
        pieces = pieces or b"*" in name
        found.append((name, text))
        if len(found) == MAX_PARAMETERS:
            break
    return _join_pieces(found) if pieces else tuple(found)


def _join_pieces(found: Sequence[tuple[bytes, bytes]]) -> Parameters:
    """Join ``name*0``, ``name*1*`` ... where the first of them stands (RFC 2231 §3, §4.1)."""
    joined: dict[bytes, dict[int, tuple[bytes, bool]]] = {}
    plain: list[tuple[bytes, bytes] | bytes] = []
    for name, text in found:
        match = _PIECE.fullmatch(name)
        if match is None or match[2] is None:
            plain.append((name, text))
            continue
        key = match[1].lower()
        if key not in joined:
            joined[key] = {}
            plain.append(match[1])
        joined[key].setdefault(int(match[2]), (text, match[3] is not None))
    return tuple(
        item if isinstance(item, tuple) else _joined(item, joined[item.lower()]) for item in plain
    )


def _joined(name: bytes, pieces: dict[int, tuple[bytes, bool]]) -> tuple[bytes, bytes]:
    ordered = [pieces[n] for n in range(len(pieces)) if n in pieces] or list(pieces.values())
    if not any(extended for _, extended in ordered):
        return name, b"".join(text for text, _ in ordered)
    return name + b"*", b"".join(
        text if extended else _NOT_ATTRIBUTE_CHAR.sub(lambda c: b"%%%02X" % c[0][0], text)
        for text, extended in ordered
    )


def parameter(parameters: Parameters, name: bytes) -> bytes:
    """The first parameter of this name (lower case), empty if there is none."""
    for key, value in parameters:
        if key.lower() == name:
            return value
    return b""


def decoded_parameter(parameters: Parameters, name: bytes) -> str:
    """A parameter as text: RFC 2231 first, then encoded words, then as it stands."""
    extended = parameter(parameters, name + b"*")
    if extended:
        charset, quote, rest = extended.partition(b"'")
        _, second, text = rest.partition(b"'")
        if quote and second:
            return decode(unquote_to_bytes(text), charset.decode("ascii", "replace"))
        return decode(unquote_to_bytes(extended), "")
    return decode_words(parameter(parameters, name))
