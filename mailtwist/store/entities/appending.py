"""A whole message in base64 becomes one that can be appended: decoded, parsed, spooled."""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING

from mailtwist.errors import ProtocolViolation
from mailtwist.store.content import Spool, Spooled
from mailtwist.store.entities.mail_columns import MAX_RAW

if TYPE_CHECKING:
    from mailtwist.store.database import Database

_BLOCK = 1 << 16


async def spool(database: Database, text: str) -> Spooled:
    """Read the value of a new mail's column ``mail``; long ones go ahead into the store.

    Raises: ProtocolViolation naming the column, StoreUnavailable, StoreFull.
    """
    raw = _decoded(text)
    held = Spool(database, limit=MAX_RAW)
    try:
        for start in range(0, len(raw), _BLOCK):
            await held.write(raw[start : start + _BLOCK])
        return await held.finish()
    except BaseException:
        await held.discard()
        raise


def _decoded(text: str) -> bytes:
    if len(text) > MAX_RAW:
        raise ProtocolViolation(f"mail: longer than {MAX_RAW} characters")
    try:
        raw = binascii.a2b_base64("".join(text.split()), strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise ProtocolViolation("mail: not base64") from error
    if not raw:
        raise ProtocolViolation("mail: an empty message")
    # RFC 9051 §6.3.12: lines end with CRLF, as they do in everything the store holds.
    return raw if b"\r\n" in raw else raw.replace(b"\n", b"\r\n")
