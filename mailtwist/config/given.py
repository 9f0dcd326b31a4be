"""What was given for each setting, from where, and which of it counts.

Precedence: command line, ``MAILTWIST_*``, the variables of predecessors, the file,
the default. Nothing is converted here; every fault found is collected, so that
one run names them all.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mailtwist.config.declare import (
    Declaration,
    Section,
    members,
    settings_of,
    variable_of,
)
from mailtwist.config.predecessors import PREDECESSOR_VARIABLES, retired
from mailtwist.config.settings import Settings

DECLARATIONS: dict[str, Declaration] = {each.key: each for each in settings_of(Settings)}
ALIASES: dict[str, str] = {
    alias: each.key for each in DECLARATIONS.values() for alias in each.aliases
}


def _sections(cls: type, prefix: str = "") -> Iterator[Section]:
    for member in members(cls, prefix):
        if isinstance(member, Section):
            yield member
            if not member.many:
                yield from _sections(member.cls, f"{member.key}.")


SECTIONS: dict[str, Section] = {each.key: each for each in _sections(Settings)}
# Groups that exist for the sake of an alias only ("server.dev_mode").
ALIAS_GROUPS = frozenset(alias.rpartition(".")[0] for alias in ALIASES if "." in alias)


@dataclass(frozen=True, slots=True)
class Given:
    """A raw value and where it stands, as an error names it."""

    value: Any
    source: str  # "command line", "environment", "file"
    name: str  # the option, variable or file


@dataclass(slots=True)
class Collected:
    """Raw values by key, the most important source first in each list."""

    values: dict[str, list[Given]] = field(default_factory=dict)
    items: dict[str, Given] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, key: str, value: Any, source: str, name: str) -> None:
        self.values.setdefault(key, []).append(Given(value, source, name))


def nearest(key: str, known: Iterable[str]) -> str:
    """A hint: which of ``known`` comes nearest to a key."""
    names = sorted(known)
    found = difflib.get_close_matches(key, names, n=1, cutoff=0.6)
    if not found:
        last = {name.rpartition(".")[2]: name for name in names}
        close = difflib.get_close_matches(key.rpartition(".")[2], list(last), n=1, cutoff=0.7)
        found = [last[word] for word in close]
    if found:
        return f"; did you mean {found[0]}?"
    group = key.rpartition(".")[0] + "."
    beside = [name for name in names if name.startswith(group)]
    (far,) = difflib.get_close_matches(key, beside or names, n=1, cutoff=0.0)
    return f"; the nearest known one is {far}"


def from_options(into: Collected, options: Mapping[str, Any]) -> None:
    for key, value in options.items():
        assert key in DECLARATIONS, key
        into.add(key, value, "command line", f"--{key.replace('_', '-')}")


def from_environment(into: Collected, environ: Mapping[str, str]) -> None:
    for key, declaration in DECLARATIONS.items():
        for spelling in (key, *declaration.aliases):
            name = variable_of(spelling)
            if environ.get(name):
                into.add(key, environ[name], "environment", name)
    for key, group in SECTIONS.items():
        name = variable_of(key)
        if group.many and environ.get(name):
            into.items[key] = Given(environ[name], "environment", name)
    _from_seeds(into, environ)


def _from_seeds(into: Collected, environ: Mapping[str, str]) -> None:
    for key, declaration in DECLARATIONS.items():
        spellings = (key, *declaration.aliases)
        elemta = [variable_of(each).replace("MAILTWIST_", "ELEMTA_", 1) for each in spellings]
        for name in (*elemta, *declaration.variables):
            if environ.get(name):
                into.add(key, environ[name], "environment", name)
    for variable in PREDECESSOR_VARIABLES:
        text = environ.get(variable.name, "")
        try:
            value = variable.convert(text, environ) if text else None
        except ValueError as error:
            into.problems.append(f"{variable.name}: {error}")
            continue
        if value is not None:
            into.add(variable.key, value, "environment", variable.name)


def from_file(into: Collected, content: Mapping[Any, Any], file: str, prefix: str = "") -> None:
    for name, value in content.items():
        key = f"{prefix}{name}"
        if key in DECLARATIONS or key in ALIASES:
            _file_value(into, key, value, file)
        elif key in SECTIONS and SECTIONS[key].many:
            # An item given by a variable counts more.
            into.items.setdefault(key, Given(value, "file", file))
        elif reason := retired(key):
            into.warnings.append(f"{file}: {key}: is not read; {reason}")
        elif key not in SECTIONS and key not in ALIAS_GROUPS:
            known = [*DECLARATIONS, *ALIASES, *SECTIONS]
            into.problems.append(f"{file}: {key}: unknown key{nearest(key, known)}")
        elif isinstance(value, Mapping):
            from_file(into, value, file, f"{key}.")
        elif value is not None:
            into.problems.append(f"{file}: {key}: must be a group of keys")


def _file_value(into: Collected, key: str, value: Any, file: str) -> None:
    canonical = ALIASES.get(key, key)
    earlier = [each for each in into.values.get(canonical, []) if each.source == "file"]
    if value is None:
        return
    if earlier and earlier[0].value != value:
        into.problems.append(f"{file}: {key}: {canonical} says something else under another name")
    elif not earlier:
        into.add(canonical, value, "file", file)
