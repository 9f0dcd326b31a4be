"""Who asks over HTTP: users, their groups and API keys, as few reads as can be.

A change of anything here raises the generation ``identity``: who remembers viewers forgets
them then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mailtwist.store import changes
from mailtwist.store.accounts import Verifier
from mailtwist.store.engine import Connection
from mailtwist.store.logins import Active
from mailtwist.store.sql import Statement

KIND: Final = "identity"
ADMINISTRATORS: Final = "administrators"

_ACTIVE = Statement("SELECT user_id, email, auth_version FROM user_account WHERE email = ?")
_VERIFIERS = Statement(
    "SELECT kind, verifier FROM user_secret WHERE user_id = ? ORDER BY secret_id"
)
_USER = "SELECT user_id, reference_id, email, name, auth_version FROM user_account WHERE "
_BY_NUMBER = Statement(_USER + "user_id = ?")
_BY_REFERENCE = Statement(_USER + "reference_id = ?")
_GROUPS = Statement(
    """
    SELECT usergroup.group_id, usergroup.name FROM user_group
    JOIN usergroup ON usergroup.group_id = user_group.group_id WHERE user_group.user_id = ?
    """
)
_KEY = Statement(
    """
    SELECT api_key_id, owner_user_id, scopes, is_test, expires_at, last_used_at
    FROM api_key WHERE hash = ?
    """
)
_USED = Statement("UPDATE api_key SET last_used_at = ? WHERE api_key_id = ?")


@dataclass(frozen=True, slots=True)
class User:
    user_id: int
    reference_id: str
    email: str
    name: str
    auth_version: int
    groups: frozenset[int]
    is_admin: bool


@dataclass(frozen=True, slots=True)
class ApiKey:
    """``scopes``: a JSON list; times in microseconds, 0: none."""

    key_id: int
    owner_user_id: int
    scopes: str
    is_test: bool
    expires_at: int
    last_used_at: int


# -- signing in -----------------------------------------------------------------------------


def active(connection: Connection, email: str) -> Active | None:
    """Find a user by folded e-mail address, as :func:`mailtwist.store.logins.active` does."""
    row = _ACTIVE(connection, (email,)).first()
    return None if row is None else Active(*row)


def verifiers(connection: Connection, user_id: int) -> Sequence[Verifier]:
    """Read what proves the user's password."""
    return [Verifier(*row) for row in _VERIFIERS(connection, (user_id,))]


# -- who it is ------------------------------------------------------------------------------


def user(connection: Connection, reference_id: str) -> User | None:
    return _user(connection, _BY_REFERENCE, reference_id)


def user_of_number(connection: Connection, user_id: int) -> User | None:
    return _user(connection, _BY_NUMBER, user_id)


def _user(connection: Connection, find: Statement, given: str | int) -> User | None:
    row = find(connection, (given,)).first()
    if row is None:
        return None
    user_id, reference_id, email, name, auth_version = row
    groups = _GROUPS(connection, (user_id,)).all()
    return User(
        user_id,
        reference_id,
        email,
        name,
        auth_version,
        groups=frozenset(group_id for group_id, _ in groups),
        is_admin=any(group == ADMINISTRATORS for _, group in groups),
    )


def api_key(connection: Connection, digest: str) -> ApiKey | None:
    """Find a key by the hash of what its holder shows."""
    row = _KEY(connection, (digest,)).first()
    if row is None:
        return None
    key_id, owner, scopes, is_test, expires_at, last_used_at = row
    return ApiKey(key_id, owner, scopes, bool(is_test), expires_at or 0, last_used_at or 0)


def key_used(connection: Connection, key_id: int, now: int) -> None:
    """Note when a key was used last."""
    _USED(connection, (now, key_id))


def changed(connection: Connection) -> None:
    """Tell every process that users, groups or keys are different."""
    changes.bump(connection, KIND)
