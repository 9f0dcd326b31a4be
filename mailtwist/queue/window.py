"""How much of the queue is in memory: a bound on messages and on the octets of their contents.

Everything else waits in the table, so that a long queue costs disk and not memory.
"""

from __future__ import annotations

from typing import Final

MESSAGES: Final = 1000
OCTETS: Final = 32 << 20


class Window:
    __slots__ = ("_max_messages", "_max_octets", "messages", "octets")

    def __init__(self, max_messages: int = MESSAGES, max_octets: int = OCTETS) -> None:
        self._max_messages = max_messages
        self._max_octets = max_octets
        self.messages = 0
        self.octets = 0

    @property
    def room(self) -> int:
        """How many messages more."""
        return max(0, self._max_messages - self.messages)

    @property
    def is_ample(self) -> bool:
        """Whether it is worth while to fetch more from the table."""
        return self.messages * 4 <= self._max_messages * 3

    def has_room(self, octets: int) -> bool:
        return self.messages < self._max_messages and self.octets + octets <= self._max_octets

    def take(self, octets: int) -> Held:
        self.messages += 1
        self.octets += octets
        return Held(self, octets)


class Held:
    """One message's place; it is free again when each of its jobs has ended."""

    __slots__ = ("_octets", "_window", "jobs")

    def __init__(self, window: Window, octets: int) -> None:
        self._window = window
        self._octets = octets
        self.jobs = 1

    def end(self) -> None:
        """One job ended."""
        self.jobs -= 1
        if self.jobs == 0:
            self._window.messages -= 1
            self._window.octets -= self._octets
