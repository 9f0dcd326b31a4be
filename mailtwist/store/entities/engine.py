"""Lists and reads rows of any entity for a viewer; :mod:`.changing` changes them.

Every function is a transaction's worth of plain calls on a connection, in a number of statements
that does not depend on the rows. Both gates are passed here; what an entity does in its own way
is behind its source and its writers. All may raise ProtocolViolation (400, naming the column),
AccessDenied (403), NotFound (404), and to change MethodNotAllowed (405) and Conflict (409).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection

from mailtwist.mail.filters import Comparison, Operator, both
from mailtwist.mail.permissions import Bit, Viewer
from mailtwist.store.entities import including, permissions
from mailtwist.store.entities.asked import check_request, columns_asked, relation_of
from mailtwist.store.entities.changing import (
    change_related,
    create_row,
    delete_row,
    update_row,
)
from mailtwist.store.entities.finding import checked_row, entity_of
from mailtwist.store.entities.groups import links_of
from mailtwist.store.entities.model import (
    MAX_SIZE,
    Entity,
    Facts,
    Item,
    ListRequest,
    Page,
    Reading,
    Ref,
    Relation,
    Stored,
)
from mailtwist.store.entities.registry import ENTITIES

__all__ = [
    "change_related",
    "create_row",
    "delete_row",
    "find_row",
    "get_row",
    "list_rows",
    "related_refs",
    "related_rows",
    "update_row",
]

_NO_FACTS = Facts()


def list_rows(
    connection: Connection,
    viewer: Viewer,
    entity: Entity | str,
    request: ListRequest,
    *,
    facts: Facts = _NO_FACTS,
) -> Page:
    """A page of what the viewer may read; ``total`` counts no other rows either."""
    entity = entity_of(entity)
    permissions.check_table(connection, viewer, entity, Bit.READ, Bit.PEEK)
    request = check_request(entity, request)
    columns = columns_asked(entity, request.columns, request.includes)
    reading = Reading(connection, viewer, entity, facts, columns)
    part = entity.source.page(reading, request)
    return _page(reading, part.rows, part.total, request.includes)


def _page(reading: Reading, rows: Sequence[Stored], total: int, includes: tuple[str, ...]) -> Page:
    rows = including.completed(reading, rows)
    included = including.included(reading, rows, includes)
    return Page(tuple(row.item for row in rows), total, included)


def find_row(
    connection: Connection,
    viewer: Viewer,
    entity: Entity | str,
    id: str,
    *,
    columns: frozenset[str] | None = None,
    includes: Sequence[str] = (),
    facts: Facts = _NO_FACTS,
) -> Page:
    """One row as a page of one item, with what it is to include."""
    entity = entity_of(entity)
    request = check_request(entity, ListRequest(columns=columns, includes=tuple(includes)))
    asked = columns_asked(entity, request.columns, request.includes)
    reading = Reading(connection, viewer, entity, facts, asked)
    row = checked_row(reading, id, Bit.READ)
    return _page(reading, [row], 1, request.includes)


def get_row(
    connection: Connection,
    viewer: Viewer,
    entity: Entity | str,
    id: str,
    *,
    columns: frozenset[str] | None = None,
    facts: Facts = _NO_FACTS,
) -> Item:
    """One row."""
    return find_row(connection, viewer, entity, id, columns=columns, facts=facts).items[0]


# -- what a relation leads to ---------------------------------------------------------------


def related_rows(
    connection: Connection,
    viewer: Viewer,
    entity: Entity | str,
    id: str,
    relation: str,
    request: ListRequest,
    *,
    facts: Facts = _NO_FACTS,
) -> Page:
    """The rows that a relation leads to, those of them that the viewer may read.

    A page of none or one for a relation to one, whatever else the request asks.
    """
    entity = entity_of(entity)
    declared = relation_of(entity, relation)
    row = checked_row(Reading(connection, viewer, entity, facts), id, Bit.READ)
    target = ENTITIES[declared.entity]
    if declared.inverse:
        back = Comparison(declared.inverse, Operator.EQ, row.item.id)
    else:
        refs = _refs(connection, entity, row, declared)
        back = Comparison("reference_id", Operator.IN, tuple(ref.id for ref in refs))
    request = replace(request, filter=both(back, request.filter))
    return list_rows(connection, viewer, target, request, facts=facts)


def related_refs(
    connection: Connection,
    viewer: Viewer,
    entity: Entity | str,
    id: str,
    relation: str,
    *,
    facts: Facts = _NO_FACTS,
) -> Ref | tuple[Ref, ...] | None:
    """What a relation leads to; of rows that hold the relation at their end the first 1,000."""
    entity = entity_of(entity)
    declared = relation_of(entity, relation)
    if declared.inverse:
        request = ListRequest(size=MAX_SIZE, columns=frozenset(), needs_total=False)
        page = related_rows(connection, viewer, entity, id, relation, request, facts=facts)
        return tuple(Ref(item.entity, item.id) for item in page.items)
    row = checked_row(Reading(connection, viewer, entity, facts), id, Bit.READ)
    refs = _refs(connection, entity, row, declared)
    if declared.is_many:
        return refs
    return refs[0] if refs else None


def _refs(
    connection: Connection, entity: Entity, row: Stored, relation: Relation
) -> tuple[Ref, ...]:
    if not relation.is_many:
        target = row.item.relations.get(relation.name)
        return (target,) if isinstance(target, Ref) else ()
    key = permissions.links_key(entity, row, relation.name)
    if key is None:
        return ()
    return links_of(entity, relation.name).refs(connection, [key]).get(key, ())
