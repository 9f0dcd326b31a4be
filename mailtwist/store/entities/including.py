"""What is added to the rows of a page: computed columns, links to many, and included rows.

A few statements for each relation, never for each row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from mailtwist.mail.filters import Comparison, Operator
from mailtwist.mail.permissions import Bit
from mailtwist.store.entities import permissions
from mailtwist.store.entities.groups import links_of
from mailtwist.store.entities.model import (
    MAX_SIZE,
    Item,
    ListRequest,
    Reading,
    Ref,
    Relation,
    Stored,
)
from mailtwist.store.entities.registry import ENTITIES


def completed(reading: Reading, rows: Sequence[Stored]) -> Sequence[Stored]:
    """The rows with their computed columns and links."""
    entity = reading.entity
    if entity.complete is not None and rows:
        rows = entity.complete(reading, rows)
    for relation in entity.relations.values():
        if relation.is_many and not relation.inverse and reading.wants(relation.name):
            rows = _linked(reading, rows, relation)
    return rows


def _linked(reading: Reading, rows: Sequence[Stored], relation: Relation) -> Sequence[Stored]:
    keys = [permissions.links_key(reading.entity, row, relation.name) for row in rows]
    known = [key for key in keys if key is not None]
    if not known:
        return rows
    refs = links_of(reading.entity, relation.name).refs(reading.connection, known)
    return [
        _with(row, relation.name, () if key is None else refs.get(key, ()))
        for row, key in zip(rows, keys, strict=True)
    ]


def _with(row: Stored, name: str, refs: tuple[Ref, ...]) -> Stored:
    item = replace(row.item, relations={**row.item.relations, name: refs})
    return replace(row, item=item)


def included(reading: Reading, rows: Sequence[Stored], includes: Iterable[str]) -> tuple[Item, ...]:
    """The rows that relations of these lead to and that the viewer may read, each once."""
    found: dict[tuple[str, str], Item] = {}
    for name in includes:
        relation = reading.entity.relations.get(name)
        if relation is None or not rows:
            continue
        target = ENTITIES[relation.entity]
        if not permissions.table_allows(
            reading.connection, reading.viewer, target, Bit.READ, Bit.PEEK
        ):
            continue
        there = Reading(reading.connection, reading.viewer, target, reading.facts)
        for row in completed(there, _targets(there, rows, relation)):
            found.setdefault((row.item.entity, row.item.id), row.item)
    return tuple(found.values())


def _targets(there: Reading, rows: Sequence[Stored], relation: Relation) -> Sequence[Stored]:
    if relation.inverse:
        return _leading_back(there, rows, relation)
    ids = {ref.id for row in rows for ref in _refs(row, relation.name)}
    if not ids:
        return []
    known = there.entity.source.rows(there, ids)
    return permissions.allowed(
        there.connection, there.viewer, there.entity, list(known.values()), Bit.READ
    )


def _leading_back(there: Reading, rows: Sequence[Stored], relation: Relation) -> Sequence[Stored]:
    ids = tuple(row.item.id for row in rows)
    request = ListRequest(
        filter=Comparison(relation.inverse, Operator.IN, ids), size=MAX_SIZE, needs_total=False
    )
    return there.entity.source.page(there, request).rows


def _refs(row: Stored, name: str) -> tuple[Ref, ...]:
    target = row.item.relations.get(name)
    if isinstance(target, Ref):
        return (target,)
    return target or ()
