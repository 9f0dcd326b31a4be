"""The structure of a message, found while it passes by (RFC 5322; RFC 2045 to 2049).

:class:`Parser` is fed the octets of one message in blocks of any size and keeps
none of its body: memory is one window, the headers under examination and the
answer. Time is linear, every count has a bound, and any octets whatever give an
answer that is valid on the IMAP wire. How the blocks are cut never matters.

The spool feeds it as a message arrives; ENVELOPE, BODYSTRUCTURE, BODY and the
place of each part are then stored beside the message, ready to send.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any, Final

from mailtwist.mail.addresslist import Budget
from mailtwist.mail.bodystructure import Description, describe, render
from mailtwist.mail.delimiters import NO_DELIMITERS, Delimiters
from mailtwist.mail.envelope import Summary, message_id, render_envelope, summarise
from mailtwist.mail.fields import read_fields
from mailtwist.mail.parts import Kind, encode_line

WINDOW: Final = 65536
MAX_DEPTH: Final = 20  # containers inside each other
MAX_PARTS: Final = 1000
MAX_HEADER: Final = 65536  # octets of one header block that are looked at
MAX_PART_HEADERS: Final = 262144  # and of the headers of all parts together

# What is read of a message that no mailbox gets.
_OF_UNREAD: Final = frozenset((b"message-id",))
# A message may begin with its blank line.
_FIRST_BLANK = re.compile(rb"\r?\n")


@dataclass(frozen=True, slots=True)
class Structure:
    """What is known of a message once all of it was seen.

    ``envelope``, ``bodystructure`` and ``body`` are values of FETCH ready to
    send; ``parts`` is the text of :mod:`mailtwist.mail.parts`. ``header_octets``
    counts the blank line. ``folded_*`` are decoded and folded for search.
    ``sent_at`` is in microseconds UTC, ``sent_day`` the day since 1970 that the
    sender wrote, whatever the zone. ``received_count`` guards against loops.
    """

    octets: int
    header_octets: int
    envelope: bytes
    bodystructure: bytes
    body: bytes
    parts: bytes
    message_id: str
    subject: str
    folded_subject: str
    folded_from: str
    folded_to: str
    folded_cc: str
    folded_bcc: str
    sent_at: int | None
    sent_day: int | None
    has_attachment: bool
    received_count: int


class _Unread(Structure):
    """Of a message that no mailbox gets: its header was looked at, the rest is read on demand."""

    __slots__ = ("_parser",)

    _parser: Parser

    def __init__(
        self, parser: Parser, *, header_octets: int, received_count: int, message_id: str
    ) -> None:
        self._set("_parser", parser)
        self._set("header_octets", header_octets)
        self._set("received_count", received_count)
        self._set("message_id", message_id)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        # Only what is not set yet is asked for here.
        if name not in Structure.__slots__:
            raise AttributeError(name)
        whole = self._parser.close()
        for each in fields(whole):
            self._set(each.name, getattr(whole, each.name))
        return getattr(whole, name)


class _Open:
    """A part whose end has not come yet. Offsets count from the start of the message."""

    __slots__ = (
        "boundary",
        "description",
        "envelope",
        "header_end",
        "inside",
        "line",
        "lines_before",
        "start",
    )

    description: Description

    def __init__(self, start: int, line: int) -> None:
        self.start = start
        self.header_end = start
        self.line = line  # its place in the list of parts
        self.lines_before = 0
        self.boundary = b""  # emptied by the closing delimiter
        self.envelope = b""  # of the message in it, if it is one
        self.inside: list[tuple[bytes, bytes]] = []


class Parser:
    """Feed it blocks, then close it; never raises, whatever the octets."""

    def __init__(self, *, window: int = WINDOW) -> None:
        """``window``: octets to collect before looking at them; only tests change it."""
        self._window = window
        self._blocks: list[bytes] = []
        self._waiting = 0
        # The octets under examination, the offset of the first of them in the
        # message, and where among them the search goes on.
        self._data = b""
        self._base = 0
        self._at = 0
        # Line feeds before the place ``_counted`` of ``_data``.
        self._lines = 0
        self._counted = 0
        self._in_header = True
        self._long_header: bytes | None = None
        self._header_budget = MAX_PART_HEADERS
        self._addresses = Budget()
        self._parts: list[bytes] = [b""]
        self._open = [_Open(0, 0)]
        self._delimiters = NO_DELIMITERS
        self._header_octets = 0
        self._received = 0
        self._has_attachment = False
        self._envelope = b""
        self._summary: Summary
        self._answer = (b"", b"")

    def feed(self, block: bytes) -> None:
        """Take the next octets of the message."""
        self._blocks.append(block)
        self._waiting += len(block)
        if self._waiting >= self._window:
            self._examine(is_last=False)

    def close(self, *, passing: bytes | None = None) -> Structure:
        """The structure of what was fed.

        ``passing``: the same octets in one piece, of a message that no mailbox gets. Little more
        than its header is ever asked for, and the rest is made when it is.
        """
        if passing is not None and not (self._base or self._data):
            self._blocks = [passing]
            return self._unread()
        self._examine(is_last=True)
        octets = self._base + len(self._data)
        self._close_parts(0, len(self._data))
        summary = self._summary
        return Structure(
            octets,
            self._header_octets,
            self._envelope,
            self._answer[0],
            self._answer[1],
            b"".join(self._parts),
            summary.message_id,
            summary.subject,
            summary.folded_subject,
            summary.folded_from,
            summary.folded_to,
            summary.folded_cc,
            summary.folded_bcc,
            summary.sent_at,
            summary.sent_day,
            self._has_attachment,
            self._received,
        )

    def _unread(self) -> Structure:
        """What is to be known of any message, of one that has stayed within a window."""
        self._gather()
        found = self._next_blank_line()
        end = found[0] if isinstance(found, tuple) else len(self._data)
        header, received = read_fields(self._data[: min(end, MAX_HEADER)], _OF_UNREAD)
        return _Unread(
            self, header_octets=end, received_count=received, message_id=message_id(header)
        )

    # -- the window -----------------------------------------------------------------------

    def _gather(self) -> None:
        if self._data:
            self._blocks.insert(0, self._data)
        self._data = self._blocks[0] if len(self._blocks) == 1 else b"".join(self._blocks)
        self._blocks = []
        self._waiting = 0

    def _examine(self, *, is_last: bool) -> None:
        self._gather()
        while self._find_header_end(is_last) if self._in_header else self._find_delimiter(is_last):
            pass
        if not is_last:
            self._drop_seen()

    def _drop_seen(self) -> None:
        """Forget what was looked at, save two octets: a delimiter's line break may be there."""
        keep = self._at
        if self._in_header and self._long_header is None:
            keep = self._open[-1].start - self._base
        keep = max(keep - 2, 0)
        self._count_lines(keep)
        self._data = self._data[keep:]
        self._base += keep
        self._at -= keep
        self._counted -= keep

    def _count_lines(self, to: int) -> int:
        """Line feeds from the start of the message to a place in the window."""
        if to > self._counted:
            self._lines += self._data.count(b"\n", self._counted, to)
            self._counted = to
        return self._lines

    # -- headers --------------------------------------------------------------------------

    def _find_header_end(self, is_last: bool) -> bool:
        """Look for the blank line, or for the delimiter that stands before it."""
        data = self._data
        if self._delimiters:
            found = self._delimiters.find_in_header(data, self._at, is_last)
        else:
            found = self._next_blank_line()
        if isinstance(found, tuple):
            self._end_header(*found)
        elif is_last:
            self._end_header(len(data), len(data))
        else:
            self._at = found
            start = self._open[-1].start - self._base
            if self._long_header is None and len(data) - start > MAX_HEADER:
                self._long_header = data[start : start + MAX_HEADER]
            return False
        return True

    def _next_blank_line(self) -> tuple[int, int] | int:
        """Where the header ends and where to go on, or the place to look again from."""
        data, at = self._data, self._at
        if self._base + at == 0 and (match := _FIRST_BLANK.match(data)):
            return match.end(), match.end() - 1
        with_cr = data.find(b"\n\r\n", at)
        bare = data.find(b"\n\n", at, len(data) if with_cr < 0 else with_cr + 1)
        if bare < 0 and with_cr < 0:
            return max(at, len(data) - 2)
        end = bare + 2 if bare >= 0 else with_cr + 3
        return end, end - 1

    def _end_header(self, end: int, at: int) -> None:
        """The header of the innermost part ends at ``end``; go on at ``at``."""
        part = self._open[-1]
        end = max(end, part.start - self._base)
        octets = min(self._base + end - part.start, MAX_HEADER)
        if self._long_header is None:
            start = part.start - self._base
            block = self._data[start : start + octets]
        else:
            block, self._long_header = self._long_header[:octets], None
        part.header_end = self._base + end
        part.lines_before = self._count_lines(end)
        self._at = at
        self._in_header = False
        self._describe(part, block)
        if part.description.kind is Kind.MESSAGE:
            self._open_part(part.header_end)
        elif part.boundary:
            self._set_delimiters()

    def _describe(self, part: _Open, block: bytes) -> None:
        is_root = len(self._open) == 1
        if not is_root:
            self._header_budget -= len(block)
            if self._header_budget < 0:
                block = b""
        fields, received = read_fields(block)
        above = None if is_root else self._open[-2]
        part.description = describe(
            fields,
            in_digest=above is not None and above.description.is_digest,
            may_nest=len(self._open) <= MAX_DEPTH and len(self._parts) < MAX_PARTS,
        )
        part.boundary = part.description.boundary
        if is_root:
            self._header_octets = part.header_end
            self._received = received
            self._summary = summarise(fields)
            self._envelope = render_envelope(fields, self._addresses)
        elif above is not None and above.description.kind is Kind.MESSAGE:
            above.envelope = render_envelope(fields, self._addresses)

    def _open_part(self, start: int) -> None:
        self._open.append(_Open(start, len(self._parts)))
        self._parts.append(b"")
        self._in_header = True

    # -- bodies ---------------------------------------------------------------------------

    def _find_delimiter(self, is_last: bool) -> bool:
        """Look for the next delimiter of any multipart that is open."""
        if not self._delimiters:
            self._at = len(self._data)
            return False
        found = self._delimiters.find(self._data, self._at, is_last)
        if isinstance(found, int):
            self._at = found
            return False
        place, line_end, level, is_closing = found
        if not is_closing and len(self._parts) >= MAX_PARTS:
            # The last part takes all the rest.
            self._delimiters = NO_DELIMITERS
            return True
        # RFC 2046 §5.1.1: the line break before a delimiter belongs to it.
        has_cr = place > 0 and self._data[place - 1] == 13
        self._close_parts(level + 1, place - 1 if has_cr else place)
        self._at = line_end
        if is_closing:
            self._open[level].boundary = b""
            self._set_delimiters()
        else:
            self._open_part(self._base + min(line_end + 1, len(self._data)))
        return True

    def _set_delimiters(self) -> None:
        # Of two equal boundaries the inner one counts.
        self._delimiters = Delimiters(
            {part.boundary: level for level, part in enumerate(self._open) if part.boundary}
        )

    # -- the ends of parts ----------------------------------------------------------------

    def _close_parts(self, level: int, end: int) -> None:
        """Close what is open from this level on, the innermost first."""
        had_boundary = False
        while len(self._open) > level:
            part = self._open.pop()
            had_boundary = had_boundary or bool(part.boundary)
            # The line break that belongs to the delimiter may be the end of a header too.
            # No part ends before its header does, nor before the parts inside it.
            end = max(end, part.header_end - self._base)
            self._close_part(part, end)
        if had_boundary and level > 0:
            self._set_delimiters()

    def _close_part(self, part: _Open, end: int) -> None:
        description = part.description
        lines = self._count_lines(end) - part.lines_before
        end += self._base
        answer = render(description, end - part.header_end, lines, part.inside, part.envelope)
        if description.is_attachment:
            self._has_attachment = True
        self._parts[part.line] = encode_line(
            len(self._open),
            (part.start, part.header_end, end),
            description.kind,
            (description.content_type, description.encoding, description.charset),
        )
        if self._open:
            self._open[-1].inside.append(answer)
        else:
            self._answer = answer
