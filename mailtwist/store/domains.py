"""The domains whose mail belongs to us.

Names are A-labels in lower case. Domains of the settings are local as well without a
row; :mod:`mailtwist.store.directory` joins both.
"""

from __future__ import annotations

import builtins
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, and_, delete, insert, select

from mailtwist.errors import Conflict, NotFound, Refusal
from mailtwist.mail.address import fold_domain
from mailtwist.store import changes, mail_servers
from mailtwist.store.ledger import microseconds
from mailtwist.store.reference import reference_id
from mailtwist.store.tables import account, address, address_target, domain

KINDS: Final = frozenset({"local", "inbox", "relay"})

_COLUMNS = (
    domain.c.domain_id,
    domain.c.name,
    domain.c.kind,
    domain.c.catch_all,
    domain.c.delimiter,
    domain.c.enabled,
    domain.c.reference_id,
    domain.c.created_at,
)


@dataclass(frozen=True, slots=True)
class Domain:
    domain_id: int
    name: str
    kind: str
    catch_all: str
    delimiter: str
    is_enabled: bool
    reference_id: str
    created_at: int

    @property
    def is_local(self) -> bool:
        return self.is_enabled and self.kind in {"local", "inbox"}


def _domain(row: Row[*tuple[Any, ...]]) -> Domain:
    number, name, kind, catch_all, delimiter, enabled, reference, created_at = row
    return Domain(number, name, kind, catch_all, delimiter, bool(enabled), reference, created_at)


def find(connection: Connection, name: str) -> Domain | None:
    """Find the row of a domain, whatever its kind."""
    row = connection.execute(
        select(*_COLUMNS).where(domain.c.name == fold_domain(name))
    ).one_or_none()
    return None if row is None else _domain(row)


def is_local(connection: Connection, name: str) -> bool:
    """Tell whether a row makes the domain ours."""
    found = find(connection, name)
    return found is not None and found.is_local


def first(connection: Connection) -> str:
    """The domain of names without one, where the settings name none; "": there is none.

    The oldest local domain, else the oldest mail server's name. Names in `.invalid` are those of
    accounts of our own, or nobody's.
    """
    is_real = domain.c.name.not_like("%.invalid")
    is_ours = and_(domain.c.kind == "local", domain.c.enabled == 1, is_real)
    query = select(domain.c.name).where(is_ours).order_by(domain.c.domain_id).limit(1)
    return str(connection.execute(query).scalar() or mail_servers.first_hostname(connection))


def add(
    connection: Connection,
    name: str,
    kind: str = "local",
    *,
    catch_all: str = "",
    delimiter: str = "+",
    now: int | None = None,
) -> Domain:
    """Make a domain; Conflict when it is there."""
    if kind not in KINDS:
        raise Refusal(f"A domain is one of {', '.join(sorted(KINDS))}, not {kind}")
    name = fold_domain(name)
    if find(connection, name) is not None:
        raise Conflict(f"The domain {name} exists already")
    now = microseconds(now)
    reference = reference_id(now)
    number = connection.execute(
        insert(domain)
        .values(
            name=name,
            kind=kind,
            catch_all=catch_all,
            delimiter=delimiter,
            reference_id=reference,
            created_at=now,
            updated_at=now,
        )
        .returning(domain.c.domain_id)
    ).scalar_one()
    changes.bump(connection, "domain")
    return Domain(number, name, kind, catch_all, delimiter, True, reference, now)


def ensure(
    connection: Connection, name: str, kind: str = "local", *, now: int | None = None
) -> Domain:
    """Find a domain, of whatever kind, or make it one of ``kind``."""
    return find(connection, name) or add(connection, name, kind, now=now)


def list(connection: Connection) -> builtins.list[Domain]:
    """List every domain row by name."""
    return [_domain(row) for row in connection.execute(select(*_COLUMNS).order_by(domain.c.name))]


def remove(connection: Connection, name: str) -> None:
    """Remove a domain and its aliases; Conflict while accounts are in it."""
    found = find(connection, name)
    if found is None:
        raise NotFound(f"No domain {name}")
    number = found.domain_id
    of_domain = account.c.domain_id == number
    if connection.execute(select(account.c.account_id).where(of_domain).limit(1)).first():
        raise Conflict(f"The domain {found.name} still has accounts")
    for table in (address_target, address, domain):
        connection.execute(delete(table).where(table.c.domain_id == number))
    changes.bump(connection, "domain")
    changes.bump(connection, "address")
