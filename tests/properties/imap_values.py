"""A strict reader of IMAP answers, for tests: whatever it reads is valid on the wire.

RFC 9051 §9 to the letter, with none of the forgiveness of a client: one blank
between values, balanced parentheses, quoted strings with legal octets only,
literals of the announced length without NUL.
"""

from __future__ import annotations

import re
from typing import Any

NIL = None

_NUMBER = re.compile(rb"0|[1-9][0-9]{0,19}")
_QUOTED = re.compile(rb'"((?:[\x01-\x09\x0b\x0c\x0e-!#-\[\]-\x7f]|\\["\\])*)"')
_LITERAL = re.compile(rb"\{(0|[1-9][0-9]*)\}\r\n")


class Invalid(Exception):
    """The answer breaks the grammar."""


def read(data: bytes) -> Any:
    """One value: bytes, int, None (NIL) or a list; nothing may follow it."""
    stack: list[list[Any]] = [[]]
    at = 0
    while at < len(data):
        at = _read_one(data, at, stack)
    if len(stack) != 1 or len(stack[0]) != 1:
        raise Invalid(f"not one balanced value: {data[:80]!r}")
    return stack[0][0]


def _read_one(data: bytes, at: int, stack: list[list[Any]]) -> int:
    mark = data[at : at + 1]
    if mark == b"(":
        # Only lists may stand side by side, as in address lists and multiparts.
        if stack[-1] and data[at - 1 : at] not in (b" ", b")", b"("):
            raise Invalid(f"no blank before a list at {at}")
        stack.append([])
        return at + 1
    if mark == b")":
        if len(stack) == 1 or data[at - 1 : at] == b" ":
            raise Invalid(f"stray ) at {at}")
        done = stack.pop()
        stack[-1].append(done)
        return at + 1
    if mark == b" ":
        if not stack[-1] or data[at - 1 : at] == b" " or at + 1 == len(data):
            raise Invalid(f"stray blank at {at}")
        return at + 1
    if stack[-1] and data[at - 1 : at] != b" ":
        raise Invalid(f"no blank before a value at {at}")
    value, end = _read_plain(data, at)
    stack[-1].append(value)
    return end


def _read_plain(data: bytes, at: int) -> tuple[Any, int]:
    if match := _QUOTED.match(data, at):
        return re.sub(rb"\\(.)", rb"\1", match[1], flags=re.S), match.end()
    if match := _LITERAL.match(data, at):
        end = match.end() + int(match[1])
        value = data[match.end() : end]
        if end > len(data) or b"\0" in value:
            raise Invalid(f"bad literal at {at}")
        return value, end
    if match := _NUMBER.match(data, at):
        return int(match[0]), match.end()
    if data.startswith(b"NIL", at):
        return NIL, at + 3
    raise Invalid(f"no value at {at}: {data[at : at + 20]!r}")


def _must(condition: bool, what: str) -> None:
    if not condition:
        raise Invalid(what)


def check_envelope(value: Any) -> None:
    """RFC 9051 §9: envelope."""
    _must(isinstance(value, list) and len(value) == 10, "envelope has ten members")
    for n in (0, 1, 8, 9):
        _must(value[n] is NIL or isinstance(value[n], bytes), "nstring expected")
    for addresses in value[2:8]:
        if addresses is NIL:
            continue
        _must(isinstance(addresses, list) and addresses != [], "address list is NIL or not empty")
        for address in addresses:
            _must(isinstance(address, list) and len(address) == 4, "address has four members")
            _must(all(x is NIL or isinstance(x, bytes) for x in address), "members are nstrings")


def check_body(value: Any, *, extended: bool) -> None:
    """RFC 9051 §9: body; ``extended`` for BODYSTRUCTURE."""
    _must(isinstance(value, list) and len(value) > 0, "body is a list")
    if isinstance(value[0], list):
        _check_multipart(value, extended)
    else:
        _check_single(value, extended)


def _check_multipart(value: list[Any], extended: bool) -> None:
    bodies = 0
    while bodies < len(value) and isinstance(value[bodies], list):
        check_body(value[bodies], extended=extended)
        bodies += 1
    rest = value[bodies:]
    _must(len(rest) == (5 if extended else 1), "multipart: subtype and four more")
    _must(isinstance(rest[0], bytes), "subtype is a string")
    if extended:
        _check_parameters(rest[1])
        _check_extension(rest[2:])


def _check_single(value: list[Any], extended: bool) -> None:
    _must(all(isinstance(x, bytes) for x in value[:2]), "type and subtype are strings")
    _check_parameters(value[2])
    _must(all(x is NIL or isinstance(x, bytes) for x in value[3:5]), "id and description")
    _must(isinstance(value[5], bytes) and isinstance(value[6], int), "encoding and octets")
    kind = (value[0].lower(), value[1].lower())
    rest = value[7:]
    if kind == (b"message", b"rfc822"):
        check_envelope(rest[0])
        check_body(rest[1], extended=extended)
        _must(isinstance(rest[2], int), "lines")
        rest = rest[3:]
    elif kind[0] == b"text":
        _must(isinstance(rest[0], int), "lines")
        rest = rest[1:]
    if not extended:
        _must(rest == [], "no extension data in BODY")
        return
    _must(len(rest) == 4 and (rest[0] is NIL or isinstance(rest[0], bytes)), "md5")
    _check_extension(rest[1:])


def _check_parameters(value: Any) -> None:
    if value is NIL:
        return
    _must(isinstance(value, list) and value != [] and len(value) % 2 == 0, "pairs of strings")
    _must(all(isinstance(x, bytes) for x in value), "parameters are strings")


def _check_extension(rest: list[Any]) -> None:
    disposition, language, location = rest
    if disposition is not NIL:
        _must(isinstance(disposition, list) and len(disposition) == 2, "disposition")
        _must(isinstance(disposition[0], bytes), "disposition is a string")
        _check_parameters(disposition[1])
    if isinstance(language, list):
        _must(language != [] and all(isinstance(x, bytes) for x in language), "languages")
    else:
        _must(language is NIL or isinstance(language, bytes), "language")
    _must(location is NIL or isinstance(location, bytes), "location")
