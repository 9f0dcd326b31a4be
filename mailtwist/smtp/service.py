"""Listeners of protocol smtp, submission and submissions, made from the settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mailtwist.config import Listener, Settings
from mailtwist.net.counters import Connections
from mailtwist.net.factory import SessionFactory
from mailtwist.policy.relay import AllowedRelays
from mailtwist.queue.intake import Intake
from mailtwist.smtp import replies
from mailtwist.smtp.protocol import builder
from mailtwist.smtp.session import Logins, Terms
from mailtwist.tls.contexts import Certificates

SUBMISSION = frozenset({"submission", "submissions"})
_REFUSALS = {
    "stopping": replies.SHUTTING_DOWN,
    "max_clients": replies.TOO_MANY_CONNECTIONS,
    "per_address": replies.TOO_MANY_CONNECTIONS,
}


@dataclass(frozen=True)
class Parts:
    """What all listeners share."""

    intake: Intake
    authenticator: Logins
    tls: Certificates | None  # None: no TLS
    settings: Settings
    clock: Any  # IReactorTime
    counters: Connections


class SMTPFactory(SessionFactory):
    """The factory of one listener; `configure` gives it other settings in place."""

    def __init__(self, listener: Listener, parts: Parts) -> None:
        self.intake = parts.intake
        self.configure(listener, parts)
        super().__init__(
            builder(
                lambda: self.terms,
                mailboxes=self.intake,
                logins=parts.authenticator,
                tls=lambda: self.tls,
            ),
            refusal=lambda reason: _REFUSALS[reason].encode(),
            clock=parts.clock,
            counters=parts.counters,
            max_clients=listener.max_clients,
        )

    def configure(self, listener: Listener, parts: Parts) -> None:
        """Take settings for the sessions to come; those that live keep theirs."""
        self.tls = parts.tls.of(listener.hostname) if parts.tls is not None else None
        self.terms = terms_of(listener, parts.settings, has_tls=self.tls is not None)
        self.max_clients = listener.max_clients


def make_factory(listener: Listener, parts: Parts) -> SMTPFactory:
    return SMTPFactory(listener, parts)


def terms_of(listener: Listener, settings: Settings, *, has_tls: bool) -> Terms:
    """What a listener grants, from its own settings and the server's."""
    auth = settings.auth
    is_submission = listener.protocol in SUBMISSION
    implicit_tls = listener.protocol == "submissions"
    return Terms(
        hostname=listener.hostname or settings.hostname,
        service=listener.protocol,
        max_size=listener.max_size or settings.max_message_size,
        max_recipients=settings.limits.recipients,
        idle_timeout_s=settings.limits.idle_timeout,
        implicit_tls=implicit_tls,
        offers_tls=has_tls and settings.tls.enabled and not implicit_tls,
        tls_required=settings.tls.required or (is_submission and not auth.allow_plaintext),
        login_required=auth.required
        or listener.authentication_required
        or (is_submission and not listener.optional_login),
        mechanisms=tuple(method.upper() for method in auth.methods) if auth.enabled else (),
        plaintext_logins=auth.allow_plaintext,
        relays=AllowedRelays(settings.allowed_relays),
        dev_mode=settings.dev_mode,
    )
