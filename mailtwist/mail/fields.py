"""The header fields that describe a message, out of one header block.

RFC 5322 §2.2, §3.6; RFC 2045 §3.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final, TypeAlias

Fields: TypeAlias = Mapping[bytes, bytes]

# What ENVELOPE, BODYSTRUCTURE and the searchable columns are made of; everything
# else is passed over.
_ADDRESS_FIELDS: Final = frozenset(
    (b"from", b"sender", b"reply-to", b"to", b"cc", b"bcc"),
)
_WANTED: Final = _ADDRESS_FIELDS | frozenset(
    (
        b"date",
        b"subject",
        b"in-reply-to",
        b"message-id",
        b"content-type",
        b"content-transfer-encoding",
        b"content-id",
        b"content-description",
        b"content-md5",
        b"content-disposition",
        b"content-language",
        b"content-location",
    )
)

# A name, a colon and the value with its folded lines. Possessive throughout: no
# header can make it go back.
_FIELD = re.compile(rb"^([!-9;-~]++)[ \t]*+:(.*+(?:\n[ \t].*+)*+)", re.MULTILINE)


def unquote(value: bytes) -> bytes:
    """The inside of a quoted string or comment without its backslashes (RFC 5322 §3.2.1)."""
    # A run of backslashes is read in pairs from its left end, as split does it.
    return b"\\".join([piece.replace(b"\\", b"") for piece in value.split(b"\\\\")])


def read_fields(
    block: bytes, wanted: Collection[bytes] = _WANTED
) -> tuple[dict[bytes, bytes], int]:
    """The wanted fields of a block by lower-case name, and the number of Received.

    Values are unfolded and stripped. Of a field that is there twice the first
    counts; address fields are joined, so that no recipient is lost.
    """
    fields: dict[bytes, bytes] = {}
    joined: dict[bytes, list[bytes]] = {}
    received = 0
    for spelled, raw in _FIELD.findall(block):
        name = spelled.lower()
        if name not in wanted:
            received += name == b"received"
            continue
        value = raw.translate(None, b"\r\n\0").strip(b" \t")
        if name not in fields:
            fields[name] = value
        elif name in _ADDRESS_FIELDS:
            joined.setdefault(name, [fields[name]]).append(value)
    for name, values in joined.items():
        fields[name] = b", ".join(values)
    return fields, received
