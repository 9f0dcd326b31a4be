"""Dates as mailers write them."""

from __future__ import annotations

import pytest

from mailtwist.mail.dates import parse_date

NOON = 1794830400  # 16 Nov 2026 12:00:00 UTC
DAY = 20773


@pytest.mark.parametrize(
    ("data", "seconds", "day"),
    [
        (b"Mon, 16 Nov 2026 12:00:00 +0000", NOON, DAY),
        (b"16 nov 2026 12:00 GMT", NOON, DAY),
        (b"Mon,16 Nov 2026 12:00:00 UT", NOON, DAY),
        (b"Mon, 16 Nov 2026 13:30:05 +0130 (CET)", NOON + 5, DAY),
        (b"Sun, 15 Nov 2026 23:00:00 -1300", NOON, DAY - 1),
        (b"Monday, 16 Nov 2026 12:00:00 Z", NOON, DAY),
        (b"Mon, 16 Nov 2026 12:00:60 +0000", NOON + 60, DAY),
        # By the library: obsolete zones, two-digit years, ctime.
        (b"16 Nov 26 07:00:00 EST", NOON, DAY),
        (b"Mon Nov 16 12:00:00 2026", NOON, DAY),
        (b"Thu, 1 Jan 1970 00:00:00 +0000", 0, 0),
        (b"31 Dec 1969 23:59:59 +0000", -1, -1),
    ],
)
def test_a_date_is_read(data: bytes, seconds: int, day: int) -> None:
    assert parse_date(data) == (seconds * 1_000_000, day)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"soon",
        b"32 Jan 2026 12:00:00 +0000",
        b"1 Foo 2026 12:00:00 +0000",
        b"\xff" * 500,
        b"1 Jan 2026 24:00:00 +0000",
        b"1 Jan 2026 12:60:00 +0000",
        b"1 Jan 0000 12:00:00 +0000",
        b"1 Jan 2026 12:00:00 +9999",
        b"," * 200,
        b"1 Jan 999999999999999999 00:00:00",
        b"0",
    ],
)
def test_anything_else_is_no_date(data: bytes) -> None:
    assert parse_date(data) is None
