"""What SEARCH asks for: from octets to the tree of :mod:`mailtwist.mail.search`.

RFC 9051 §6.4.4 and §9 (search, search-key); RFC 3501 for NEW, OLD and RECENT;
RFC 4731 for RETURN.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from mailtwist.errors import Refusal
from mailtwist.imap.grammar import Parser
from mailtwist.mail import search as tree

Key = Callable[[Parser], tree.Node]

RETURNS: Final = frozenset({"MIN", "MAX", "ALL", "COUNT"})
CHARSETS: Final = {"US-ASCII": "ascii", "UTF-8": "utf-8"}
_SEQUENCE_START: Final = re.compile(rb"[0-9*]")
_FIELD_NAME: Final = re.compile(r"[!-9;-~]{1,998}")


@dataclass(frozen=True, slots=True)
class Search:
    """The arguments of SEARCH; ``returns`` is None for the plain answer of RFC 3501."""

    key: tree.Node
    returns: frozenset[str] | None = None


def parse_search(parser: Parser) -> Search:
    """The arguments to the end of the command. Raises Refusal for an unknown CHARSET."""
    returns = _returns(parser)
    _charset(parser)
    key = _keys(parser)
    parser.end()
    tree.check_bounds(key)
    return Search(key, returns)


def _returns(parser: Parser) -> frozenset[str] | None:
    if not _word(parser, "RETURN"):
        return None
    parser.space()
    names = frozenset(parser.items(parser.keyword, empty=True))
    if not names <= RETURNS:
        raise parser.violation("no such return option")
    parser.space()
    return names or frozenset({"ALL"})  # RFC 4731 §3.1


def _charset(parser: Parser) -> None:
    if not _word(parser, "CHARSET"):
        return
    parser.space()
    name = parser.astring().decode("ascii", "replace").upper()
    if name not in CHARSETS:
        # RFC 9051 §6.4.4: a tagged NO that names what is understood.
        raise Refusal("Unknown charset", imap_code="BADCHARSET (US-ASCII UTF-8)")
    parser.space()


def _word(parser: Parser, word: str) -> bool:
    """Take ``word`` if it is the next atom."""
    end = parser.position + len(word)
    if parser.data[parser.position : end].upper() != word.encode("ascii"):
        return False
    if parser.data[end : end + 1] != b" ":
        return False
    parser.position = end
    return True


def _keys(parser: Parser) -> tree.Node:
    """One key or several that must all match."""
    keys = [_key(parser)]
    while parser.accept(b" "):
        keys.append(_key(parser))
    return keys[0] if len(keys) == 1 else tree.And(tuple(keys))


def _key(parser: Parser) -> tree.Node:
    if parser.peek() == b"(":
        keys = parser.items(partial(_key, parser))
        return keys[0] if len(keys) == 1 else tree.And(tuple(keys))
    if _SEQUENCE_START.match(parser.peek()):
        return tree.Sequence(parser.sequence_set())
    name = parser.keyword()
    key = KEYS.get(name)
    if key is None:
        raise parser.violation(f"no such search key: {name[:64]}")
    return key(parser)


def _is(node: tree.Node) -> Key:
    return lambda parser: node


def _string(make: Callable[[str], tree.Node]) -> Key:
    def key(parser: Parser) -> tree.Node:
        parser.space()
        return make(parser.text())

    return key


def _field(column: tree.Column) -> Key:
    return _string(lambda value: tree.Field(column, value))


def _number(make: Callable[[int], tree.Node]) -> Key:
    def key(parser: Parser) -> tree.Node:
        parser.space()
        return make(parser.number64())

    return key


def _internal(op: tree.DateOp) -> Key:
    def key(parser: Parser) -> tree.Node:
        parser.space()
        return tree.InternalDate(op, parser.date())

    return key


def _sent(op: tree.DateOp) -> Key:
    def key(parser: Parser) -> tree.Node:
        parser.space()
        return tree.SentDate(op, parser.date())

    return key


def _keyword(parser: Parser, *, present: bool) -> tree.Node:
    parser.space()
    return tree.Keyword(parser.atom().decode("ascii"), present)


def _header(parser: Parser) -> tree.Node:
    parser.space()
    name = parser.text()
    if _FIELD_NAME.fullmatch(name) is None:
        raise parser.violation("no name of a header field")
    parser.space()
    return tree.Header(name, parser.text())


def _uid(parser: Parser) -> tree.Node:
    parser.space()
    return tree.Uid(parser.sequence_set())


def _not(parser: Parser) -> tree.Node:
    parser.space()
    with parser.nested():
        return tree.Not(_key(parser))


def _or(parser: Parser) -> tree.Node:
    parser.space()
    with parser.nested():
        first = _key(parser)
        parser.space()
        return tree.Or(first, _key(parser))


KEYS: Final[dict[str, Key]] = {
    "ALL": _is(tree.All()),
    "ANSWERED": _is(tree.Flag("\\Answered")),
    "BCC": _field("BCC"),
    "BEFORE": _internal("<"),
    "BODY": _string(tree.Body),
    "CC": _field("CC"),
    "DELETED": _is(tree.Flag("\\Deleted")),
    "DRAFT": _is(tree.Flag("\\Draft")),
    "FLAGGED": _is(tree.Flag("\\Flagged")),
    "FROM": _field("FROM"),
    "HEADER": _header,
    "KEYWORD": partial(_keyword, present=True),
    "LARGER": _number(tree.Larger),
    "NEW": _is(tree.New()),
    "NOT": _not,
    "OLD": _is(tree.Old()),
    "ON": _internal("="),
    "OR": _or,
    "RECENT": _is(tree.Recent()),
    "SEEN": _is(tree.Flag("\\Seen")),
    "SENTBEFORE": _sent("<"),
    "SENTON": _sent("="),
    "SENTSINCE": _sent(">="),
    "SINCE": _internal(">="),
    "SMALLER": _number(tree.Smaller),
    "SUBJECT": _field("SUBJECT"),
    "TEXT": _string(tree.Text),
    "TO": _field("TO"),
    "UID": _uid,
    "UNANSWERED": _is(tree.Flag("\\Answered", present=False)),
    "UNDELETED": _is(tree.Flag("\\Deleted", present=False)),
    "UNDRAFT": _is(tree.Flag("\\Draft", present=False)),
    "UNFLAGGED": _is(tree.Flag("\\Flagged", present=False)),
    "UNKEYWORD": partial(_keyword, present=False),
    "UNSEEN": _is(tree.Flag("\\Seen", present=False)),
}
