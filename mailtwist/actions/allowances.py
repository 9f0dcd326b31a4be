"""How often somebody may do a thing: so many times in a window, counted in memory."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final, Protocol

MAX_KNOWN: Final = 10_000


class Clock(Protocol):
    """The reactor's."""

    def seconds(self) -> float: ...
    def callLater(self, delay: float, callable: Any, *given: Any) -> Any: ...  # noqa: N802


class Allowance:
    """``limit`` times within ``window_s`` seconds for each name.

    A window begins with the first time and is never lengthened. Of so many names that memory
    is at stake the one that has been there longest is forgotten.
    """

    def __init__(self, limit: int, window_s: float, clock: Clock) -> None:
        self._limit = limit
        self._window_s = window_s
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def take(self, name: str) -> bool:
        """Count once more; False: it was enough already."""
        now = self._clock.seconds()
        since, count = self._known.get(name, (now, 0))
        if now - since >= self._window_s:
            since, count = now, 0
            self._known.pop(name, None)
        if count >= self._limit:
            return False
        self._known[name] = since, count + 1
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return True
