"""Intake and runner with all that they need, built from the settings.

The server and the command line build the same. In ``dev_mode`` there is no runner: what is
for the queue waits in its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import SystemRandom
from typing import Any, Final

from mailtwist.config import Listener, Settings
from mailtwist.mail.srs import Srs
from mailtwist.net.dns import Resolver
from mailtwist.net.redis import Redis
from mailtwist.policy.checks import Checks
from mailtwist.policy.dkim import Signer
from mailtwist.policy.dkim_check import dkim_check
from mailtwist.policy.dkim_rotation import Rotation
from mailtwist.policy.dkim_verification import DkimVerifier
from mailtwist.policy.hashing import Derivation
from mailtwist.policy.rates import Rates
from mailtwist.queue import hosts, ourselves, tls_policy
from mailtwist.queue.client_process import ChoosingConnector
from mailtwist.queue.delivery import Delivery
from mailtwist.queue.intake import Intake
from mailtwist.queue.reports import Reports
from mailtwist.queue.routes import Router
from mailtwist.queue.runner import DRAIN_S, Runner
from mailtwist.queue.ses import Ses
from mailtwist.queue.smtp_client import Timeouts
from mailtwist.store.directory import Directory
from mailtwist.store.secrets import Secrets

SRS_PURPOSE: Final = "srs"


def _microseconds_of(clock: Any) -> Callable[[], int]:
    return lambda: int(clock.seconds() * 1_000_000)


class Mail:
    """The two ends of the queue. ``threads``: where messages are signed."""

    def __init__(
        self,
        database: Any,  # store.database.Database, or Inline
        directory: Directory,
        *,
        settings: Settings,
        reactor: Any,
        secrets: Secrets,
        threads: Derivation,
        redis: Redis | None = None,
    ) -> None:
        now = _microseconds_of(reactor)
        self.signer = Signer(
            database, directory, secrets, settings=settings, threads=threads, now=reactor.seconds
        )
        srs = Srs(secrets.derive(SRS_PURPOSE))
        self.resolver = Resolver(settings.outbound.resolver, reactor=reactor)
        self.checks = self._checks(settings, threads, reactor)
        self.rates = Rates(database, settings=settings, clock=reactor, redis=redis)
        self.intake = Intake(
            database,
            directory,
            settings=settings,
            signer=self.signer,
            srs=srs,
            checks=self.checks,
            now=now,
        )
        reports = Reports(database, self.intake, settings=settings, now=now)
        self.intake.reports = reports
        self.rotation = Rotation(database, self.resolver, reactor)
        self.runner: Runner | None = None
        self._settings = settings
        self._reports = reports
        self._hosts = hosts.from_settings(settings, self.resolver, SystemRandom())
        self._ses = Ses(database, secrets, reactor=reactor)
        timeouts = Timeouts(connect=settings.outbound.connect_timeout)
        self._connector = ChoosingConnector(reactor, timeouts=timeouts)
        self._has_ended = False
        self._delivery: Delivery | None = None
        if not settings.dev_mode:
            self._deliver_from(database, srs, reactor)

    def _deliver_from(self, database: Any, srs: Srs, reactor: Any) -> None:
        """Let the queue's mail leave."""
        settings = self._settings
        self._delivery = Delivery(
            database,
            hosts=self._hosts,
            connector=self._connector,
            policies=tls_policy.from_settings(settings),
            clock=reactor,
            hostname=settings.hostname,
            rewrite=lambda reverse_path, forwarded_by: srs.rewrite(
                reverse_path, forwarded_by, seconds=reactor.seconds()
            ),
            ses=self._ses,
        )
        self.runner = Runner(
            database,
            settings=settings,
            clock=reactor,
            router=Router(settings),
            delivery=self._delivery,
            reports=self._reports,
        )
        self.intake.outbound = self.runner

    def _checks(self, settings: Settings, threads: Derivation, reactor: Any) -> Checks:
        verifier = DkimVerifier(self.resolver, threads=threads, clock=reactor, now=reactor.seconds)
        return Checks([dkim_check(verifier)] if settings.dkim.verify else [], clock=reactor)

    def configure(self, settings: Settings) -> None:
        """Take other settings for mail to come; those of the queue itself need a restart."""
        self.intake.configure(settings)
        self.rates.configure(settings)
        self._reports.configure(settings)
        if settings.dkim != self._settings.dkim:
            self.signer.configure(settings)
        if self._delivery is not None:
            self._delivery.configure(settings.hostname)
        self._settings = settings

    def know_ourselves(self, listeners: Iterable[Listener]) -> None:
        """Tell what this server listens on, so that mail is never sent back to it."""
        self._hosts.know(ourselves.of(self._settings.hostname, listeners))

    async def start(self) -> None:
        """Begin to deliver; the database is started. Raises: MailError."""
        await self.intake.start()
        if self.runner is not None:
            await self.runner.start()
            self.rotation.start()

    async def take_over(self) -> None:
        """Another process has just ended its deliveries: begin without delay."""
        if self.runner is not None:
            await self.runner.take_over()

    async def end_deliveries(self, drain_s: float = DRAIN_S) -> None:
        """Begin none any more, once; what intake takes from here on waits in its rows."""
        if not self._has_ended:
            self._has_ended = True
            self.rotation.stop()
            if self.runner is not None:
                await self.runner.stop(drain_s)
            await self._connector.close()

    async def stop(self, drain_s: float = DRAIN_S) -> None:
        """End deliveries; the database is still open."""
        await self.end_deliveries(drain_s)
        await self.rates.stop()
        await self._ses.close()
        await self.resolver.close()
