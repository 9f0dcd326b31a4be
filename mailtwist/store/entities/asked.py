"""What a request asks for, checked against the declaration of its entity."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from mailtwist.errors import NotFound, ProtocolViolation
from mailtwist.mail.filters import comparisons
from mailtwist.store.entities.model import (
    MAX_SIZE,
    SYSTEM_COLUMNS,
    Entity,
    ListRequest,
    Relation,
)

MAX_SORT = 10
MAX_INCLUDES = 20
# An offset beyond would not fit the databases' integers.
MAX_NUMBER = 2**40
_ALWAYS_THERE = frozenset({"__type", "id"})


def relation_of(entity: Entity, name: str) -> Relation:
    """A declared relation. Raises: NotFound."""
    relation = entity.relations.get(name)
    if relation is None:
        raise NotFound(f"{entity.name} has no relation {name[:100]}")
    return relation


def check_request(entity: Entity, request: ListRequest) -> ListRequest:
    """Give the request with sizes in bounds and includes by their declared names.

    Raises: ProtocolViolation for what the entity does not have, naming it.
    """
    names = (
        [comparison.column for comparison in comparisons(request.filter)] if request.filter else []
    )
    for name in (*names, *(name for name, _ in request.sort)):
        _check_queryable(entity, name)
    if len(request.sort) > MAX_SORT:
        raise ProtocolViolation(f"sort: more than {MAX_SORT} columns")
    for name in request.columns or ():
        if not _is_attribute(entity, name):
            raise ProtocolViolation(f"fields: {entity.name} has no column {name[:100]}")
    return replace(
        request,
        size=min(max(request.size, 1), MAX_SIZE),
        number=min(max(request.number, 1), MAX_NUMBER),
        includes=tuple(dict.fromkeys(_includes(entity, request.includes))),
    )


def _check_queryable(entity: Entity, name: str) -> None:
    relation = entity.relations.get(name)
    column = entity.columns.get(name) or SYSTEM_COLUMNS.get(name)
    if relation is not None:
        is_known = not relation.is_many
    else:
        is_known = column is not None and column.is_queryable
    if not is_known:
        raise ProtocolViolation(f"table [{entity.name}] invalid column query [{name[:100]}]")


def _is_attribute(entity: Entity, name: str) -> bool:
    declared = (entity.columns, entity.relations, SYSTEM_COLUMNS, _ALWAYS_THERE)
    return any(name in names for names in declared)


def _includes(entity: Entity, asked: Iterable[str]) -> Iterator[str]:
    """Relations, also by the name of the entity that only one of them leads to, and columns."""
    for count, name in enumerate(asked):
        if count >= MAX_INCLUDES:
            raise ProtocolViolation(f"include: more than {MAX_INCLUDES}")
        if name in entity.relations or name in entity.columns:
            yield name
            continue
        meant = [each.name for each in entity.relations.values() if each.entity == name]
        if len(meant) != 1:
            raise ProtocolViolation(f"include: {entity.name} has no relation {name[:100]}")
        yield meant[0]


def columns_asked(
    entity: Entity, columns: frozenset[str] | None, includes: Iterable[str]
) -> frozenset[str] | None:
    """The columns to read, those among them that an include asks for."""
    extra = frozenset(includes) & entity.columns.keys()
    if not extra:
        return columns
    if columns is None:
        shown = {name for name, column in entity.columns.items() if not column.is_hidden}
        columns = frozenset(shown | entity.relations.keys())
    return columns | extra
