"""What TLS hands out: the files of the settings, the rows, and what we signed ourselves.

A name that neither the files nor a row covers gets a certificate of our own, so that a
listener for it can open at once. Rows and files that change are in use from the next handshake
on. Of the rows only names are read; a certificate itself is loaded when a client asks for it
(:mod:`mailtwist.tls.shelf`), those of the listeners' own names at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from OpenSSL import SSL
from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from mailtwist.config import Listener, Settings
from mailtwist.errors import ConfigError, MailError
from mailtwist.net.periodic import Periodic
from mailtwist.policy.hashing import Derivation
from mailtwist.store import certificates, changes, lease
from mailtwist.store.certificates import OWN_KEY, PURPOSE, SELF, Named, Row
from mailtwist.store.database import Database
from mailtwist.store.engine import Connection
from mailtwist.store.secrets import Secrets, Unreadable
from mailtwist.tls import issuing, pem, rows, selfsigned
from mailtwist.tls.contexts import Certificates, make_context, names_of
from mailtwist.tls.files import KeyFiles, Pair, has_ended
from mailtwist.tls.shelf import Entry, Shelf

log = Logger()

# In the data folder; one folder a name.
OWN_FOLDER: Final = "self-signed"

FILES_S: Final = 1.0
RENEWAL_S: Final = 3600.0
LEASE: Final = "self-signed"
LEASE_S: Final = 300.0
# Rows that somebody else wrote are looked into so many at a time.
BATCH: Final = 200
# Another node's clock may be this far behind ours.
SKEW_US: Final = 60_000_000


class CertificateSet:
    """One in a process. ``now``: the time; ``threads``: where keys are read and made.

    ``clock`` None: nothing is done by itself, neither files looked at nor rows renewed.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        secrets: Secrets,
        threads: Derivation,
        now: Callable[[], datetime],
        files: KeyFiles | None = None,
        clock: Any = None,
    ) -> None:
        self._folder = Path(settings.data_dir)
        self._secrets = secrets
        self._threads = threads
        self._now = now
        self._files = files
        self._hostname = self._given_name = settings.hostname
        self._names: tuple[str, ...] = ()
        self._one_at_a_time = DeferredLock()
        self._database: Database | None = None
        self._contexts: dict[Pair, SSL.Context] = {}
        self._last_change = 0
        self._generation = -1
        self._settled: object = None
        self.shelf = Shelf(self._context, clock=clock)
        default = self._named or self._own(settings.hostname)
        if self._named is not None and has_ended(default, now()):
            log.error("the certificate of tls.cert_file has expired")
        self.certificates = Certificates(*default, settings.tls.min_version, shelf=self.shelf)
        self._timers = [] if clock is None else self._made_timers(clock)

    def _made_timers(self, clock: Any) -> list[Periodic]:
        timers = [Periodic("renewal of certificates", self.renew, every_s=RENEWAL_S, clock=clock)]
        if self._files is not None:
            timers.append(Periodic("key files", self.look, every_s=FILES_S, clock=clock))
        return timers

    async def start(self, database: Database) -> None:
        """Take the rows into use, and follow them. Raises: MailError."""
        self._database = database
        database.changes.watch(certificates.KIND, self._reload)
        await self.load()
        for each in self._timers:
            each.start()
        if self._timers:
            self._in_background(self.renew)

    async def stop(self) -> None:
        """Follow nothing any more."""
        for each in self._timers:
            each.cancel()

    async def cover(self, hostname: str, listeners: Iterable[Listener]) -> None:
        """Have a certificate for the server's name and that of every listener, as rows are now."""
        names = [hostname, *(each.hostname for each in listeners)]
        self._hostname, self._names = hostname, tuple(dict.fromkeys(filter(None, names)))
        await self.load()

    async def load(self) -> None:
        """Find out what has changed in the rows and use it. Raises: MailError."""
        async with self._one_at_a_time:
            generation = await self.database.read(certificates.generation)
            if generation != self._generation:
                is_known = await self._look_into_unknown()
                await self._index()
                self._generation = generation if is_known else -1
            await self._settle()

    def _reload(self) -> None:
        self._in_background(self.load)

    def _in_background(self, work: Callable[[], Any]) -> None:
        running = Deferred.fromCoroutine(work())
        running.addErrback(self._stays)

    def _stays(self, failure: Any) -> None:
        if failure.check(MailError):
            log.warn("certificates stay: {error}", error=failure.value)
        else:
            log.failure("certificates stay", failure)

    # -- the index --------------------------------------------------------------------------

    @property
    def database(self) -> Database:
        assert self._database is not None, "started"
        return self._database

    async def _look_into_unknown(self) -> bool:
        """Note what is in rows that were written without telling; the rest of many later.

        False: the store takes nothing now.
        """
        if not await self.database.read(partial(certificates.unknown, limit=1)):
            return True
        try:
            is_all = await self.database.write(self._note_unknown)
        except MailError as error:
            log.warn("new certificates wait: {error}", error=error)
            return False
        if not is_all:
            self._reload()
        return True

    def _note_unknown(self, connection: Connection) -> bool:
        found = certificates.unknown(connection, limit=BATCH)
        for row in found:
            now = rows.microseconds(self._now())
            certificates.note(connection, row.certificate_id, rows.facts_of(row), now=now)
        changes.bump(connection, certificates.KIND)
        return len(found) < BATCH

    async def _index(self) -> None:
        since = max(0, self._last_change - SKEW_US)
        found, total = await self.database.read(partial(_changed, since=since))
        gone = [each.certificate_id for each in found if not each.is_usable]
        self._put(found)
        self.shelf.remove(gone)
        if total != len(self.shelf):
            every = await self.database.read(certificates.usable)
            self.shelf.remove(set(self.shelf.numbers) - {each.certificate_id for each in every})
            self._put(every)

    def _put(self, found: Sequence[Named]) -> None:
        self.shelf.put(_entry(each) for each in found if each.is_usable)
        self._last_change = max([self._last_change, *(each.changed_at for each in found)])

    # -- what is always in memory -----------------------------------------------------------

    async def _settle(self) -> None:
        """Have a context for each of our own names, and choose the one of who names nobody."""
        names = dict.fromkeys([self._hostname, *self._names])
        state = tuple(names), self._named, self.shelf.generation, self._now().date()
        if state == self._settled:
            return
        named = self._named
        covered = names_of(named[0]) if named else []
        numbers = {
            name: await self._fetched(name) for name in names if not pem.matches(covered, name)
        }
        self.shelf.keep({number for number in numbers.values() if number is not None})
        missing = [name for name, number in numbers.items() if number is None]
        found = self.shelf.find(self._hostname) if named is None else None
        by_name, default = await self._threads.run(
            partial(self._contexts_of, named, missing, needs_default=found is None)
        )
        chosen = found or default
        assert chosen is not None, "one of them"
        self.certificates.creator.replace(chosen, by_name)
        # What a store that failed has kept from us is asked for again.
        self._settled = None if any(self.shelf.misses(name) for name in names) else state

    async def _fetched(self, name: str) -> int | None:
        """The number of the row for a name, when its certificate can be used."""
        for spelling in (name, f"*.{name.partition('.')[2]}"):
            if self.shelf.has(spelling):
                await self.shelf.fetch(spelling)
                if self.shelf.find(spelling) is not None:
                    return self.shelf.number_of(spelling)
        return None

    @property
    def _named(self) -> Pair | None:
        return self._files.pair if self._files is not None else None

    # -- in a thread --------------------------------------------------------------------------

    def _contexts_of(
        self, named: Pair | None, missing: Sequence[str], *, needs_default: bool
    ) -> tuple[dict[str, SSL.Context], SSL.Context | None]:
        """Those of the files and of our own, by name; and that of who names nobody."""
        pairs = [*([named] if named else []), *(self._own(name) for name in missing)]
        by_name: dict[str, SSL.Context] = {}
        for pair in pairs:
            for name in names_of(pair[0]):
                by_name.setdefault(name, self._of_pair(pair))
        default = (named or self._own(self._hostname)) if needs_default else None
        used = {*pairs, *([default] if default else [])}
        self._contexts = {pair: self._of_pair(pair) for pair in used}
        return by_name, self._contexts[default] if default else None

    def _of_pair(self, pair: Pair) -> SSL.Context:
        found = self._contexts.get(pair)
        if found is None:
            found = make_context(*pair, self.certificates.min_version)
            self._contexts[pair] = found
        return found

    def _own(self, name: str) -> Pair:
        """The pair that we signed for a name; that of the settings' own stands apart."""
        folder = self._folder if name == self._given_name else self._folder / OWN_FOLDER / name
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"data_dir: cannot make {folder}: {error.strerror}") from error
        return selfsigned.load_or_make(folder, [name], self._now())

    # -- rows as contexts -----------------------------------------------------------------------

    async def _context(self, number: int) -> SSL.Context:
        """Raises: MailError, and ValueError for a row that cannot be used."""
        found = await self.database.read(partial(certificates.rows, ids=[number]))
        if not found:
            raise ValueError("the row is gone")
        context = await self._threads.run(partial(self._built, found[0]))
        return self.certificates.creator.adopt(context)

    def _built(self, row: Row) -> SSL.Context:
        try:
            key = self._secrets.open(row.sealed_key, PURPOSE).encode("utf-8")
            chain = row.chain.encode("utf-8")
            return make_context(chain, key, self.certificates.min_version, was_checked=True)
        except (ValueError, TypeError, Unreadable, SSL.Error) as error:
            raise ValueError(f"{row.hostname}: {error}") from error

    # -- files ------------------------------------------------------------------------------

    async def look(self) -> None:
        """Use the key files when they have changed; a pair that is no pair yet is passed over."""
        files = self._files
        if files is None or not await self._threads.run(files.has_changed):
            return
        try:
            pair = await self._threads.run(files.read)
        except ConfigError as error:
            log.error("the certificate in use stays: {error}", error=error)
            return
        if pair is not None:
            await self.load()
            log.info("certificate read from {path}", path=files.places[0][0])

    # -- renewal ----------------------------------------------------------------------------

    async def renew(self) -> None:
        """Sign those of our own anew that end soon; one node does it for all."""
        now = rows.microseconds(self._now())
        node = self.database.ids.node_id
        before = rows.microseconds(self._now() + issuing.RENEW_BEFORE)
        found = await self.database.read(
            partial(certificates.ending, issuers=(SELF, OWN_KEY), before=before)
        )
        take = partial(lease.take, name=LEASE, node_id=node, now=now, seconds=LEASE_S)
        is_mine: bool = bool(found) and await self.database.write(take)
        for row in found if is_mine else ():
            await self._renew(row)
        # Those in files are looked at too.
        await self.load()

    async def _renew(self, row: Row) -> None:
        try:
            made = await self._threads.run(partial(rows.follower, row, self._secrets, self._now()))
        except (ValueError, MailError) as error:
            log.error("{name} cannot be renewed: {error}", name=row.hostname, error=error)
            return
        now = rows.microseconds(self._now())

        def write(connection: Connection) -> None:
            # Somebody may have given another one meanwhile.
            if certificates.rows(connection, [row.certificate_id]) == [row]:
                certificates.store_issued(
                    connection, row.certificate_id, made, issuer=row.issuer, now=now
                )

        await self.database.write(write)
        log.info("the certificate of {name} is signed anew", name=row.hostname)


def _changed(connection: Connection, since: int) -> tuple[list[Named], int]:
    return certificates.index(connection, since=since), certificates.count_usable(connection)


def _entry(row: Named) -> Entry:
    own = frozenset(name.strip() for name in row.hostname.split(","))
    return Entry(row.certificate_id, row.names, (row.changed_at, row.serial), own)
