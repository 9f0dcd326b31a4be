"""UUIDs that need no column: version 8, made of the numbers that name a row in the store.

=========  =====================  ==============
entity     first number           second number
=========  =====================  ==============
mail_box   account_id             mailbox_id
mail       account_id             entry_id
outbox     queue_id               n
=========  =====================  ==============

A mail keeps its entry_id through MOVE, and so its id. They are names, not secrets: who may
see a row is decided by the row.
"""

from __future__ import annotations

import re
import uuid
from enum import IntEnum
from functools import lru_cache
from typing import Final

_FORM: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_SECOND_BITS: Final = 56
_FIRST_BITS: Final = 63
_LOW_BITS: Final = 62  # below the variant
_MIDDLE_BITS: Final = 12  # between variant and version


class Kind(IntEnum):
    MAIL_BOX = 1
    MAIL = 2
    OUTBOX = 3


# All mails of a page name the same mailbox.
@lru_cache(maxsize=4096)
def pack(kind: Kind, first: int, second: int) -> str:
    """Spell the id of a row. RFC 9562 §5.8."""
    assert first >> _FIRST_BITS == 0, "numbers of the store fit"
    assert second >> _SECOND_BITS == 0, "numbers of the store fit"
    number = kind << _FIRST_BITS + _SECOND_BITS | first << _SECOND_BITS | second
    high, rest = number >> _LOW_BITS + _MIDDLE_BITS, number & (1 << _LOW_BITS + _MIDDLE_BITS) - 1
    middle, low = rest >> _LOW_BITS, rest & (1 << _LOW_BITS) - 1
    return str(uuid.UUID(int=high << 80 | 0x8 << 76 | middle << 64 | 0b10 << 62 | low))


def unpack(kind: Kind, text: str) -> tuple[int, int] | None:
    """Read the two numbers of an id; None: it is none of this kind."""
    if not _FORM.fullmatch(text):
        return None
    parsed = int(text.replace("-", ""), 16)
    if parsed >> 76 & 0xF != 0x8 or parsed >> 62 & 0b11 != 0b10:
        return None
    number = (
        parsed >> 80 << _LOW_BITS + _MIDDLE_BITS
        | (parsed >> 64 & (1 << _MIDDLE_BITS) - 1) << _LOW_BITS
        | parsed & (1 << _LOW_BITS) - 1
    )
    if number >> _FIRST_BITS + _SECOND_BITS != kind:
        return None
    first = number >> _SECOND_BITS & (1 << _FIRST_BITS) - 1
    return first, number & (1 << _SECOND_BITS) - 1
