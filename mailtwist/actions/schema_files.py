"""Actions from files: the key ``Actions`` of ``schema_*.yaml``, ``.json`` and ``.toml``.

They become rows of ``action``, which callers find as they find all others. A file that changes
changes its rows at the next start; a row of an action that is in no file any more stays, for
nobody can tell it from one that was made by hand. What may be done with a row is set when it is
made and is the administrator's from then on.
"""

from __future__ import annotations

import json
import os
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mailtwist.actions import definition, definitions
from mailtwist.actions.builtin import OPERATIONS
from mailtwist.actions.definition import Definition
from mailtwist.errors import ConfigError, ProtocolViolation
from mailtwist.store import administration
from mailtwist.store.administration import Written
from mailtwist.store.engine import Connection
from mailtwist.store.entities.registry import ENTITIES

MAX_FILES: Final = 200
MAX_OCTETS: Final = 4 << 20
PREFIX: Final = "schema_"
_SUFFIXES: Final = frozenset({".yaml", ".yml", ".json", ".toml"})


@dataclass(frozen=True, slots=True)
class FromFile:
    """An action and its schema as JSON."""

    definition: Definition
    schema: str

    @property
    def row(self) -> Written:
        given = self.definition
        return Written(
            given.on_type,
            given.name,
            given.label or given.name,
            bool(given.is_instance_optional),
            self.schema,
            given.permission,
        )


def read(folder: str) -> tuple[FromFile, ...]:
    """All actions of the files of a folder; "": of the working directory, see :func:`is_ours`.

    Blocks. Raises: ConfigError, which names file and key.
    """
    place = Path(folder or ".")
    if not folder and not is_ours(place):
        return ()
    try:
        names = sorted(each for each in os.listdir(place) if _is_schema(each))
    except OSError as error:
        if not folder:
            return ()
        raise ConfigError(
            f"actions.schema_folder: cannot read {place}: {error.strerror}"
        ) from error
    if len(names) > MAX_FILES:
        raise ConfigError(f"actions.schema_folder: more than {MAX_FILES} files")
    found: dict[tuple[str, str], FromFile] = {}
    for name in names:
        if not folder and not is_ours(place / name):
            continue
        for each in _actions(place / name):
            key = each.definition.on_type, each.definition.name
            if key in found:
                raise ConfigError(f"{name}: the action {'/'.join(key)} is defined twice")
            found[key] = each
    return tuple(found.values())


def write(connection: Connection, actions: tuple[FromFile, ...], now: int) -> None:
    """Make or change their rows."""
    administration.write_actions(connection, [each.row for each in actions], now)


def is_ours(path: Path) -> bool:
    """Whether nobody but us and root can have written it: an action may do everything."""
    try:
        found = path.stat()
    except OSError:
        return False
    is_shared = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return found.st_uid in (0, os.geteuid()) and not is_shared


def _is_schema(name: str) -> bool:
    return name.startswith(PREFIX) and os.path.splitext(name)[1].lower() in _SUFFIXES


def _actions(path: Path) -> Iterator[FromFile]:
    document = _document(path)
    keys = {str(name).lower(): value for name, value in document.items()}
    listed = keys.get("actions")
    listed = () if listed is None else listed
    if not isinstance(listed, list | tuple):
        raise ConfigError(f"{path.name}: Actions: a list is expected")
    for at, each in enumerate(listed):
        try:
            yield _action(each)
        except ProtocolViolation as error:
            raise ConfigError(f"{path.name}: Actions[{at}]: {error.text}") from error


def _action(document: Any) -> FromFile:
    try:
        schema = json.dumps(document, ensure_ascii=False, allow_nan=False, default=str)
    except (ValueError, TypeError, RecursionError) as error:
        raise ProtocolViolation("no JSON can say this") from error
    given = definitions.check(definition.parse(json.loads(schema)))
    for value, key in ((given.name, "Name"), (given.on_type, "OnType")):
        if not value:
            raise ProtocolViolation(f"{key} is missing")
    if given.on_type not in ENTITIES:
        raise ProtocolViolation(f"OnType: there is no table {given.on_type[:100]}")
    if (given.on_type, given.name) in OPERATIONS:
        raise ProtocolViolation(f"Name: {given.name} of {given.on_type} is built in")
    if not given.outcomes:
        raise ProtocolViolation("OutFields is missing")
    return FromFile(given, schema)


def _document(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_OCTETS + 1)
        if len(data) > MAX_OCTETS:
            raise ConfigError(f"{path.name}: larger than {MAX_OCTETS} octets")
        document = _parsed(data.decode("utf-8"), path.suffix.lower())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{path.name}: cannot be read: {reason}") from error
    if document is None:
        return {}
    if not isinstance(document, Mapping):
        raise ConfigError(f"{path.name}: keys and values are expected")
    return document


def _parsed(text: str, suffix: str) -> Any:
    if suffix == ".json":
        return json.loads(text)
    if suffix == ".toml":
        return tomllib.loads(text)
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
