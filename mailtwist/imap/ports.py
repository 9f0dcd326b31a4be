"""What a session needs of the world: its connection, and what all sessions share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mailtwist.imap.limits import AFTER_LOGIN, Limits
from mailtwist.imap.table import Command
from mailtwist.policy.sasl import MECHANISMS

if TYPE_CHECKING:
    from mailtwist.policy.auth import Authenticator, Login
    from mailtwist.policy.passwords import Scram
    from mailtwist.policy.scram import Proof
    from mailtwist.store.database import Database
    from mailtwist.store.snapshot import Snapshots


class Wire(Protocol):
    """What a session asks of its connection."""

    @property
    def secure(self) -> bool:
        """Whether TLS is on."""

    @property
    def lost(self) -> bool:
        """Whether the peer is gone."""

    def write(self, data: bytes) -> None: ...
    def flush(self) -> None: ...
    async def drained(self) -> None: ...
    def close(self) -> None: ...
    def kick(self) -> None: ...
    def start_tls(self) -> None: ...
    @property
    def can_bind(self) -> bool:
        """Whether a SASL exchange can be bound to the TLS connection."""

    def channel_bindings(self) -> dict[str, bytes]: ...
    async def login(self, username: str, password: str) -> Login:
        """Check a password; the check is not cut short when the client hangs up."""

    async def scram_keys(self, username: str) -> Scram: ...
    async def prove(self, username: str, proof: Proof) -> Login:
        """Check the proof of SCRAM, likewise."""

    def note(self, text: str, **fields: object) -> None:
        """Log what happened."""

    def report(self, text: str, error: Exception) -> None:
        """Log a fault of ours."""


class Clock(Protocol):
    def seconds(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Services:
    """What all sessions of one listener share; replaced as a whole when settings change."""

    database: Database
    snapshots: Snapshots
    authenticator: Authenticator
    clock: Clock
    commands: dict[str, Command]
    name: str = "imap"
    can_start_tls: bool = False
    # LOGIN without TLS (RFC 9051 §11.1 has it off).
    allow_plaintext: bool = False
    limits: Limits = AFTER_LOGIN
    # Of AUTHENTICATE, in the order of their announcement.
    mechanisms: tuple[str, ...] = ("PLAIN", "LOGIN")

    @property
    def takes_passwords(self) -> bool:
        """Whether a mechanism that shows the password is among them; LOGIN does so too."""
        return any(MECHANISMS[name].shows_password for name in self.mechanisms)
