"""UUIDs that the outside may keep: version 7, so that they sort by the time they were made."""

from __future__ import annotations

import os
import uuid


def reference_id(now: int) -> str:
    """Make a UUIDv7 for a moment in microseconds. RFC 9562 §5.7."""
    milliseconds = now // 1000 & (1 << 48) - 1
    chance = int.from_bytes(os.urandom(10), "big")
    high, low = chance >> 68, chance & (1 << 62) - 1
    return str(uuid.UUID(int=milliseconds << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low))
