"""What FETCH asks for: from octets to values, and the names that answers echo.

RFC 9051 §6.4.5 and §9 (fetch, fetch-att, section); RFC 3501 §6.4.5 for the
RFC822 items.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from mailtwist.imap.grammar import Parser, quote
from mailtwist.mail.uidset import SequenceSet

# Items answered from one or two columns, without reading the message.
PLAIN: Final = frozenset(
    {"UID", "FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE", "BODY", "BODYSTRUCTURE"}
)
MACROS: Final = {
    "FAST": ("FLAGS", "INTERNALDATE", "RFC822.SIZE"),
    "ALL": ("FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE"),
    "FULL": ("FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE", "BODY"),
}
# A client that asks for more than this in one command wants our memory, not mail.
MAXIMUM_ITEMS: Final = 128
MAXIMUM_FIELDS: Final = 256
MAXIMUM_PARTS: Final = 32

_NAME = re.compile(rb"[A-Za-z0-9.]+")
_PART = re.compile(rb"[1-9][0-9]{0,9}(?:\.[1-9][0-9]{0,9})*")
_FIELD_LISTS: Final = frozenset({"HEADER.FIELDS", "HEADER.FIELDS.NOT"})
_TEXTS: Final = _FIELD_LISTS | {"", "HEADER", "TEXT", "MIME"}
_FIELD_NAME = re.compile(rb"[!-9;-~]{1,998}")  # RFC 5322 §2.2


@dataclass(frozen=True, slots=True)
class Section:
    """``part.text (fields)`` between the brackets of ``BODY[...]``."""

    part: tuple[int, ...] = ()
    text: str = ""  # "", HEADER, HEADER.FIELDS, HEADER.FIELDS.NOT, TEXT or MIME
    fields: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to answer.

    ``name`` stands before its value in the answer. ``section`` is None for
    what needs no octets of the message. ``partial`` is first octet and count.
    """

    name: bytes
    section: Section | None = None
    peek: bool = True
    partial: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Fetch:
    """The arguments of FETCH."""

    numbers: SequenceSet
    items: tuple[Item, ...]

    @property
    def sets_seen(self) -> bool:
        """Whether reading it marks a message as read (RFC 9051 §6.4.5)."""
        return not all(item.peek for item in self.items)


UID: Final = Item(b"UID")
FLAGS: Final = Item(b"FLAGS")
_WHOLE: Final = Section()
# RFC 3501 §6.4.5: equal to BODY[...] but for the name in the answer.
_RFC822: Final = {
    "RFC822": Item(b"RFC822", _WHOLE, peek=False),
    "RFC822.HEADER": Item(b"RFC822.HEADER", Section(text="HEADER")),
    "RFC822.TEXT": Item(b"RFC822.TEXT", Section(text="TEXT"), peek=False),
}


def parse_fetch(parser: Parser) -> Fetch:
    """``set items`` to the end of the command."""
    numbers = parser.sequence_set()
    parser.space()
    items = parse_items(parser)
    parser.end()
    return Fetch(numbers, items)


def parse_items(parser: Parser) -> tuple[Item, ...]:
    """A macro, one item, or a list of items; each is answered once."""
    if parser.peek() == b"(":
        found = parser.items(lambda: _item(parser))
    else:
        start = parser.position
        macro = MACROS.get(parser.take(_NAME, "fetch item").decode("ascii").upper())
        if macro is not None:
            return tuple(Item(name.encode("ascii")) for name in macro)
        parser.position = start
        found = [_item(parser)]
    if len(found) > MAXIMUM_ITEMS:
        raise parser.violation("too many items")
    return tuple(dict.fromkeys(found))


def _item(parser: Parser) -> Item:
    name = parser.take(_NAME, "fetch item").decode("ascii").upper()
    if name in {"BODY", "BODY.PEEK"} and parser.peek() == b"[":
        return _body(parser, peek=name == "BODY.PEEK")
    if name in PLAIN:
        return Item(name.encode("ascii"))
    if name in _RFC822:
        return _RFC822[name]
    raise parser.violation(f"no such fetch item: {name[:64]}")


def _body(parser: Parser, *, peek: bool) -> Item:
    parser.expect(b"[")
    section = parse_section(parser)
    parser.expect(b"]")
    partial = _partial(parser) if parser.peek() == b"<" else None
    # RFC 9051 §7.5.2: the answer names the origin, not the count.
    origin = b"<%d>" % partial[0] if partial else b""
    name = b"BODY[%b]%b" % (format_section(section), origin)
    return Item(name, section, peek, partial)


def _partial(parser: Parser) -> tuple[int, int]:
    parser.expect(b"<")
    start = parser.number64()
    parser.expect(b".")
    count = parser.number64()
    parser.expect(b">")
    if count == 0:  # RFC 9051 §9: nz-number64
        raise parser.violation("an empty range")
    return start, count


def parse_section(parser: Parser) -> Section:
    """What stands between the brackets."""
    part: tuple[int, ...] = ()
    numbers = parser.match(_PART)
    if numbers is not None:
        if numbers[0].count(b".") >= MAXIMUM_PARTS:
            raise parser.violation("nested too deeply")
        part = tuple(map(int, numbers[0].split(b".")))
        if not parser.accept(b"."):
            return Section(part)
    name = parser.match(_NAME)
    text = "" if name is None else name[0].decode("ascii").upper()
    # RFC 9051 §6.4.5: MIME belongs to a part; behind "1." something must follow.
    if text not in _TEXTS or (text == "MIME" and not part) or (part and not text):
        raise parser.violation("no such section")
    fields = _fields(parser) if text in _FIELD_LISTS else ()
    return Section(part, text, fields)


def _fields(parser: Parser) -> tuple[bytes, ...]:
    parser.space()
    names = parser.items(parser.astring)
    if len(names) > MAXIMUM_FIELDS:
        raise parser.violation("too many header fields")
    if not all(map(_FIELD_NAME.fullmatch, names)):
        raise parser.violation("no name of a header field")
    return tuple(names)


def format_section(section: Section) -> bytes:
    """The section as the answer names it: capitals, field names as they came."""
    pieces = [str(number).encode("ascii") for number in section.part]
    if section.text:
        pieces.append(section.text.encode("ascii"))
    text = b".".join(pieces)
    if section.fields:
        text += b" (%b)" % b" ".join(map(_field_name, section.fields))
    return text


def _field_name(name: bytes) -> bytes:
    return name if name.replace(b"-", b"").isalnum() else quote(name)


def with_uid(items: tuple[Item, ...]) -> tuple[Item, ...]:
    """The items of UID FETCH: the uid is part of every answer (RFC 9051 §6.4.9)."""
    return items if UID in items else (UID, *items)
