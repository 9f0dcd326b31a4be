"""Users, groups and API keys: who may ask for anything."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, delete, insert, update

from mailtwist.errors import Conflict, ProtocolViolation
from mailtwist.mail.address import parse_address
from mailtwist.mail.permissions import LOCKED, OWNER, PROJECT, Bit
from mailtwist.mail.scopes import parse_scopes
from mailtwist.store import identities, project_access, projects
from mailtwist.store.accounts import Verifier
from mailtwist.store.entities.groups import (
    GROUPS_OF_USER,
    RESERVED,
    USERS_OF_GROUP,
    keeping_an_administrator,
)
from mailtwist.store.entities.model import (
    GROUP_RELATION,
    PRIVATE_ROW,
    Change,
    Column,
    Entity,
    Relation,
    Type,
    by_name,
    relations,
)
from mailtwist.store.entities.tables import (
    api_key,
    row_group,
    user_account,
    user_group,
    user_secret,
    usergroup,
)
from mailtwist.store.entities.tabular import Tabular
from mailtwist.store.reference import reference_id
from mailtwist.store.schema import metadata

MAX_NAME: Final = 200
MAX_EMAIL: Final = 254

_USERS: Final = Tabular(
    user_account, "user_id", owner=user_account.c.user_id, kinds=(identities.KIND,)
)
_GROUPS: Final = Tabular(usergroup, "group_id", kinds=(identities.KIND,))
_KEYS: Final = Tabular(api_key, "api_key_id", kinds=(identities.KIND,))


# -- users ----------------------------------------------------------------------------------


def email_address(given: str) -> str:
    """A user's address, folded. Raises: ProtocolViolation naming the column."""
    try:
        address = parse_address(given.strip())
    except ProtocolViolation as error:
        raise ProtocolViolation("invalid value for email") from error
    if not address.local_part or "." not in address.domain.strip("."):
        raise ProtocolViolation("invalid value for email")
    return address.folded


def _create_user(change: Change) -> str:
    change = _with_email(change)
    reference = reference_id(change.now)
    number = _USERS.insert(change, reference)
    _write_secrets(change.connection, number, change.values["password"], change.now)
    return reference


def _update_user(change: Change) -> None:
    change = _with_email(change)
    verifiers = change.values.get("password")
    more: dict[str, Any] = {}
    if verifiers:
        more["auth_version"] = user_account.c.auth_version + 1
        _write_secrets(change.connection, change.key, verifiers, change.now)
    _USERS.write(change, **more)


def _with_email(change: Change) -> Change:
    if "email" not in change.values:
        return change
    values = {**change.values, "email": email_address(change.values["email"])}
    return change.with_values(values)


def _write_secrets(
    connection: Connection, user_id: int, verifiers: Sequence[Verifier], now: int
) -> None:
    connection.execute(delete(user_secret).where(user_secret.c.user_id == user_id))
    rows = [
        {
            "user_id": user_id,
            "secret_id": n,
            "kind": verifier.kind,
            "verifier": verifier.verifier,
            "created_at": now,
        }
        for n, verifier in enumerate(verifiers, 1)
    ]
    connection.execute(insert(user_secret), rows)


def _delete_user(change: Change) -> None:
    """Delete a user with his keys; his rows are nobody's then, so administrators' to give."""
    connection, user_id = change.connection, change.key
    with keeping_an_administrator(connection):
        for table in (user_secret, user_group):
            connection.execute(delete(table).where(table.c.user_id == user_id))
        connection.execute(delete(api_key).where(api_key.c.owner_user_id == user_id))
        for table in metadata.tables.values():
            if "owner_user_id" in table.c:
                connection.execute(
                    update(table).where(table.c.owner_user_id == user_id).values(owner_user_id=0)
                )
        _USERS.delete(change)


USER_ACCOUNT: Final = Entity(
    name="user_account",
    doc="Who may sign in to the REST interface.",
    columns=by_name(
        Column("name", is_required=True, max_length=MAX_NAME),
        Column(
            "email",
            is_required=True,
            is_unique=True,
            is_folded=True,
            max_length=MAX_EMAIL,
            doc="What the user signs in with.",
        ),
        Column("mobile", default="", max_length=MAX_NAME),
        Column("password", Type.PASSWORD, is_required=True, doc="Read as an empty text."),
    ),
    relations=relations(
        Relation(GROUP_RELATION, "usergroup", is_many=True, doc="The groups the user is in."),
        Relation("mail_account_id", "mail_account", is_many=True, inverse="user_account_id"),
    ),
    links={GROUP_RELATION: GROUPS_OF_USER},
    source=_USERS,
    create=_create_user,
    update=_update_user,
    delete=_delete_user,
    is_private=True,
    is_shared=False,
    row_permission=PRIVATE_ROW,
    fresh_row_permission=PRIVATE_ROW,
    owner_bits=Bit.READ | Bit.UPDATE,
    labels=("name", "email"),
)


# -- groups ---------------------------------------------------------------------------------


def _create_group(change: Change) -> str:
    return _GROUPS.create(change)


def _check_name(change: Change) -> None:
    """Raises: Conflict for the name of a group that we know by it."""
    assert change.row is not None
    current = change.row.item.attributes["name"]
    if current in RESERVED and change.values.get("name", current) != current:
        raise Conflict(f"The group {current} keeps its name")


def _update_group(change: Change) -> None:
    _check_name(change)
    _GROUPS.update(change)


def _delete_group(change: Change) -> None:
    assert change.row is not None
    if change.row.item.attributes["name"] in RESERVED:
        raise Conflict(f"The group {change.row.item.attributes['name']} stays")
    for table in (user_group, row_group):
        change.connection.execute(delete(table).where(table.c.group_id == change.key))
    _GROUPS.delete(change)


USERGROUP: Final = Entity(
    name="usergroup",
    doc="Users who share rows. Members of administrators may do everything.",
    columns=by_name(
        Column("name", is_required=True, is_unique=True, is_folded=True, max_length=MAX_NAME)
    ),
    relations=relations(
        Relation("member_id", "user_account", is_many=True, doc="The users in the group.")
    ),
    links={"member_id": USERS_OF_GROUP},
    source=_GROUPS,
    create=_create_group,
    update=_update_group,
    delete=_delete_group,
    is_shared=False,
    labels=("name",),
)


# -- API keys -------------------------------------------------------------------------------


def _check_scopes(change: Change, owner: int) -> None:
    """Raises: ProtocolViolation, for the project of somebody else too."""
    if "scopes" not in change.values:
        return
    for scope in parse_scopes(json.loads(change.values["scopes"] or "[]")):
        if scope.kind == PROJECT and not _may_use(change.connection, scope.target, owner):
            raise ProtocolViolation(f"invalid value for scopes: no such project {scope.target}")


def _may_use(connection: Connection, project: str, owner: int) -> bool:
    found = projects.find(connection, project)
    return found is not None and project_access.belongs_to(connection, found, owner)


def _create_key(change: Change) -> str:
    _check_scopes(change, change.owner or 0)
    return _KEYS.create(change)


def _update_key(change: Change) -> None:
    assert change.row is not None
    _check_scopes(change, change.row.owner if change.owner is None else change.owner)
    _KEYS.update(change)


API_KEY: Final = Entity(
    name="api_key",
    doc="Keys that programs use instead of a password, each for a few things only.",
    columns=by_name(
        Column("name", default="", max_length=MAX_NAME),
        Column("prefix", is_readonly=True, is_required=True, doc="What the key begins with."),
        Column("hash", is_readonly=True, is_required=True, is_writeonly=True, is_unique=True),
        Column(
            "scopes",
            Type.LIST,
            is_required=True,
            doc="`mail:read:<mail_box id>`, `send:<domain>`, `project:<project id>`, `admin`.",
        ),
        Column(
            "is_test",
            Type.BOOLEAN,
            default=False,
            is_fixed=True,
            doc="What is sent with it is kept and never leaves.",
        ),
        Column("expires_at", Type.TIMESTAMP, doc="Empty: never."),
        Column("last_used_at", Type.TIMESTAMP, is_readonly=True),
    ),
    source=_KEYS,
    create=_create_key,
    update=_update_key,
    delete=_KEYS.delete,
    is_private=True,
    is_shared=False,
    table_permission=LOCKED | (Bit.CREATE | Bit.UPDATE | Bit.DELETE) << OWNER,
    row_permission=PRIVATE_ROW,
    fresh_row_permission=PRIVATE_ROW,
    labels=("name", "prefix"),
)

ENTITIES: Final = (USER_ACCOUNT, USERGROUP, API_KEY)
