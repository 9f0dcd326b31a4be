"""What TLS hands out: the files of the settings, the rows, and what we signed ourselves.

A name that neither the files nor a row covers gets a certificate of our own, so that a
listener for it can open at once. Rows that change are in use from the next handshake on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailtwist.config import Listener, Settings
from mailtwist.policy.hashing import Derivation
from mailtwist.store import certificates
from mailtwist.store.certificates import PURPOSE, StoredCertificate
from mailtwist.store.database import Database
from mailtwist.store.secrets import Secrets, Unreadable
from mailtwist.tls import selfsigned
from mailtwist.tls.contexts import Certificates, names_of, read_pair

log = Logger()

# In the data folder; one folder a name.
OWN_FOLDER: Final = "self-signed"

Pair: TypeAlias = tuple[bytes, bytes]


class CertificateSet:
    """One in a process. ``now``: the time; ``threads``: where keys are read and made."""

    def __init__(
        self,
        settings: Settings,
        *,
        secrets: Secrets,
        threads: Derivation,
        now: Callable[[], datetime],
        named: Pair | None = None,
    ) -> None:
        self._folder = Path(settings.data_dir)
        self._secrets = secrets
        self._threads = threads
        self._now = now
        self._named = named
        self._hostname = self._given_name = settings.hostname
        self._names: tuple[str, ...] = ()
        self._turn = 0
        self._database: Database | None = None
        self._used: tuple[Pair, ...] = ()
        default = named or self._own(settings.hostname)
        self.certificates = Certificates(*default, settings.tls.min_version)

    async def start(self, database: Database) -> None:
        """Take the rows into use, and follow them. Raises: MailError."""
        self._database = database
        database.changes.watch(certificates.KIND, self._reload)
        await self.load()

    async def cover(self, hostname: str, listeners: Iterable[Listener]) -> None:
        """Have a certificate for the server's name and that of every listener."""
        names = [hostname, *(each.hostname for each in listeners)]
        wanted = tuple(dict.fromkeys(name for name in names if name))
        if (hostname, wanted) != (self._hostname, self._names):
            self._hostname, self._names = hostname, wanted
            await self.load()

    async def load(self) -> None:
        """Read the rows again and use them. Raises: MailError."""
        assert self._database is not None
        self._turn += 1
        turn = self._turn
        rows = await self._database.read(certificates.usable)
        pairs = await self._threads.run(partial(self._pairs, rows))
        if turn == self._turn and pairs != self._used:
            await self._threads.run(partial(self.certificates.replace, *pairs))
            self._used = pairs

    def _reload(self) -> None:
        loading = Deferred.fromCoroutine(self.load())
        loading.addErrback(
            lambda failure: log.warn("certificates stay: {error}", error=failure.value)
        )

    # -- in a thread --------------------------------------------------------------------------

    def _pairs(self, rows: Sequence[StoredCertificate]) -> tuple[Pair, ...]:
        """The default pair, then all in the order in which they count for a name."""
        stored = {row.hostname: pair for row in rows if (pair := self._opened(row)) is not None}
        pairs = [*([self._named] if self._named else []), *stored.values()]
        covered = {name for chain, _ in pairs for name in names_of(chain)}
        names = dict.fromkeys([self._hostname, *self._names])
        missing = [name for name in names if not _covers(covered, name)]
        default = self._named or stored.get(self._hostname)
        pairs += [self._own(name) for name in missing]
        return (default or self._own(self._hostname), *pairs)

    def _opened(self, row: StoredCertificate) -> Pair | None:
        try:
            key = self._secrets.open(row.sealed_key, PURPOSE).encode("utf-8")
            chain = row.chain.encode("utf-8")
            Certificates(chain, key)
        except (ValueError, Unreadable) as error:
            log.error("certificate of {name}: {error}", name=row.hostname, error=error)
            return None
        return chain, key

    def _own(self, name: str) -> Pair:
        """The pair that we signed for a name; that of the settings' own stands apart."""
        folder = self._folder if name == self._given_name else self._folder / OWN_FOLDER / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return selfsigned.load_or_make(folder, [name], self._now())


def _covers(covered: Collection[str], name: str) -> bool:
    # RFC 9525 §6.3
    name = name.lower()
    return name in covered or f"*.{name.partition('.')[2]}" in covered


def read_named(settings: Settings) -> Pair | None:
    """The pair that the settings name, if they do. Raises: ConfigError."""
    tls = settings.tls
    return read_pair(tls.cert_file, tls.key_file) if tls.cert_file else None
