"""The search language of inboxes, read into the tree of :mod:`mailtwist.mail.search`.

======================================  =====================================================
term                                    finds messages
======================================  =====================================================
``from:anna`` ``to:bob``                whose sender or recipients (To, Cc, Bcc) contain it
``subject:lunch`` ``body:"see you"``    whose subject or text contains it
``has:attachment``                      with an attachment
``before:2026-03-01``                   that came before that day (UTC)
``after:2026-03-01``                    that came on that day or later
``larger:10k`` ``smaller:2M``           of more, or of fewer, octets
``lunch`` ``"see you"``                 that contain it anywhere
======================================  =====================================================

All terms must hold. ``-`` before a term turns it round; ``OR`` between two terms lets one of
them do, and binds closer than the blank between others. Letter case never matters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from typing import Final

from mailtwist.errors import ProtocolViolation
from mailtwist.mail import search as tree
from mailtwist.mail.search import Node

MAX_LENGTH: Final = 1_000
MAX_TERMS: Final = 30

# -key:"value", -key:value, -"text", -text; an unclosed quote ends with the query.
_TERM = re.compile(
    r"\s*+(-?)(?:([A-Za-z_]{1,20}):(?!//))?(?:\"([^\"]*+)(?:\"|\Z)|([^\s\"]*+))", re.ASCII
)
_SIZE = re.compile(r"([0-9]{1,12})([kKmM]?)[bB]?")
_DAY = re.compile(r"([0-9]{4})[-/]([0-9]{1,2})[-/]([0-9]{1,2})")
_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20}
_OR: Final = "OR"


def parse(query: str) -> Node:
    """The tree of a query; of one without terms, every message.

    Raises: ProtocolViolation, which names what is wrong.
    """
    if len(query) > MAX_LENGTH:
        raise ProtocolViolation(f"query: at most {MAX_LENGTH} characters are taken")
    if "\0" in query:
        raise ProtocolViolation("query: a NUL is in it")
    groups: list[list[Node]] = []
    is_open = False  # an OR waits for its second term
    for count, found in enumerate(_terms(query), 1):
        if count > MAX_TERMS:
            raise ProtocolViolation(f"query: at most {MAX_TERMS} terms are taken")
        if found is not None:
            groups[-1].append(found) if is_open else groups.append([found])
        elif is_open or not groups:
            break
        is_open = found is None
    else:
        if not is_open:
            return tree.And(tuple(map(_any_of, groups)))
    raise ProtocolViolation("query: OR stands between two terms")


def _any_of(nodes: list[Node]) -> Node:
    """One of them, balanced: depth is bounded."""
    if len(nodes) == 1:
        return nodes[0]
    half = len(nodes) // 2
    return tree.Or(_any_of(nodes[:half]), _any_of(nodes[half:]))


def _terms(query: str) -> Iterator[Node | None]:
    """The terms in their order; None for OR."""
    at, end = 0, len(query.rstrip())
    while at < end:
        match = _TERM.match(query, at)
        assert match is not None  # it matches the empty text too
        minus, key, quoted, bare = match.groups()
        at = match.end()
        if minus + (bare or "") == _OR and not key:
            yield None
            continue
        node = _term(key, bare if quoted is None else quoted)
        yield tree.Not(node) if minus else node


def _term(key: str | None, value: str) -> Node:
    if key is None:
        if not value:
            raise ProtocolViolation("query: a term is empty")
        return tree.Text(value)
    make = _KEYS.get(key.lower())
    if make is None:
        raise ProtocolViolation(
            f'query: unknown key {key.lower()}; write "{key}:" in quotes to search for it as text'
        )
    if not value:
        raise ProtocolViolation(f"query: {key.lower()} needs a value")
    return make(value)


def _to(value: str) -> Node:
    return tree.Or(
        tree.Field("TO", value), tree.Or(tree.Field("CC", value), tree.Field("BCC", value))
    )


def _has(value: str) -> Node:
    if value.lower() not in ("attachment", "attachments"):
        raise ProtocolViolation("query: has takes attachment alone")
    return tree.Attached()


def _day(key: str, value: str) -> date:
    match = _DAY.fullmatch(value)
    try:
        if match is not None:
            return date(*map(int, match.groups()))
    except ValueError:
        pass
    raise ProtocolViolation(f"query: {key} takes a day such as 2026-03-01")


def _octets(key: str, value: str) -> int:
    match = _SIZE.fullmatch(value)
    if match is None:
        raise ProtocolViolation(f"query: {key} takes a size such as 10k or 2M")
    return int(match[1]) * _UNITS[match[2].lower()]


_KEYS: Final[Mapping[str, Callable[[str], Node]]] = {
    "from": lambda value: tree.Field("FROM", value),
    "to": _to,
    "subject": lambda value: tree.Field("SUBJECT", value),
    "body": tree.Body,
    "has": _has,
    "before": lambda value: tree.InternalDate("<", _day("before", value)),
    "after": lambda value: tree.InternalDate(">=", _day("after", value)),
    "larger": lambda value: tree.Larger(_octets("larger", value)),
    "smaller": lambda value: tree.Smaller(_octets("smaller", value)),
}
