"""How many of something in how much time."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mailtwist.config.kinds import DURATION_UNITS, Duration, Kind, Whole, show_duration, sort_of

MAX_COUNT = 1_000_000
MINUTE = 60.0
# A window is a row; longer ones are no limit on a rate any more.
WINDOW = Duration(1, 31 * 86400)


@dataclass(frozen=True, slots=True)
class Rate:
    """``count`` in ``window_s`` seconds; 0: no limit."""

    count: int = 0
    window_s: float = MINUTE


@dataclass(frozen=True, slots=True)
class RateOf(Kind[Rate]):
    """A number, which is one a minute, or "100/m", "2000/d", "30/10m"."""

    name = "rate"

    def parse(self, value: object) -> Rate:
        if isinstance(value, Rate):
            return value
        count, slash, window = (
            value.strip().partition("/") if isinstance(value, str) else (value, "", "")
        )
        try:
            window_s = _window(window.strip()) if slash else MINUTE
            return Rate(Whole(0, MAX_COUNT).parse(count), window_s)
        except ValueError as error:
            told = f"({error})"
            raise ValueError(f'must be a rate such as 100, "100/m" or "2000/d" {told}') from None

    def show(self, value: Rate) -> object:
        if not value.count:
            return 0
        window = show_duration(value.window_s)
        return f"{value.count}/{_SHORT.get(window, window)}"


_SHORT = {"60s": "m", "1m": "m", "1h": "h", "24h": "d"}


def _window(text: str) -> float:
    if not text:
        raise ValueError(f"the time is missing, not {sort_of(text)}")
    # "m" is one minute.
    is_unit = re.fullmatch("[a-z]+", text) is not None and text in DURATION_UNITS
    return WINDOW.parse(f"1{text}" if is_unit else text)
