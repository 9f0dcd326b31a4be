"""Answers made shorter on the way: gzip, where the client takes it and it is worth it.

Standards: RFC 9110 §12.5.3; RFC 1952.
"""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable
from typing import Final

from mailtwist.http.exchange import no_pause

# Below this a packet is a packet.
MIN_OCTETS: Final = 1024
# The lowest level takes a quarter of the time of the usual one, for a tenth more octets.
LEVEL: Final = 1
STEP: Final = 256 << 10
_GZIP: Final = 31
_TYPES: Final = ("text/", "application/json", "application/vnd.api+json", "application/yaml")


def accepts_gzip(accept: str) -> bool:
    """Whether ``Accept-Encoding`` lets gzip through; a weight of 0 forbids it."""
    for item in accept.lower().split(",")[:20]:
        name, _, weight = item.partition(";")
        if name.strip() in ("gzip", "x-gzip", "*"):
            return not _is_zero(weight)
    return False


def is_worth(content_type: str, octets: int) -> bool:
    return octets >= MIN_OCTETS and content_type.startswith(_TYPES)


async def gzip(body: bytes, pause: Callable[[], Awaitable[None]] = no_pause) -> bytes:
    """Pack a body, in steps of a few milliseconds."""
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, _GZIP)
    pieces = []
    for at in range(0, len(body), STEP):
        if at:
            await pause()
        pieces.append(packer.compress(body[at : at + STEP]))
    pieces.append(packer.flush())
    return b"".join(pieces)


def _is_zero(weight: str) -> bool:
    name, _, value = weight.strip().partition("=")
    return name.strip() == "q" and value.strip().strip("0") in ("", ".")
