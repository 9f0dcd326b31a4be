"""The addresses in a rendered ENVELOPE, read back (RFC 9051 §7.5.2).

Only what :func:`mailtwist.mail.envelope.render_envelope` wrote is read; the length of an
answer is bounded, for a list of a thousand recipients belongs into nobody's table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from mailtwist.mail.words import decode_words

MAX_SHOWN: Final = 1000  # characters of one list

_TOKEN = re.compile(rb'\(|\)|NIL|"((?:[^"\\]|\\.)*+)"|\{([0-9]+)\}\r\n| ', re.S)
_ESCAPED = re.compile(rb"\\(.)", re.S)

# Where the lists stand in an ENVELOPE.
_FIELDS: Final = {2: "from_", 3: "sender", 4: "reply_to", 5: "to"}
_LAST: Final = max(_FIELDS)
_KEPT: Final = 4096
_KEPT_OCTETS: Final = 1024


@dataclass(frozen=True, slots=True)
class Addresses:
    """Bare addresses, parted by a comma and a blank; cut at :data:`MAX_SHOWN`."""

    from_: str = ""
    sender: str = ""
    reply_to: str = ""
    to: str = ""


def read(envelope: bytes) -> Addresses:
    """Find who a message says it is from and to; what is no ENVELOPE says nothing."""
    return _known(envelope) if len(envelope) <= _KEPT_OCTETS else _read(envelope)


def _read(envelope: bytes) -> Addresses:
    found: dict[str, list[str]] = {}
    depth = field = at = 0
    strings: list[bytes | None] = []
    while at < len(envelope) and field <= _LAST:
        token = _TOKEN.match(envelope, at)
        if token is None:
            break
        at, text = token.end(), token[0]
        if text == b"(":
            depth += 1
            strings = []
        elif text == b")":
            depth -= 1
            if depth == 2 and field in _FIELDS:
                found.setdefault(_FIELDS[field], []).append(_address(strings))
            field += depth == 1
        elif text != b" ":
            value, at = _string(token, envelope)
            strings.append(value)
            field += depth == 1
    return Addresses(**{name: _joined(each) for name, each in found.items()})


def of_tuple(rendered: bytes) -> str | None:
    """The bare address of one tuple; None: it begins or ends a group."""
    strings: list[bytes | None] = []
    at = 1
    while (token := _TOKEN.match(rendered, at)) is not None and token[0] != b")":
        at = token.end()
        if token[0] != b" ":
            value, at = _string(token, rendered)
            strings.append(value)
    if len(strings) != 4 or strings[3] is None:
        return None
    return _address(strings)


# Pages are read again and again.
_known = lru_cache(maxsize=_KEPT)(_read)


def _string(token: re.Match[bytes], envelope: bytes) -> tuple[bytes | None, int]:
    if token[2] is not None:
        end = token.end() + int(token[2])
        return envelope[token.end() : end], end
    if token[1] is None:
        return None, token.end()
    return _ESCAPED.sub(rb"\1", token[1]), token.end()


def _address(strings: list[bytes | None]) -> str:
    """One address of (name route mailbox host); a group's ends have no host."""
    if len(strings) != 4 or strings[2] is None or strings[3] is None:
        return ""
    return f"{decode_words(strings[2])}@{decode_words(strings[3])}"


def _joined(addresses: list[str]) -> str:
    text = ""
    for address in filter(None, addresses):
        longer = f"{text}, {address}" if text else address
        if len(longer) > MAX_SHOWN:
            break
        text = longer
    return text
