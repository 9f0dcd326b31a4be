"""What a caller gives: made tidy, then checked by what the operation or the action declares."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from mailtwist.actions.definition import RESERVED, Definition
from mailtwist.actions.registry import Input
from mailtwist.errors import ProtocolViolation
from mailtwist.mail.address import parse_address

MAX_TEXT: Final = 1 << 20
BLANK: Final[tuple[Any, ...]] = (None, "", [], {})
# Whole numbers of JSON know no end, others do.
_HUGE: Final = 10**300


def refusal(tag: str, name: str) -> ProtocolViolation:
    """Make the refusal of one input, in the words that clients of such actions know."""
    return ProtocolViolation(f"http error (400) {tag} and 0 more errors, invalid value for {name}")


# -- of what is built in --------------------------------------------------------------------


def checked(inputs: Iterable[Input], attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes with declared inputs as text, trimmed where blanks mean nothing.

    What is not declared stays as it is. Raises: ProtocolViolation, which names the input.
    """
    tidy = dict(attributes)
    declared = tuple(inputs)
    for each in declared:
        value = tidy.get(each.name)
        if value is not None:
            tidy[each.name] = _text(each, value)
        if each.is_required and not tidy.get(each.name):
            raise _blank(each.name)
    for each in declared:
        for tag in each.tags if tidy.get(each.name) else ():
            _check(tag, each.name, tidy)
    return tidy


def _blank(name: str) -> ProtocolViolation:
    return ProtocolViolation(f"Field {name} cannot be blank")


def _text(declared: Input, value: Any) -> Any:
    if declared.type == "json":
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise refusal("text", declared.name)
    # A password keeps its blanks.
    return value if declared.type == "password" else value.strip()


# -- of actions of one's own ----------------------------------------------------------------


def taken(definition: Definition, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of an action; values keep their types.

    An action that declares none takes whatever comes, except in the place of what outcomes leave.
    Raises: ProtocolViolation, which names the input.
    """
    given = dict(attributes)
    for each in definition.in_fields or ():
        if each.default is not None and given.get(each.name) in (None, ""):
            given[each.name] = each.default
    for name, tags in definition.conformations.items():
        if isinstance(given.get(name), str):
            given[name] = conformed(given[name], tags)
    for each in definition.in_fields or ():
        if not each.is_nullable and given.get(each.name) in BLANK:
            raise _blank(each.name)
    for name, tags in definition.validations.items():
        _validate(name, tags, given)
    if definition.in_fields is None:
        ours = RESERVED | {"user"} | definition.references
        return {name: value for name, value in given.items() if name not in ours}
    return {each.name: given.get(each.name) for each in definition.in_fields}


def conformed(text: str, tags: Iterable[str]) -> str:
    """The text after all changes that tags such as ``trim`` make, in their order."""
    for tag in tags:
        text = CONFORMATIONS[tag.partition("=")[0]](text)
    return text


def _validate(name: str, tags: tuple[str, ...], given: Mapping[str, Any]) -> None:
    value = given.get(name)
    is_blank = value in BLANK
    if is_blank and "required" not in tags and ("omitempty" in tags or value is None):
        return
    for tag in tags:
        _check(tag, name, given)


# -- tags -----------------------------------------------------------------------------------


def _check(tag: str, name: str, attributes: Mapping[str, Any]) -> None:
    word, _, argument = tag.partition("=")
    if not VALIDATIONS[word](attributes.get(name), argument, attributes):
        raise refusal(word, name)


def _is_email(value: Any, _argument: str, _attributes: Mapping[str, Any]) -> bool:
    try:
        address = parse_address(str(value))
    except ProtocolViolation:
        return False
    return "." in address.domain or address.domain.startswith("[") or address.domain == "localhost"


def _size(value: Any) -> float:
    """What is compared with a number: a number itself, else how long the value is."""
    if isinstance(value, int | float):
        return float(max(-_HUGE, min(_HUGE, value)))
    if value is None:
        return 0.0
    return float(len(value)) if isinstance(value, list | dict) else float(len(str(value)))


def _amount(value: Any) -> float:
    """The same, but a text that spells a number counts as that: forms know no numbers."""
    if isinstance(value, str) and len(value) <= 40:
        try:
            return float(value)
        except ValueError:
            pass
    return _size(value)


def _matching(pattern: str) -> Callable[[Any, str, Mapping[str, Any]], bool]:
    compiled = re.compile(pattern, re.ASCII)
    return lambda value, _, __: compiled.fullmatch(str(value)) is not None


VALIDATIONS: Final[dict[str, Callable[[Any, str, Mapping[str, Any]], bool]]] = {
    "required": lambda value, _, __: value not in BLANK,
    "omitempty": lambda _, __, ___: True,
    "email": _is_email,
    "min": lambda value, argument, _: _size(value) >= float(argument),
    "max": lambda value, argument, _: _size(value) <= float(argument),
    "len": lambda value, argument, _: _size(value) == float(argument),
    "gt": lambda value, argument, _: _amount(value) > float(argument),
    "gte": lambda value, argument, _: _amount(value) >= float(argument),
    "lt": lambda value, argument, _: _amount(value) < float(argument),
    "lte": lambda value, argument, _: _amount(value) <= float(argument),
    "eq": lambda value, argument, _: str(value) == argument,
    "ne": lambda value, argument, _: str(value) != argument,
    "oneof": lambda value, argument, _: str(value) in argument.split(),
    "eqfield": lambda value, argument, attributes: value == attributes.get(argument),
    "nefield": lambda value, argument, attributes: value != attributes.get(argument),
    "alpha": _matching("[A-Za-z]+"),
    "alphanum": _matching("[A-Za-z0-9]+"),
    "numeric": _matching(r"[-+]?[0-9]+(\.[0-9]+)?"),
}


def _email(text: str) -> str:
    local_part, at, domain = text.strip().rpartition("@")
    return f"{local_part}{at}{domain.lower()}"


CONFORMATIONS: Final[dict[str, Callable[[str], str]]] = {
    "trim": str.strip,
    "ltrim": str.lstrip,
    "rtrim": str.rstrip,
    "lower": str.lower,
    "lowercase": str.lower,
    "upper": str.upper,
    "uppercase": str.upper,
    "email": _email,
}
