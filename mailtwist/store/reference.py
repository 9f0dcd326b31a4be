"""UUIDs that the outside may keep: version 7, so that they sort by the time they were made.

A unit that runs several times makes the same ones each time inside :func:`repeatable`.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final


@dataclass(slots=True)
class Repetition:
    """What makes a unit come to the same ids whenever it runs."""

    seed: bytes = field(default_factory=lambda: os.urandom(16))
    numbers: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Run:
    """One run of the unit: how many of each were made so far."""

    of: Repetition
    ids: int = 0
    numbers: int = 0


_RUN: Final[ContextVar[_Run | None]] = ContextVar("run", default=None)


def reference_id(now: int) -> str:
    """Make a UUIDv7 for a moment in microseconds. RFC 9562 §5.7."""
    milliseconds = now // 1000 & (1 << 48) - 1
    chance = int.from_bytes(_chance(), "big")
    high, low = chance >> 68, chance & (1 << 62) - 1
    return str(uuid.UUID(int=milliseconds << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low))


def _chance() -> bytes:
    run = _RUN.get()
    if run is None:
        return os.urandom(10)
    run.ids += 1
    return blake2b(run.ids.to_bytes(8, "big"), digest_size=10, key=run.of.seed).digest()


def repeated(make: Callable[[], int]) -> int | None:
    """The number that was made here in earlier runs, made now in the first; None outside.

    For those of sequences, which go on counting when a transaction is rolled back.
    """
    run = _RUN.get()
    if run is None:
        return None
    if run.numbers == len(run.of.numbers):
        run.of.numbers.append(make())
    run.numbers += 1
    return run.of.numbers[run.numbers - 1]


@contextmanager
def repeatable(repetition: Repetition) -> Iterator[None]:
    """Inside, the same ids are made again for the same moments."""
    token = _RUN.set(_Run(repetition))
    try:
        yield
    finally:
        _RUN.reset(token)
