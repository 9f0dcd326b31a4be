"""Bodies of requests: JSON under bounds, and HTML forms.

The size is bounded before (1 MiB). Depth, digits and characters are bounded here, in linear
time, before anything is made of them: a JSON of brackets or of one endless number costs a few
milliseconds. Text that no database takes (NUL, half a surrogate pair) is refused too.

Standards: RFC 8259.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final
from urllib.parse import parse_qsl

from mailtwist.errors import ProtocolViolation

MAX_DEPTH: Final = 32
MAX_DIGITS: Final = 400
MAX_PARAMETERS: Final = 100
MAX_PARAMETER_OCTETS: Final = 65_536

FORM_TYPE: Final = "application/x-www-form-urlencoded"
# curl sends what follows -d as a form, whatever it is.
_LENIENT_TYPES: Final = frozenset({"", FORM_TYPE, "text/plain", "application/octet-stream"})
_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NO_BRACKETS: Final = bytes(code for code in range(256) if code not in b"[]{}")
_SURROGATE: Final = re.compile("[\ud800-\udfff\0]")


class UnsupportedType(ProtocolViolation):
    """The body is of a type that is not read here. RFC 9110 §15.5.16."""

    http_status = 415
    default_text = "Send application/vnd.api+json or application/json"


def media_type(content_type: str) -> str:
    """The type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def is_json(content_type: str) -> bool:
    given = media_type(content_type)
    return given == "application/json" or (
        given.startswith("application/") and given.endswith("+json")
    )


def read_json(body: bytes, content_type: str = "", *, is_strict: bool = False) -> Any:
    """Parse a body; nothing but white space is ``{}``.

    ``is_strict``: only a type that a foreign web page cannot send by itself will do.
    Raises: ProtocolViolation, UnsupportedType.
    """
    if not body.strip():
        return {}
    if not is_json(content_type) and (is_strict or media_type(content_type) not in _LENIENT_TYPES):
        raise UnsupportedType
    return parse_json(body)


def parse_json(body: bytes) -> Any:
    """Raises: ProtocolViolation."""
    _check_depth(body)
    try:
        value = json.loads(
            body.decode("utf-8-sig"),
            parse_int=_whole,
            parse_float=_decimal,
            parse_constant=_no_constant,
        )
    except UnicodeDecodeError as error:
        raise ProtocolViolation("The body is not UTF-8") from error
    except (json.JSONDecodeError, RecursionError) as error:
        where = f", at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise ProtocolViolation(f"The body is not JSON{where}") from error
    if b"\\u" in body or b"\0" in body:
        _check_characters(value)
    return value


def _check_depth(body: bytes) -> None:
    """Refuse more than MAX_DEPTH levels, without a stack of our own or of the parser."""
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return
    rest = _STRING.sub(b"", body).translate(None, _NO_BRACKETS)
    for _ in range(MAX_DEPTH):
        if not rest:
            return
        rest = _without_innermost(rest)
    if rest:
        raise ProtocolViolation(f"The JSON is nested deeper than {MAX_DEPTH} levels, or unbalanced")


def _without_innermost(brackets: bytes) -> bytes:
    """Take away one level at least: the pairs with nothing between them."""
    return brackets.replace(b"[]", b"").replace(b"{}", b"")


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ProtocolViolation(f"A number has more than {MAX_DIGITS} digits")
    return int(digits)


def _decimal(digits: str) -> float:
    if len(digits) > MAX_DIGITS:
        raise ProtocolViolation(f"A number has more than {MAX_DIGITS} digits")
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise ProtocolViolation("A number is too large")
    return value


def _no_constant(name: str) -> Any:
    raise ProtocolViolation(f"{name} is no JSON")


def _check_characters(value: object) -> None:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            if _SURROGATE.search(item):
                raise ProtocolViolation("A text holds NUL or half a surrogate pair")
        elif isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, dict):
            stack.extend(item)
            stack.extend(item.values())


def read_parameters(query: bytes) -> dict[str, tuple[str, ...]]:
    """Parse a query string.

    Raises: ProtocolViolation when it is too much, or not UTF-8 under its percent signs.
    """
    if len(query) > MAX_PARAMETER_OCTETS:
        raise ProtocolViolation("The query string is too long")
    found: dict[str, list[str]] = {}
    try:
        pairs = parse_qsl(
            query.decode("utf-8"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAX_PARAMETERS,
        )
    except ValueError as error:
        raise ProtocolViolation("The query string cannot be read") from error
    for name, value in pairs:
        if "\0" in name or "\0" in value:
            raise ProtocolViolation("The query string holds NUL")
        found.setdefault(name, []).append(value)
    return {name: tuple(values) for name, values in found.items()}


def read_form(body: bytes, content_type: str) -> dict[str, tuple[str, ...]]:
    """The fields of a form; nothing when the body is none. Raises: ProtocolViolation."""
    if media_type(content_type) != FORM_TYPE or body.lstrip()[:1] in (b"{", b"["):
        return {}
    return read_parameters(body)
