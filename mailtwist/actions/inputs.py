"""The inputs of an operation: made tidy, then checked by what it declares."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from mailtwist.actions.registry import Input
from mailtwist.errors import ProtocolViolation
from mailtwist.mail.address import parse_address

MAX_TEXT: Final = 1 << 20


def refusal(tag: str, name: str) -> ProtocolViolation:
    """Make the refusal of one input, in the words that clients of such actions know."""
    return ProtocolViolation(f"http error (400) {tag} and 0 more errors, invalid value for {name}")


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
            raise ProtocolViolation(f"Field {each.name} cannot be blank")
    for each in declared:
        for tag in each.tags if tidy.get(each.name) else ():
            _check(tag, each.name, tidy)
    return tidy


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


def _check(tag: str, name: str, attributes: Mapping[str, Any]) -> None:
    word, _, argument = tag.partition("=")
    if not _CHECKS[word](attributes[name], argument, attributes):
        raise refusal(word, name)


def _is_email(value: Any, _argument: str, _attributes: Mapping[str, Any]) -> bool:
    try:
        address = parse_address(str(value))
    except ProtocolViolation:
        return False
    return "." in address.domain or address.domain.startswith("[") or address.domain == "localhost"


_CHECKS: Final[dict[str, Callable[[Any, str, Mapping[str, Any]], bool]]] = {
    "email": _is_email,
    "min": lambda value, argument, _: len(str(value)) >= int(argument),
    "max": lambda value, argument, _: len(str(value)) <= int(argument),
    "eqfield": lambda value, argument, attributes: value == attributes.get(argument),
}
