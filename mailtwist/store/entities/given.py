"""What a client gives to make or change a row, checked against the declaration.

Attributes become values as the store keeps them; relations, which may also be given as
attributes, become the rows meant. Unknown names are refused, so that nothing is set which the
declaration does not know; what only we set is passed over, so that a client may send back the
whole object that it read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.permissions import HIGHEST, Bit, Viewer
from mailtwist.store.accounts import Verifier
from mailtwist.store.entities import permissions, values
from mailtwist.store.entities.finding import canonical
from mailtwist.store.entities.model import (
    OWNER_RELATION,
    AccessDenied,
    Column,
    Entity,
    Facts,
    Prepared,
    Reading,
    Ref,
    Relation,
    Stored,
    Type,
)
from mailtwist.store.entities.registry import ENTITIES

# What documents say of a row beside its columns.
_ENVELOPE: Final = frozenset(
    {"meta", "__type", "id", "version", "reference_id", "created_at", "updated_at"}
)
MAX_REFS: Final = 1_000
_PERMISSION: Final = Column("permission", Type.INTEGER, lowest=0, highest=HIGHEST)

Refs: TypeAlias = "Ref | str | Sequence[Ref | str] | None"


@dataclass(slots=True)
class Given:
    """``ids``: for each relation the ids meant, in their spelling of rows."""

    values: dict[str, Any] = field(default_factory=dict)
    ids: dict[str, tuple[str, ...]] = field(default_factory=dict)
    permission: int | None = None


def read(
    entity: Entity,
    attributes: Mapping[str, Any],
    relations: Mapping[str, Refs],
    *,
    is_new: bool,
) -> Given:
    """Check names and values. Raises: ProtocolViolation naming what is wrong."""
    given = Given()
    for name, value in attributes.items():
        if name == "permission":
            given.permission = values.stored(_PERMISSION, value)
        elif name in entity.columns:
            _read_value(given, entity.columns[name], value, is_new=is_new)
        elif name in entity.relations:
            given.ids[name] = _ids(entity.relations[name], value)
        elif name not in _ENVELOPE:
            raise ProtocolViolation(f"{entity.name} has no column {name[:100]}")
    for name, refs in relations.items():
        if name not in entity.relations:
            raise ProtocolViolation(f"{entity.name} has no relation {name[:100]}")
        given.ids[name] = _ids(entity.relations[name], refs)
    return given


def _read_value(given: Given, column: Column, value: Any, *, is_new: bool) -> None:
    if isinstance(value, Prepared):
        given.values[column.name] = value.value
    elif column.type is Type.PASSWORD and _is_verifiers(value):
        given.values[column.name] = tuple(value)
    elif column.is_secret and value in (None, ""):
        return  # what a reader got to see instead of the secret
    elif not column.is_readonly and (is_new or not column.is_fixed):
        given.values[column.name] = values.stored(column, value)


def _is_verifiers(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and bool(value)
        and all(isinstance(item, Verifier) for item in value)
    )


def _ids(relation: Relation, refs: Any) -> tuple[str, ...]:
    """The ids of one relation; none when it is to lead nowhere."""
    if refs is None or refs == "":
        return ()
    if isinstance(refs, list) and not relation.is_many:
        raise ProtocolViolation(f"{relation.name}: leads to one row, not to a list")
    listed = list(refs) if isinstance(refs, list | tuple) else [refs]
    if len(listed) > (MAX_REFS if relation.is_many else 1):
        raise ProtocolViolation(f"{relation.name}: too many rows")
    return tuple(dict.fromkeys(_id(relation, ref) for ref in listed))


def _id(relation: Relation, ref: Any) -> str:
    if isinstance(ref, Ref):
        if ref.type != relation.entity:
            raise ProtocolViolation(f"{relation.name}: a {relation.entity} is expected")
        ref = ref.id
    known = canonical(ref) if isinstance(ref, str) else None
    if known is None:
        raise ProtocolViolation(f"{relation.name}: no such {relation.entity} {str(ref)[:100]}")
    return known


# -- what misses ----------------------------------------------------------------------------


def fill(entity: Entity, given: Given) -> None:
    """Put defaults where nothing was given for a new row, and refuse what may not be empty."""
    for name, column in entity.columns.items():
        if given.values.get(name) is None:
            given.values.pop(name, None)
            if column.default is not None:
                given.values[name] = values.stored(column, column.default)
        _check_filled(column, given.values.get(name))
    for name, relation in entity.relations.items():
        if relation.is_required and not given.ids.get(name):
            raise ProtocolViolation(f"Field {name} cannot be blank")


def _check_filled(column: Column, value: Any) -> None:
    if column.is_required and value in (None, ""):
        raise ProtocolViolation(f"Field {column.name} cannot be blank")


def empty(entity: Entity, given: Given) -> None:
    """Make null, given for a row that is there, what an empty column keeps."""
    for name, value in given.values.items():
        column = entity.columns[name]
        _check_filled(column, value)
        if value is None and column.default is not None:
            given.values[name] = values.stored(column, column.default)
        elif value is None and column.type in {Type.TEXT, Type.JSON, Type.LIST}:
            given.values[name] = ""
    for name, ids in given.ids.items():
        if entity.relations[name].is_required and not ids:
            raise ProtocolViolation(f"Field {name} cannot be blank")


# -- the rows meant -------------------------------------------------------------------------


def targets(reading: Reading, name: str, ids: Sequence[str]) -> tuple[Stored, ...]:
    """The rows that a relation is to lead to, each of which the viewer may refer to.

    Raises: ProtocolViolation for an unknown one, AccessDenied.
    """
    relation = reading.entity.relations[name]
    there = Reading(
        reading.connection, reading.viewer, ENTITIES[relation.entity], Facts(), frozenset()
    )
    known = there.entity.source.rows(there, ids) if ids else {}
    for id_ in ids:
        if id_ not in known:
            raise ProtocolViolation(f"{name}: no such {relation.entity} {id_}")
    rows = tuple(known[id_] for id_ in ids)
    allowed = permissions.allowed(reading.connection, reading.viewer, there.entity, rows, Bit.REFER)
    may = {row.item.id for row in allowed}
    for row in rows:
        if row.item.id not in may and not _is_own_group(reading.viewer, relation, row):
            raise AccessDenied(
                AccessDenied.ROW, f"refer object not allowed [{relation.entity}][{row.item.id}]"
            )
    return rows


def _is_own_group(viewer: Viewer, relation: Relation, row: Stored) -> bool:
    if relation.name == OWNER_RELATION:
        return viewer.owns(row.key)
    return relation.entity == "usergroup" and row.key in viewer.groups
