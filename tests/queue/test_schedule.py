from __future__ import annotations

import pytest

from mailtwist.queue.schedule import SECOND, gives_up, next_attempt, suspension

DEFAULT = (120.0, 240.0, 480.0, 960.0, 1920.0, 3600.0, 14400.0)


@pytest.mark.parametrize(
    "waits, attempts_made, seconds",
    [
        ((1.0, 2.0), 1, 1),
        ((1.0, 2.0), 2, 2),
        ((1.0, 2.0), 3, 2),  # the last one repeats
        ((120.0, 240.0), 1, 120),
        (DEFAULT, 6, 3600),
        (DEFAULT, 7, 14400),
        (DEFAULT, 1000, 14400),
        ((0.0,), 1, 1),  # never a busy loop
        ((), 1, 3600),
    ],
)
def test_the_waits_are_those_of_the_schedule(waits, attempts_made, seconds):
    assert next_attempt(attempts_made, schedule=waits, now=7) == 7 + seconds * SECOND


@pytest.mark.parametrize(
    "attempts_made, max_retries, due_at, is_over",
    [
        (1, 0, 10, True),  # no retries at all
        (1, 1, 10, False),
        (2, 1, 10, True),
        (60, 60, 100, False),
        (3, 60, 101, True),  # it would come after the end
    ],
)
def test_it_is_given_up_after_enough_attempts_or_too_late(
    attempts_made, max_retries, due_at, is_over
):
    found = gives_up(attempts_made, max_retries=max_retries, due_at=due_at, expires_at=100)
    assert found is is_over


def test_a_destination_rests_longer_with_each_failure_but_never_long():
    rests = [suspension(n, schedule=DEFAULT, now=0) // SECOND for n in (1, 2, 3, 4, 5, 50)]
    assert rests == [120, 240, 480, 600, 600, 600]
