"""Authentication-Results: what we found goes in, what pretends to be ours goes out (RFC 8601)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from mailtwist.mail.header import fold_line, split_fields

FIELD: Final = b"authentication-results"
# Comments before the name of the server that a client would still read past.
MAX_COMMENTS: Final = 64

_QUOTED = re.compile(r"[^ -~]|[\\\"]")
_ATOM = re.compile(r"[A-Za-z0-9._-]+")
_WORD = re.compile(rb'"((?:[^"\\]|\\.)*)"|([^ \t\r\n;()"]+)', re.DOTALL)


def result(method: str, outcome: str, *, reason: str = "", **properties: str) -> str:
    """``dkim=fail reason="..." header.d=example.com`` (§2.2); ``header_d`` names header.d."""
    words = [f"{method}={outcome}"]
    if reason:
        words.append(f"reason={_value(reason)}")
    for name, value in properties.items():
        if value:
            words.append(f"{name.replace('_', '.', 1)}={_value(value)}")
    return " ".join(words)


def _value(text: str) -> str:
    if _ATOM.fullmatch(text):
        return text
    return f'"{_QUOTED.sub("?", text)}"'


def field(hostname: str, results: Iterable[str]) -> bytes:
    """The whole field, folded, with CRLF."""
    text = ";\r\n\t".join((hostname, *results))
    lines = f"Authentication-Results: {text}".encode("ascii", "replace").split(b"\r\n")
    return b"".join(map(fold_line, lines))


def without_ours(header: bytes, hostname: str) -> bytes:
    """The header without fields that claim to be ours (§5); mostly the very same octets."""
    if FIELD not in header.lower():
        return header
    ours = hostname.lower().rstrip(".").encode("ascii", "replace")
    fields = split_fields(header)
    kept = [raw for name, raw in fields if name.lower() != FIELD or server_of(raw) != ours]
    if len(kept) == len(fields):
        return header
    # What is behind a bound of split_fields stays as it is.
    return b"".join(kept) + header[sum(len(raw) for _, raw in fields) :]


def server_of(raw: bytes) -> bytes:
    """Who says that he found it: the authserv-id of a raw field, in lower case; b"" for none."""
    value = raw.partition(b":")[2]
    start = _behind_comments(value)
    found = _WORD.match(value, start)
    if found is None:
        return b""
    word = re.sub(rb"\\(.)", rb"\1", found[1]) if found[1] is not None else found[2]
    return word.lower().rstrip(b".")


def _behind_comments(value: bytes) -> int:
    """Where blanks and comments (RFC 5322 §3.2.2) end."""
    depth, at, seen = 0, 0, 0
    while at < len(value):
        octet = value[at : at + 1]
        if octet == b"(":
            depth, seen = depth + 1, seen + 1
            if seen > MAX_COMMENTS:
                return len(value)
        elif octet == b")" and depth:
            depth -= 1
        elif octet == b"\\" and depth:
            at += 1
        elif not depth and octet not in b" \t\r\n":
            break
        at += 1
    return at
