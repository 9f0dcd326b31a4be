"""Codes of six digits that somebody is sent and gives back: made, kept as verifiers, taken once."""

from __future__ import annotations

import hmac
import secrets as chance
from functools import partial
from typing import Any, Final, Protocol

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.address import parse_address
from mailtwist.store import identities, one_time_codes
from mailtwist.store.engine import Connection
from mailtwist.store.identities import User
from mailtwist.store.secrets import Secrets

RESET: Final = "reset-password"
DIGITS: Final = 6
LIFE_US: Final = 600 * 1_000_000
# A guess hits with one in a million; so many are allowed for a code.
ATTEMPTS: Final = 5
_PURPOSE: Final = "one-time-code"


class Clock(Protocol):
    def seconds(self) -> float: ...


def make(digits: int = DIGITS) -> str:
    return f"{chance.randbelow(10**digits):0{digits}d}"


def user_of(connection: Connection, email: str) -> User | None:
    """The user who signs in with an address, however it is spelled."""
    try:
        folded = parse_address(email.strip()).folded
    except ProtocolViolation:
        return None
    found = identities.active(connection, folded)
    return None if found is None else identities.user_of_number(connection, found.account_id)


class OneTimeCodes:
    """One in a process."""

    def __init__(self, database: Any, secrets: Secrets, clock: Clock) -> None:
        self._database = database
        # A million codes are tried in a second: whoever has the rows must not have the key.
        self._key = secrets.derive(_PURPOSE)
        self._clock = clock

    @property
    def now(self) -> int:
        return int(self._clock.seconds() * 1_000_000)

    def verifier(self, purpose: str, subject: str, code: str) -> str:
        text = "\0".join((purpose, subject, code))
        return hmac.digest(self._key, text.encode("utf-8", "replace"), "sha256").hex()

    def putting(self, connection: Connection, *, purpose: str, subject: str, code: str) -> None:
        """Make a code count, as part of a unit."""
        now = self.now
        one_time_codes.put(
            connection,
            purpose,
            subject,
            self.verifier(purpose, subject, code),
            now=now,
            expires_at=now + LIFE_US,
        )

    def taking(self, connection: Connection, *, purpose: str, subject: str, code: str) -> bool:
        """Use a code up, as part of a unit; it must commit when the code is wrong too."""
        return one_time_codes.take(
            connection,
            purpose,
            subject,
            self.verifier(purpose, subject, code),
            now=self.now,
            attempts=ATTEMPTS,
        )

    async def find(self, email: str) -> User | None:
        found: User | None = await self._database.read(partial(user_of, email=email))
        return found
