"""What ACME keeps in rows: accounts, challenges under way, and the orders of certificates.

All nodes share them: any of them answers a challenge, and one renews for all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, delete, insert, select, text, update

from mailtwist.errors import Conflict, NotFound
from mailtwist.store import ids, lease
from mailtwist.store.certificates import ACME, Material, store_issued
from mailtwist.store.entities.tables import acme_account, acme_challenge, certificate

MAX_ERROR: Final = 1000


# -- one node for all -----------------------------------------------------------------------


def take_lease(
    connection: Connection, name: str, node_id: int, *, now: int, seconds: float
) -> bool:
    """Take or renew a lease, also from a node that was killed; False: another node holds it."""
    holder = lease.holder(connection, name, now)
    if holder is not None and holder != node_id and holder not in ids.running(connection, now):
        lease.release(connection, name, holder)
    return lease.take(connection, name, node_id, now=now, seconds=seconds)


# -- accounts -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Account:
    """``url``: of the account, "" before it is registered; ``sealed_key``: PEM, sealed."""

    directory_url: str
    url: str
    email: str
    sealed_key: str = field(repr=False)


_ACCOUNT = select(
    acme_account.c.directory_url,
    acme_account.c.account_url,
    acme_account.c.email,
    acme_account.c.private_key,
)
_ESTABLISH = text(
    "INSERT INTO acme_account (directory_url, private_key, created_at)"
    " VALUES (:directory_url, :private_key, :now) ON CONFLICT (directory_url) DO NOTHING"
)


def account(connection: Connection, directory_url: str) -> Account | None:
    """Our account at an authority."""
    found = connection.execute(
        _ACCOUNT.where(acme_account.c.directory_url == directory_url)
    ).first()
    return None if found is None else Account(*found)


def establish_account(
    connection: Connection, directory_url: str, sealed_key: str, now: int
) -> Account:
    """The account that there is, else a new one with this key: nodes get the same."""
    values = {"directory_url": directory_url, "private_key": sealed_key, "now": now}
    connection.execute(_ESTABLISH, values)
    found = account(connection, directory_url)
    assert found is not None, "made above"
    return found


def keep_registration(connection: Connection, directory_url: str, url: str, email: str) -> None:
    """Remember what the authority calls the account; "" when it knows it no more."""
    connection.execute(
        update(acme_account)
        .where(acme_account.c.directory_url == directory_url)
        .values(account_url=url, email=email)
    )


def replace_key(connection: Connection, directory_url: str, sealed_key: str) -> None:
    """Begin anew with another key: the one before cannot be opened."""
    connection.execute(
        update(acme_account)
        .where(acme_account.c.directory_url == directory_url)
        .values(account_url="", email="", private_key=sealed_key)
    )


# -- challenges -----------------------------------------------------------------------------


def put_challenges(
    connection: Connection, answers: Iterable[tuple[str, str]], *, now: int, until: int
) -> None:
    """Answer these (token, key authorization) until then; what has run out goes."""
    connection.execute(delete(acme_challenge).where(acme_challenge.c.expires_at <= now))
    rows = [
        {"token": token, "key_authorization": answer, "expires_at": until}
        for token, answer in answers
    ]
    if rows:
        tokens = [row["token"] for row in rows]
        connection.execute(delete(acme_challenge).where(acme_challenge.c.token.in_(tokens)))
        connection.execute(insert(acme_challenge), rows)


def remove_challenges(connection: Connection, tokens: Iterable[str]) -> None:
    connection.execute(delete(acme_challenge).where(acme_challenge.c.token.in_(list(tokens))))


def answer(connection: Connection, token: str, now: int) -> str | None:
    """The key authorization of a token, while its order is under way."""
    found: str | None = connection.execute(
        select(acme_challenge.c.key_authorization).where(
            acme_challenge.c.token == token, acme_challenge.c.expires_at > now
        )
    ).scalar()
    return found


# -- certificates ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Order:
    """What a ``certificate`` row says of the orders for it. Times in microseconds.

    ``renew_at`` None: nobody looked yet; ``held_until``: the authority takes no order before;
    ``retry_at``: nothing is ordered by itself before; ``failures``: in a row.
    """

    certificate_id: int
    reference_id: str
    hostname: str
    issuer: str
    certificate: str
    renew_at: int | None = None
    ask_at: int = 0
    retry_at: int = 0
    held_until: int = 0
    failures: int = 0


_ORDER = select(
    certificate.c.certificate_id,
    certificate.c.reference_id,
    certificate.c.hostname,
    certificate.c.issuer,
    certificate.c.certificate_pem,
    certificate.c.renew_at,
    certificate.c.ask_at,
    certificate.c.retry_at,
    certificate.c.held_until,
    certificate.c.failures,
)


def _order(row: Row[*tuple[Any, ...]]) -> Order:
    return Order(*row)


def find(connection: Connection, reference_id: str) -> Order:
    """Raises: NotFound."""
    row = connection.execute(_ORDER.where(certificate.c.reference_id == reference_id)).first()
    if row is None:
        raise NotFound("There is no such certificate row")
    return _order(row)


def pending(connection: Connection, now: int, after: int, limit: int) -> list[Order]:
    """Issued certificates with something to do: renew them, or ask when to; in order of key.

    ``after``: the key of the last one that was looked at, 0 to begin with.
    """
    columns = certificate.c
    is_due = (columns.renew_at.is_(None)) | (columns.renew_at <= now) | (columns.ask_at <= now)
    rows = connection.execute(
        _ORDER.where(
            columns.issuer == ACME,
            columns.certificate_pem != "",
            columns.certificate_id > after,
            columns.retry_at <= now,
            is_due,
        )
        .order_by(columns.certificate_id)
        .limit(limit)
    )
    return [_order(row) for row in rows]


def note_renewal(connection: Connection, order: Order, *, renew_at: int, ask_at: int) -> None:
    """Remember when to renew, unless the certificate is another one by now."""
    connection.execute(
        update(certificate).where(_same(order)).values(renew_at=renew_at, ask_at=ask_at)
    )


def note_failure(
    connection: Connection, order: Order, error: str, *, retry_at: int, held_until: int
) -> None:
    """Remember why an order failed, and when the next may be tried."""
    connection.execute(
        update(certificate)
        .where(certificate.c.certificate_id == order.certificate_id)
        .values(
            last_error=error[:MAX_ERROR],
            retry_at=retry_at,
            held_until=held_until,
            failures=certificate.c.failures + 1,
        )
    )


def keep(
    connection: Connection,
    order: Order,
    material: Material,
    *,
    renew_at: int,
    ask_at: int,
    now: int,
) -> None:
    """Put an issued chain into the row, in use from the next handshake on.

    Raises: Conflict when the row was deleted meanwhile, is for another name, or has been given
    another certificate.
    """
    kept = connection.execute(
        update(certificate)
        .where(
            _same(order),
            certificate.c.hostname == order.hostname,
        )
        .values(
            last_error="",
            renew_at=renew_at,
            ask_at=ask_at,
            retry_at=0,
            held_until=0,
            failures=0,
        )
    )
    if kept.rowcount != 1:
        raise Conflict(f"The row of {order.hostname} has changed since its certificate was ordered")
    store_issued(connection, order.certificate_id, material, issuer=ACME, now=now)


def _same(order: Order) -> ColumnElement[bool]:
    return (certificate.c.certificate_id == order.certificate_id) & (
        certificate.c.certificate_pem == order.certificate
    )
