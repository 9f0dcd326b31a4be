"""Finding the delimiter lines of open multiparts in a window of octets (RFC 2046 §5.1.1).

A delimiter is a whole line: two dashes, the boundary, two dashes more if it
closes, blanks. Text that merely looks like one may come a million times, so
the search stays in C as long as it can.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

# A delimiter is this long at most: the boundary, two dashes and stray blanks.
MAX_LINE: Final = 1000

_BREAK = re.compile(rb"(?P<blank>\n\r?\n)|(?P<dashes>\n--)")
_NONE: Final = -1
_CUT: Final = -2


class Delimiter(NamedTuple):
    """``place``: the line feed before the line; ``end``: the one behind it, or the end."""

    place: int
    end: int
    level: int
    is_closing: bool


class Delimiters:
    """The boundaries that count just now, each with the level of its multipart.

    The searches answer with an ``int`` when nothing is there yet: the place to
    look again from once more octets have come.
    """

    def __init__(self, levels: Mapping[bytes, int]) -> None:
        self._levels = levels
        self._lines = tuple([b"\n--" + boundary for boundary in levels])
        self._needle = self._lines[0] if len(self._lines) == 1 else b"\n--"
        self._longest = max(map(len, self._lines), default=0)

    def __bool__(self) -> bool:
        return bool(self._levels)

    def find(self, data: bytes, at: int, is_last: bool) -> Delimiter | int:
        """The next delimiter; ``is_last``: nothing will follow ``data``."""
        enough = len(data) if is_last else len(data) - self._longest
        while (place := data.find(self._needle, at)) >= 0:
            if place <= enough and not data.startswith(self._lines, place):
                at = place + 3
                continue
            end, level, is_closing = self._read(data, place, is_last)
            if level >= 0:
                return Delimiter(place, end, level, is_closing)
            if level == _CUT:
                return place
            at = end
        return max(at, len(data) - len(self._needle) + 1)

    def find_in_header(self, data: bytes, at: int, is_last: bool) -> tuple[int, int] | int:
        """Where a header ends and where to go on: at a blank line, or before a delimiter.

        Both are looked for in one pass: looking for the one far behind the other
        would cost more with each of many small parts.
        """
        while match := _BREAK.search(data, at):
            place = match.start()
            if match.lastgroup == "blank":
                return match.end(), match.end() - 1
            end, level, _ = self._read(data, place, is_last)
            if level >= 0:
                # It will be found again, as the end of an empty body.
                return place + 1, place
            if level == _CUT:
                return place
            at = end
        return max(at, len(data) - 2)

    def _read(self, data: bytes, place: int, is_last: bool) -> tuple[int, int, bool]:
        """Whether the line behind the line feed at ``place`` is a delimiter.

        Returns where to go on, its level (_NONE: it is none, _CUT: the line goes on
        beyond what is known) and whether it closes.
        """
        start = place + 3
        end = data.find(b"\n", start, start + MAX_LINE)
        if end < 0:
            if len(data) - start >= MAX_LINE:
                return start, _NONE, False
            if not is_last:
                return start, _CUT, False
            end = len(data)
        line = data[start:end].rstrip(b" \t\r")
        level = self._levels.get(line)
        if level is not None:
            return end, level, False
        if line.endswith(b"--"):
            return end, self._levels.get(line[:-2], _NONE), True
        return end, _NONE, False


NO_DELIMITERS: Final = Delimiters({})
