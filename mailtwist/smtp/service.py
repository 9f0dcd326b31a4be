"""Listeners of protocol smtp, submission, submissions and lmtp, made from the settings."""

from __future__ import annotations

from dataclasses import dataclass
from random import SystemRandom
from typing import Any

from mailtwist.config import Listener, Settings
from mailtwist.net.counters import Connections
from mailtwist.net.factory import SessionFactory
from mailtwist.net.networks import Networks
from mailtwist.policy import sasl
from mailtwist.policy.backends import WITH_KEYS
from mailtwist.policy.rates import NO_RATES, Client, Event, Rates
from mailtwist.queue.intake import Intake
from mailtwist.smtp import replies
from mailtwist.smtp.chaos import Chaos
from mailtwist.smtp.ports import LMTP, Terms
from mailtwist.smtp.protocol import Authenticator, builder
from mailtwist.tls.contexts import Certificates

SUBMISSION = frozenset({"submission", "submissions"})
_REFUSALS = {
    "stopping": replies.SHUTTING_DOWN,
    "max_clients": replies.TOO_MANY_CONNECTIONS,
    "per_address": replies.TOO_MANY_CONNECTIONS,
    "rate": replies.TOO_MANY_CONNECTIONS,
}


@dataclass(frozen=True)
class Parts:
    """What all listeners share."""

    intake: Intake
    authenticator: Authenticator
    tls: Certificates | None  # None: no TLS
    settings: Settings
    clock: Any  # IReactorTime
    counters: Connections
    rates: Rates = NO_RATES


class SMTPFactory(SessionFactory):
    """The factory of one listener; `configure` gives it other settings in place."""

    def __init__(self, listener: Listener, parts: Parts) -> None:
        self.intake = parts.intake
        self.rates = parts.rates
        self.configure(listener, parts)
        super().__init__(
            builder(
                lambda: self.terms,
                mailboxes=self.intake,
                logins=parts.authenticator,
                checks=self.intake.checks,
                rates=self.rates,
                tls=lambda: self.tls,
            ),
            refusal=lambda reason: _REFUSALS[reason].encode(),
            clock=parts.clock,
            counters=parts.counters,
            max_clients=listener.max_clients,
            gate=self._counts_in,
        )

    def _counts_in(self, host: str) -> bool:
        if self.terms.is_lmtp or not self.rates.counts(Event.CONNECTION):
            return True
        return self.rates.take_at_once(Event.CONNECTION, Client(host))

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
    is_lmtp = listener.protocol == LMTP
    is_submission = listener.protocol in SUBMISSION
    implicit_tls = listener.protocol == "submissions"
    return Terms(
        hostname=listener.hostname or settings.hostname,
        service=listener.protocol,
        max_size=listener.max_size or settings.max_message_size,
        max_recipients=settings.limits.recipients,
        idle_timeout_s=settings.limits.idle_timeout,
        session_timeout_s=settings.limits.session_timeout,
        implicit_tls=implicit_tls,
        offers_tls=has_tls and settings.tls.enabled and not implicit_tls,
        tls_required=settings.tls.required or (is_submission and not auth.allow_plaintext),
        login_required=not is_lmtp
        and (
            auth.required
            or listener.authentication_required
            or (is_submission and not listener.optional_login)
        ),
        # Who speaks LMTP is a neighbour that brings mail for mailboxes here, and nothing else.
        mechanisms=sasl.chosen(auth.methods, has_keys=auth.backend in WITH_KEYS)
        if auth.enabled and not is_lmtp
        else (),
        plaintext_logins=auth.allow_plaintext,
        relays=Networks(() if is_lmtp else settings.allowed_relays),
        xclient_on=listener.xclient_on,
        dev_mode=settings.dev_mode,
        chaos=Chaos(settings.chaos_given, SystemRandom())
        if settings.dev_mode and settings.chaos_given
        else None,
    )


def _chaos(settings: Settings) -> Chaos | None:
    wanted = settings.dev_mode and settings.chaos_given
    return Chaos(settings.chaos_given, SystemRandom()) if wanted else None
