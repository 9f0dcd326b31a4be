"""Sets of message numbers: what the client names and what the store keeps.

:class:`SequenceSet` is the ``sequence-set`` of RFC 9051 §9, for uids and for
sequence numbers; :func:`compress` and :func:`expand` are the short text of a
set of uids in rows and in answers. All of it is linear in its input.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from mailtwist.errors import ProtocolViolation

MAX_TEXT: Final = 65536
MAX_NUMBER: Final = 4294967295

_NUMBER = rb"(?:[1-9][0-9]{0,9}|\*)"
_ITEM = rb"%b(?::%b)?" % (_NUMBER, _NUMBER)
_SET = re.compile(rb"%b(?:,%b)*+" % (_ITEM, _ITEM))


@dataclass(frozen=True, slots=True)
class SequenceSet:
    """A set of numbers in which ``*`` stands for the highest one there is.

    ``closed``: ranges without ``*``, sorted, merged, both ends included.
    ``starred``: the other end of each range that ends in ``*``; 0 for ``*`` alone.
    """

    closed: tuple[tuple[int, int], ...]
    starred: tuple[int, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> SequenceSet:
        """Read ``2,4:7,9:*``. Raises: ProtocolViolation."""
        if len(data) > MAX_TEXT or _SET.fullmatch(data) is None:
            raise ProtocolViolation("Invalid sequence set")
        closed: list[tuple[int, int]] = []
        starred: set[int] = set()
        for item in data.split(b","):
            low, _, high = item.partition(b":")
            high = high or low
            if low == b"*" or high == b"*":
                other = high if low == b"*" else low
                starred.add(0 if other == b"*" else int(other))
            else:
                a, b = int(low), int(high)
                closed.append((a, b) if a <= b else (b, a))
        highest = max(max(starred, default=0), max((b for _, b in closed), default=0))
        if highest > MAX_NUMBER:
            raise ProtocolViolation("Number too large in sequence set")
        return cls(tuple(_merge(closed)), tuple(sorted(starred)))

    @classmethod
    def of(cls, numbers: Iterable[int]) -> SequenceSet:
        """The set of exactly these numbers."""
        return cls(tuple(_runs(numbers)))

    @property
    def highest(self) -> int:
        """The largest number named, 0 when only ``*`` is."""
        return max(self.closed[-1][1] if self.closed else 0, *self.starred, 0)

    def ranges(self, maximum: int) -> list[tuple[int, int]]:
        """Sorted, merged ranges, ``*`` read as ``maximum``; with none (0) ``*`` names nothing."""
        if not self.starred or maximum <= 0:
            return list(self.closed)
        # RFC 9051 §9, seq-range: the order of the ends does not matter, so that
        # 9:* with 5 messages means 5:9.
        spans = [((n or maximum), maximum) for n in self.starred]
        spans = [(a, b) if a <= b else (b, a) for a, b in spans]
        return _merge([*self.closed, *spans])

    def spans(self, numbers: array[int], maximum: int) -> list[tuple[int, int]]:
        """The slices ``[start:stop]`` of the sorted ``numbers`` that are in the set.

        Empty slices are left out; neighbours are merged.
        """
        found: list[tuple[int, int]] = []
        start = stop = 0
        for low, high in self.ranges(maximum):
            left = bisect_left(numbers, low, stop)
            right = bisect_right(numbers, high, left)
            if left == right:
                continue
            if found and left == stop:
                left = start
                found.pop()
            found.append((left, right))
            start, stop = left, right
        return found

    def select(self, numbers: array[int], maximum: int) -> array[int]:
        """Those of the sorted ``numbers`` that are in the set.

        All of them: the very array that was given, so do not change the answer.
        """
        spans = self.spans(numbers, maximum)
        if len(spans) == 1:
            start, stop = spans[0]
            return numbers if stop - start == len(numbers) else numbers[start:stop]
        chosen = array(numbers.typecode)
        for start, stop in spans:
            chosen.extend(numbers[start:stop])
        return chosen

    def __contains__(self, number: int) -> bool:
        """Whether a number is in the set, ``*`` aside."""
        n = bisect_right(self.closed, (number, MAX_NUMBER + 1))
        return n > 0 and self.closed[n - 1][1] >= number

    def __str__(self) -> str:
        items = [_item(a, b) for a, b in self.closed]
        items += [f"{n}:*" if n else "*" for n in self.starred]
        return ",".join(items)


def compress(uids: Iterable[int]) -> str:
    """The shortest text of a set: ``3:9,12``."""
    return ",".join([_item(a, b) for a, b in _runs(uids)])


def expand(text: str) -> list[int]:
    """The numbers of a text that :func:`compress` wrote, ascending."""
    numbers: list[int] = []
    for item in text.split(",") if text else ():
        low, _, high = item.partition(":")
        numbers.extend(range(int(low), int(high or low) + 1))
    return numbers


def _item(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}:{high}"


def _runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    ordered = sorted(numbers)
    if not ordered:
        return runs
    if ordered[-1] - ordered[0] == len(ordered) - 1 == len(set(ordered)) - 1:
        return [(ordered[0], ordered[-1])]
    low = high = ordered[0]
    for number in ordered:
        if number > high + 1:
            runs.append((low, high))
            low = number
        high = number
    runs.append((low, high))
    return runs


def _merge(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sort and join what overlaps or touches."""
    ranges.sort()
    merged: list[tuple[int, int]] = []
    for low, high in ranges:
        if merged and low <= merged[-1][1] + 1:
            if high > merged[-1][1]:
                merged[-1] = (merged[-1][0], high)
        else:
            merged.append((low, high))
    return merged
