"""LIST patterns (RFC 9051 §6.3.9): ``*`` stands for anything, ``%`` for anything within a level.

All ways through the pattern are followed at once, as bits of one number, so
no pattern makes the matcher go back: the time is the length of the name, times
one big-number operation on as many bits as the pattern has characters.
"""

from __future__ import annotations

import re

from mailtwist.store.names import DELIMITER, INBOX

_RUN = re.compile(r"[*%]{2,}")


class Wildcard:
    """One pattern, made ready."""

    __slots__ = ("_every", "_inbox", "_letters", "_level", "_prefix", "_whole")

    def __init__(self, pattern: str) -> None:
        # `*` beside anything swallows it; so no two wildcards are neighbours.
        pattern = _RUN.sub(lambda run: "*" if "*" in run[0] else "%", pattern)
        self._prefix = re.split(r"[*%]", pattern, maxsplit=1)[0]
        self._every = self._level = 0
        self._letters: dict[str, int] = {}
        for index, character in enumerate(pattern):
            bit = 1 << index
            if character == "*":
                self._every |= bit
            elif character == "%":
                self._level |= bit
            else:
                self._letters[character] = self._letters.get(character, 0) | bit
        self._whole = 1 << len(pattern)
        # INBOX is matched in any case (RFC 9051 §5.1).
        capitals = pattern.upper()
        self._inbox = Wildcard(capitals).matches(INBOX) if capitals != pattern else None

    def matches(self, name: str) -> bool:
        if self._inbox is not None and name == INBOX:
            return self._inbox
        if not name.startswith(self._prefix):
            return False
        wild = self._every | self._level
        # Bit n: the first n characters of the pattern are used up.
        state = 1
        state |= (state & wild) << 1
        for character in name:
            stay = self._every if character == DELIMITER else wild
            state = ((state & self._letters.get(character, 0)) << 1) | (state & stay)
            if not state:
                return False
            state |= (state & wild) << 1
        return bool(state & self._whole)
