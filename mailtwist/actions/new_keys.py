"""API keys as rows: what a client asks for becomes a key, which he gets to see this once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.scopes import format_scope, parse_scopes
from mailtwist.policy import api_keys
from mailtwist.policy.api_keys import NewKey
from mailtwist.store.entities import values
from mailtwist.store.entities.model import Entity, Prepared

ENTITY: Final = "api_key"


def completed(attributes: Mapping[str, Any]) -> tuple[NewKey, Mapping[str, Any]]:
    """A new key, and the attributes of its row with what that is to keep of it.

    Raises: ProtocolViolation for scopes that say nothing.
    """
    is_test = bool(values.boolean(attributes.get("is_test")))
    key = api_keys.make(is_test=is_test)
    return key, {
        **attributes,
        "is_test": is_test,
        "scopes": _scopes(attributes.get("scopes")),
        "prefix": Prepared(key.prefix),
        "hash": Prepared(key.digest),
    }


def checked(entity: Entity, attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """What may change of a key: its name, its end and its scopes. Raises: ProtocolViolation."""
    if entity.name != ENTITY:
        return attributes
    kept = {name: value for name, value in attributes.items() if name != "is_test"}
    return kept | {"scopes": _scopes(kept["scopes"])} if "scopes" in kept else kept


def _scopes(given: Any) -> list[str]:
    if isinstance(given, str):
        given = _listed(given)
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise ProtocolViolation("invalid value for scopes: a list of texts is expected")
    return [format_scope(scope) for scope in parse_scopes(given)]


def _listed(text: str) -> Any:
    """One scope, or a JSON list of them as text."""
    if not text.lstrip().startswith("["):
        return [text]
    try:
        return json.loads(text[:10_000])
    except (ValueError, RecursionError):
        return None
