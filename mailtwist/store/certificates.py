"""The ``certificate`` rows as TLS needs them, and how a new certificate gets into one.

Beside each row stands one of ``certificate_state`` that tells its names and its end, so that
neither the index of names nor a look for what ends soon reads the PEM text of all of them. A
row that has none, or one without names, is told by :func:`unknown` and completed by
:func:`note`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, delete, func, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from mailtwist.errors import NotFound
from mailtwist.store import changes
from mailtwist.store.entities.tables import certificate, certificate_state
from mailtwist.store.sql import is_postgresql

KIND: Final = "certificate"
# What the private key is sealed for.
PURPOSE: Final = "certificate.private_key_pem"

# Issuers that mean something to us; any other text is a person's remark on what he imported.
SELF: Final = "self"  # key and certificate are ours
OWN_KEY: Final = "own-key"  # the key was given, the certificate is ours
ACME: Final = "acme"
IMPORTED: Final = "imported"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a certificate; times in microseconds."""

    names: tuple[str, ...] = ()
    not_before: int = 0
    not_after: int = 0
    serial: str = ""  # in hexadecimal
    is_usable: bool = False


@dataclass(frozen=True, slots=True)
class Material:
    """What goes into a row: PEM texts, the key sealed, and the facts of the certificate."""

    certificate_pem: str
    root_certificate: str
    public_key_pem: str
    sealed_key: str = field(repr=False)
    facts: Facts = Facts()


@dataclass(frozen=True, slots=True)
class Row:
    certificate_id: int
    reference_id: str
    hostname: str
    issuer: str
    generated_at: int | None
    certificate_pem: str
    root_certificate: str
    public_key_pem: str
    sealed_key: str = field(repr=False)

    @property
    def chain(self) -> str:
        """PEM, the certificate first."""
        above = self.root_certificate.strip()
        if above in self.certificate_pem:
            return self.certificate_pem
        return f"{self.certificate_pem.rstrip()}\n{self.root_certificate}"


@dataclass(frozen=True, slots=True)
class Named:
    """A row in the index of names; its time and serial number tell one content from the next."""

    certificate_id: int
    hostname: str
    names: tuple[str, ...]
    changed_at: int
    serial: str
    is_usable: bool


@dataclass(frozen=True, slots=True)
class Listed:
    """A row for people, without any PEM text."""

    certificate_id: int
    reference_id: str
    hostname: str
    issuer: str
    facts: Facts


_ROW = [
    certificate.c[name]
    for name in (
        "certificate_id",
        "reference_id",
        "hostname",
        "issuer",
        "generated_at",
        "certificate_pem",
        "root_certificate",
        "public_key_pem",
        "private_key_pem",
    )
]
_FACTS = ("names", "not_before", "not_after", "serial", "is_usable")
_BOTH = certificate.outerjoin(
    certificate_state, certificate_state.c.certificate_id == certificate.c.certificate_id
)


_GENERATION = text("SELECT n FROM generation WHERE kind = :kind")


def generation(connection: Connection) -> int:
    """Differs whenever any row does."""
    return int(connection.execute(_GENERATION, {"kind": KIND}).scalar() or 0)


# -- one row --------------------------------------------------------------------------------


def find(connection: Connection, reference_id: str) -> Row | None:
    """The row with an id as the interfaces show it."""
    return _first(connection, certificate.c.reference_id == reference_id)


def of_hostname(connection: Connection, hostname: str) -> Row | None:
    """The row whose ``hostname`` is exactly this, folded."""
    return _first(connection, certificate.c.hostname == hostname)


def _first(connection: Connection, condition: ColumnElement[bool]) -> Row | None:
    row = connection.execute(select(*_ROW).where(condition)).first()
    return None if row is None else Row(*row)


def rows(connection: Connection, ids: Collection[int]) -> list[Row]:
    """The rows with these numbers, as many of them as there are."""
    query = select(*_ROW).where(certificate.c.certificate_id.in_(sorted(ids)))
    return [Row(*row) for row in connection.execute(query)]


# -- many, without their texts ----------------------------------------------------------------


def index(connection: Connection, *, since: int = 0) -> list[Named]:
    """The rows that are known, or those of them that changed at a time or after it."""
    query = (
        select(
            certificate_state.c.certificate_id,
            certificate.c.hostname,
            certificate_state.c.names,
            certificate_state.c.changed_at,
            certificate_state.c.serial,
            certificate_state.c.is_usable,
        )
        .join_from(
            certificate_state,
            certificate,
            certificate.c.certificate_id == certificate_state.c.certificate_id,
        )
        .where(certificate_state.c.changed_at >= since)
    )
    return [
        Named(number, hostname, tuple(names.split()), changed_at, serial, bool(is_usable))
        for number, hostname, names, changed_at, serial, is_usable in connection.execute(query)
    ]


def usable(connection: Connection) -> list[Named]:
    """All that have a certificate and its key."""
    return [each for each in index(connection) if each.is_usable]


def count_usable(connection: Connection) -> int:
    """How many have a certificate and its key."""
    query = select(func.count()).select_from(certificate_state)
    return connection.execute(query.where(certificate_state.c.is_usable == 1)).scalar_one()


def unknown(connection: Connection, limit: int) -> list[Row]:
    """Rows whose certificate nobody has looked into since it was written."""
    query = (
        select(*_ROW)
        .select_from(_BOTH)
        .where(certificate_state.c.certificate_id.is_(None))
        .order_by(certificate.c.certificate_id)
        .limit(limit)
    )
    return [Row(*row) for row in connection.execute(query)]


def listed(connection: Connection) -> list[Listed]:
    """All rows, by host name."""
    query = (
        select(
            *_ROW[:4],
            *(certificate_state.c[name] for name in _FACTS),
        )
        .select_from(_BOTH)
        .order_by(certificate.c.hostname)
    )
    return [
        Listed(number, reference_id, hostname, issuer, _facts(*facts))
        for number, reference_id, hostname, issuer, *facts in connection.execute(query)
    ]


def _facts(
    names: str | None,
    not_before: int | None,
    not_after: int | None,
    serial: str | None,
    is_usable: int | None,
) -> Facts:
    return Facts(
        tuple((names or "").split()), not_before or 0, not_after or 0, serial or "", bool(is_usable)
    )


def ending(
    connection: Connection, *, issuers: Iterable[str], before: int, limit: int = 100
) -> list[Row]:
    """Rows of these issuers whose certificate ends before a time, the first to end first."""
    query = (
        select(*_ROW)
        .select_from(_BOTH)
        .where(
            certificate_state.c.not_after > 0,
            certificate_state.c.not_after < before,
            certificate.c.issuer.in_(sorted(issuers)),
        )
        .order_by(certificate_state.c.not_after)
        .limit(limit)
    )
    return [Row(*row) for row in connection.execute(query)]


# -- writing --------------------------------------------------------------------------------


def store_issued(
    connection: Connection, certificate_id: int, material: Material, *, issuer: str, now: int
) -> None:
    """Put a certificate and its key into a row; the next handshake uses them.

    Raises: NotFound when the row is gone.
    """
    values = {
        "issuer": issuer,
        "generated_at": now,
        "updated_at": now,
        "certificate_pem": material.certificate_pem,
        "root_certificate": material.root_certificate,
        "public_key_pem": material.public_key_pem,
        "private_key_pem": material.sealed_key,
    }
    own = certificate.c.certificate_id == certificate_id
    if connection.execute(update(certificate).where(own).values(values)).rowcount != 1:
        raise NotFound("The certificate row is gone")
    note(connection, certificate_id, material.facts, now=now)
    changes.bump(connection, KIND)


def add(connection: Connection, hostname: str, reference_id: str, *, now: int) -> int:
    """A row without certificate, owned by nobody; gives its number."""
    values = {
        "hostname": hostname,
        "issuer": SELF,
        "reference_id": reference_id,
        "permission": 0,
        "created_at": now,
        "updated_at": now,
    }
    inserted = certificate.insert().values(values).returning(certificate.c.certificate_id)
    return int(connection.execute(inserted).scalar_one())


def note(connection: Connection, certificate_id: int, facts: Facts, *, now: int) -> None:
    """Keep what a row's certificate is for and when it ends."""
    values: dict[str, Any] = {
        "names": " ".join(facts.names),
        "not_before": facts.not_before,
        "not_after": facts.not_after,
        "serial": facts.serial,
        "is_usable": int(facts.is_usable),
        "changed_at": now,
    }
    insert = (postgresql if is_postgresql(connection) else sqlite).insert(certificate_state)
    connection.execute(
        insert.values(certificate_id=certificate_id, **values).on_conflict_do_update(
            index_elements=[certificate_state.c.certificate_id], set_=values
        )
    )


def touch(connection: Connection, certificate_id: int, *, now: int) -> None:
    """Tell that something else of a row has changed."""
    own = certificate_state.c.certificate_id == certificate_id
    connection.execute(update(certificate_state).where(own).values(changed_at=now))


def forget(connection: Connection, certificate_id: int) -> None:
    """Drop what was kept of a row: it is gone, or nobody knows what is in it now."""
    own = certificate_state.c.certificate_id == certificate_id
    connection.execute(delete(certificate_state).where(own))
