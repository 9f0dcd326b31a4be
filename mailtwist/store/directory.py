"""Who receives mail for an address, answered at RCPT from memory.

The order in which an address is looked up, first answer wins:

1. the row of exactly this address: an account, or an alias for other addresses;
2. the setting ``aliases``, by whole address, then by local part (``postmaster``);
3. the same two for the part before the domain's delimiter (``user+tag``);
4. the domain's catch-all.

In an inbox domain the inbox of that name gets the mail as well, so that every name is somebody's.

An alias, or a catch-all, may lead to an address elsewhere: a :class:`Foreign` target, for the
queue. Answers, the empty one too, are kept until a row that matters changes
(:func:`mailtwist.store.changes.bump`).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from sqlalchemy import Connection

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.address import Address, fold_domain, parse_address
from mailtwist.store import inbox, mail_servers
from mailtwist.store.sql import Statement

T = TypeVar("T")

MAX_DEPTH: Final = 10
MAX_TARGETS: Final = 100
MAX_LOOKUPS: Final = 1000
CACHE_SIZE: Final = 20_000

_DOMAIN = Statement(
    "SELECT domain_id, kind, catch_all, delimiter, enabled FROM domain WHERE name = ?"
)
_ADDRESS = Statement(
    """
    SELECT a.kind, a.account_id FROM address AS a
    WHERE a.domain_id = ? AND a.local_part = ?
    """
)
_TARGETS = Statement(
    "SELECT target FROM address_target WHERE domain_id = ? AND local_part = ? ORDER BY n"
)


@dataclass(frozen=True, slots=True)
class Target:
    """An account that gets the mail; ``address`` is the one it was found by, tag and all.

    ``is_captured``: for an inbox of :mod:`mailtwist.store.inbox`; 0 is the inbox account that is
    not made yet. ``is_apart``: each inbox gets a message of its own.
    """

    account_id: int
    mailbox: str
    address: str
    is_captured: bool = False
    is_apart: bool = False


@dataclass(frozen=True, slots=True)
class Foreign:
    """An address that the queue serves.

    ``address`` as the next hop is told; ``destination`` is what is looked up: its domain, its
    literal, or ``store.queue.values.LOCAL``. ``forwarded_by``: the local address whose alias
    leads there; "" when the client itself named it.
    """

    address: str
    destination: str
    forwarded_by: str = ""


class Inbox(Protocol):
    @property
    def domain(self) -> str: ...


class Settings(Protocol):
    """What the configuration file says about local domains."""

    @property
    def domains(self) -> Iterable[str]: ...
    @property
    def aliases(self) -> Mapping[str, str]: ...
    @property
    def inbox(self) -> Inbox: ...


class Store(Protocol):
    """What is needed of :class:`mailtwist.store.database.Database`."""

    @property
    def changes(self) -> Any: ...
    def read(self, work: Callable[[Connection], T]) -> Awaitable[T]: ...


@dataclass(frozen=True, slots=True)
class _Domain:
    """A local domain; ``domain_id`` 0 when only the settings name it."""

    domain_id: int
    catch_all: str
    delimiter: str
    is_inbox: bool = False


class Directory:
    """Resolves addresses; one for the process."""

    def __init__(self, database: Store, settings: Settings) -> None:
        self._database = database
        self._addresses: OrderedDict[str, tuple[Target | Foreign, ...]] = OrderedDict()
        self._domains: OrderedDict[str, bool] = OrderedDict()
        self._generation = 0
        self.configure(settings)
        for kind in ("address", "domain", mail_servers.KIND):
            database.changes.watch(kind, self.clear)

    def configure(self, settings: Settings) -> None:
        """Take other settings; what was cached is forgotten."""
        self._inbox_domain = fold_domain(settings.inbox.domain) if settings.inbox.domain else ""
        names = [*settings.domains, *filter(None, [self._inbox_domain])]
        self._configured = {fold_domain(name): None for name in names}
        self._aliases = {
            name.strip().lower(): target for name, target in settings.aliases.items() if target
        }
        self.clear()

    def clear(self) -> None:
        """Forget every answer."""
        self._generation += 1
        self._addresses.clear()
        self._domains.clear()

    async def is_local(self, domain: str) -> bool:
        """Tell whether mail for a domain belongs to us."""
        try:
            domain = fold_domain(domain)
        except ProtocolViolation:
            return False
        return await self._cached(
            self._domains, domain, lambda connection: self._domain(connection, domain) is not None
        )

    async def resolve(self, address: Address) -> tuple[Target | Foreign, ...]:
        """Tell who gets the mail for a local address, each once; empty: no such user.

        An address in a domain that is not ours has no targets.
        """
        key = address.folded
        known = self._addresses.get(key)
        if known is not None:
            self._addresses.move_to_end(key)
            return known
        if self._domains.get(address.domain) is False:
            # Mailing lists have many members elsewhere: one answer a domain serves them all.
            return ()
        return await self._cached(
            self._addresses, key, lambda connection: self.expand(connection, address)
        )

    async def _cached(
        self, cache: OrderedDict[str, T], key: str, find: Callable[[Connection], T]
    ) -> T:
        known = cache.get(key)
        if known is not None:
            cache.move_to_end(key)
            return known
        generation = self._generation
        found = await self._database.read(find)
        if generation == self._generation:  # nothing changed while it was read
            cache[key] = found
            if len(cache) > CACHE_SIZE:
                cache.popitem(last=False)
        return found

    # -- in the reading thread --------------------------------------------------------------

    def expand(self, connection: Connection, address: Address) -> tuple[Target | Foreign, ...]:
        """Resolve without the cache. Loops are cut, and everything is bounded."""
        address = self.completed(address)
        found: dict[str, Target | Foreign] = {}
        pending = deque([(address, "", 0)])
        seen: set[str] = set()
        while pending and len(found) < MAX_TARGETS and len(seen) < MAX_LOOKUPS:
            address, alias, depth = pending.popleft()
            name = address.folded
            if name in seen:
                continue
            seen.add(name)
            domain = self._domain(connection, address.domain)
            if domain is None:
                if alias:
                    found[name] = Foreign(str(address), address.domain, alias)
                continue
            if domain.is_inbox:
                found[f"inbox {name}"] = Target(
                    inbox.account(connection), "INBOX", name, is_captured=True, is_apart=True
                )
            account_id, others = self._look_up(connection, domain, name)
            if account_id is not None:
                found.setdefault(str(account_id), Target(account_id, "INBOX", name))
            elif depth < MAX_DEPTH:
                pending += [(other, name, depth + 1) for other in others]
        return tuple(found.values())

    def completed(self, address: Address) -> Address:
        """The address with a domain: RFC 5321 §4.5.1 knows <Postmaster> without one."""
        if address.domain:
            return address
        return Address(address.local_part, next(iter(self._configured), ""))

    def _look_up(
        self, connection: Connection, domain: _Domain, name: str
    ) -> tuple[int | None, list[Address]]:
        """Find the account of a folded local address, or the addresses that it stands for."""
        local_part, _, domain_name = name.rpartition("@")
        base, delimiter, _ = local_part.partition(domain.delimiter or "\0")
        candidates = [local_part, base] if delimiter and base else [local_part]
        for candidate in candidates:
            account_id, others = self._exactly(connection, domain, candidate, domain_name)
            if account_id is not None or others:
                return account_id, others
        # Whoever gets the rest elsewhere: here each name is an inbox.
        rest = "" if domain.is_inbox else self._aliases.get("*", "")
        return None, _addresses([domain.catch_all or rest])

    def _exactly(
        self, connection: Connection, domain: _Domain, local_part: str, domain_name: str
    ) -> tuple[int | None, list[Address]]:
        key = (domain.domain_id, local_part)
        row = _ADDRESS(connection, key).first() if domain.domain_id else None
        if row is not None and row[0] == "account":
            return int(row[1]), []
        if row is not None:
            return None, _addresses(target for (target,) in _TARGETS(connection, key))
        for name in (f"{local_part}@{domain_name}", local_part):
            if name in self._aliases:
                return None, _addresses([self._aliases[name]])
        return None, []

    def _domain(self, connection: Connection, name: str) -> _Domain | None:
        row = _DOMAIN(connection, (name,)).first()
        is_inbox = name == self._inbox_domain and bool(name)
        if row is not None and row[4] and row[1] in {"local", "inbox"}:
            return _Domain(row[0], row[2], row[3], is_inbox or row[1] == "inbox")
        # What the file or a mail server names is local, whatever a row says of it.
        if name in self._configured or mail_servers.is_hostname(connection, name):
            return _Domain(row[0] if row else 0, "", "+", is_inbox)
        return None


def _addresses(names: Iterable[str]) -> list[Address]:
    return [address for address in map(_address, names) if address is not None]


def _address(name: str) -> Address | None:
    """Read what a row or the settings name; None for nothing, and for nonsense in old rows."""
    local_part, _, domain = name.rpartition("@")
    # Rows hold folded addresses, which are not quoted.
    for spelled in (name, str(Address(local_part, domain))):
        try:
            return parse_address(spelled)
        except ProtocolViolation:
            continue
    return None
