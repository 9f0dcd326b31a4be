"""Rows put together for their readers: attributes with those of the system, and references."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mailtwist.store.entities import values
from mailtwist.store.entities.model import (
    OWNER_RELATION,
    Column,
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
    for name, column in entity.columns.items():
        if not reading.wants(name):
            continue
        if column.type is Type.PASSWORD:
            attributes[name] = ""
        elif name in kept and not (column.is_secret or column.is_writeonly):
            attributes[name] = values.rendered(column, kept[name])
    related: dict[str, Ref | None] = {}
    for name, target in references.items():
        if reading.wants(name):
            attributes[name] = target
        related[name] = Ref(_target(reading, name), target) if target else None
    return Item(entity.name, reference, attributes, related)


def _target(reading: Reading, name: str) -> str:
    if name == OWNER_RELATION:
        return "user_account"
    return reading.entity.relations[name].entity
