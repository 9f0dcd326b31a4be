"""What can be done with messages, under one name: each of these is one unit."""

from __future__ import annotations

from mailtwist.store.copies import Copied, copy, move
from mailtwist.store.deliver import Acceptance, Delivered, Entry, deliver
from mailtwist.store.expunge import Expunged, expunge
from mailtwist.store.flags import Stored, store_flags

__all__ = [
    "Acceptance",
    "Copied",
    "Delivered",
    "Entry",
    "Expunged",
    "Stored",
    "copy",
    "deliver",
    "expunge",
    "move",
    "store_flags",
]
