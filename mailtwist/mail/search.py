"""The tree of a SEARCH (RFC 9051 §6.4.4), as values.

Front-ends build the tree, ``store.search`` alone turns it into SQL. Texts are
kept as the client gave them; the store folds them with :func:`mailtwist.mail.words.fold`
as it compares.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.uidset import SequenceSet

MAX_DEPTH: Final = 32
MAX_NODES: Final = 1000

DateOp: TypeAlias = Literal["<", "=", ">="]
Column: TypeAlias = Literal["FROM", "TO", "CC", "BCC", "SUBJECT"]


@dataclass(frozen=True, slots=True)
class All:
    """Every message."""


@dataclass(frozen=True, slots=True)
class And:
    """Messages that match all of ``items``; none of them: every message."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    a: Node
    b: Node


@dataclass(frozen=True, slots=True)
class Not:
    a: Node


@dataclass(frozen=True, slots=True)
class Uid:
    numbers: SequenceSet


@dataclass(frozen=True, slots=True)
class Sequence:
    numbers: SequenceSet


@dataclass(frozen=True, slots=True)
class Flag:
    """A system flag, named as in ``flags.SYSTEM``, is set or is not."""

    bit_name: str
    present: bool = True


@dataclass(frozen=True, slots=True)
class Keyword:
    name: str
    present: bool = True


@dataclass(frozen=True, slots=True)
class Header:
    """Some field of this name contains ``value``; empty: the field exists."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Field:
    """A header that the store keeps in a column contains ``value``."""

    column: Column
    value: str


@dataclass(frozen=True, slots=True)
class Text:
    """Header or body contains ``value``."""

    value: str


@dataclass(frozen=True, slots=True)
class Body:
    value: str


@dataclass(frozen=True, slots=True)
class Larger:
    octets: int


@dataclass(frozen=True, slots=True)
class Smaller:
    octets: int


@dataclass(frozen=True, slots=True)
class InternalDate:
    op: DateOp
    date: datetime.date


@dataclass(frozen=True, slots=True)
class SentDate:
    op: DateOp
    date: datetime.date


@dataclass(frozen=True, slots=True)
class Attached:
    """It has an attachment. No key of IMAP says so; searches for people do."""


@dataclass(frozen=True, slots=True)
class ModSeq:
    """Modification sequence at or above ``modseq`` (RFC 7162 §3.1.5)."""

    modseq: int


@dataclass(frozen=True, slots=True)
class Recent:
    """Recent in this session."""


@dataclass(frozen=True, slots=True)
class New:
    """Recent and not seen."""


@dataclass(frozen=True, slots=True)
class Old:
    """Not recent."""


Node: TypeAlias = (
    All
    | And
    | Or
    | Not
    | Uid
    | Sequence
    | Flag
    | Keyword
    | Header
    | Field
    | Text
    | Body
    | Larger
    | Smaller
    | InternalDate
    | SentDate
    | Attached
    | ModSeq
    | Recent
    | New
    | Old
)


def children(node: Node) -> tuple[Node, ...]:
    """The nodes directly below."""
    match node:
        case And(items):
            return items
        case Or(a, b):
            return (a, b)
        case Not(a):
            return (a,)
    return ()


def check_bounds(tree: Node) -> None:
    """Refuse a tree too deep or too large to compile.

    Raises: ProtocolViolation.
    """
    level: list[Node] = [tree]
    nodes = depth = 0
    while level:
        nodes += len(level)
        depth += 1
        if nodes > MAX_NODES or depth > MAX_DEPTH:
            raise ProtocolViolation("Search is too complex")
        level = [below for node in level for below in children(node)]
