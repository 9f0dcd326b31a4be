"""Everything that runs, built from the settings, in the order in which it is needed.

:meth:`Runtime.reserve` takes what needs privileges (addresses, key files), :meth:`Runtime.prepare`
does what may block before the reactor runs (folder, schema, certificate), :meth:`Runtime.start`
opens the listeners last and :meth:`Runtime.stop` closes the store last. With a ``takeover`` the
listeners are those of a process that serves beside this one, until :meth:`Runtime.own`; what
that process does then is :meth:`Runtime.retire`.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from mailtwist.config import Listener, Settings
from mailtwist.control import early, frontends, sockets
from mailtwist.control.background import Background
from mailtwist.control.certificates import CertificateSet
from mailtwist.control.handover import Takeover
from mailtwist.control.health import ServerHealth, StoreHealth
from mailtwist.control.jobs import Housekeeping
from mailtwist.control.listeners import Listeners
from mailtwist.control.logins import Logins
from mailtwist.control.pid_file import FILE_NAME, PidFile
from mailtwist.control.reconciliation import Reconciliation
from mailtwist.control.renewal import Renewal
from mailtwist.control.rest import Rest
from mailtwist.control.sockets import Given
from mailtwist.control.upgrade import NotReplaced
from mailtwist.errors import ConfigError
from mailtwist.net.counters import Connections
from mailtwist.net.redis import Redis
from mailtwist.policy.auth import Authenticator
from mailtwist.policy.hashing import Threads, Turns
from mailtwist.queue.assembly import Mail
from mailtwist.store import domains, events, mail_servers, secrets
from mailtwist.store.config_values import ConfigValues
from mailtwist.store.database import Database
from mailtwist.store.directory import Directory
from mailtwist.store.engine import Engine, open_engine
from mailtwist.store.ids import now_us
from mailtwist.store.snapshot import Snapshots
from mailtwist.store.upgrade import upgrade
from mailtwist.tls.acme.issuance import Issuance
from mailtwist.tls.acme.proofs import Challenges
from mailtwist.tls.acme.threads import Daemons
from mailtwist.tls.contexts import Certificates
from mailtwist.tls.files import KeyFiles, named_by

log = Logger()

# What is under way at SIGTERM (a message, a request, a delivery) may still end within this; the
# process is gone a moment later.
DRAIN_S: Final = 3.5
# A delivery that is cut off is made twice: with a process beside this one there is no hurry.
HANDOVER_S: Final = 10.0
# A thread that renders rows gives the interpreter back this often; at the default of 5 ms
# each turn of the reactor would wait that long for it.
SWITCH_INTERVAL_S: Final = 0.0005
# Objects more than there were, after which the collector looks for circles.
COLLECT_AT: Final = 10_000
REDIS_PURPOSE: Final = "redis"


class Runtime:
    """The parts of one server process. ``settings``: those in use, ``_config`` included.

    ``takeover``: what the process that this one replaces has left.
    """

    settings: Settings
    engine: Engine
    database: Database
    values: ConfigValues
    snapshots: Snapshots
    directory: Directory
    redis: Redis | None
    mail: Mail
    authenticator: Authenticator
    certificates: Certificates
    health: ServerHealth
    listeners: Listeners
    reconciliation: Reconciliation
    rest: Rest

    def __init__(
        self, settings: Settings, reactor: Any, *, takeover: Takeover | None = None
    ) -> None:
        self.settings = settings
        self.reactor = reactor
        self._takeover = takeover
        self.counters = Connections(settings.limits.connections_per_address)
        self.data_dir = Path(settings.data_dir)
        self.listeners = Listeners(
            reactor,
            make=lambda listener: frontends.make(self, listener),
            configure=lambda factory, listener: frontends.configure(self, factory, listener),
            creator=lambda listener: self.certificates.of(listener.hostname),
            directory=self.data_dir,
            drain_s=lambda: self.settings.drain_time,
        )
        self.pid_file = PidFile(self.data_dir / FILE_NAME)
        self._key_files: KeyFiles | None = None
        self._derivation = Threads(reactor)
        self._signing = Threads(reactor, name="signatures")
        self._started = False
        self._has_jobs = False
        self._ending_jobs = DeferredLock()
        self._is_up = False

    # -- the steps of a start ---------------------------------------------------------------

    def reserve(self) -> None:
        """Bind the addresses and read the key files, while privileged. Raises: ConfigError."""
        if self._takeover is not None:
            self.listeners.is_shared = True
            self.listeners.inherit(self._takeover.given())
        else:
            self.listeners.inherit(sockets.activated(os.environ))
        self._key_files = named_by(self.settings)
        self.listeners.bind(self.settings.listeners)
        self.listeners.bind(early.privileged(self.settings), is_essential=False)
        _allow_many_connections()

    def prepare(self) -> None:
        """Make the folder, the schema and the certificate. Blocks. Raises: MailError."""
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        try:
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"data_dir: cannot make {self.data_dir}: {error.strerror}") from error
        self._take_pid_file()
        if self._takeover is None:
            self.listeners.withdraw()
        self._secrets = secrets.load_or_make(self.data_dir)
        self._certificates = CertificateSet(
            self.settings,
            secrets=self._secrets,
            threads=self._signing,
            now=lambda: datetime.now(UTC),
            files=self._key_files,
            clock=self.reactor,
        )
        self.certificates = self._certificates.certificates
        self.engine = open_engine(self.settings.database_url)
        events.keep(self.engine, is_wanted=self.settings.events.retention > 0)
        if upgrade(self.engine, is_shared=self._takeover is not None):
            log.info("schema upgraded")
        self._build()
        self.rest.prepare()

    def _take_pid_file(self) -> None:
        try:
            self.pid_file.take(self._takeover.lock if self._takeover is not None else None)
        except OSError as error:
            raise ConfigError(f"data_dir: {error.filename}: {error.strerror}") from error

    def _build(self) -> None:
        settings = self.settings
        self.database = Database(self.engine, reactor=self.reactor)
        self.values = ConfigValues(self.database, settings, self._secrets, now=now_us)
        self.snapshots = Snapshots(self.database)
        self.directory = Directory(self.database, settings)
        self._build_mail()
        # Users of HTTP and of mail stand in one line.
        turns = Turns()
        self._logins = Logins(
            self.database,
            settings=settings,
            secrets=self._secrets,
            derivation=self._derivation,
            turns=turns,
            reactor=self.reactor,
        )
        self.authenticator = self._logins.authenticator
        self.health = ServerHealth(
            StoreHealth(self.database, self.reactor), lambda: self.reconciliation.broken
        )
        self._housekeeping = Housekeeping(
            self.database,
            self.reactor,
            keeps_delivered=settings.queue.keep_delivered_messages,
            events_us=int(settings.events.retention * 1_000_000),
            inbox_us=int(settings.inbox.retention * 1_000_000),
        )
        self.reconciliation = Reconciliation(
            self.database, self.listeners, self.values, expect=self._expect, reactor=self.reactor
        )
        issuance = Issuance(
            self.database,
            settings.acme,
            secrets=self._secrets,
            threads=Daemons(self.reactor),
            now=now_us,
        )
        self._renewal = Renewal(self.database, issuance, clock=self.reactor, now=now_us)
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
            challenges=Challenges(self.database, now_us),
            issuance=issuance,
            redis=self.redis,
        )
        self._build_background()
        self.values.watch(self._configure)
        for kind in ("domain", mail_servers.KIND):
            self.database.changes.watch(kind, self._domains_changed)

    def _build_mail(self) -> None:
        self.redis = self._find_redis()
        self.mail = Mail(
            self.database,
            self.directory,
            settings=self.settings,
            reactor=self.reactor,
            secrets=self._secrets,
            threads=self._signing,
            redis=self.redis,
        )

    def _find_redis(self) -> Redis | None:
        """The one of the settings; its keys are those of this installation alone."""
        if not self.settings.redis_url:
            return None
        name = self._secrets.derive(REDIS_PURPOSE)[:6].hex()
        return Redis(self.settings.redis_url, reactor=self.reactor, namespace=f"mailtwist:{name}")

    def _build_background(self) -> None:
        self._background = Background(
            self.database,
            self.rest,
            settings=self.settings,
            secrets=self._secrets,
            resolver=self.mail.resolver,
            reactor=self.reactor,
        )

    async def start(self) -> None:
        """Open the store and then the listeners. Raises: MailError."""
        await self.database.start()
        self._started = True
        if self.redis is not None:
            await self.redis.start()
        await self.rest.start()
        await self.values.load()
        await self._certificates.start(self.database)
        await self._complete_names()
        self._logins.start()
        # Before the first message comes in: it can leave at once.
        self._has_jobs = True
        await self.mail.start()
        await self.reconciliation.start()
        self._housekeeping.start()
        self._background.start()
        # Authorities look at our listeners.
        self._renewal.start()
        self._is_up = True
        if self._takeover is None:
            self.pid_file.write()
        # What exists now lives as long as the process: the collector need not look at it.
        gc.collect()
        gc.freeze()
        # Messages under way are no garbage: with the default of 700 they were looked at for each
        # twenty of them, in vain.
        gc.set_threshold(COLLECT_AT)

    async def stop(self) -> None:
        """Say 421 or BYE, let messages end, write what is accepted, close the store."""
        self._is_up = False
        if self._started:
            await self.reconciliation.stop()
            self.rest.close_streams()
        # Side by side: what comes in now waits in its rows for the next start.
        draining = Deferred.fromCoroutine(self.listeners.stop(DRAIN_S))
        try:
            await self._end_jobs(DRAIN_S)
        finally:
            await draining
        if self._started:
            self._started = False
            await self._logins.stop()
            await self.mail.stop(DRAIN_S)
            await self.rest.stop()
            if self.redis is not None:
                await self.redis.stop()
            await self._certificates.stop()
            await self.database.close()
        self._derivation.close()
        self._signing.close()
        self.pid_file.end()

    async def _end_jobs(self, drain_s: float) -> None:
        """End what one process does for all, and give its leases back; once.

        Deliveries under way may end within ``drain_s``. The jobs have ended on return, whoever
        began with it: a stop may come in the midst of it.
        """
        async with self._ending_jobs:
            had, self._has_jobs = self._has_jobs, False
            if had:
                await self.mail.end_deliveries(drain_s)
                await self._renewal.stop()
                await self._housekeeping.stop()
                await self._background.stop()

    # -- one process in the place of another ------------------------------------------------

    def own(self) -> None:
        """The process before this one accepts nothing any more: its files are ours."""
        self._takeover = None
        self.listeners.is_shared = False
        self.pid_file.write()

    @property
    def lock(self) -> int | None:
        return self.pid_file.descriptor

    async def pause(self) -> tuple[Given, ...]:
        """Open and close no listener from here on; all sockets that there are.

        Raises: NotReplaced while the server is not up.
        """
        if not self._is_up or self._takeover is not None:
            raise NotReplaced("the server is not up yet, or about to stop")
        await self.reconciliation.pause()
        return self.listeners.lend()

    def resume(self) -> None:
        """Nobody has taken the sockets over."""
        if self._is_up and self._takeover is None:
            self.reconciliation.resume()
            # The process that failed may have written it.
            self.listeners.publish()

    def hand_on(self) -> None:
        self.pid_file.hand_on()

    async def retire(self, free: Callable[[], None]) -> None:
        """Accept nothing more from this call on, end jobs and then sessions.

        ``free`` is called when the jobs have ended. Sessions end by themselves, or are sent away
        after ``drain_time``; there is none on return.
        """
        self._is_up = False
        retiring = Deferred.fromCoroutine(self.listeners.retire())
        # Now their last words say that the connection ends.
        self.rest.close_streams()
        try:
            await self.reconciliation.stop()
            await self._end_jobs(HANDOVER_S)
        finally:
            free()
            await retiring

    async def take_jobs(self) -> None:
        """Another process has given its jobs up: do them."""
        await self.mail.take_over()

    # -- what changes while it runs ---------------------------------------------------------

    def reload(self) -> None:
        """Look at the files of keys and certificates now; they are looked at anyway, later."""
        if self._started:
            looking = Deferred.fromCoroutine(self._certificates.look())
            looking.addErrback(lambda failure: log.failure("files were not read", failure))

    def _configure(self) -> None:
        """Put other settings into use; sessions that live keep theirs."""
        self.settings = self.values.settings
        self.directory.configure(self.settings)
        self.mail.configure(self.settings)
        self._background.configure(self.settings)
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
