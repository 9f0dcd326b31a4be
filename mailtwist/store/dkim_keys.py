"""The rows of DKIM keys.

Of the keys of a domain that were made under one value of ``dkim.selector`` and for one
algorithm, one is active. Private keys are sealed (:mod:`mailtwist.store.secrets`) and are
forgotten when a key retires. A selector is never used for a second key while its first
one may still verify mail.
"""

from __future__ import annotations

import builtins
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from mailtwist.errors import Conflict, NotFound
from mailtwist.store import changes
from mailtwist.store.sql import is_postgresql
from mailtwist.store.tables import dkim_key

RSA: Final = "rsa-sha256"
ED25519: Final = "ed25519-sha256"

ACTIVE: Final = "active"
NEXT: Final = "next"  # signs once its record is published
RETIRED: Final = "retired"


@dataclass(frozen=True, slots=True)
class Key:
    """``configured``: the value of ``dkim.selector`` that it was made under; ``private_key``:
    sealed, "" when retired; ``public_key``: base64, as in the record's ``p=``.
    """

    domain: str
    selector: str
    algorithm: str
    configured: str
    private_key: str
    public_key: str
    state: str = ACTIVE
    created_at: int = 0
    retired_at: int = 0


_COLUMNS = tuple(dkim_key.c[name] for name in Key.__dataclass_fields__)


def _key(row: Row[*tuple[Any, ...]]) -> Key:
    return Key(*row)


def _values(key: Key) -> dict[str, Any]:
    return {name: getattr(key, name) for name in Key.__dataclass_fields__}


def _is(key: Key) -> ColumnElement[bool]:
    return and_(dkim_key.c.domain == key.domain, dkim_key.c.selector == key.selector)


def _peers(key: Key) -> ColumnElement[bool]:
    """Those of which one is active."""
    return and_(
        dkim_key.c.domain == key.domain,
        dkim_key.c.algorithm == key.algorithm,
        dkim_key.c.configured == key.configured,
    )


def list(connection: Connection, domain: str = "") -> builtins.list[Key]:
    """Every key of a domain, or of all, the oldest first."""
    query = select(*_COLUMNS).order_by(
        dkim_key.c.domain, dkim_key.c.created_at, dkim_key.c.selector
    )
    if domain:
        query = query.where(dkim_key.c.domain == domain)
    return [_key(row) for row in connection.execute(query)]


def pending(connection: Connection) -> builtins.list[Key]:
    """The keys that wait for their record to be published."""
    query = select(*_COLUMNS).where(dkim_key.c.state == NEXT)
    return [_key(row) for row in connection.execute(query)]


def find(
    connection: Connection, domain: str, *, algorithm: str, configured: str, state: str = ACTIVE
) -> Key | None:
    """The key in a state of which there is one at most."""
    row = connection.execute(
        select(*_COLUMNS).where(
            dkim_key.c.domain == domain,
            dkim_key.c.algorithm == algorithm,
            dkim_key.c.configured == configured,
            dkim_key.c.state == state,
        )
    ).first()
    return None if row is None else _key(row)


def establish(connection: Connection, key: Key) -> Key:
    """The active key: the one that is there already, else this one.

    Nodes that make one at the same time get the same. Raises: Conflict when the selector is
    that of another algorithm.
    """
    found = find(connection, key.domain, algorithm=key.algorithm, configured=key.configured)
    if found is not None:
        return found
    insert_or_replace = (postgresql if is_postgresql(connection) else sqlite).insert(dkim_key)
    connection.execute(
        insert_or_replace.values(**_values(key)).on_conflict_do_update(
            index_elements=[dkim_key.c.domain, dkim_key.c.selector],
            set_=_values(key),
            # It signs no more; the administrator brings its name back by the setting.
            where=dkim_key.c.state == RETIRED,
        )
    )
    # Where a rotation made a key of this name, the setting now stands for it.
    same = and_(_is(key), dkim_key.c.algorithm == key.algorithm)
    taken = connection.execute(
        update(dkim_key)
        .where(same)
        .values(state=ACTIVE, configured=key.configured)
        .returning(*_COLUMNS)
    ).first()
    if taken is None:
        raise Conflict(f"The selector {key.selector} of {key.domain} is another algorithm's")
    # Nobody remembers that there was none: no generation to raise.
    return _key(taken)


def adopt(connection: Connection, key: Key) -> Key:
    """Let a key that somebody gave sign from now on, under its selector; gives what is active.

    A key of that selector before it is gone, for the record in DNS is now another.
    Raises: Conflict when the selector is that of another algorithm.
    """
    found = find(connection, key.domain, algorithm=key.algorithm, configured=key.configured)
    if found is not None and found.public_key == key.public_key:
        return found
    taken = connection.execute(select(dkim_key.c.algorithm).where(_is(key))).scalar_one_or_none()
    if taken not in {None, key.algorithm}:
        raise Conflict(f"The selector {key.selector} of {key.domain} is another algorithm's")
    connection.execute(delete(dkim_key).where(_is(key)))
    connection.execute(
        update(dkim_key)
        .where(_peers(key), dkim_key.c.state == ACTIVE)
        .values(state=RETIRED, retired_at=key.created_at, private_key="")
    )
    connection.execute(insert(dkim_key).values(**_values(key)))
    changes.bump(connection, "dkim")
    return key


def add_next(connection: Connection, key: Key) -> None:
    """Keep a key in state NEXT; one that waited in its place is dropped.

    Raises: Conflict when the selector is taken.
    """
    connection.execute(delete(dkim_key).where(_peers(key), dkim_key.c.state == NEXT))
    if connection.execute(select(dkim_key.c.state).where(_is(key))).first() is not None:
        raise Conflict(f"{key.domain} has or had a key with the selector {key.selector}")
    connection.execute(insert(dkim_key).values(**_values(key)))
    changes.bump(connection, "dkim")


def activate(connection: Connection, key: Key, now: int) -> None:
    """Let a next key sign from now on and retire the one before it. Raises: NotFound."""
    connection.execute(
        update(dkim_key)
        .where(_peers(key), dkim_key.c.state == ACTIVE)
        .values(state=RETIRED, retired_at=now, private_key="")
    )
    activated = connection.execute(
        update(dkim_key).where(_is(key), dkim_key.c.state == NEXT).values(state=ACTIVE)
    )
    if activated.rowcount != 1:
        raise NotFound(f"{key.domain} has no next key with the selector {key.selector}")
    changes.bump(connection, "dkim")
