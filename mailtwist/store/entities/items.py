"""Rows put together for their readers: attributes with those of the system, and references."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from mailtwist.store.entities import values
from mailtwist.store.entities.model import (
    OWNER_RELATION,
    Column,
    Entity,
    Item,
    Reading,
    Ref,
    Type,
)

# What is read whatever columns were asked for.
_ALWAYS: Final = ("__type", "reference_id", "permission", "created_at", "updated_at")


def is_read(reading: Reading, column: Column) -> bool:
    """Tell whether the source must read the column for this reader."""
    return not (column.is_secret or column.is_writeonly) and reading.wants(column.name)


def make_item(
    reading: Reading,
    reference: str,
    kept: Mapping[str, Any],
    *,
    permission: int,
    created_at: int | None,
    updated_at: int | None,
    references: Mapping[str, str | None],
) -> Item:
    """Make the item of a row.

    ``kept``: columns as the store keeps them; what misses is left out. ``references``: the id of
    the other row for each relation to one, user_account_id among them.
    """
    entity = reading.entity
    attributes: dict[str, Any] = {
        "__type": entity.name,
        "reference_id": reference,
        "permission": permission,
        "created_at": None if created_at is None else values.iso(created_at),
        "updated_at": None if updated_at is None else values.iso(updated_at),
    }
    for name, render in _shown(reading):
        if render is None:
            attributes[name] = ""
        elif name in kept:
            value = kept[name]
            attributes[name] = None if value is None else render(value)
    related: dict[str, Ref | None] = {}
    for name, target in references.items():
        if reading.wants(name):
            attributes[name] = target
        related[name] = Ref(_target(reading, name), target) if target else None
    return Item(entity.name, reference, attributes, related)


# What to show of an entity's columns; None in place of a renderer: a password, always empty.
Shown = tuple[tuple[str, Callable[[Any], Any] | None], ...]

_known: dict[tuple[int, frozenset[str] | None], tuple[Entity, Shown]] = {}
MAX_KNOWN: Final = 1000


def _shown(reading: Reading) -> Shown:
    """The columns that a reader sees, found once for each choice of them."""
    key = id(reading.entity), reading.columns
    known = _known.get(key)
    # An entity that is gone may have left its number to another one.
    if known is not None and known[0] is reading.entity:
        return known[1]
    shown: Shown = tuple(
        (name, None if column.type is Type.PASSWORD else values.renderer(column))
        for name, column in reading.entity.columns.items()
        if reading.wants(name)
        and (column.type is Type.PASSWORD or not (column.is_secret or column.is_writeonly))
    )
    if len(_known) >= MAX_KNOWN:
        _known.clear()
    _known[key] = reading.entity, shown
    return shown


def _target(reading: Reading, name: str) -> str:
    if name == OWNER_RELATION:
        return "user_account"
    return reading.entity.relations[name].entity
