"""FETCH responses taken apart, for tests."""

from __future__ import annotations

import re

_START = re.compile(rb"\* (\d+) FETCH \(")
_NAME = re.compile(rb"BODY\[[^\]]*\](?:<\d+>)?|[A-Z0-9.]+")
_LITERAL = re.compile(rb"\{(\d+)\}\r\n")
_PLAIN = re.compile(rb'"(?:[^"\\]|\\.)*"|[^ ()"]+')


def fetched(data: bytes) -> dict[int, dict[bytes, bytes]]:
    """Values by item and message number; strings without their quotes, lists as they came."""
    answers: dict[int, dict[bytes, bytes]] = {}
    at = 0
    while found := _START.match(data, at):
        at = found.end()
        items = answers.setdefault(int(found[1]), {})
        while data[at : at + 1] != b")":
            name = _NAME.match(data, at)
            assert name, data[at : at + 80]
            value, at = _value(data, name.end() + 1)
            items[name[0]] = value
            at += data[at : at + 1] == b" "
        assert data[at : at + 3] == b")\r\n", data[at : at + 80]
        at += 3
    return answers


def _value(data: bytes, at: int) -> tuple[bytes, int]:
    if literal := _LITERAL.match(data, at):
        end = literal.end() + int(literal[1])
        return data[literal.end() : end], end
    if data[at : at + 1] == b"(":
        start, depth = at, 0
        while True:
            if literal := _LITERAL.match(data, at):
                at = literal.end() + int(literal[1])
                continue
            char = data[at : at + 1]
            if char in {b"(", b")"}:
                depth += 1 if char == b"(" else -1
                at += 1
                if depth == 0:
                    return data[start:at], at
                continue
            plain = _PLAIN.match(data, at)
            at = plain.end() if plain else at + 1
    plain = _PLAIN.match(data, at)
    assert plain, data[at : at + 80]
    text = plain[0]
    return (text[1:-1] if text.startswith(b'"') else text), plain.end()
