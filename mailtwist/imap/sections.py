"""The octets that a section of a message names, as pieces ready to be written.

A message is its prefix (trace headers of this delivery) and its content (what
all its recipients share). Positions here count from the first octet of the
prefix. Content that is not in the row is left as an :class:`Extent`, for the
command to stream.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from mailtwist.imap.fetch_grammar import Item, Section
from mailtwist.mail import parts
from mailtwist.mail.header import select_fields

# A header block of more than this is searched for fields only up to here.
MAXIMUM_HEADER = 1 << 20

# (content id, start, end) -> at most 1 MiB of its octets.
Read: TypeAlias = Callable[[int, int, int], bytes]


@dataclass(frozen=True, slots=True)
class Extent:
    """Octets ``[start:end]`` of a content, to be read when they are written."""

    content_id: int
    start: int
    end: int


Piece: TypeAlias = bytes | Extent


@dataclass(slots=True)
class Octets:
    """One message: the columns that its sections are made of."""

    prefix: bytes
    header_octets: int
    content_octets: int
    parts: bytes
    content_id: int
    data: bytes | None
    read: Read = field(kw_only=True)

    @property
    def octets(self) -> int:
        return len(self.prefix) + self.content_octets

    def cut(self, start: int, end: int) -> list[Piece]:
        """The octets ``[start:end]``."""
        border = len(self.prefix)
        pieces: list[Piece] = [self.prefix[start:end]] if start < border else []
        if end > border:
            first, last = max(start - border, 0), end - border
            if self.data is None:
                pieces.append(Extent(self.content_id, first, last))
            else:
                pieces.append(self.data[first:last])
        return pieces

    def whole(self, start: int, end: int) -> bytes:
        """The octets ``[start:end]``, read now; not for long ones."""
        end = min(end, start + MAXIMUM_HEADER)
        return b"".join(
            piece
            if isinstance(piece, bytes)
            else self.read(piece.content_id, piece.start, piece.end)
            for piece in self.cut(start, end)
        )

    def locate(self, section: Section) -> tuple[int, int] | None:
        """Where the section lies; None when the message has no such part."""
        border = len(self.prefix)
        if section.part:
            text = "HEADER" if section.fields else section.text
            found = parts.section(parts.decode(self.parts), section.part, text)
            return None if found is None else (found[0] + border, found[1] + border)
        if section.text == "TEXT":
            return border + self.header_octets, self.octets
        return 0, border + self.header_octets if section.text else self.octets


def literal(octets: Octets, item: Item) -> list[Piece]:
    """The value of ``BODY[section]<partial>``: a literal, ``""`` or NIL."""
    section = item.section
    assert section is not None, "the item asks for no octets"
    place = octets.locate(section)
    if place is None:
        return [b"NIL"]
    start, end = place
    if section.fields:
        block = octets.whole(start, end)
        text = select_fields(block, section.fields, exclude=section.text.endswith(".NOT"))
        if item.partial is not None:
            text = text[item.partial[0] :][: item.partial[1]]
        return [_sized(len(text)), text]
    if item.partial is not None:
        # RFC 9051 §6.4.5: what lies beyond the end is cut off, down to nothing.
        start = min(start + item.partial[0], end)
        end = min(start + item.partial[1], end)
    return [_sized(end - start), *octets.cut(start, end)]


def _sized(count: int) -> bytes:
    return b"{%d}\r\n" % count if count else b'""'
