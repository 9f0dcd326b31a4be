"""Accounts: who they are, how they prove it, and the addresses that reach them.

A user name is the account's address, folded. A disabled account may not log in but goes on
receiving. Removal takes the name, the addresses and the secrets away at once; the mail
follows in bounded steps (:func:`remove_step`), and the number never comes back.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, func, insert, select, text, update

from mailtwist.errors import Conflict, NotFound, ProtocolViolation, Refusal
from mailtwist.mail.address import Address, parse_address
from mailtwist.store import changes, domains, mailboxes
from mailtwist.store.ledger import microseconds
from mailtwist.store.reference import reference_id, repeated
from mailtwist.store.removal import REMOVING
from mailtwist.store.removal import remove_step as remove_step  # noqa: PLC0414 (ours too)
from mailtwist.store.removal import removing as removing  # noqa: PLC0414
from mailtwist.store.sql import is_postgresql
from mailtwist.store.tables import (
    account,
    account_secret,
    account_state,
    address,
    address_target,
    domain,
)

# RFC 6154 §2
DEFAULT_MAILBOXES: Final = (
    ("INBOX", ""),
    ("Sent", "\\Sent"),
    ("Draft", "\\Drafts"),
    ("Trash", "\\Trash"),
    ("Spam", "\\Junk"),
    ("Archive", "\\Archive"),
)
MAX_TARGETS: Final = 100
STATES: Final = frozenset({"active", "disabled"})

_NEXT: Final = text("SELECT nextval(pg_get_serial_sequence('account', 'account_id'))")


@dataclass(frozen=True, slots=True)
class Verifier:
    """What proves a password without holding it: ``kind`` is bcrypt or scram-sha-256."""

    kind: str
    verifier: str


@dataclass(frozen=True, slots=True)
class Account:
    account_id: int
    username: str
    domain_id: int
    state: str
    quota_octets: int
    quota_messages: int
    auth_version: int
    reference_id: str
    created_at: int
    octets: int = 0
    messages: int = 0

    @property
    def is_active(self) -> bool:
        return self.state == "active"


_COLUMNS = (
    account.c.account_id,
    account.c.username,
    account.c.domain_id,
    account.c.state,
    account.c.quota_octets,
    account.c.quota_messages,
    account.c.auth_version,
    account.c.reference_id,
    account.c.created_at,
    account_state.c.octets,
    account_state.c.messages,
)
_ACCOUNTS = (
    select(*_COLUMNS)
    .join(account_state, account_state.c.account_id == account.c.account_id)
    .where(account.c.state != REMOVING)
)


def _account(row: Row[*tuple[Any, ...]] | None) -> Account | None:
    return None if row is None else Account(*row)


def _parsed(name: Address | str) -> Address:
    return parse_address(name) if isinstance(name, str) else name


def _local_part(name: Address) -> str:
    return name.folded.rpartition("@")[0]


# -- one account ----------------------------------------------------------------------------


def add(
    connection: Connection,
    name: Address | str,
    verifiers: Sequence[Verifier],
    *,
    quota_octets: int = 0,
    quota_messages: int = 0,
    now: int | None = None,
) -> Account:
    """Make an account with its default mailboxes, and its domain where there is none.

    ``quota_*`` 0 means no limit. Conflict when the address is an account or an alias.
    """
    name, now = _parsed(name), microseconds(now)
    if not name.domain or not name.local_part:
        raise Refusal("An account is named by a whole address", code=501, status="5.1.3")
    place = domains.ensure(connection, name.domain, now=now)
    if _address_row(connection, place.domain_id, _local_part(name)) is not None:
        raise Conflict(f"The address {name} exists already")
    reference = reference_id(now)
    number = connection.execute(
        insert(account)
        .values(
            **_number(connection),
            username=name.folded,
            domain_id=place.domain_id,
            quota_octets=quota_octets,
            quota_messages=quota_messages,
            reference_id=reference,
            created_at=now,
            updated_at=now,
        )
        .returning(account.c.account_id)
    ).scalar_one()
    connection.execute(insert(account_state).values(account_id=number))
    connection.execute(
        insert(address).values(
            domain_id=place.domain_id,
            local_part=_local_part(name),
            kind="account",
            account_id=number,
        )
    )
    _write_secrets(connection, number, verifiers, now)
    mailboxes.create_defaults(connection, number, DEFAULT_MAILBOXES, now=now)
    changes.bump(connection, "account")
    changes.bump(connection, "address")
    return Account(
        number, name.folded, place.domain_id, "active", quota_octets, quota_messages, 1,
        reference, now,
    )  # fmt: skip


def _number(connection: Connection) -> dict[str, int]:
    """The account's number, when it must be the same whenever the unit runs.

    Ids of mailboxes and mails have it in them.
    """
    if not is_postgresql(connection):
        return {}  # a rolled back number is the next one again
    number = repeated(lambda: int(connection.execute(_NEXT).scalar_one()))
    return {} if number is None else {"account_id": number}


def find(connection: Connection, username: str) -> Account | None:
    """Find an account by user name in any case; nonsense finds nothing."""
    try:
        folded = parse_address(username).folded
    except ProtocolViolation:
        return None
    return _account(connection.execute(_ACCOUNTS.where(account.c.username == folded)).first())


def get(connection: Connection, account_id: int) -> Account:
    """Read an account by number; NotFound when it is gone or going."""
    row = connection.execute(_ACCOUNTS.where(account.c.account_id == account_id)).first()
    if row is None:
        raise NotFound("No such account", detail=f"account {account_id}")
    return Account(*row)


def list(
    connection: Connection, *, after: str = "", limit: int | None = None
) -> builtins.list[Account]:
    """List accounts by name; pages continue after a name."""
    query = _ACCOUNTS.where(account.c.username > after).order_by(account.c.username)
    return [Account(*row) for row in connection.execute(query.limit(limit))]


def set_state(connection: Connection, account_id: int, state: str) -> None:
    """Enable ("active") or disable ("disabled") an account; logins it has are told."""
    if state not in STATES:
        raise Refusal(f"An account is active or disabled, not {state}")
    _change(connection, account_id, state=state, auth_version=account.c.auth_version + 1)


def set_quota(
    connection: Connection, account_id: int, *, octets: int = 0, messages: int = 0
) -> None:
    """Set the limits; 0 means none. What is over a new limit stays."""
    _change(connection, account_id, quota_octets=octets, quota_messages=messages)


def _change(connection: Connection, account_id: int, **values: object) -> None:
    done = connection.execute(
        update(account)
        .where(account.c.account_id == account_id, account.c.state != REMOVING)
        .values(updated_at=microseconds(), **values)
    )
    if not done.rowcount:
        raise NotFound("No such account", detail=f"account {account_id}")
    changes.bump(connection, "account")


# -- secrets --------------------------------------------------------------------------------


def secrets(connection: Connection, account_id: int) -> builtins.list[Verifier]:
    """Read what proves the account's passwords."""
    query = (
        select(account_secret.c.kind, account_secret.c.verifier)
        .where(account_secret.c.account_id == account_id)
        .order_by(account_secret.c.secret_id)
    )
    return [Verifier(*row) for row in connection.execute(query)]


def set_secrets(
    connection: Connection,
    account_id: int,
    verifiers: Sequence[Verifier],
    *,
    now: int | None = None,
) -> None:
    """Replace every verifier and raise auth_version, which ends remembered logins."""
    _change(connection, account_id, auth_version=account.c.auth_version + 1)
    connection.execute(delete(account_secret).where(account_secret.c.account_id == account_id))
    _write_secrets(connection, account_id, verifiers, microseconds(now))


def _write_secrets(
    connection: Connection, account_id: int, verifiers: Sequence[Verifier], now: int
) -> None:
    rows = [
        {
            "account_id": account_id,
            "secret_id": n,
            "kind": verifier.kind,
            "verifier": verifier.verifier,
            "created_at": now,
        }
        for n, verifier in enumerate(verifiers, 1)
    ]
    if rows:
        connection.execute(insert(account_secret), rows)


# -- addresses ------------------------------------------------------------------------------


def _address_row(
    connection: Connection, domain_id: int, local_part: str
) -> Row[*tuple[Any, ...]] | None:
    return connection.execute(
        select(address.c.kind, address.c.account_id).where(
            address.c.domain_id == domain_id, address.c.local_part == local_part
        )
    ).one_or_none()


def addresses(connection: Connection, account_id: int) -> frozenset[str]:
    """Tell the folded addresses that an account may send as.

    Its own, and each alias that names one of them as a target.
    """
    spelled = address.c.local_part + "@" + domain.c.name
    own = (
        select(spelled)
        .join(domain, domain.c.domain_id == address.c.domain_id)
        .where(address.c.account_id == account_id)
    )
    mine = builtins.list(connection.execute(own).scalars())
    of_alias = (
        select(address_target.c.local_part + "@" + domain.c.name)
        .join(domain, domain.c.domain_id == address_target.c.domain_id)
        .where(address_target.c.target.in_(mine))
    )
    return frozenset(mine).union(connection.execute(of_alias).scalars())


def add_alias(
    connection: Connection,
    name: Address | str,
    targets: Sequence[Address | str],
    *,
    now: int | None = None,
) -> str:
    """Make an address that stands for others, and give its id; Conflict when it exists."""
    name, now = _parsed(name), microseconds(now)
    spelled = builtins.list(dict.fromkeys(_parsed(target).folded for target in targets))
    if not 1 <= len(spelled) <= MAX_TARGETS:
        raise Refusal(f"An alias has 1 to {MAX_TARGETS} targets", code=501, status="5.1.3")
    place = domains.ensure(connection, name.domain, now=now)
    local_part = _local_part(name)
    if _address_row(connection, place.domain_id, local_part) is not None:
        raise Conflict(f"The address {name} exists already")
    key = {"domain_id": place.domain_id, "local_part": local_part}
    reference = reference_id(now)
    connection.execute(
        insert(address).values(
            **key, kind="alias", reference_id=reference, created_at=now, updated_at=now
        )
    )
    connection.execute(
        insert(address_target),
        [{**key, "n": n, "target": target} for n, target in enumerate(spelled, 1)],
    )
    changes.bump(connection, "address")
    return reference


def remove_alias(connection: Connection, name: Address | str) -> None:
    """Remove an alias; NotFound when the address is none."""
    name = _parsed(name)
    place = domains.find(connection, name.domain)
    local_part = _local_part(name)
    row = _address_row(connection, place.domain_id, local_part) if place else None
    if place is None or row is None or row.kind != "alias":
        raise NotFound(f"No alias {name}")
    for table in (address_target, address):
        connection.execute(
            delete(table).where(
                table.c.domain_id == place.domain_id, table.c.local_part == local_part
            )
        )
    changes.bump(connection, "address")


def aliases(connection: Connection) -> dict[str, tuple[str, ...]]:
    """List every alias with its targets."""
    query = (
        select(address_target.c.local_part + "@" + domain.c.name, address_target.c.target)
        .join(domain, domain.c.domain_id == address_target.c.domain_id)
        .order_by(domain.c.name, address_target.c.local_part, address_target.c.n)
    )
    found: dict[str, tuple[str, ...]] = {}
    for name, target in connection.execute(query):
        found[name] = (*found.get(name, ()), target)
    return found


def count(connection: Connection) -> int:
    """Count the accounts."""
    query = select(func.count()).select_from(account).where(account.c.state != REMOVING)
    return connection.execute(query).scalar_one()
