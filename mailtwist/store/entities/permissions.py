"""The two gates: that of the table and that of the row, for one row and as a part of SQL."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, exists, false, or_, select, true

from mailtwist.mail import permissions
from mailtwist.mail.permissions import GROUP, GUEST, OWNER, Bit, Viewer, allows
from mailtwist.store.entities.model import AccessDenied, Entity, Item, Ref, Stored
from mailtwist.store.entities.tables import row_group
from mailtwist.store.sql import Statement, many

# Every request asks this.
_GATE = Statement(
    """
    SELECT w.permission, EXISTS (
        SELECT 1 FROM row_group AS g
        WHERE g.entity = 'world' AND g.row_id = w.world_id AND g.group_id {numbers})
    FROM world AS w WHERE w.table_name = ?
    """
)


def check_table(connection: Connection, viewer: Viewer, entity: Entity, *bits: Bit) -> None:
    """Let pass whoever has one of the bits for the table. Raises: AccessDenied.

    Administrators pass always, within the scope of the key that they use.
    """
    if not table_allows(connection, viewer, entity, *bits):
        raise AccessDenied(AccessDenied.TABLE)


def table_allows(connection: Connection, viewer: Viewer, entity: Entity, *bits: Bit) -> bool:
    """Tell whether the table's gate is open for one of the bits."""
    bits = tuple(bit for bit in bits if viewer.in_scope(entity.name, bit))
    if not bits or viewer.is_admin:
        return bool(bits)
    row = _GATE(connection, (many(connection, sorted(viewer.groups)), entity.name)).first()
    permission, in_group = (permissions.LOCKED, False) if row is None else row
    is_user = bool(viewer.user_id)
    return any(allows(permission, bit, is_user=is_user, in_group=bool(in_group)) for bit in bits)


def _shared(viewer: Viewer, entity: str, key: ColumnElement[int]) -> ColumnElement[bool]:
    """Whether the row is shared with a group of the viewer."""
    if not viewer.groups:
        return false()
    return exists().where(
        row_group.c.entity == entity,
        row_group.c.row_id == key,
        row_group.c.group_id.in_(sorted(viewer.groups)),
    )


def visible(
    viewer: Viewer,
    entity: Entity,
    *,
    permission: ColumnElement[int],
    owner: ColumnElement[int],
    key: ColumnElement[int] | None,
    bit: Bit = Bit.READ,
) -> ColumnElement[bool]:
    """The gate of the row as SQL. ``key`` None: the rows are never shared."""
    if viewer.is_admin:
        return true()
    open_to: list[ColumnElement[Any]] = []
    if not entity.is_private:
        open_to.append(_has(permission, bit << GUEST))
    if viewer.user_id:
        open_to.append(and_(owner == viewer.user_id, _has(permission, bit << OWNER)))
    if viewer.groups and key is not None and entity.is_shared:
        in_group = _shared(viewer, entity.name, key)
        open_to.append(and_(_has(permission, bit << GROUP), in_group))
    return or_(false(), *open_to)


def _has(permission: ColumnElement[int], bits: int) -> ColumnElement[bool]:
    return permission.op("&")(int(bits)) != 0


def check_row(
    connection: Connection, viewer: Viewer, entity: Entity, row: Stored, bit: Bit
) -> None:
    """Let pass whoever has the bit for the row. Raises: AccessDenied."""
    if not row_allows(connection, viewer, entity, row, bit):
        raise AccessDenied(AccessDenied.ROW)


def row_allows(
    connection: Connection, viewer: Viewer, entity: Entity, row: Stored, bit: Bit
) -> bool:
    """Tell whether the gate of the row is open for the bit."""
    return bool(allowed(connection, viewer, entity, [row], bit))


def allowed(
    connection: Connection, viewer: Viewer, entity: Entity, rows: Collection[Stored], bit: Bit
) -> list[Stored]:
    """The rows whose gate is open for the bit, in at most one statement."""
    rows = within_mailboxes(viewer, rows)
    if viewer.is_admin:
        return list(rows)
    plainly = [row for row in rows if _allows(viewer, entity, row, bit, in_group=False)]
    if len(plainly) == len(rows) or not viewer.groups:
        return plainly
    shared = _shared_among(connection, viewer, entity, rows)
    return [
        row
        for row in rows
        if _allows(viewer, entity, row, bit, in_group=sharing(entity, row) in shared)
    ]


def within_mailboxes(viewer: Viewer, rows: Collection[Stored]) -> Collection[Stored]:
    """The rows that lie in the mailboxes which the viewer's key is held to, if it is."""
    held = viewer.readable_mailboxes()
    return rows if held is None else [row for row in rows if _mailbox_of(row.item) in held]


def _mailbox_of(item: Item) -> str:
    """The id of the mailbox that a row is, or lies in."""
    if item.entity == "mail_box":
        return item.id
    box = item.relations.get("mail_box_id")
    return box.id if isinstance(box, Ref) else ""


def _allows(viewer: Viewer, entity: Entity, row: Stored, bit: Bit, *, in_group: bool) -> bool:
    permission = row.permission & ~permissions.GUEST_BITS if entity.is_private else row.permission
    return allows(permission, bit, is_user=viewer.owns(row.owner), in_group=in_group)


def sharing(entity: Entity, row: Stored) -> tuple[str, int] | None:
    """Under which entity and number row_group shares the row; None: it never does."""
    if row.sharing is not None:
        return row.sharing
    return (entity.name, row.key) if entity.is_shared and isinstance(row.key, int) else None


def links_key(entity: Entity, row: Stored, relation: str) -> int | None:
    """The row's key among the links of a relation to many; None: it can have none."""
    if relation in entity.links:
        return int(row.key)
    place = sharing(entity, row)
    return None if place is None else place[1]


def _shared_among(
    connection: Connection, viewer: Viewer, entity: Entity, rows: Collection[Stored]
) -> set[tuple[str, int] | None]:
    places = {place for row in rows if (place := sharing(entity, row)) is not None}
    if not places:
        return set()
    query = (
        select(row_group.c.entity, row_group.c.row_id)
        .distinct()
        .where(
            row_group.c.entity.in_(sorted({name for name, _ in places})),
            row_group.c.row_id.in_(sorted({number for _, number in places})),
            row_group.c.group_id.in_(sorted(viewer.groups)),
        )
    )
    return {(row.entity, row.row_id) for row in connection.execute(query)}
