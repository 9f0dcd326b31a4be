"""When a recipient is tried again, and when it is given up.

RFC 5321 §4.5.4.1 asks for waits that grow and for days of patience. There is no chance in
the times: what the configuration says is what happens. Times are microseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

SECOND: Final = 1_000_000
# A schedule of zeros must not become a busy loop against somebody's server.
SHORTEST_S: Final = 1.0
# A destination that was away for long is asked at least this often.
LONGEST_SUSPENSION_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Rules:
    """``waits`` in seconds, the last one repeats; ``max_retries``: attempts after the first;
    ``delay_warning``: microseconds until the sender hears of a delay, 0 never.
    """

    waits: tuple[float, ...] = (120.0, 240.0, 480.0, 960.0, 1920.0, 3600.0, 14400.0)
    max_retries: int = 60
    delay_warning: int = 4 * 3600 * SECOND


def wait(attempts_made: int, waits: Sequence[float]) -> float:
    """Seconds between the attempt just made (the 1st: 1) and the next one."""
    if not waits:
        return 3600.0
    return max(waits[min(max(attempts_made, 1), len(waits)) - 1], SHORTEST_S)


def next_attempt(attempts_made: int, *, schedule: Sequence[float], now: int) -> int:
    """When to try again after ``attempts_made`` attempts, the one just made counted."""
    return now + int(wait(attempts_made, schedule) * SECOND)


def gives_up(attempts_made: int, *, max_retries: int, due_at: int, expires_at: int) -> bool:
    """Whether no further attempt follows: there were enough, or it would come too late."""
    return attempts_made > max_retries or due_at > expires_at


def suspension(failures: int, *, schedule: Sequence[float], now: int) -> int:
    """Until when a destination rests that could not be reached ``failures`` times in a row."""
    return now + int(min(wait(failures, schedule), LONGEST_SUSPENSION_S) * SECOND)
