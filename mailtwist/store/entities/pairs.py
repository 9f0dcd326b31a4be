"""Ids that are pairs of numbers, in filters: comparisons with them become such with numbers.

So the statement names indexed columns, and an id of another kind is simply that of no row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.filters import AllOf, AnyOf, Comparison, Operator, Tree
from mailtwist.store.entities import ids
from mailtwist.store.entities.ids import Kind
from mailtwist.store.entities.model import Column, Type

NONE: Final = AnyOf(())
ALL: Final = AllOf(())


@dataclass(frozen=True, slots=True)
class Pair:
    """The kind of the ids of a column, and the terms that its two numbers are compared with."""

    kind: Kind
    first: str
    second: str


def number(name: str) -> Column:
    """The column of a term that only this module compares."""
    return Column(name, Type.INTEGER, lowest=0, highest=2**63 - 1)


def rewritten(tree: Tree | None, pairs: Mapping[str, Pair]) -> Tree | None:
    """Replace the comparisons with ids. Raises: ProtocolViolation naming the column."""
    match tree:
        case Comparison() if tree.column in pairs:
            return _compared(tree, pairs[tree.column])
        case AllOf(items):
            return AllOf(tuple(_kept(item, pairs) for item in items))
        case AnyOf(items):
            return AnyOf(tuple(_kept(item, pairs) for item in items))
    return tree


def _kept(tree: Tree, pairs: Mapping[str, Pair]) -> Tree:
    found = rewritten(tree, pairs)
    assert found is not None
    return found


def _compared(comparison: Comparison, pair: Pair) -> Tree:
    match comparison.operator:
        case Operator.EQ:
            return _is(pair, comparison.value)
        case Operator.NE:
            return _is_not(pair, comparison.value)
        case Operator.IN:
            return AnyOf(tuple(_is(pair, value) for value in comparison.value))
        case Operator.NOT_IN:
            return AllOf(tuple(_is_not(pair, value) for value in comparison.value))
        case Operator.EMPTY:
            return NONE
        case Operator.NOT_EMPTY:
            return ALL
    raise ProtocolViolation(f"{comparison.column} is an id: it can only be equal or not")


def _is(pair: Pair, value: Any) -> Tree:
    # An id of another kind is none of a row.
    return NONE if (halves := _halves(pair, value, Operator.EQ)) is None else AllOf(halves)


def _is_not(pair: Pair, value: Any) -> Tree:
    return ALL if (halves := _halves(pair, value, Operator.NE)) is None else AnyOf(halves)


def _halves(pair: Pair, value: Any, operator: Operator) -> tuple[Tree, ...] | None:
    """The comparisons with the two numbers of an id; None: it is none of this kind."""
    key = ids.unpack(pair.kind, str(value))
    if key is None:
        return None
    return tuple(
        Comparison(name, operator, half)
        for name, half in zip((pair.first, pair.second), key, strict=True)
    )
