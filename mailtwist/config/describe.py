"""Settings as people read them: values with their source, and what a key means."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from mailtwist.config.declare import Declaration, variable_of
from mailtwist.config.given import ALIASES, DECLARATIONS, SECTIONS, nearest
from mailtwist.config.kinds import MASK
from mailtwist.config.listeners import Listener
from mailtwist.config.names import join_host_port
from mailtwist.config.predecessors import PORT_VARIABLES, PREDECESSOR_VARIABLES
from mailtwist.config.settings import Settings
from mailtwist.errors import ConfigError

_URL_PASSWORD = re.compile(r"(://[^/?#]*?:)[^/?#]*(@)")
_QUERY_PASSWORD = re.compile(r"([?&](?:password|sslpassword)=)[^&]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Value:
    """One setting as it stands: ``value`` is plain data, secrets masked."""

    key: str
    value: Any
    source: str


def values(settings: Settings) -> Iterator[Value]:
    """Every setting in the order of the documentation."""
    for key, declaration in DECLARATIONS.items():
        yield Value(key, shown(declaration, value_of(settings, key)), source_of(settings, key))
    listeners = [_shown_listener(each) for each in settings.listeners]
    yield Value("listeners", listeners, source_of(settings, "listeners"))


def value_of(settings: Settings, key: str) -> Any:
    found: Any = settings
    for name in key.split("."):
        found = getattr(found, name)
    return found


def source_of(settings: Settings, key: str) -> str:
    """Where the value of ``key`` comes from: "default", "file mailtwist.yaml" and so on."""
    return settings.sources.get(key, "default")


def shown(declaration: Declaration, value: Any) -> Any:
    """The value as YAML or JSON may have it, nothing secret in it."""
    if not declaration.secret:
        return declaration.kind.show(value)
    if isinstance(value, str):
        return without_password(value) if "://" in value else MASK if value else ""
    return [MASK] * len(value)


def without_password(url: str) -> str:
    """The URL with the passwords in it masked."""
    return _QUERY_PASSWORD.sub(rf"\g<1>{MASK}", _URL_PASSWORD.sub(rf"\g<1>{MASK}\g<2>", url))


def _shown_listener(listener: Listener) -> dict[str, Any]:
    """The protocol and address, and of the rest what is not the default."""
    row: dict[str, Any] = {
        "protocol": listener.protocol,
        "address": join_host_port(listener.host, listener.port),
    }
    for each in fields(Listener):
        value = getattr(listener, each.name)
        if each.name not in {"name", "protocol", "host", "port"} and value != each.default:
            row[each.name] = value
    return row


def canonical_key(text: str) -> str:
    """The key that ``text`` means, also under another name or as a variable.

    Raises ``ConfigError`` with the nearest known key.
    """
    known = [*DECLARATIONS, *(key for key, group in SECTIONS.items() if group.many)]
    wanted = text.strip()
    by_variable = {variable_of(key): key for key in known}
    key = ALIASES.get(wanted, by_variable.get(wanted, wanted))
    if key not in known:
        raise ConfigError(f"{text}: unknown key{nearest(wanted, [*known, *ALIASES])}")
    return key


def explanation(settings: Settings, key: str) -> dict[str, Any]:
    """All there is to say of one key. Raises ``ConfigError`` for an unknown one."""
    key = canonical_key(key)
    if key in SECTIONS:
        group = SECTIONS[key]
        found = next(each for each in values(settings) if each.key == key)
        return {
            "key": key,
            "meaning": group.doc,
            "kind": "list of groups",
            "value": found.value,
            "source": found.source,
            "variables": [variable_of(key), *(name for name, _ in PORT_VARIABLES)],
        }
    declaration = DECLARATIONS[key]
    about = {
        "key": key,
        "meaning": declaration.doc,
        "kind": declaration.kind.name,
        "unit": declaration.unit,
        "default": shown(declaration, declaration.default),
        "value": shown(declaration, value_of(settings, key)),
        "source": source_of(settings, key),
        "variables": variables_of(declaration),
        "aliases": list(declaration.aliases),
        "note": declaration.inactive,
    }
    return {name: each for name, each in about.items() if each not in ("", []) or name == "value"}


def variables_of(declaration: Declaration) -> list[str]:
    """The environment variables that set it, the most important first."""
    spellings = (declaration.key, *declaration.aliases)
    names = [variable_of(each) for each in spellings]
    names += [each.replace("MAILTWIST_", "ELEMTA_", 1) for each in names]
    names += declaration.variables
    names += [each.name for each in PREDECESSOR_VARIABLES if each.key == declaration.key]
    return names
