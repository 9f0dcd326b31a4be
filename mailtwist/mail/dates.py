"""The Date field: fast for what mailers write, forgiving for the rest (RFC 5322 §3.3, §4.3)."""

from __future__ import annotations

import re
from datetime import date
from typing import Final

_NAMES: Final = b"janfebmaraprmayjunjulaugsepoctnovdec"
_MONTHS: Final = {_NAMES[3 * n : 3 * n + 3]: n + 1 for n in range(12)}
_COMMON = re.compile(
    rb"\s*(?:[A-Za-z]{3,9},?\s+|[A-Za-z]{3},)?(\d{1,2})\s+([A-Za-z]{3})\s+(\d{4})\s+"
    rb"(\d\d):(\d\d)(?::(\d\d))?\s*(?:([+-])(\d\d)(\d\d)|(?:GMT|UTC?|Z)\b)"
)
_EPOCH: Final = date(1970, 1, 1).toordinal()
_MAX_LENGTH: Final = 128


def parse_date(data: bytes) -> tuple[int, int] | None:
    """Microseconds since 1970 in UTC, and the day that was written.

    The day (since 1970 too) is the sender's own, without regard to the zone:
    SEARCH SENTON asks for that one (RFC 9051 §6.4.4). None: not a date.
    """
    data = data[:_MAX_LENGTH]
    match = _COMMON.match(data)
    if match is None:
        return _parse_rare(data)
    day, month, year, hour, minute, second, sign, zone_hours, zone_minutes = match.groups()
    zone = 0
    if sign is not None:
        zone = int(zone_hours) * 60 + int(zone_minutes)
        zone = -zone if sign == b"-" else zone
    return _moment(
        (int(year), _MONTHS.get(month.lower(), 0), int(day)),
        (int(hour), int(minute), int(second or 0)),
        zone,
    )


def _parse_rare(data: bytes) -> tuple[int, int] | None:
    # Not loaded until a message needs it.
    from email.utils import parsedate_tz

    try:
        found = parsedate_tz(data.decode("ascii", "replace"))
    except (ValueError, IndexError, TypeError, OverflowError):
        return None
    if found is None:
        return None
    return _moment(found[:3], found[3:6], (found[9] or 0) // 60)


def _moment(
    day: tuple[int, int, int], time: tuple[int, int, int], zone: int
) -> tuple[int, int] | None:
    hour, minute, second = time
    if not (0 <= hour < 24 and 0 <= minute < 60 and 0 <= second <= 60 and abs(zone) < 1440 * 2):
        return None
    try:
        days = date(*day).toordinal() - _EPOCH
    except (ValueError, OverflowError):
        return None
    seconds = days * 86400 + hour * 3600 + minute * 60 + second - zone * 60
    return seconds * 1_000_000, days
