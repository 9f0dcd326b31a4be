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
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from twisted.logger import Logger

from mailtwist.config import Listener, Settings
from mailtwist.control.health import StoreHealth
from mailtwist.control.jobs import Housekeeping
from mailtwist.control.listeners import Listeners
from mailtwist.errors import ConfigError
from mailtwist.net.counters import Connections
from mailtwist.policy.auth import Authenticator
from mailtwist.policy.hashing import Threads
from mailtwist.queue.assembly import Mail
from mailtwist.store import secrets
from mailtwist.store.database import Database
from mailtwist.store.directory import Directory
from mailtwist.store.engine import Engine, open_engine
from mailtwist.store.snapshot import Snapshots
from mailtwist.store.upgrade import upgrade
from mailtwist.tls import selfsigned
from mailtwist.tls.contexts import Certificates, read_pair

log = Logger()

# A message that is being received at SIGTERM may still end; mail stops within this.
DRAIN_S: Final = 10.0
# A thread that renders rows gives the interpreter back this often; at the default of 5 ms
# each turn of the reactor would wait that long for it.
SWITCH_INTERVAL_S: Final = 0.0005


class Runtime:
    """The parts of one server process."""

    settings: Settings
    engine: Engine
    database: Database
    snapshots: Snapshots
    directory: Directory
    mail: Mail
    authenticator: Authenticator
    certificates: Certificates
    health: StoreHealth
    listeners: Listeners

    def __init__(self, settings: Settings, reactor: Any) -> None:
        self.settings = settings
        self.reactor = reactor
        self.counters = Connections(settings.limits.connections_per_address)
        self.data_dir = Path(settings.data_dir)
        self.listeners = Listeners(
            reactor,
            make=lambda listener: _MAKERS[listener.protocol](self, listener),
            configure=lambda factory, listener: _CONFIGURERS[listener.protocol](
                self, factory, listener
            ),
            creator=lambda: self.certificates.creator,
            directory=self.data_dir,
        )
        self._named_pair: tuple[bytes, bytes] | None = None
        self._derivation = Threads(reactor)
        self._signing = Threads(reactor, name="signatures")
        self._started = False

    # -- the steps of a start ---------------------------------------------------------------

    def reserve(self) -> None:
        """Bind the addresses and read the key files, while privileged. Raises: ConfigError."""
        tls = self.settings.tls
        if tls.cert_file:
            self._named_pair = read_pair(tls.cert_file, tls.key_file)
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
        pair = self._named_pair or selfsigned.load_or_make(
            self.data_dir, self._hostnames(), datetime.now(UTC)
        )
        self._secrets = secrets.load_or_make(self.data_dir)
        min_version = self.settings.tls.min_version
        self.certificates = Certificates(pair[0], pair[1], min_version)
        self.engine = open_engine(self.settings.database_url)
        if upgrade(self.engine):
            log.info("schema upgraded")
        self._build()

    def _build(self) -> None:
        settings = self.settings
        self.database = Database(self.engine, reactor=self.reactor)
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
        self.authenticator = Authenticator(
            self.database,
            clock=self.reactor,
            derivation=self._derivation,
            cost=settings.auth.bcrypt_cost,
            default_domain=settings.domains[0] if settings.domains else "",
        )
        self.health = StoreHealth(self.database, self.reactor)
        self._housekeeping = Housekeeping(
            self.database, self.reactor, keeps_delivered=settings.queue.keep_delivered_messages
        )

    async def start(self) -> None:
        """Open the store and then the listeners. Raises: MailError."""
        await self.database.start()
        self._started = True
        # Before the first message comes in: it can leave at once.
        await self.mail.start()
        await self.listeners.reconcile(self.settings.listeners)
        self._housekeeping.start()
        # What exists now lives as long as the process: the collector need not look at it.
        gc.collect()
        gc.freeze()

    async def stop(self) -> None:
        """Say 421 or BYE, let messages end, write what is accepted, close the store."""
        await self.listeners.stop(DRAIN_S)
        if self._started:
            self._started = False
            await self.mail.stop(DRAIN_S)
            await self._housekeeping.stop()
            await self.database.close()
        self._derivation.close()
        self._signing.close()

    # -- the front-ends ---------------------------------------------------------------------

    def _hostnames(self) -> list[str]:
        """The names that the certificate is for, the server's own first."""
        names = [self.settings.hostname, *(each.hostname for each in self.settings.listeners)]
        return [name for name in dict.fromkeys(names) if name]


# The front-ends are imported when a listener asks for them: who runs no HTTP needs no klein.


def _smtp(runtime: Runtime, listener: Listener) -> Any:
    from mailtwist.smtp.service import make_factory

    return make_factory(listener, _smtp_parts(runtime))


def _configure_smtp(runtime: Runtime, factory: Any, listener: Listener) -> None:
    factory.configure(listener, _smtp_parts(runtime))


def _smtp_parts(runtime: Runtime) -> Any:
    from mailtwist.smtp.service import Parts

    return Parts(
        intake=runtime.mail.intake,
        authenticator=runtime.authenticator,
        tls=runtime.certificates,
        settings=runtime.settings,
        clock=runtime.reactor,
        counters=runtime.counters,
    )


def _imap(runtime: Runtime, listener: Listener) -> Any:
    from mailtwist.imap.service import make_factory

    return make_factory(listener, _imap_parts(runtime))


def _configure_imap(runtime: Runtime, factory: Any, listener: Listener) -> None:
    factory.configure(listener, _imap_parts(runtime))


def _imap_parts(runtime: Runtime) -> Any:
    from mailtwist.imap.service import Parts

    return Parts(
        database=runtime.database,
        snapshots=runtime.snapshots,
        authenticator=runtime.authenticator,
        tls=runtime.certificates,
        settings=runtime.settings,
        clock=runtime.reactor,
        counters=runtime.counters,
    )


def _http(runtime: Runtime, listener: Listener) -> Any:
    from mailtwist.http.service import make_factory

    return make_factory(
        runtime.health.check,
        reactor=runtime.reactor,
        counters=runtime.counters,
        max_clients=listener.max_clients,
    )


def _configure_http(runtime: Runtime, factory: Any, listener: Listener) -> None:
    factory.max_clients = listener.max_clients


_MAKERS: Final = {
    "smtp": _smtp,
    "submission": _smtp,
    "submissions": _smtp,
    "imap": _imap,
    "imaps": _imap,
    "http": _http,
    "https": _http,
}
_CONFIGURERS: Final = {
    "smtp": _configure_smtp,
    "submission": _configure_smtp,
    "submissions": _configure_smtp,
    "imap": _configure_imap,
    "imaps": _configure_imap,
    "http": _configure_http,
    "https": _configure_http,
}


def _allow_many_connections() -> None:
    """Raise the limit of open files as far as it goes: a connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
