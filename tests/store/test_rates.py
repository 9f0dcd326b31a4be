"""Rows of counts that end, on both databases."""

from __future__ import annotations

import pytest

from mailtwist.store import rates
from mailtwist.store.rates import Added, Count

MINUTE = 60_000_000
NOW = 1_800_000_000_000_000
WHO = ("messages", "a@example.org")


def add(engine, n=1, *, now=NOW, who=WHO, lasts=MINUTE):
    with engine.write() as connection:
        (count,) = rates.add(connection, [Added(who[0], who[1], n, now + lasts, lasts)], now=now)
    return count


def find(engine, *, now=NOW, who=WHO, lasts=MINUTE):
    with engine.read() as connection:
        return rates.find(connection, *who, lasts=lasts, now=now)


def test_events_add_up_until_the_window_ends(engine):
    end = NOW + MINUTE
    assert find(engine) is None
    assert add(engine, 2) == Count(2, end)
    # Events in the window neither move its end nor open another.
    assert add(engine, 3, now=NOW + MINUTE // 2) == Count(5, end)
    assert find(engine, now=end - 1) == Count(5, end)
    assert find(engine, now=end) is None
    assert add(engine, 1, now=end) == Count(1, end + MINUTE)


def test_scopes_and_subjects_are_counted_apart(engine):
    others = [("messages", "b@example.org"), ("recipients", "a@example.org")]
    add(engine, 4)
    for who in others:
        assert find(engine, who=who) is None
        assert add(engine, who=who).n == 1
    assert find(engine).n == 4


def test_an_end_that_is_too_far_off_shuts_nobody_out(engine):
    """A clock that was wrong, or a window that was longer once."""
    add(engine, 50, now=NOW + 10 * MINUTE)
    assert find(engine) is None
    assert add(engine, 1) == Count(1, NOW + MINUTE)
    # That much two clocks may differ.
    add(engine, 7, now=NOW + 3 * MINUTE)
    assert find(engine, now=NOW + 2 * MINUTE).n == 7


def test_what_has_ended_is_swept(engine):
    add(engine)
    add(engine, who=("messages", "b@example.org"), now=NOW + MINUTE // 2)
    with engine.write() as connection:
        assert rates.sweep(connection, now=NOW + MINUTE) == 1
        assert rates.sweep(connection, now=NOW + MINUTE) == 0
    assert find(engine, who=("messages", "b@example.org"), now=NOW + MINUTE).n == 1


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "\udc80", "é@ü.example"])
def test_names_of_any_kind_can_be_counted(engine, name):
    who = ("messages", name)
    add(engine, who=who)
    assert add(engine, who=who).n == 2
    assert find(engine, who=who).n == 2
