"""Everything that runs, built from the settings, in the order in which it is needed.

:meth:`Runtime.reserve` takes what needs privileges (addresses, key files), :meth:`Runtime.prepare`
does what may block before the reactor runs (folder, schema, certificate), :meth:`Runtime.start`
opens the listeners last and :meth:`Runtime.stop` closes the store last.
"""

from __future__ import annotations

import contextlib
import gc
import resource
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailtwist.config import Listener, Settings
from mailtwist.control import frontends
from mailtwist.control.certificates import CertificateSet, Pair, read_named
from mailtwist.control.health import StoreHealth
from mailtwist.control.jobs import Housekeeping
from mailtwist.control.listeners import Listeners
from mailtwist.control.reconciliation import Reconciliation
from mailtwist.control.rest import Rest
from mailtwist.errors import ConfigError
from mailtwist.net.counters import Connections
from mailtwist.policy.auth import Authenticator
from mailtwist.policy.hashing import Threads, Turns
from mailtwist.queue.assembly import Mail
from mailtwist.store import domains, mail_servers, secrets
from mailtwist.store.config_values import ConfigValues
from mailtwist.store.database import Database
from mailtwist.store.directory import Directory
from mailtwist.store.engine import Engine, open_engine
from mailtwist.store.ids import now_us
from mailtwist.store.snapshot import Snapshots
from mailtwist.store.upgrade import upgrade
from mailtwist.tls.contexts import Certificates

log = Logger()

# A message that is being received at SIGTERM may still end; mail stops within this.
DRAIN_S: Final = 10.0
# A thread that renders rows gives the interpreter back this often; at the default of 5 ms
# each turn of the reactor would wait that long for it.
SWITCH_INTERVAL_S: Final = 0.0005


class Runtime:
    """The parts of one server process. ``settings``: those in use, ``_config`` included."""

    settings: Settings
    engine: Engine
    database: Database
    values: ConfigValues
    snapshots: Snapshots
    directory: Directory
    mail: Mail
    authenticator: Authenticator
    certificates: Certificates
    health: StoreHealth
    listeners: Listeners
    reconciliation: Reconciliation
    rest: Rest

    def __init__(self, settings: Settings, reactor: Any) -> None:
        self.settings = settings
        self.reactor = reactor
        self.counters = Connections(settings.limits.connections_per_address)
        self.data_dir = Path(settings.data_dir)
        self.listeners = Listeners(
            reactor,
            make=lambda listener: frontends.make(self, listener),
            configure=lambda factory, listener: frontends.configure(self, factory, listener),
            creator=lambda listener: self.certificates.of(listener.hostname),
            directory=self.data_dir,
        )
        self._named_pair: Pair | None = None
        self._derivation = Threads(reactor)
        self._signing = Threads(reactor, name="signatures")
        self._started = False

    # -- the steps of a start ---------------------------------------------------------------

    def reserve(self) -> None:
        """Bind the addresses and read the key files, while privileged. Raises: ConfigError."""
        self._named_pair = read_named(self.settings)
        self.listeners.bind(self.settings.listeners)
        _allow_many_connections()

    def prepare(self) -> None:
        """Make the folder, the schema and the certificate. Blocks. Raises: MailError."""
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        try:
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"data_dir: cannot make {self.data_dir}: {error.strerror}") from error
        self.listeners.withdraw()
        self._secrets = secrets.load_or_make(self.data_dir)
        self._certificates = CertificateSet(
            self.settings,
            secrets=self._secrets,
            threads=self._signing,
            now=lambda: datetime.now(UTC),
            named=self._named_pair,
        )
        self.certificates = self._certificates.certificates
        self.engine = open_engine(self.settings.database_url)
        if upgrade(self.engine):
            log.info("schema upgraded")
        self._build()

    def _build(self) -> None:
        settings = self.settings
        self.database = Database(self.engine, reactor=self.reactor)
        self.values = ConfigValues(self.database, settings, self._secrets, now=now_us)
        self.snapshots = Snapshots(self.database)
        self.directory = Directory(self.database, settings)
        self.mail = Mail(
            self.database,
            self.directory,
            settings=settings,
            reactor=self.reactor,
            secrets=self._secrets,
            threads=self._signing,
        )
        # Users of HTTP and of mail stand in one line.
        turns = Turns()
        self.authenticator = Authenticator(
            self.database,
            clock=self.reactor,
            derivation=self._derivation,
            cost=settings.auth.bcrypt_cost,
            default_domain=settings.domains[0] if settings.domains else "",
            turns=turns,
        )
        self.health = StoreHealth(self.database, self.reactor)
        self._housekeeping = Housekeeping(
            self.database, self.reactor, keeps_delivered=settings.queue.keep_delivered_messages
        )
        self.reconciliation = Reconciliation(
            self.database, self.listeners, self.values, expect=self._expect, reactor=self.reactor
        )
        self.rest = Rest(
            self.database,
            settings=settings,
            values=self.values,
            secrets=self._secrets,
            derivation=self._derivation,
            turns=turns,
            reactor=self.reactor,
            reconciliation=self.reconciliation,
            mail=self.mail,
        )
        self.values.watch(self._configure)
        for kind in ("domain", mail_servers.KIND):
            self.database.changes.watch(kind, self._domains_changed)

    async def start(self) -> None:
        """Open the store and then the listeners. Raises: MailError."""
        await self.database.start()
        self._started = True
        await self.rest.start()
        await self.values.load()
        await self._certificates.start(self.database)
        await self._complete_names()
        # Before the first message comes in: it can leave at once.
        await self.mail.start()
        await self.reconciliation.start()
        self._housekeeping.start()
        # What exists now lives as long as the process: the collector need not look at it.
        gc.collect()
        gc.freeze()

    async def stop(self) -> None:
        """Say 421 or BYE, let messages end, write what is accepted, close the store."""
        if self._started:
            await self.reconciliation.stop()
        await self.listeners.stop(DRAIN_S)
        if self._started:
            self._started = False
            await self.mail.stop(DRAIN_S)
            await self._housekeeping.stop()
            await self.database.close()
        self._derivation.close()
        self._signing.close()

    # -- what changes while it runs ---------------------------------------------------------

    def _configure(self) -> None:
        """Put other settings into use; sessions that live keep theirs."""
        self.settings = self.values.settings
        self.directory.configure(self.settings)
        self.mail.configure(self.settings)
        self.listeners.refresh()

    def _domains_changed(self) -> None:
        completing = Deferred.fromCoroutine(self._complete_names())
        completing.addErrback(lambda failure: log.info("{error}", error=failure.value))

    async def _complete_names(self) -> None:
        """Find out the domain of logins that come without one."""
        given = self.settings.domains
        domain = given[0] if given else await self.database.read(domains.first)
        self.authenticator.default_domain = domain

    async def _expect(self, listeners: Sequence[Listener]) -> None:
        """Get ready for listeners that are about to open."""
        await self._certificates.cover(self.settings.hostname, listeners)
        self.mail.know_ourselves(listeners)


def _allow_many_connections() -> None:
    """Raise the limit of open files as far as it goes: a connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
