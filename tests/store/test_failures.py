from __future__ import annotations

import pytest

from mailtwist.store import failures
from mailtwist.store.engine import Engine

LIMITS = {"window": 300, "limit": 3, "lock": 1000}


def test_the_last_failure_within_the_window_locks(engine: Engine) -> None:
    with engine.write() as connection:
        outcomes = [
            failures.record(connection, "account", "anna@example.com", now=now, **LIMITS)
            for now in (1000, 1100, 1200)
        ]
        assert outcomes == [0, 0, 2200]
        # Neither the other account nor the address of that name is meant.
        assert failures.locked(connection, "account", "bert@example.com", now=1201) == 0
        assert failures.locked(connection, "address", "anna@example.com", now=1201) == 0
    with engine.read() as connection:
        assert failures.locked(connection, "account", "anna@example.com", now=2199) == 2200
        assert failures.locked(connection, "account", "anna@example.com", now=2200) == 0


def test_failures_outside_the_window_are_forgotten(engine: Engine) -> None:
    with engine.write() as connection:
        outcomes = [
            failures.record(connection, "address", "192.0.2.1", now=now, **LIMITS)
            for now in (1000, 1200, 1300, 1400, 1500)
        ]
    assert outcomes == [0, 0, 0, 0, 2500]


def test_a_lock_is_not_lengthened_and_the_count_starts_anew_after_it(engine: Engine) -> None:
    with engine.write() as connection:
        outcomes = [
            failures.record(connection, "address", "192.0.2.1", now=now, **LIMITS)
            for now in (1000, 1001, 1002, 1003, 2100, 2101, 2102)
        ]
    assert outcomes == [0, 0, 2002, 2002, 0, 0, 3102]


def test_a_good_login_clears_and_a_sweep_drops_what_is_over(engine: Engine) -> None:
    with engine.write() as connection:
        for subject in ("a", "b", "c"):
            failures.record(connection, "account", subject, now=1000, **LIMITS)
        for _ in range(3):
            failures.record(connection, "account", "c", now=1000, **LIMITS)
        failures.clear(connection, "account", "a")
        assert failures.sweep(connection, now=1300, window=300) == 1  # b
        assert failures.sweep(connection, now=1301, window=300) == 0
        assert failures.locked(connection, "account", "c", now=1301) == 2000
        assert failures.sweep(connection, now=2001, window=300) == 1


@pytest.mark.parametrize("subject", ["", "a\0b", "\ud800", "x" * 100_000, "\U0001f511"])
def test_any_text_can_be_a_subject(engine: Engine, subject: str) -> None:
    with engine.write() as connection:
        for _ in range(3):
            failures.record(connection, "account", subject, now=1000, **LIMITS)
        assert failures.locked(connection, "account", subject, now=1001) == 2000
        failures.clear(connection, "account", subject)
        assert failures.locked(connection, "account", subject, now=1001) == 0
