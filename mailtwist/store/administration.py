"""The first administrator, and what the tables say before and after there is one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from mailtwist.mail.permissions import ACTION_LOCKED, OPEN
from mailtwist.store import changes, identities
from mailtwist.store.engine import Connection
from mailtwist.store.entities.groups import has_administrator
from mailtwist.store.identities import ADMINISTRATORS
from mailtwist.store.reference import reference_id
from mailtwist.store.sql import Statement

# Rows of these become the first administrator's, whoever made them. Users stay their own, and
# so do keys: a key may what its owner may.
OWNED_TABLES: Final = (
    "account",
    "action",
    "certificate",
    "credential",
    "domain",
    "mail_server",
    "task",
    "usergroup",
)
# Caches that hold something of these tables.
_KINDS: Final = ("account", "action", "certificate", "domain", "mail_server", "world")

_MAKE_GROUP = Statement(
    """
    INSERT INTO usergroup (name, owner_user_id, reference_id, permission, created_at, updated_at)
    VALUES (?, 0, ?, ?, ?, ?) ON CONFLICT (name) DO NOTHING
    """
)
# Two nodes may be asked at once: one waits here for the other.
_LOCK_GROUP = Statement(
    "SELECT usergroup.group_id FROM usergroup WHERE usergroup.name = ? {lock usergroup}"
)
_MEMBERS = Statement("SELECT count(*) FROM user_group WHERE group_id = ?")
_JOIN = Statement("INSERT INTO user_group (user_id, group_id) VALUES (?, ?)")
_LOCK_WORLD = Statement(
    "UPDATE world SET permission = ?, default_permission = ?, updated_at = ? WHERE table_name = ?"
)
_LOCK_ACTIONS = Statement("UPDATE action SET permission = ?, updated_at = ?")
_LOCK_ACTION = Statement(
    """
    UPDATE action SET permission = ? WHERE action_name = ?
      AND world_id = (SELECT world_id FROM world WHERE table_name = ?)
    """
)
# What somebody let his friends do with a row would be done with an administrator's.
_UNSHARE = Statement("DELETE FROM row_group")
_STOP_TASKS = Statement(
    "UPDATE task SET active = 0, last_error = ? WHERE owner_user_id <> ? AND active <> 0"
)
STOPPED: Final = "Not active any more: it was made before there was an administrator"
_OWN = {
    table: Statement(f"UPDATE {table} SET owner_user_id = ? WHERE owner_user_id <> ?")
    for table in OWNED_TABLES
}
_ADD_ACTION = Statement(
    """
    INSERT INTO action (action_name, world_id, label, instance_optional, action_schema,
                        owner_user_id, reference_id, permission, created_at, updated_at)
    SELECT ?, world_id, ?, ?, '', 0, ?, ?, ?, ? FROM world WHERE table_name = ?
    ON CONFLICT (world_id, action_name) DO NOTHING
    """
)
_WRITE_ACTION = Statement(
    """
    INSERT INTO action (action_name, world_id, label, instance_optional, action_schema,
                        owner_user_id, reference_id, permission, created_at, updated_at)
    SELECT ?, world_id, ?, ?, ?, 0, ?, ?, ?, ? FROM world WHERE table_name = ?
    ON CONFLICT (world_id, action_name) DO UPDATE
    SET label = excluded.label, instance_optional = excluded.instance_optional,
        action_schema = excluded.action_schema, updated_at = excluded.updated_at
    WHERE action.label <> excluded.label
       OR action.instance_optional <> excluded.instance_optional
       OR action.action_schema <> excluded.action_schema
    """
)
_ACTIONS = """
    SELECT world.world_id, world.permission, action.action_id, action.permission,
           action.owner_user_id, action.action_schema, action.reference_id,
           action.instance_optional, action.label, world.table_name, action.action_name
    FROM action JOIN world ON world.world_id = action.world_id
"""
_GATES = Statement(_ACTIONS + "WHERE world.table_name = ? AND action.action_name = ?")
_ALL_GATES = Statement(_ACTIONS + "WHERE action.action_id > ? ORDER BY action.action_id LIMIT ?")
_SHARES = Statement(
    """
    SELECT entity, group_id FROM row_group
    WHERE (entity = 'world' AND row_id = ?) OR (entity = 'action' AND row_id = ?)
    """
)
_ALL_SHARES = Statement(
    "SELECT entity, row_id, group_id FROM row_group WHERE entity IN ('world', 'action')"
)


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """An operation that is ours; ``permission``: of its row, once there is an administrator."""

    entity: str
    name: str
    label: str
    needs_subject: bool = False
    permission: int = ACTION_LOCKED


@dataclass(frozen=True, slots=True)
class Written:
    """An action that somebody wrote; ``permission`` None: that of others."""

    entity: str
    name: str
    label: str
    is_instance_optional: bool
    schema: str  # JSON
    permission: int | None = None


@dataclass(frozen=True, slots=True)
class TableRights:
    """What a table's row in ``world`` says once there is an administrator."""

    permission: int
    default_permission: int


@dataclass(frozen=True, slots=True)
class Gates:
    """Of one action: its table's permission and its own, with the groups of either row.

    ``is_administered``: somebody is administrator; known of actions of one's own alone.
    """

    table_permission: int
    table_groups: frozenset[int]
    permission: int
    owner_user_id: int
    groups: frozenset[int]
    schema: str  # JSON; "" of what is built in
    reference_id: str
    is_instance_optional: bool = True
    label: str = ""
    entity: str = ""
    name: str = ""
    is_administered: bool = True


def become_administrator(
    connection: Connection,
    user_id: int,
    *,
    tables: Mapping[str, TableRights],
    actions: Iterable[BuiltIn],
    now: int,
) -> bool:
    """Make a user the first administrator and shut the tables; False: there is one already."""
    group = (ADMINISTRATORS, reference_id(now), ACTION_LOCKED, now, now)
    _MAKE_GROUP(connection, group)
    group_id = _LOCK_GROUP(connection, (ADMINISTRATORS,)).scalar()
    if _MEMBERS(connection, (group_id,)).scalar():
        return False
    _JOIN(connection, (user_id, group_id))
    for name, rights in tables.items():
        _LOCK_WORLD(connection, (rights.permission, rights.default_permission, now, name))
    _LOCK_ACTIONS(connection, (ACTION_LOCKED, now))
    for each in actions:
        _LOCK_ACTION(connection, (each.permission, each.name, each.entity))
    _UNSHARE(connection)
    # They would run in his name from now on.
    _STOP_TASKS(connection, (STOPPED, user_id))
    for own in _OWN.values():
        own(connection, (user_id, user_id))
    identities.changed(connection)
    for kind in _KINDS:
        changes.bump(connection, kind)
    return True


def seed_actions(connection: Connection, actions: Iterable[BuiltIn], now: int) -> None:
    """Give each built-in operation its row, unless it has one. The rows of world are there."""
    is_locked = has_administrator(connection)
    for each in actions:
        _ADD_ACTION(
            connection,
            (
                each.name,
                each.label,
                0 if each.needs_subject else 1,
                reference_id(now),
                each.permission if is_locked else OPEN,
                now,
                now,
                each.entity,
            ),
        )


def write_actions(connection: Connection, actions: Iterable[Written], now: int) -> None:
    """Give each action its row, nobody's, or change what the row that it has says of it.

    Who may do what with a row stays. The rows of world are there.
    """
    otherwise = ACTION_LOCKED if has_administrator(connection) else OPEN
    for each in actions:
        _WRITE_ACTION(
            connection,
            (
                each.name,
                each.label,
                int(each.is_instance_optional),
                each.schema,
                reference_id(now),
                otherwise if each.permission is None else each.permission,
                now,
                now,
                each.entity,
            ),
        )


def gates(connection: Connection, entity: str, name: str) -> Gates | None:
    """Read who may execute an action; None: there is none of this name."""
    row = _GATES(connection, (entity, name)).first()
    if row is None:
        return None
    shares = _SHARES(connection, (row[0], row[2])).all()
    found = _gates_of(
        row,
        (group for shared, group in shares if shared == "world"),
        (group for shared, group in shares if shared == "action"),
    )
    return replace(found, is_administered=has_administrator(connection)) if found.schema else found


def all_gates(connection: Connection, *, after: int, limit: int) -> tuple[list[Gates], int]:
    """A page of all actions behind a number, and the number of the last; 0: no more follow."""
    rows = _ALL_GATES(connection, (after, limit)).all()
    groups: dict[tuple[str, int], set[int]] = {}
    for shared, row_id, group in _ALL_SHARES(connection):
        groups.setdefault((shared, row_id), set()).add(group)
    found = [
        _gates_of(row, groups.get(("world", row[0]), ()), groups.get(("action", row[2]), ()))
        for row in rows
    ]
    return found, rows[-1][2] if len(rows) == limit else 0


def _gates_of(row: Sequence[Any], table_groups: Iterable[int], groups: Iterable[int]) -> Gates:
    _, table_permission, _, permission, owner, schema, reference, is_optional, *names = row
    return Gates(
        table_permission,
        frozenset(table_groups),
        permission,
        owner,
        frozenset(groups),
        schema,
        reference,
        bool(is_optional),
        *names,
    )
