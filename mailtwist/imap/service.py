"""Listeners of protocol imap and imaps, made from the settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mailtwist.config import Listener, Settings
from mailtwist.imap.limits import AFTER_LOGIN, Limits
from mailtwist.imap.ports import Services
from mailtwist.imap.protocol import builder
from mailtwist.imap.verbs import COMMANDS
from mailtwist.net.counters import Connections
from mailtwist.net.factory import SessionFactory
from mailtwist.policy import sasl
from mailtwist.policy.auth import Authenticator
from mailtwist.policy.backends import WITH_KEYS
from mailtwist.store.database import Database
from mailtwist.store.snapshot import Snapshots
from mailtwist.tls.contexts import Certificates

_REFUSALS = {
    "stopping": b"* BYE Server shutting down\r\n",
    "max_clients": b"* BYE [LIMIT] Too many connections\r\n",
    "per_address": b"* BYE [LIMIT] Too many connections from your address\r\n",
}


@dataclass(frozen=True)
class Parts:
    """What all listeners share."""

    database: Database
    snapshots: Snapshots
    authenticator: Authenticator
    tls: Certificates | None  # None: no TLS
    settings: Settings
    clock: Any  # IReactorTime
    counters: Connections


class IMAPFactory(SessionFactory):
    """The factory of one listener; `configure` gives it other settings in place."""

    def __init__(self, listener: Listener, parts: Parts) -> None:
        self.configure(listener, parts)
        super().__init__(
            builder(
                lambda: self.services,
                tls=lambda: self.tls,
                secure=listener.protocol == "imaps",
            ),
            refusal=lambda reason: _REFUSALS[reason],
            clock=parts.clock,
            counters=parts.counters,
            max_clients=listener.max_clients,
        )

    def configure(self, listener: Listener, parts: Parts) -> None:
        """Take settings for the sessions to come; those that live keep theirs."""
        self.tls = parts.tls.of(listener.hostname) if parts.tls is not None else None
        self.services = services_of(listener, parts, has_tls=self.tls is not None)
        self.max_clients = listener.max_clients


def make_factory(listener: Listener, parts: Parts) -> IMAPFactory:
    return IMAPFactory(listener, parts)


def services_of(listener: Listener, parts: Parts, *, has_tls: bool) -> Services:
    """What a listener grants, from its own settings and the server's."""
    settings = parts.settings
    message = listener.max_size or settings.max_message_size
    return Services(
        database=parts.database,
        snapshots=parts.snapshots,
        authenticator=parts.authenticator,
        clock=parts.clock,
        commands=COMMANDS,
        name=listener.protocol,
        can_start_tls=has_tls and settings.tls.enabled and listener.protocol == "imap",
        allow_plaintext=settings.auth.allow_plaintext,
        mechanisms=sasl.chosen(settings.auth.methods, has_keys=settings.auth.backend in WITH_KEYS),
        limits=Limits(message=message, skip=max(2 * message, AFTER_LOGIN.skip)),
    )
