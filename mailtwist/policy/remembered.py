"""What a process remembers of good logins, so that the next one costs a read and no derivation.

Nothing here proves anything by itself: it counts only together with the account's row as it
is now, whose ``auth_version`` changes with its password.
"""

from __future__ import annotations

import hmac
import os
from collections import OrderedDict
from typing import Any, Final

from twisted.internet.defer import Deferred

from mailtwist.store.logins import Active

SUCCESS_KEPT_S: Final = 300.0
MAX_SUCCESSES: Final = 50_000
MAX_ADDRESSES: Final = 50_000


class Successes:
    """Keyed hashes of passwords that were right lately; the key lives as long as the process."""

    def __init__(self) -> None:
        self._key = os.urandom(32)
        self._until: OrderedDict[tuple[Active, bytes], float] = OrderedDict()

    def digest(self, password: str) -> bytes:
        return hmac.digest(self._key, password.encode("utf-8", "surrogatepass"), "sha256")

    def add(self, account: Active, digest: bytes, now: float) -> None:
        key = (account, digest)
        self._until[key] = now + SUCCESS_KEPT_S
        self._until.move_to_end(key)
        if len(self._until) > MAX_SUCCESSES:
            self._until.popitem(last=False)

    def covers(self, account: Active, digest: bytes, now: float) -> bool:
        # Found by hash, not compared octet by octet: nobody without the key can choose a
        # digest, so the time that this takes tells nothing.
        key = (account, digest)
        until = self._until.get(key)
        if until is None:
            return False
        if until <= now:
            del self._until[key]
            return False
        return True


class Addresses:
    """The addresses of users by name, until any address changes. Read in every thread."""

    def __init__(self, changes: Any) -> None:
        self._known: dict[str, frozenset[str]] = {}
        self.generation = 0
        for kind in ("address", "account", "domain"):
            changes.watch(kind, self.clear)

    def clear(self) -> None:
        self.generation += 1
        self._known.clear()

    def get(self, username: str) -> frozenset[str] | None:
        return self._known.get(username)

    def add(self, username: str, addresses: frozenset[str], generation: int) -> None:
        """Keep what was read while ``generation`` held; too late when it has passed."""
        if generation != self.generation:
            return
        if len(self._known) >= MAX_ADDRESSES:
            self._known.clear()
        self._known[username] = addresses


class Check:
    """A check that runs, and those who wait for its outcome at the same account."""

    def __init__(self) -> None:
        self.good = b""  # the digest of the password that was found right
        self._waiting: list[Deferred[bytes]] = []

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def ended(self) -> Deferred[bytes]:
        waiting: Deferred[bytes] = Deferred()
        self._waiting.append(waiting)
        return waiting

    def end(self) -> None:
        for each in self._waiting:
            if not each.called:
                each.callback(self.good)
