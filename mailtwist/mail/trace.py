"""Trace headers: Received and Return-Path (RFC 5321 §4.4).

What the client said of itself comes in cleaned and cut, so that no HELO can
forge a field, a comment or another hop.
"""

from __future__ import annotations

import re
import time
from functools import lru_cache
from math import floor
from typing import Final

from mailtwist.mail.address import Address

MAX_HELO: Final = 255

_NOT_IN_HELO = re.compile(r"[^A-Za-z0-9._:\[\]-]")
_NOT_IN_ATOM = re.compile(r"[^A-Za-z0-9.+_-]")
# An address was parsed before it came here; this holds even if one was not.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = "JanFebMarAprMayJunJulAugSepOctNovDec"


def received(
    *,
    helo: str,
    client_address: str,
    hostname: str,
    protocol: str,
    queue_id: str,
    recipient: Address | str | None,
    seconds: float,
) -> bytes:
    """The Received field of one hop, folded.

    ``protocol`` comes from :func:`protocol_name`; ``seconds`` are those since
    1970. ``recipient`` (as on the wire) is given only where no other recipient
    will read it, so that no blind copy is betrayed (RFC 5321 §7.2).
    """
    client = f"IPv6:{client_address}" if ":" in client_address else client_address
    for_clause = f"\r\n\tfor <{_UNSAFE.sub('?', str(recipient))}>" if recipient else ""
    return (
        f"Received: from {clean_helo(helo)} ([{_NOT_IN_HELO.sub('?', client)}])\r\n"
        f"\tby {clean_helo(hostname)} with {_NOT_IN_ATOM.sub('', protocol)}"
        f" id {_NOT_IN_ATOM.sub('', queue_id)}{for_clause};\r\n"
        f"\t{date_time(seconds)}\r\n"
    ).encode("utf-8", "replace")


def return_path(address: Address | None) -> bytes:
    """The Return-Path field; None is the null path."""
    path = "" if address is None else _UNSAFE.sub("?", str(address))
    return f"Return-Path: <{path}>\r\n".encode("utf-8", "replace")


def protocol_name(
    *,
    is_esmtp: bool,
    is_tls: bool,
    is_authenticated: bool,
    is_utf8: bool = False,
    is_lmtp: bool = False,
) -> str:
    """The word behind "with" (RFC 3848; RFC 6531 §4.3)."""
    if not is_esmtp:
        return "SMTP"
    plain = "LMTP" if is_lmtp else "ESMTP"
    word = f"UTF8{plain.removeprefix('E')}" if is_utf8 else plain
    return f"{word}{'S' if is_tls else ''}{'A' if is_authenticated else ''}"


def clean_helo(helo: str) -> str:
    """A HELO argument as it may stand in a header."""
    return _NOT_IN_HELO.sub("?", helo[:MAX_HELO]) or "unknown"


def date_time(seconds: float) -> str:
    """The date-time of RFC 5322 §3.3, in UTC. Independent of the locale."""
    return _date_time(floor(seconds))


# Many messages come in a second.
@lru_cache(maxsize=64)
def _date_time(second: int) -> str:
    at = time.gmtime(second)
    month = _MONTHS[3 * at.tm_mon - 3 : 3 * at.tm_mon]
    return (
        f"{_DAYS[at.tm_wday]}, {at.tm_mday} {month} {at.tm_year:04d} "
        f"{at.tm_hour:02d}:{at.tm_min:02d}:{at.tm_sec:02d} +0000"
    )
