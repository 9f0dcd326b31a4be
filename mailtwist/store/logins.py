"""What one login must know, in one short read: a login that is remembered costs no more."""

from __future__ import annotations

from typing import NamedTuple

from mailtwist.store.engine import Connection
from mailtwist.store.sql import Statement

_ACTIVE = Statement(
    "SELECT account_id, username, auth_version FROM account WHERE username = ? AND state = 'active'"
)


class Active(NamedTuple):
    """An account that may log in; ``auth_version`` rises with each change of its secrets."""

    account_id: int
    username: str
    auth_version: int


def active(connection: Connection, username: str) -> Active | None:
    """Find the account of a folded user name, unless it is disabled or going."""
    row = _ACTIVE(connection, (username,)).first()
    return None if row is None else Active(*row)
