"""Who waits for a process: in turns by user, so that one with many keeps nobody back."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Final, Generic, Protocol, TypeVar

MAX_WAITING: Final = 256
MAX_OF_ONE: Final = 32
MAX_KNOWN: Final = 10_000
# Whose expressions took long is taken for slow for so many seconds.
SLOW_S: Final = 10.0


class Waiting(Protocol):
    """Something in the line; ``who`` wants it."""

    @property
    def who(self) -> str: ...


W = TypeVar("W", bound=Waiting)


class Line(Generic[W]):
    """A bounded line; ``pop`` serves one of each user in turn."""

    def __init__(self) -> None:
        self._of: OrderedDict[str, deque[W]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[W]:
        return iter([each for of_one in self._of.values() for each in of_one])

    def __contains__(self, waiting: W) -> bool:
        return waiting in self._of.get(waiting.who, ())

    def is_full_for(self, who: str) -> bool:
        """Whether one more of this user must be refused."""
        return self._count >= MAX_WAITING or len(self._of.get(who, ())) >= MAX_OF_ONE

    def add(self, waiting: W) -> None:
        self._of.setdefault(waiting.who, deque()).append(waiting)
        self._count += 1

    def pop(self) -> W:
        """Take out who is next; his user's others go behind those of all users."""
        who, of_one = self._of.popitem(last=False)
        self._count -= 1
        first = of_one.popleft()
        if of_one:
            self._of[who] = of_one
        return first

    def remove(self, waiting: W) -> None:
        """Take out who gives up waiting; he is in the line."""
        of_one = self._of[waiting.who]
        of_one.remove(waiting)
        self._count -= 1
        if not of_one:
            del self._of[waiting.who]


class Lanes(Generic[W]):
    """Two lines: one for users whose expressions took long a moment ago, one for all others.

    The slow get one process at a time. So whoever sends bombs one after the other meets his
    like, and others find a process.
    """

    def __init__(self) -> None:
        self._quick: Line[W] = Line()
        self._slow: Line[W] = Line()
        self._slow_until: OrderedDict[str, float] = OrderedDict()
        self._slow_at_work: W | None = None
        self._was_slow = False

    def __len__(self) -> int:
        return len(self._quick) + len(self._slow)

    def __iter__(self) -> Iterator[W]:
        yield from self._quick
        yield from self._slow

    def is_full_for(self, who: str, now: float) -> bool:
        """Whether one more of this user must be refused."""
        return self._line_of(who, now).is_full_for(who)

    def add(self, waiting: W, now: float) -> None:
        self._line_of(waiting.who, now).add(waiting)

    def pop(self) -> W | None:
        """Take out who is next; None: nobody may now."""
        # Where there is but one process, both take turns.
        if self._slow and not self._slow_at_work and not (self._was_slow and self._quick):
            self._was_slow = True
            self._slow_at_work = self._slow.pop()
            return self._slow_at_work
        self._was_slow = False
        return self._quick.pop() if self._quick else None

    def remove(self, waiting: W) -> None:
        """Take out who gives up waiting."""
        (self._slow if waiting in self._slow else self._quick).remove(waiting)

    def done(self, served: W, is_slow: bool, now: float) -> None:
        """Who was popped has been served."""
        if self._slow_at_work is served:
            self._slow_at_work = None
        if is_slow:
            self._slow_until.pop(served.who, None)
            self._slow_until[served.who] = now + SLOW_S
            if len(self._slow_until) > MAX_KNOWN:
                self._slow_until.popitem(last=False)

    def _line_of(self, who: str, now: float) -> Line[W]:
        return self._slow if self._slow_until.get(who, 0.0) > now else self._quick
