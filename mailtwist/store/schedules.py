"""When tasks run: ``*/5 * * * *`` as cron has it, ``@every 5m``, ``@hourly``; always in UTC.

A sixth field before the five is that of the seconds. ``@every`` counts from the run before.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from mailtwist.errors import ProtocolViolation

MAX_LENGTH: Final = 200
SECOND: Final = 1_000_000
LONGEST: Final = 366 * 86_400 * SECOND

_NAMED: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_EVERY: Final = "@every "
_PART: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(d|h|m|s)", re.ASCII)
_UNITS: Final = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_EXAMPLE: Final = "`*/5 * * * *`, `@every 5m` or `@hourly` is expected"


@dataclass(frozen=True, slots=True)
class Schedule:
    """``after(moment)``: the next time, both in microseconds."""

    after: Callable[[int], int]


@lru_cache(maxsize=1_000)
def read_schedule(text: str) -> Schedule:
    """Understand a schedule. Raises: ProtocolViolation, also for one that never comes."""
    text = " ".join(text.split()).lower()
    if len(text) > MAX_LENGTH:
        raise ProtocolViolation("longer than a schedule may be")
    if text.startswith(_EVERY):
        step = _interval(text.removeprefix(_EVERY))
        return Schedule(lambda moment: moment + step)
    if text.startswith("@") and text not in _NAMED:
        raise ProtocolViolation(_EXAMPLE)
    fields = _NAMED.get(text, text).replace("?", "*")
    schedule = Schedule(lambda moment: _next(fields, moment))
    # From a leap year on: the next ten years show every day that there is.
    schedule.after(int(datetime(2024, 1, 1, tzinfo=UTC).timestamp()) * SECOND)
    return schedule


def _interval(text: str) -> int:
    """``1h30m``, ``90s``: microseconds, whole seconds of them."""
    parts = list(_PART.finditer(text))
    if not parts or "".join(part[0] for part in parts) != text:
        raise ProtocolViolation(_EXAMPLE)
    step = int(sum(float(part[1]) * _UNITS[part[2]] for part in parts) * SECOND)
    if step < SECOND or step > LONGEST or step % SECOND:
        raise ProtocolViolation("`@every` takes whole seconds, from 1s to 366d")
    return step


def _next(fields: str, moment: int) -> int:
    from cronsim import CronSim, CronSimError

    whole = datetime.fromtimestamp(moment // SECOND, tz=UTC)
    try:
        return int(next(CronSim(fields, whole)).timestamp()) * SECOND
    except CronSimError as error:
        raise ProtocolViolation(f"{error}: {_EXAMPLE}") from error
    except (StopIteration, OverflowError) as error:
        raise ProtocolViolation("it never comes") from error
