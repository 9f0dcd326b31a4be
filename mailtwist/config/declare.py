"""How a setting is declared: once, as a dataclass field that carries everything about it.

A section is a frozen dataclass whose fields come from :func:`setting`,
:func:`section` and :func:`items`. Reading, checking, ``config explain``, the
sample file and the documentation page all walk the same declarations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mailtwist.config.kinds import Kind


@dataclass(frozen=True, slots=True)
class Declaration:
    """One setting, under its dotted key."""

    key: str
    kind: Kind[Any]
    default: Any
    doc: str
    unit: str  # what a bare number counts
    secret: bool  # never shown, logged or repeated in an error
    aliases: tuple[str, ...]  # dotted keys that mean the same
    variables: tuple[str, ...]  # environment variables of predecessors, first wins
    inactive: str  # why the key is accepted although nothing acts on it; "" when it acts
    example: Any  # for the sample file, where the default says little

    @property
    def variable(self) -> str:
        return variable_of(self.key)


@dataclass(frozen=True, slots=True)
class Section:
    """A group of settings under one key."""

    key: str
    doc: str
    cls: type
    many: bool  # a list of such groups


def setting(
    kind: Kind[Any],
    default: Any,
    doc: str,
    *,
    unit: str = "",
    secret: bool = False,
    aliases: tuple[str, ...] = (),
    variables: tuple[str, ...] = (),
    inactive: str = "",
    example: Any = None,
) -> Any:
    """A field of a section. ``default`` is the value in use when nobody gives one."""
    made = Declaration("", kind, default, doc, unit, secret, aliases, variables, inactive, example)
    metadata = {"declaration": made}
    if isinstance(default, Mapping):
        return field(default_factory=lambda: default, repr=not secret, metadata=metadata)
    return field(default=default, repr=not secret, metadata=metadata)


def section(cls: type, doc: str) -> Any:
    """A field that is a group of settings of its own."""
    return field(default_factory=cls, metadata={"section": Section("", doc, cls, many=False)})


def items(cls: type, doc: str, *, key: str) -> Any:
    """A field that is a list of groups under ``key``; each has the settings of ``cls``."""
    return field(default=(), metadata={"section": Section(key, doc, cls, many=True)})


def variable_of(key: str) -> str:
    """The environment variable of a dotted key."""
    return "MAILTWIST_" + key.replace(".", "_").upper()


def members(cls: type, prefix: str = "") -> Iterator[Declaration | Section]:
    """What one section declares, in order, its sub-sections not entered."""
    for each in dataclasses.fields(cls):
        key = f"{prefix}{each.name}"
        if "declaration" in each.metadata:
            yield dataclasses.replace(each.metadata["declaration"], key=key)
        elif "section" in each.metadata:
            found = each.metadata["section"]
            yield dataclasses.replace(found, key=f"{prefix}{found.key}" if found.key else key)


def settings_of(cls: type, prefix: str = "") -> Iterator[Declaration]:
    """Every setting of a section and the sections in it; lists of groups are left out."""
    for member in members(cls, prefix):
        if isinstance(member, Declaration):
            yield member
        elif not member.many:
            yield from settings_of(member.cls, f"{member.key}.")
