"""What one login must know, in one short read: a login that is remembered costs no more."""

from __future__ import annotations

from typing import NamedTuple

from mailtwist.store.engine import Connection
from mailtwist.store.removal import REMOVING
from mailtwist.store.sql import Statement

_ACTIVE = Statement(
    "SELECT account_id, username, auth_version FROM account WHERE username = ? AND state = 'active'"
)
_NAMED = Statement("SELECT account_id, state FROM account WHERE username = ?")
_ALIASES = Statement(
    """
    SELECT t.local_part || '@' || d.name FROM address_target AS t
    JOIN domain AS d ON d.domain_id = t.domain_id
    WHERE t.target = ?
    """
)


class Active(NamedTuple):
    """Who may log in.

    ``account_id``: 0 for somebody who has no mailbox here. ``auth_version`` differs after each
    change of what proves who it is.
    """

    account_id: int
    username: str
    auth_version: int


def active(connection: Connection, username: str) -> Active | None:
    """Find the account of a folded user name, unless it is disabled or going."""
    row = _ACTIVE(connection, (username,)).first()
    return None if row is None else Active(*row)


def mailbox_of(connection: Connection, username: str) -> int | None:
    """Tell the number of a folded name's account: 0 for none, None for a disabled one."""
    row = _NAMED(connection, (username,)).first()
    if row is None or row[1] == REMOVING:
        return 0
    return int(row[0]) if row[1] == "active" else None


def aliases(connection: Connection, username: str) -> frozenset[str]:
    """Tell the aliases that lead straight to a folded address."""
    return frozenset(row[0] for row in _ALIASES(connection, (username,)))
