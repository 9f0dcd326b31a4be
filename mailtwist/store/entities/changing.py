"""Makes, changes and deletes rows of any entity for a viewer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, select

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.permissions import Bit, Viewer
from mailtwist.store.entities import given as reading_given
from mailtwist.store.entities import groups, including, permissions
from mailtwist.store.entities.asked import relation_of
from mailtwist.store.entities.finding import checked_row, entity_of, find
from mailtwist.store.entities.given import Given, Refs
from mailtwist.store.entities.model import (
    OWNER_RELATION,
    AccessDenied,
    Change,
    Entity,
    Facts,
    Item,
    MethodNotAllowed,
    Reading,
    Ref,
    Stored,
    private_bits,
)
from mailtwist.store.entities.tables import world

_NO_FACTS = Facts()


class Mode(StrEnum):
    ADD = "add"
    REMOVE = "remove"
    REPLACE = "replace"


def create_row(
    connection: Connection,
    viewer: Viewer,
    entity: Entity | str,
    attributes: Mapping[str, Any],
    relations: Mapping[str, Refs],
    *,
    now: int,
    facts: Facts = _NO_FACTS,
) -> Item:
    """Make a row, its maker's unless an administrator says otherwise; gives the whole row.

    ``permission`` 0 means the default, as clients of predecessors send it.
    """
    entity = entity_of(entity)
    if entity.create is None:
        raise MethodNotAllowed
    permissions.check_table(connection, viewer, entity, Bit.CREATE)
    given = reading_given.read(entity, attributes, relations, is_new=True)
    reading_given.fill(entity, given)
    reading = Reading(connection, viewer, entity, facts)
    owner = _owner(reading, given, None)
    change = Change(
        connection,
        viewer,
        entity,
        now,
        facts,
        values=given.values,
        relations=_relations(reading, given),
        owner=viewer.user_id if owner is None else owner,
        permission=_permission(entity, given.permission or _default_permission(connection, entity)),
    )
    links = _links(reading, given)
    for name, ids in links.items():
        reading_given.targets(reading, name, ids)
    id_ = entity.create(change)
    row = _reread(reading, id_)
    _link(reading, row, links, Mode.ADD)
    return _whole(reading, id_)


def update_row(
    connection: Connection,
    viewer: Viewer,
    entity: Entity | str,
    id: str,
    attributes: Mapping[str, Any],
    relations: Mapping[str, Refs],
    *,
    now: int,
    facts: Facts = _NO_FACTS,
) -> Item:
    """Change what is given and nothing else; gives the whole row."""
    entity = entity_of(entity)
    if entity.update is None:
        raise MethodNotAllowed
    reading = Reading(connection, viewer, entity, facts)
    row = checked_row(reading, id, Bit.UPDATE)
    given = reading_given.read(entity, attributes, relations, is_new=False)
    reading_given.empty(entity, given)
    _drop_unchanged(given, row)
    owner = _owner(reading, given, row)
    change = Change(
        connection,
        viewer,
        entity,
        now,
        facts,
        values=given.values,
        relations=_relations(reading, given),
        owner=owner,
        permission=_new_permission(viewer, entity, given, row),
        row=row,
    )
    links = _links(reading, given)
    entity.update(change)
    _link(reading, row, links, Mode.REPLACE)
    return _whole(reading, row.item.id)


def delete_row(
    connection: Connection,
    viewer: Viewer,
    entity: Entity | str,
    id: str,
    *,
    now: int,
    facts: Facts = _NO_FACTS,
) -> None:
    """Delete a row and all that is its own."""
    entity = entity_of(entity)
    if entity.delete is None:
        raise MethodNotAllowed
    row = checked_row(Reading(connection, viewer, entity, facts), id, Bit.DELETE)
    entity.delete(Change(connection, viewer, entity, now, facts, row=row))


def change_related(
    connection: Connection,
    viewer: Viewer,
    entity: Entity | str,
    id: str,
    relation: str,
    refs: Sequence[Ref | str],
    mode: Mode | str,
    *,
    now: int,
    facts: Facts = _NO_FACTS,
) -> Item:
    """Add to, remove from or replace what a relation leads to; gives the whole row.

    Only ``replace`` fits a relation to one. Rows that hold the relation at their end are
    changed there.
    """
    entity, mode = entity_of(entity), Mode(mode)
    declared = relation_of(entity, relation)
    if declared.inverse or (mode is not Mode.REPLACE and not declared.is_many):
        raise MethodNotAllowed(f"{relation} cannot be changed here")
    if not declared.is_many:
        one = refs[0] if len(refs) == 1 else tuple(refs) or None
        return update_row(connection, viewer, entity, id, {}, {relation: one}, now=now, facts=facts)
    reading = Reading(connection, viewer, entity, facts)
    row = checked_row(reading, id, Bit.UPDATE)
    given = reading_given.read(entity, {}, {relation: tuple(refs)}, is_new=False)
    _link(reading, row, _links(reading, given), mode)
    return _whole(reading, row.item.id)


# -- owner, permission ----------------------------------------------------------------------


def _owner(reading: Reading, given: Given, row: Stored | None) -> int | None:
    """The owner that is asked for, None when none is; only administrators give rows away."""
    if OWNER_RELATION not in given.ids:
        return None
    ids = given.ids.pop(OWNER_RELATION)
    if not reading.viewer.is_admin:
        if ids == (reading.viewer.reference_id,) and row is None:
            return None
        raise AccessDenied(AccessDenied.ROW, f"{OWNER_RELATION} is an administrator's to set")
    rows = reading_given.targets(reading, OWNER_RELATION, ids)
    return int(rows[0].key) if rows else 0


def _default_permission(connection: Connection, entity: Entity) -> int:
    query = select(world.c.default_permission).where(world.c.table_name == entity.name)
    found = connection.execute(query).scalar_one_or_none()
    return entity.row_permission if found is None else int(found)


def _permission(entity: Entity, permission: int) -> int:
    return private_bits(permission) if entity.is_private else permission


def _new_permission(viewer: Viewer, entity: Entity, given: Given, row: Stored) -> int | None:
    if given.permission is None or given.permission == row.permission:
        return None
    if not viewer.is_admin and not viewer.owns(row.owner):
        raise AccessDenied(AccessDenied.ROW, "permission is the owner's to set")
    return _permission(entity, given.permission)


# -- relations ------------------------------------------------------------------------------


def _drop_unchanged(given: Given, row: Stored) -> None:
    """Forget relations to one that lead where they are to lead, or that only we set."""
    for name in list(given.ids):
        now = row.item.relations.get(name)
        is_known = isinstance(now, Ref) or (now is None and name in row.item.relations)
        if is_known and given.ids[name] == ((now.id,) if isinstance(now, Ref) else ()):
            del given.ids[name]


def _relations(reading: Reading, given: Given) -> dict[str, Any]:
    """The rows of relations to one, and of those to many that the writer keeps."""
    found: dict[str, Any] = {}
    for name, ids in given.ids.items():
        relation = reading.entity.relations[name]
        if relation.is_readonly or relation.is_many:
            continue
        rows = reading_given.targets(reading, name, ids)
        found[name] = rows[0] if rows else None
    return found


def _links(reading: Reading, given: Given) -> dict[str, tuple[str, ...]]:
    """The ids of relations to many. Raises: ProtocolViolation."""
    found: dict[str, tuple[str, ...]] = {}
    for name, ids in given.ids.items():
        relation = reading.entity.relations[name]
        if relation.inverse:
            raise ProtocolViolation(f"{name} is set at its {relation.entity} rows")
        if relation.is_many and not relation.is_readonly:
            found[name] = ids
    return found


def _link(reading: Reading, row: Stored, links: Mapping[str, tuple[str, ...]], mode: Mode) -> None:
    """Write links to many; only new ones need leave to refer. Raises: AccessDenied."""
    for name, ids in links.items():
        kept = groups.links_of(reading.entity, name)
        key = permissions.links_key(reading.entity, row, name)
        if key is None:
            raise ProtocolViolation(f"{name}: these rows are never shared")
        present = {ref.id for ref in kept.refs(reading.connection, [key]).get(key, ())}
        adding, leaving = _difference(present, ids, mode)
        added = reading_given.targets(reading, name, adding)
        gone = _known(reading, name, leaving)
        if kept.is_membership:
            for other in (*added, *gone):
                _check_membership(reading, row, other)
        if added:
            kept.add(reading.connection, key, [other.key for other in added])
        if gone:
            kept.remove(reading.connection, key, [other.key for other in gone])


def _difference(present: set[str], ids: Sequence[str], mode: Mode) -> tuple[list[str], set[str]]:
    """Which ids come and which go."""
    if mode is Mode.REMOVE:
        return [], present & set(ids)
    leaving = present - set(ids) if mode is Mode.REPLACE else set()
    return [id_ for id_ in ids if id_ not in present], leaving


def _known(reading: Reading, name: str, ids: set[str]) -> list[Stored]:
    if not ids:
        return []
    target = entity_of(reading.entity.relations[name].entity)
    there = Reading(reading.connection, reading.viewer, target, Facts(), frozenset())
    return list(target.source.rows(there, ids).values())


def _check_membership(reading: Reading, row: Stored, other: Stored) -> None:
    """Only who owns a group, or administrates, says who is in it."""
    group = row if reading.entity.name == "usergroup" else other
    if not reading.viewer.is_admin and not reading.viewer.owns(group.owner):
        raise AccessDenied(AccessDenied.ROW, "members are the group's owner's to set")


# -- what is answered -----------------------------------------------------------------------


def _reread(reading: Reading, id_: str) -> Stored:
    row = find(reading, id_)
    assert row is not None, f"{reading.entity.name} {id_} was just written"
    return row


def _whole(reading: Reading, id_: str) -> Item:
    return including.completed(reading, [_reread(reading, id_)])[0].item
