"""FETCH answers from rows: columns in, the octets of a whole page out.

A :class:`Plan` is made once for the items of a command. It names the columns
to read and turns each page of rows into one format string and one flat list
of values, so that Python spends a few operations per page and the interpreter
formats it at once; there is no loop over messages but in the columns that
need one. It runs in the thread that read the rows and touches no session.

Octets of large messages are not in the rows; in their place a page has
:class:`Extent` s, which the command streams.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from mailtwist.imap.fetch_grammar import FLAGS, Item, Section
from mailtwist.imap.grammar import MONTHS
from mailtwist.imap.sections import Extent, Octets, Piece, Read, literal
from mailtwist.mail import flags as bits
from mailtwist.store.fetch import Row

Columns = Mapping[str, Sequence[Any]]
Values = Callable[[Columns], Sequence[Any]]

# What a section is made of, but for the content itself: that is "data", or "header" when
# nothing else of it is asked for.
_SECTION: Final = ("prefix", "header_octets", "content_octets", "parts", "content_id")


@dataclass(frozen=True, slots=True)
class Field:
    """What one item adds to the line of a message: text with a place for each value."""

    text: bytes
    columns: tuple[str, ...] = ()
    values: tuple[Values, ...] = ()


def _column(name: str) -> Values:
    return lambda page: page[name]


# -- INTERNALDATE ---------------------------------------------------------------------------

_MINUTE: Final = 60_000_000
_SECONDS: Final = [b'%02d +0000"' % second for second in range(60)]
_MINUTES: Final = [b"%02d:%02d:" % divmod(minute, 60) for minute in range(1440)]
_FIRST_MINUTE: Final = int(datetime(1, 1, 1, tzinfo=UTC).timestamp()) // 60
_LAST_MINUTE: Final = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp()) // 60


@lru_cache(maxsize=4096)
def _day(day: int) -> bytes:
    """The beginning of a date-time, for days since 1970."""
    minute = min(max(day * 1440, _FIRST_MINUTE), _LAST_MINUTE)
    date = datetime.fromtimestamp(minute * 60, UTC)
    return f'"{date.day:2d}-{MONTHS[date.month - 1]}-{date.year:04d} '.encode("ascii")


def _days(page: Columns) -> list[bytes]:
    return [_day(moment // 86_400_000_000) for moment in page["internaldate"]]


def _minutes(page: Columns) -> list[bytes]:
    return [_MINUTES[moment // _MINUTE % 1440] for moment in page["internaldate"]]


def _seconds(page: Columns) -> list[bytes]:
    return [_SECONDS[moment // 1_000_000 % 60] for moment in page["internaldate"]]


def _plain(name: str, column: str, kind: str = "%b") -> Field:
    return Field(f"{name} {kind}".encode("ascii"), (column,), (_column(column),))


FIELDS: Final[dict[bytes, Field]] = {
    b"UID": _plain("UID", "uid", "%d"),
    b"RFC822.SIZE": _plain("RFC822.SIZE", "octets", "%d"),
    b"MODSEQ": _plain("MODSEQ", "modseq", "(%d)"),
    b"ENVELOPE": _plain("ENVELOPE", "envelope"),
    b"BODYSTRUCTURE": _plain("BODYSTRUCTURE", "bodystructure"),
    b"BODY": _plain("BODY", "body"),
    b"INTERNALDATE": Field(b"INTERNALDATE %b%b%b", ("internaldate",), (_days, _minutes, _seconds)),
    # Its text is part of the format string, one for each value of the flags.
    b"FLAGS": Field(b"FLAGS", ("flags",)),
}


def _whole(item: Item) -> Field:
    """BODY[] of a small message: prefix and data, as they come from their rows."""
    return Field(
        item.name.replace(b"%", b"%%") + b" {%d}\r\n%b%b",
        ("octets", *_SECTION, "data"),
        (_column("octets"), _column("prefix"), _column("data")),
    )


def _section(item: Item, source: str) -> Field:
    """Any other section of a small message, made from ``source``: data or header."""
    names = (*_SECTION, source)

    def values(page: Columns) -> list[bytes]:
        columns = [page[name] for name in names]
        return [
            b"".join(map(_present, literal(Octets(*row, read=_unread), item)))
            for row in zip(*columns, strict=True)
        ]

    return Field(item.name.replace(b"%", b"%%") + b" %b", names, (values,))


def _present(piece: Piece) -> bytes:
    assert isinstance(piece, bytes), "a small message is in its row"
    return piece


def _unread(content_id: int, start: int, end: int) -> bytes:
    raise AssertionError("a small message is in its row")


def _is_header(section: Section) -> bool:
    return not section.part and section.text.startswith("HEADER")


def _field(item: Item, source: str) -> Field:
    section = item.section
    if section is None:
        return FIELDS[item.name]
    if not section.part and not section.text and item.partial is None:
        return _whole(item)
    return _section(item, source)


# -- FLAGS ----------------------------------------------------------------------------------


class UnknownKeyword(LookupError):
    """A message has a keyword that the given names lack: it is newer than they are."""


class FlagTexts(dict[int, bytes]):
    r"""``(\\Seen $Forwarded)`` by the value of the flags, made once each."""

    # Each combination that an account uses; nobody uses more.
    BOUND: Final = 4096

    def __init__(self, names: Mapping[int, str], *, recent: bool = False) -> None:
        super().__init__()
        self._names = {bit: name.encode("ascii") for name, bit in _SYSTEM_BITS}
        self._names |= {1 << bit: name.encode("utf-8") for bit, name in names.items()}
        self._recent = recent

    def __missing__(self, value: int) -> bytes:
        texts = [b"\\Recent"] if self._recent else []
        rest = value
        while rest:
            lowest = rest & -rest
            if lowest not in self._names:
                raise UnknownKeyword(lowest)
            texts.append(self._names[lowest])
            rest ^= lowest
        text = b"(%b)" % b" ".join(texts)
        if len(self) >= self.BOUND:
            self.clear()
        self[value] = text
        return text


_SYSTEM_BITS: Final = [(name, bit) for name, bit in bits.SYSTEM.items()]


class _Lines(dict[int, bytes]):
    """The format string of a message's line by the value of its flags."""

    def __init__(self, before: bytes, after: bytes, texts: FlagTexts) -> None:
        super().__init__()
        self._before, self._after, self._texts = before, after, texts

    def __missing__(self, value: int) -> bytes:
        text = self._texts[value].replace(b"%", b"%%")
        if len(self) >= FlagTexts.BOUND:
            self.clear()
        self[value] = line = self._before + text + self._after
        return line


@dataclass(frozen=True, slots=True)
class Names:
    """The keywords of an account, ready to be written; ``recent_from`` is the session's."""

    plain: FlagTexts
    recent: FlagTexts
    recent_from: int

    @classmethod
    def of(cls, keywords: Mapping[int, str], recent_from: int) -> Names:
        return cls(FlagTexts(keywords), FlagTexts(keywords, recent=True), recent_from)


# -- the plan -------------------------------------------------------------------------------


class Plan:
    """How to answer one FETCH.

    ``marked`` names the messages that this very command marks as read: their
    FLAGS are answered although nobody asked (RFC 9051 §6.4.5).
    """

    def __init__(self, items: Iterable[Item], names: Names) -> None:
        self.items = tuple(items)
        self.names = names
        sections = [item.section for item in self.items if item.section is not None]
        # The column that messages are cut from; empty when no item asks for octets.
        self.source = ""
        if sections:
            self.source = "header" if all(map(_is_header, sections)) else "data"
        self._fields = [_field(item, self.source) for item in self.items]
        wanted = [column for field in self._fields for column in field.columns]
        self.columns = tuple(dict.fromkeys(["uid", *wanted, "flags"]))
        self._values = [value for field in self._fields for value in field.values]
        before, after = self._line()
        self._has_flags = FLAGS in self.items
        self._plain_line = before + after
        self._lines = _Lines(before, after, names.plain)
        self._recent_lines = _Lines(before, after, names.recent)
        tail = self._plain_line.removesuffix(b")\r\n") + b" FLAGS "
        self._marked_lines = _Lines(tail, b")\r\n", names.plain)
        self._recent_marked_lines = _Lines(tail, b")\r\n", names.recent)

    @property
    def only_flags(self) -> bool:
        """Whether uid and flags are all it answers, so that no row needs to be read."""
        return all(item.name in {b"UID", b"FLAGS"} for item in self.items)

    def _line(self) -> tuple[bytes, bytes]:
        """The format string of one line, before and behind the text of the flags."""
        texts = [field.text for field in self._fields]
        at = self.items.index(FLAGS) + 1 if FLAGS in self.items else len(texts)
        before = b"* %d FETCH (" + b" ".join(texts[:at])
        if FLAGS in self.items:
            before += b" "
        after = b"".join(b" " + text for text in texts[at:])
        return before, after + b")\r\n"

    def render(
        self,
        sequences: Sequence[int],
        rows: Sequence[Row],
        marked: frozenset[int] = frozenset(),
        read: Read = _unread,
    ) -> list[Piece]:
        """Render rows of :attr:`columns`; ``sequences`` are their numbers in the session.

        ``read`` finds header fields in messages whose data is not in their rows.
        """
        if not rows:
            return []
        if not self.source:
            return self._small(sequences, rows, marked)
        return self._with_octets(sequences, rows, marked, read)

    def _with_octets(
        self, sequences: Sequence[int], rows: Sequence[Row], marked: frozenset[int], read: Read
    ) -> list[Piece]:
        """Small messages together, each large one by itself."""
        data = self.columns.index(self.source)
        pieces: list[Piece] = []
        start = 0
        for n, row in enumerate(rows):
            if row[data] is None:
                pieces += self._small(sequences[start:n], rows[start:n], marked)
                pieces += self._large(sequences[n], row, marked, read)
                start = n + 1
        return pieces + self._small(sequences[start:], rows[start:], marked)

    def _small(
        self, sequences: Sequence[int], rows: Sequence[Row], marked: frozenset[int]
    ) -> list[Piece]:
        if not rows:
            return []
        page = dict(zip(self.columns, zip(*rows, strict=True), strict=True))
        return [self.lines(sequences, page, marked)]

    def _large(self, sequence: int, row: Row, marked: frozenset[int], read: Read) -> list[Piece]:
        """One message whose sections are streamed; all else goes into the text around them."""
        page = {name: (value,) for name, value in zip(self.columns, row, strict=True)}
        octets = Octets(*(page[name][0] for name in (*_SECTION, self.source)), read=read)
        line = self._templates(page, marked)[0]
        pieces: list[Piece] = []
        texts = _PLACE.split(line.replace(b"%%", b"\0"))
        values = iter([sequence, *self._streamed(page, octets)])
        for n, text in enumerate(texts):
            if n % 2 == 0:
                pieces.append(text.replace(b"\0", b"%"))
                continue
            value = next(values)
            pieces += value if isinstance(value, list) else [text % value]
        return join(pieces)

    def _streamed(self, page: Columns, octets: Octets) -> Iterable[Any]:
        for item, field in zip(self.items, self._fields, strict=True):
            if item.section is None:
                for value in field.values:
                    yield value(page)[0]
            elif len(field.values) == 1:
                yield literal(octets, item)
            else:
                yield octets.octets
                yield octets.cut(0, octets.octets)
                yield []

    def lines(
        self, sequences: Sequence[int], page: Columns, marked: frozenset[int] = frozenset()
    ) -> bytes:
        """One line for each message of the page."""
        stride = 1 + len(self._values)
        flat: list[Any] = [None] * (stride * len(sequences))
        flat[0::stride] = sequences
        for n, values in enumerate(self._values, 1):
            flat[n::stride] = values(page)
        return self._format(page, marked, len(sequences)) % tuple(flat)

    def _format(self, page: Columns, marked: frozenset[int], count: int) -> bytes:
        if not self._has_flags and not marked:
            return self._plain_line * count
        return b"".join(self._templates(page, marked))

    def _templates(self, page: Columns, marked: frozenset[int]) -> list[bytes]:
        """The format string of each line."""
        uids, flags = page["uid"], page["flags"]
        old = bisect_left(uids, self.names.recent_from)
        if self._has_flags:
            lines = list(map(self._lines.__getitem__, flags[:old]))
            return lines + list(map(self._recent_lines.__getitem__, flags[old:]))
        if not marked:
            return [self._plain_line] * len(uids)
        return [
            self._plain_line
            if uid not in marked
            else (self._marked_lines if n < old else self._recent_marked_lines)[value]
            for n, (uid, value) in enumerate(zip(uids, flags, strict=True))
        ]


_PLACE = re.compile(rb"(%[bd])")


def join(pieces: Iterable[Piece]) -> list[Piece]:
    """Join neighbouring octets, so that each is one write."""
    joined: list[Piece] = []
    texts: list[bytes] = []
    for piece in pieces:
        if isinstance(piece, bytes):
            texts.append(piece)
            continue
        joined += [b"".join(texts), piece]
        texts = []
    joined.append(b"".join(texts))
    return [piece for piece in joined if piece]


__all__ = ["Extent", "FlagTexts", "Names", "Plan", "UnknownKeyword", "join"]
