"""The transaction that MAIL begins and DATA ends, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mailtwist.mail.address import Address
from mailtwist.smtp.grammar import Mail


@dataclass(frozen=True, slots=True)
class Recipient:
    """A forward-path that was accepted, and the mailboxes that it stands for."""

    address: Address
    targets: tuple[Any, ...]  # store.directory.Target


@dataclass(slots=True)
class Envelope:
    """The transaction that MAIL began."""

    mail: Mail
    recipients: list[Recipient] = field(default_factory=list)

    @property
    def reverse_path(self) -> Address | None:
        return self.mail.reverse_path


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a message came from: what the trace fields and the log say of it."""

    hostname: str
    session_id: str
    client_address: str
    helo: str
    protocol: str  # of the registry of RFC 3848: ESMTPSA and the like
    is_tls: bool
    is_sandbox: bool = False  # dev_mode: the log may say whom it is for and what about
