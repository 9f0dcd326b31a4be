"""Which messages of a mailbox: one octet for each, 1 where it is meant.

Masks of a hundred thousand messages combine in microseconds, because Python
takes their octets as one number.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import compress
from sys import byteorder
from typing import Final

Mask = bytes


def both(a: Mask, b: Mask) -> Mask:
    return _combined(int.from_bytes(a, "little") & int.from_bytes(b, "little"), len(a))


def either(a: Mask, b: Mask) -> Mask:
    return _combined(int.from_bytes(a, "little") | int.from_bytes(b, "little"), len(a))


def without(a: Mask, b: Mask) -> Mask:
    return both(a, b.translate(INVERSE))


def _combined(number: int, size: int) -> Mask:
    return number.to_bytes(size, "little")


INVERSE: Final = bytes([1]) + bytes(255)
# For each bit of an octet: the octets that have it.
HAS_BIT: Final = [bytes(octet >> bit & 1 for octet in range(256)) for bit in range(8)]


def indexes(mask: Mask) -> list[int]:
    """Where the mask is set, ascending."""
    if mask.count(1) * 16 > len(mask):
        return list(compress(range(len(mask)), mask))
    found = []
    at = mask.find(1)
    while at >= 0:
        found.append(at)
        at = mask.find(1, at + 1)
    return found


def octet_of(bit: int) -> int:
    return bit // 8 if byteorder == "little" else 7 - bit // 8


def of_spans(spans: Iterable[tuple[int, int]], size: int) -> Mask:
    mask = bytearray(size)
    for start, stop in spans:
        mask[start:stop] = b"\1" * (stop - start)
    return bytes(mask)
