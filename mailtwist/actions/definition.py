"""An action of one's own as a value: its inputs and, one behind the other, its outcomes.

It is written as JSON (or YAML, TOML) in the words of the programs that mailtwist replaces. Keys
are read whatever their case, unknown ones are passed over. What it names must exist: performers,
tables, methods, tags.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from mailtwist.errors import ProtocolViolation

MAX_OUTCOMES: Final = 100
MAX_FIELDS: Final = 100
MAX_DEPTH: Final = 20
MAX_TEXT: Final = 256 << 10
# Names in the scope that are ours; no in-field and no Reference takes them away.
RESERVED: Final = frozenset({"attributes", "env", "subject"})
_REFERENCE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}", re.ASCII)


class Method(StrEnum):
    EXECUTE = "EXECUTE"
    ACTIONRESPONSE = "ACTIONRESPONSE"
    POST = "POST"
    PATCH = "PATCH"
    GET = "GET"
    GET_BY_ID = "GET_BY_ID"
    DELETE = "DELETE"


# These are done to rows of the table that Type names.
ON_ROWS: Final = frozenset({Method.POST, Method.PATCH, Method.GET, Method.GET_BY_ID, Method.DELETE})
# Other spellings of methods.
_METHODS: Final = {"UPDATE": "PATCH"}


@dataclass(frozen=True, slots=True)
class InField:
    """``name``: the key of what the caller gives."""

    name: str
    type: str = "label"
    label: str = ""
    is_nullable: bool = False
    default: Any = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """``place``: how errors name it, such as ``OutFields[0] (mail.send)``.

    ``text``: all that is to be evaluated, as JSON.
    """

    place: str
    type: str
    method: Method
    attributes: Mapping[str, Any] = field(default_factory=dict)
    reference: str = ""
    condition: Any = None
    is_hidden: bool = False
    continues_on_error: bool = False
    is_logged: bool = False
    text: str = ""

    def may_mention(self, name: str) -> bool:
        """Whether its expressions can be about a name; escapes spell names in other ways."""
        return name in self.text or "\\u" in self.text


@dataclass(frozen=True, slots=True)
class Definition:
    """``in_fields`` None: none are declared, so whatever comes is an input.

    ``is_instance_optional`` None: the definition does not say. ``permission`` likewise.
    ``validations``, ``conformations``: tags by input.
    """

    name: str = ""
    label: str = ""
    on_type: str = ""
    is_instance_optional: bool | None = None
    in_fields: tuple[InField, ...] | None = None
    outcomes: tuple[Outcome, ...] = ()
    validations: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    conformations: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    permission: int | None = None
    mentions_user: bool = True

    @property
    def references(self) -> frozenset[str]:
        return frozenset(each.reference for each in self.outcomes if each.reference)

    def schema(self) -> dict[str, Any]:
        """What clients draw a form from; what the action does is not told."""
        return {
            "InFields": [
                {
                    "Name": each.label or each.name,
                    "ColumnName": each.name,
                    "ColumnType": each.type,
                    "IsNullable": each.is_nullable,
                }
                for each in self.in_fields or ()
            ],
            "Validations": [
                {"ColumnName": name, "Tags": ",".join(tags)}
                for name, tags in self.validations.items()
            ],
        }


# -- reading --------------------------------------------------------------------------------


@lru_cache(maxsize=128)
def loaded(text: str) -> Definition:
    """The definition that a row of ``action`` holds as JSON. Raises: ProtocolViolation."""
    if len(text) > MAX_TEXT:
        raise ProtocolViolation(f"action_schema: longer than {MAX_TEXT} characters")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProtocolViolation("action_schema: not valid JSON") from error
    return parse(document)


def parse(document: Any) -> Definition:
    """Read a definition. Raises: ProtocolViolation naming what is wrong in it."""
    _check_depth(document)
    top = _Keys(document, "action_schema")
    in_fields = top.list("InFields", MAX_FIELDS)
    return Definition(
        name=top.text("Name"),
        label=top.text("Label"),
        on_type=top.text("OnType"),
        is_instance_optional=top.flag("InstanceOptional", None),
        in_fields=None if in_fields is None else tuple(map(_in_field, in_fields)),
        outcomes=tuple(map(_outcome, top.list("OutFields", MAX_OUTCOMES) or ())),
        validations=_tags(top.list("Validations", MAX_FIELDS) or ()),
        conformations=_tags(top.list("Conformations", MAX_FIELDS) or ()),
        permission=top.whole("Permission"),
        mentions_user=_mentions(document, "user"),
    )


def _in_field(keys: _Keys) -> InField:
    name = keys.text("ColumnName") or keys.text("Name")
    if not name:
        raise ProtocolViolation(f"{keys.place}: ColumnName is missing")
    if name in RESERVED:
        raise ProtocolViolation(f"{keys.place}: {name} is no name for an input")
    default = keys.get("DefaultValue")
    return InField(
        name,
        keys.text("ColumnType") or "label",
        keys.text("Name"),
        bool(keys.flag("IsNullable", False)),
        None if default == "" else default,
    )


def _outcome(keys: _Keys) -> Outcome:
    kind = keys.text("Type")
    place = f"{keys.place} ({kind[:100]})"
    if not kind:
        raise ProtocolViolation(f"{keys.place}: Type is missing")
    reference = keys.text("Reference")
    if reference and (reference in RESERVED or not _REFERENCE.fullmatch(reference)):
        raise ProtocolViolation(f"{place}: {reference[:100]} is no name for a Reference")
    condition = keys.get("Condition")
    if not isinstance(condition, str | bool | int | float | None):
        raise ProtocolViolation(f"{place}: Condition is no text")
    attributes = keys.get("Attributes")
    if not isinstance(attributes, Mapping | None):
        raise ProtocolViolation(f"{place}: Attributes is no object")
    return Outcome(
        place,
        kind,
        _method(keys.text("Method"), kind, place),
        MappingProxyType(dict(attributes or {})),
        reference,
        condition,
        bool(keys.flag("SkipInResponse", False)),
        bool(keys.flag("ContinueOnError", False)),
        bool(keys.flag("LogToConsole", False)),
        json.dumps([condition, attributes], ensure_ascii=False, default=str),
    )


def _method(text: str, kind: str, place: str) -> Method:
    word = text.strip().upper()
    if not word:
        return Method.ACTIONRESPONSE if kind.startswith("client.") else Method.EXECUTE
    try:
        return Method(_METHODS.get(word, word))
    except ValueError as error:
        raise ProtocolViolation(f"{place}: there is no Method {text[:100]}") from error


def _tags(listed: Iterable[_Keys]) -> Mapping[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for keys in listed:
        name = keys.text("ColumnName")
        if not name:
            raise ProtocolViolation(f"{keys.place}: ColumnName is missing")
        given = tuple(tag for each in keys.text("Tags").split(",") if (tag := each.strip()))
        found[name] = (*found.get(name, ()), *given)
    return found


class _Keys:
    """An object whose keys are found whatever their case; errors name its place."""

    def __init__(self, document: Any, place: str) -> None:
        if not isinstance(document, Mapping):
            raise ProtocolViolation(f"{place}: an object is expected")
        self.place = place
        self._values = {str(name).lower(): value for name, value in document.items()}

    def get(self, name: str) -> Any:
        return self._values.get(name.lower())

    def text(self, name: str) -> str:
        value = self.get(name)
        return str(self._checked(name, "" if value is None else value, str, "a text"))

    def flag(self, name: str, default: bool | None) -> bool | None:
        value = self.get(name)
        if value is None:
            return default
        spelled = {"true": True, "1": True, "false": False, "0": False}
        value = spelled.get(str(value).lower()) if isinstance(value, str | int) else value
        return bool(self._checked(name, value, bool, "true or false"))

    def whole(self, name: str) -> int | None:
        value = self.get(name)
        return None if value is None else int(self._checked(name, value, int, "a number"))

    def list(self, name: str, highest: int) -> list[_Keys] | None:
        value = self.get(name)
        if value is None:
            return None
        if len(self._checked(name, value, list, "a list")) > highest:
            raise ProtocolViolation(f"{self._named(name)}: more than {highest}")
        inside = "" if self.place == "action_schema" else f"{self.place}."
        return [_Keys(each, f"{inside}{name}[{at}]") for at, each in enumerate(value)]

    def _checked(self, name: str, value: Any, kind: type, what: str) -> Any:
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ProtocolViolation(f"{self._named(name)}: {what} is expected")
        return value

    def _named(self, name: str) -> str:
        return name if self.place == "action_schema" else f"{self.place}.{name}"


def _check_depth(document: Any) -> None:
    level, depth = [document], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH + 4:
            raise ProtocolViolation(f"action_schema: nested deeper than {MAX_DEPTH}")
        level = [inner for each in level for inner in _inside(each)]


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list) else ()


def _mentions(document: Any, word: str) -> bool:
    """Whether any text in it has the word."""
    return word in json.dumps(document, default=str)


# -- what it names --------------------------------------------------------------------------


def check(
    definition: Definition,
    *,
    performers: Iterable[str],
    tables: Iterable[str],
    validations: Iterable[str],
    conformations: Iterable[str],
) -> None:
    """Refuse what nobody here can do. Raises: ProtocolViolation naming outcome or input."""
    known = {Method.EXECUTE: (frozenset(performers), "performer")}
    known |= dict.fromkeys(ON_ROWS, (frozenset(tables), "table"))
    for outcome in definition.outcomes:
        names, what = known.get(outcome.method, (None, ""))
        if names is not None and outcome.type not in names:
            raise ProtocolViolation(f"{outcome.place}: there is no such {what}")
    _check_tags("Validations", definition.validations, frozenset(validations))
    _check_tags("Conformations", definition.conformations, frozenset(conformations))


def _check_tags(what: str, given: Mapping[str, tuple[str, ...]], known: frozenset[str]) -> None:
    for name, tags in given.items():
        for tag in tags:
            if tag.partition("=")[0] not in known:
                raise ProtocolViolation(f"{what} of {name[:100]}: there is no tag {tag[:100]}")
            _check_argument(what, name, tag)


def _check_argument(what: str, name: str, tag: str) -> None:
    word, _, argument = tag.partition("=")
    if word in COUNTED:
        try:
            float(argument)
        except ValueError as error:
            text = f"{what} of {name[:100]}: {tag[:100]} needs a number"
            raise ProtocolViolation(text) from error


# Tags whose argument is a number.
COUNTED: Final = frozenset({"min", "max", "len", "gt", "gte", "lt", "lte"})
