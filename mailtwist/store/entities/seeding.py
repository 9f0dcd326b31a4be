"""The rows that every server has: one of ``world`` for each table, and the groups it knows."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select

from mailtwist.mail.permissions import LOCKED
from mailtwist.store import changes, identities
from mailtwist.store.entities.groups import RESERVED, has_administrator
from mailtwist.store.entities.model import Entity
from mailtwist.store.entities.registry import ENTITIES
from mailtwist.store.entities.tables import usergroup, world
from mailtwist.store.reference import reference_id


def seed(connection: Connection, now: int) -> None:
    """Make what misses; rows that are there stay as somebody left them."""
    known = set(connection.execute(select(world.c.table_name)).scalars())
    is_locked = has_administrator(connection)
    tables = [
        _row(now, table_name=entity.name) | _rights(entity, is_locked=is_locked)
        for entity in ENTITIES.values()
        if entity.name not in known
    ]
    if tables:
        connection.execute(insert(world), tables)
        changes.bump(connection, "world")
    present = set(connection.execute(select(usergroup.c.name)).scalars())
    groups = [_row(now, name=name, permission=LOCKED) for name in RESERVED if name not in present]
    if groups:
        connection.execute(insert(usergroup), groups)
        identities.changed(connection)


def _row(now: int, **values: object) -> dict[str, object]:
    return {"reference_id": reference_id(now), "created_at": now, "updated_at": now, **values}


def _rights(entity: Entity, *, is_locked: bool) -> dict[str, object]:
    if is_locked:
        permission, default = entity.table_permission, entity.row_permission
    else:
        permission, default = entity.fresh_table_permission, entity.fresh_row_permission
    return {"permission": permission, "default_permission": default}
