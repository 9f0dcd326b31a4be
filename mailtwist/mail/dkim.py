"""What a DKIM signature covers (RFC 6376), found while a message passes by.

:class:`BodyHasher` is fed the octets of a message in blocks of any size; it keeps
the header and hashes the body, relaxed, as it comes, in linear time. :func:`draft`
makes the field and the octets to sign. Keys are the business of
:mod:`mailtwist.policy.dkim`.

There is never an ``l=``, which would let anybody append text, and no ``x=``: mail is
looked at long after it came.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.address import fold_domain
from mailtwist.mail.addresslist import Budget, render_addresses
from mailtwist.mail.dkim_body import RelaxedBody, single_blanks
from mailtwist.mail.header import split_fields

# Of a longer header block no signature is made.
MAX_HEADER: Final = 262144
# Names in one h= list; who repeats a field more often than that goes unsigned.
MAX_SIGNED: Final = 200
MAX_AUTHORS: Final = 20
_LINE: Final = 76

# RFC 6376 §5.4.1. A field that may be there once and is there is named once more than it
# occurs, so that nobody can put a second one above it. A field that is absent may be
# added on the way (a list's Reply-To, a relay's Message-ID): the signature stays good.
_ONCE: Final = (
    "From",
    "Sender",
    "Reply-To",
    "Subject",
    "Date",
    "Message-ID",
    "To",
    "Cc",
    "In-Reply-To",
    "References",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "Content-Disposition",
)
_ANY: Final = (
    "Content-ID",
    "Content-Description",
    "Content-Language",
    "Auto-Submitted",
    "TLS-Required",
    "Resent-Date",
    "Resent-From",
    "Resent-Sender",
    "Resent-To",
    "Resent-Cc",
    "Resent-Message-ID",
    "List-Id",
    "List-Help",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "List-Subscribe",
    "List-Post",
    "List-Owner",
    "List-Archive",
)
_SIGNED: Final = tuple(
    (name, name.lower().encode("ascii"), extra)
    for names, extra in ((_ONCE, 1), (_ANY, 0))
    for name in names
)

_FROM = re.compile(rb"^from[ \t]*+:(.*+(?:\n[ \t].*+)*+)", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class HashedMessage:
    """``header``: the fields without the blank line, each ended by CRLF. ``body_hash``: SHA-256
    of the relaxed body. ``too_long``: the header is not kept, and nothing can be signed.
    """

    header: bytes
    body_hash: bytes
    too_long: bool = False


class BodyHasher:
    """Feed it a message in blocks, then close it; never raises, whatever the octets."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._in_header = True
        self._too_long = False
        self._sha256 = hashlib.sha256()
        self._body = RelaxedBody(self._sha256)

    def feed(self, block: bytes) -> None:
        """Take the next octets of the message."""
        if not self._in_header:
            self._body.feed(block)
        elif not self._too_long:
            self._find_body(block)

    def close(self) -> HashedMessage:
        """What is to be signed, the message ended by CRLF as it will be on the wire."""
        self._body.close()
        header = bytes(self._header)
        if header and not header.endswith(b"\r\n"):
            header += b"\r\n"
        return HashedMessage(header, self._sha256.digest(), self._too_long)

    def _find_body(self, block: bytes) -> None:
        header = self._header
        begin = max(len(header) - 3, 0)
        header += block
        if header.startswith(b"\r\n"):
            end, start = 0, 2
        else:
            end = header.find(b"\r\n\r\n", begin) + 2
            start = end + 2
        is_whole = start == 2 or end > 1
        if (end if is_whole else len(header)) > MAX_HEADER:
            self._too_long = True
            header.clear()
        elif is_whole:
            body = bytes(header[start:])
            del header[end:]
            self._in_header = False
            self._body.feed(body)


def canonical_field(raw: bytes) -> bytes:
    """A raw field, relaxed (RFC 6376 §3.4.2), with CRLF."""
    name, _, value = raw.partition(b":")
    value = single_blanks(value.replace(b"\r\n", b"")).strip(b" ")
    return name.rstrip(b" \t").lower() + b":" + value + b"\r\n"


# -- the signature --------------------------------------------------------------------------


def draft(
    message: HashedMessage, *, domain: str, selector: str, algorithm: str, now: int
) -> tuple[bytes, bytes] | None:
    """The field up to its ``b=``, and the octets to sign; ``now`` in seconds.

    None when the message cannot be signed: no From, a header too long, broken lines, or
    more fields than anybody needs.
    """
    header = message.header
    lines = header.count(b"\r\n")
    if message.too_long or lines != header.count(b"\n") or lines != header.count(b"\r"):
        return None
    names, covered = _choose(header)
    if not names or names[0] != "From" or len(names) > MAX_SIGNED:
        return None
    tags = (
        f"v=1; a={algorithm}; c=relaxed/relaxed; d={domain};",
        f"s={selector}; t={now};",
        *_fold_names(names),
        f"bh={b64encode(message.body_hash).decode('ascii')};",
        "b=",
    )
    field = b"DKIM-Signature: " + "\r\n\t".join(tags).encode("ascii")
    return field, covered + canonical_field(field)[:-2]


def finish(field: bytes, signature: bytes) -> bytes:
    """The whole field, folded, with CRLF."""
    text = b64encode(signature)
    lines = [text[at : at + _LINE - 4] for at in range(0, len(text), _LINE - 4)]
    return field + b"\r\n\t".join(lines) + b"\r\n"


def _choose(header: bytes) -> tuple[list[str], bytes]:
    """The h= list, and its fields in canonical form."""
    present: defaultdict[bytes, list[bytes]] = defaultdict(list)
    for name, raw in split_fields(header):
        present[name.lower()].append(raw)
    names: list[str] = []
    covered: list[bytes] = []
    for spelled, folded, extra in _SIGNED:
        if found := present.get(folded):
            names += [spelled] * (len(found) + extra)
            # RFC 6376 §5.4.2: of several, the last one first.
            covered += map(canonical_field, reversed(found[-MAX_SIGNED:]))
    return names, b"".join(covered)


def _fold_names(names: list[str]) -> Iterator[str]:
    line = "h="
    for n, name in enumerate(names):
        word = name + (";" if n == len(names) - 1 else ":")
        if len(line) + len(word) > _LINE:
            yield line
            line = ""
        line += word
    yield line


# -- who signs ------------------------------------------------------------------------------


def author_domains(header: bytes) -> list[str]:
    """The domains of the From field's addresses in A-labels, in order, each once."""
    match = _FROM.search(header)
    if match is None:
        return []
    value = match[1].translate(None, b"\r\n\0").strip(b" \t")
    found: dict[str, None] = {}
    for rendered in render_addresses(value, Budget(addresses=MAX_AUTHORS, tokens=1000)):
        try:
            found[fold_domain(_host(rendered))] = None
        except (ProtocolViolation, UnicodeDecodeError):
            continue
    return list(found)


def _host(rendered: bytes) -> str:
    """The last string of an address tuple: quoted, a literal, or NIL (no domain at all)."""
    inside = rendered[:-1]
    if inside.endswith(b'"'):
        return inside[inside.rfind(b' "') + 2 : -1].decode("utf-8")
    return inside.rpartition(b"}\r\n")[2].decode("utf-8")
