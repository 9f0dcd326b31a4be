"""Who knows the users: one interface, and a module for each answer to it.

A back-end says who may log in under a name and what proves it. Counting bad logins, locks,
waiting in line and equal times are the same for all (:mod:`mailtwist.policy.auth`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from mailtwist.store.accounts import Verifier
from mailtwist.store.engine import Connection
from mailtwist.store.logins import Active

# Those that have keys of SCRAM, by their names in the settings.
WITH_KEYS: Final = frozenset({"sql"})

# Asks another server whether this is the password of a user. Raises: TemporaryFailure.
Ask = Callable[[str, str], Awaitable[bool]]


class Backend(Protocol):
    """All but ``ask`` runs in a thread that may block, inside a read of the store."""

    @property
    def scope(self) -> str:
        """What bad logins are counted under; a key of LIMITS."""

    @property
    def ask(self) -> Ask | None:
        """How to find out whether a password is right; None: the verifiers tell."""

    def find(self, connection: Connection, username: str) -> Active | None:
        """Find who may log in by folded name, unless he is shut out."""

    def verifiers(self, connection: Connection, who: Active) -> Sequence[Verifier]: ...
    def unknown(self) -> Sequence[Verifier]:
        """What no password has and takes as long to refuse; empty: as a new verifier would."""

    def addresses(self, connection: Connection, who: Active) -> frozenset[str]:
        """What he may send as, folded."""
