"""What the maker of a row gets to see in the answer, and nobody ever again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from mailtwist.actions import made_up, new_keys
from mailtwist.store.entities.model import Entity, Item

PROJECT: Final = "project"
NOTHING: Final[Mapping[str, str]] = MappingProxyType({})

# Attributes of the answer alone, and those of the row.
Completed = tuple[Mapping[str, str], Mapping[str, Any]]


def completed(entity: Entity, attributes: Mapping[str, Any]) -> Completed:
    """Add to a new row what is made up for it. Raises: ProtocolViolation."""
    make = _MADE_UP.get(entity.name)
    return (NOTHING, attributes) if make is None else make(attributes)


def shown(item: Item, secret: Mapping[str, str]) -> Item:
    """The new row with what is seen once."""
    return replace(item, attributes={**item.attributes, **secret}) if secret else item


def _key(attributes: Mapping[str, Any]) -> Completed:
    key, attributes = new_keys.completed(attributes)
    return {"key": key.text}, attributes


def _password(attributes: Mapping[str, Any]) -> Completed:
    given = attributes.get("password")
    if given is not None and given != "":
        return NOTHING, attributes
    secret = {"password": made_up.password()}
    return secret, {**attributes, **secret}


_MADE_UP: Final[Mapping[str, Callable[[Mapping[str, Any]], Completed]]] = {
    new_keys.ENTITY: _key,
    PROJECT: _password,
}
