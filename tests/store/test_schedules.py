"""When tasks run."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mailtwist.errors import ProtocolViolation
from mailtwist.store.entities.values import iso
from mailtwist.store.schedules import MAX_LENGTH, SECOND, read_schedule

# A Friday.
START = int(datetime(2027, 1, 15, 8, 0, 7, tzinfo=UTC).timestamp()) * SECOND + 250_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*/5 * * * *", "2027-01-15T08:05:00Z"),
        ("0 9 * * *", "2027-01-15T09:00:00Z"),
        ("30 7 * * *", "2027-01-16T07:30:00Z"),
        ("0 0 1 * *", "2027-02-01T00:00:00Z"),
        ("0 0 29 2 *", "2028-02-29T00:00:00Z"),
        ("0 12 * * MON-FRI", "2027-01-15T12:00:00Z"),
        ("0 12 ? * sun", "2027-01-17T12:00:00Z"),
        ("10 * * * * *", "2027-01-15T08:00:10Z"),
        ("* * * * * *", "2027-01-15T08:00:08Z"),
        ("@hourly", "2027-01-15T09:00:00Z"),
        ("@daily", "2027-01-16T00:00:00Z"),
        ("@midnight", "2027-01-16T00:00:00Z"),
        ("@weekly", "2027-01-17T00:00:00Z"),
        ("@monthly", "2027-02-01T00:00:00Z"),
        ("@yearly", "2028-01-01T00:00:00Z"),
        ("@Annually", "2028-01-01T00:00:00Z"),
        ("@every 5m", "2027-01-15T08:05:07.250000Z"),
        ("@every 1h30m", "2027-01-15T09:30:07.250000Z"),
        ("  @every   90s ", "2027-01-15T08:01:37.250000Z"),
        ("@every 1.5h", "2027-01-15T09:30:07.250000Z"),
        ("@every 2d", "2027-01-17T08:00:07.250000Z"),
    ],
)
def test_the_next_time_is_the_one_that_is_written(text: str, expected: str) -> None:
    assert iso(read_schedule(text).after(START)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*",
        "* * * *",
        "* * * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "*/0 * * * *",
        "5-1 * * * *",
        "0 0 31 2 *",
        "0 0 30 2 *",
        "0 0 31 4,6,9,11 *",
        "@every",
        "@every 0s",
        "@every 100ms",
        "@every 0.5s",
        "@every 1.5s",
        "@every -5m",
        "@every 5",
        "@every 9999999h",
        "@every 367d",
        "@reboot",
        "@never",
        "tomorrow",
        "١ * * * *",
        "1," * MAX_LENGTH + " * * * *",
    ],
)
def test_what_is_no_schedule_or_never_comes_is_refused(text: str) -> None:
    with pytest.raises(ProtocolViolation):
        read_schedule(text)


@pytest.mark.parametrize("text", ["*/7 3-5 * * 1", "@hourly", "@every 61s", "* * * * * *"])
def test_it_is_always_later(text: str) -> None:
    moment, schedule = START, read_schedule(text)
    for _ in range(50):
        later = schedule.after(moment)
        assert later > moment
        moment = later
