"""How many bad logins an account and an address may have, and who is shut out now.

The counts are rows (:mod:`mailtwist.store.failures`), so that they survive a restart and
hold for every node. What is kept here is only a short memory of refusals, by which
a shut-out peer costs neither a statement nor a hash.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from mailtwist.errors import TemporaryFailure
from mailtwist.net.counters import network_of

ACCOUNT: Final = "account"
USER: Final = "user"  # of the REST interface
ADDRESS: Final = "address"

WINDOW_S: Final = 300
LOCK_S: Final = 300
# The fifth bad login locks the account. An address may have a few users behind it,
# so it gets some more; two passwords may be under check when the count is
# reached, and the tenth bad login must already be refused unseen.
LIMITS: Final = {ACCOUNT: 5, USER: 5, ADDRESS: 8}

# A refusal is believed for this long before the rows are asked again, so that an
# unlocking by another process is soon noticed.
REMEMBERED_S: Final = 10.0
MAX_REMEMBERED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Subject:
    """What bad logins are counted for: an account's name or a network address."""

    scope: str
    name: str

    @property
    def limit(self) -> int:
        return LIMITS[self.scope]


def address_subject(peer: str) -> Subject:
    """Name the counter of a peer: its IPv4 address, or the /64 that its IPv6 address is in."""
    return Subject(ADDRESS, network_of(peer[:64]))


def locked_out(subject: Subject) -> TemporaryFailure:
    """Make the refusal that a shut-out subject gets; it never tells whether the account exists."""
    # RFC 4954 §4.7.6
    return TemporaryFailure(
        "Too many failed logins, try again later",
        detail=f"{subject.scope} {subject.name} is locked out",
        code=454,
        status="4.7.0",
        imap_code="UNAVAILABLE",
    )


class RecentRefusals:
    """A bounded memory of who was found locked out, each for a few seconds."""

    def __init__(self) -> None:
        self._until: OrderedDict[Subject, float] = OrderedDict()

    def add(self, subject: Subject, until: float) -> None:
        self._until[subject] = until
        self._until.move_to_end(subject)
        if len(self._until) > MAX_REMEMBERED:
            self._until.popitem(last=False)

    def covers(self, subject: Subject, now: float) -> bool:
        until = self._until.get(subject)
        if until is None:
            return False
        if until <= now:
            del self._until[subject]
            return False
        return True
