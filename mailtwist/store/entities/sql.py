"""Filters, texts to look for and orders as SQL over the terms of an entity.

Nothing of a client stands in a statement but as a parameter. What may be NULL is compared so
that a negation finds the rows that its opposite does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import (
    ColumnClause,
    ColumnElement,
    Connection,
    Text,
    UnaryExpression,
    and_,
    cast,
    false,
    not_,
    or_,
    true,
)
from sqlalchemy.sql.expression import nulls_first, nulls_last

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.filters import AllOf, AnyOf, Comparison, Operator, Tree
from mailtwist.store.entities import values
from mailtwist.store.entities.model import Column, Type
from mailtwist.store.sql import is_postgresql

MAX_WORDS: Final = 20


@dataclass(frozen=True, slots=True)
class Term:
    """What stands in SQL for a column. That of a relation to one is the id of the other row."""

    expression: ColumnElement[Any]
    column: Column

    @property
    def is_text(self) -> bool:
        return self.column.type in _TEXTS


Terms = Mapping[str, Term]
_TEXTS: Final = frozenset({Type.TEXT, Type.JSON, Type.LIST})
_UNORDERED: Final = frozenset({Type.BOOLEAN})
_WITHOUT_PATTERN: Final = frozenset({Type.BOOLEAN, Type.TIMESTAMP})


def condition(connection: Connection, terms: Terms, tree: Tree | None) -> ColumnElement[bool]:
    """Compile a tree; None holds for every row. Raises: ProtocolViolation naming the column."""
    match tree:
        case None:
            return true()
        case Comparison():
            return _compare(connection, _term(terms, tree.column), tree)
        case AllOf(items):
            return and_(true(), *(condition(connection, terms, item) for item in items))
        case AnyOf(items):
            return or_(false(), *(condition(connection, terms, item) for item in items))


def _term(terms: Terms, name: str) -> Term:
    term = terms.get(name)
    if term is None:
        raise ProtocolViolation(f"invalid column {name[:100]}")
    return term


def _compare(connection: Connection, term: Term, comparison: Comparison) -> ColumnElement[bool]:
    return _COMPARE[comparison.operator](connection, term, comparison.value)


def operand(term: Term, value: Any) -> Any:
    """A value as the store keeps it, to be compared with the term.

    Raises: ProtocolViolation naming the column.
    """
    if not term.is_text:
        # What could never be written may still be asked for.
        return values.stored(replace(term.column, lowest=-(2**63), highest=2**63 - 1), value)
    text = _spelled(value)
    if not values.is_storable(text):
        raise ProtocolViolation(f"invalid value for {term.column.name}")
    return text.lower() if term.column.is_folded else text


def _spelled(value: Any) -> str:
    """A scalar of JSON as text; a huge number is not worth its digits."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value) if abs(value) < 10**40 else ""
    return str(value)


# -- one function for each kind of comparison -----------------------------------------------


def _equal(connection: Connection, term: Term, value: Any) -> ColumnElement[bool]:
    same: ColumnElement[bool] = term.expression == operand(term, value)
    return same


def _differs(connection: Connection, term: Term, value: Any) -> ColumnElement[bool]:
    return term.expression.is_distinct_from(operand(term, value))


def _in(connection: Connection, term: Term, several: Sequence[Any]) -> ColumnElement[bool]:
    wanted = [operand(term, value) for value in several if value is not None]
    found: ColumnElement[bool] = term.expression.in_(wanted) if wanted else false()
    return or_(found, _empty(connection, term, None)) if None in several else found


def _not_in(connection: Connection, term: Term, several: Sequence[Any]) -> ColumnElement[bool]:
    wanted = [operand(term, value) for value in several if value is not None]
    others: ColumnElement[bool] = true()
    if wanted:
        others = or_(term.expression.not_in(wanted), term.expression.is_(None))
    return and_(others, _filled(connection, term, None)) if None in several else others


def _empty(connection: Connection, term: Term, value: Any) -> ColumnElement[bool]:
    nothing = term.expression.is_(None)
    return or_(nothing, term.expression == "") if term.is_text else nothing


def _filled(connection: Connection, term: Term, value: Any) -> ColumnElement[bool]:
    something = term.expression.is_not(None)
    return and_(something, term.expression != "") if term.is_text else something


def _is_true(connection: Connection, term: Term, value: Any) -> ColumnElement[bool]:
    return term.expression == _truth(term, True)


def _is_false(connection: Connection, term: Term, value: Any) -> ColumnElement[bool]:
    return term.expression == _truth(term, False)


def _truth(term: Term, value: bool) -> int:
    if term.column.type not in {Type.BOOLEAN, Type.INTEGER}:
        raise ProtocolViolation(f"{term.column.name} is neither true nor false")
    return int(value)


def _ordered(
    compare: Callable[[ColumnElement[Any], Any], ColumnElement[bool]],
) -> Callable[[Connection, Term, Any], ColumnElement[bool]]:
    def compiled(connection: Connection, term: Term, value: Any) -> ColumnElement[bool]:
        if term.column.type in _UNORDERED:
            raise ProtocolViolation(f"{term.column.name} has no order")
        return compare(_by_octets(connection, term), operand(term, value))

    return compiled


def _by_octets(connection: Connection, term: Term) -> ColumnElement[Any]:
    """The term in the same order on both databases: PostgreSQL's texts follow some language."""
    if term.is_text and is_postgresql(connection):
        return term.expression.collate("C")
    return term.expression


def _like(connection: Connection, term: Term, value: Any) -> ColumnElement[bool]:
    # The pattern is the caller's, and without an escape on either database.
    pattern = _pattern_operand(term, value)
    if is_postgresql(connection):
        return _pattern_side(term).ilike(pattern, escape="")
    return _pattern_side(term).like(pattern)


def _not_like(connection: Connection, term: Term, value: Any) -> ColumnElement[bool]:
    return or_(term.expression.is_(None), not_(_like(connection, term, value)))


def _pattern_side(term: Term) -> ColumnElement[Any]:
    if term.column.type in _WITHOUT_PATTERN:
        raise ProtocolViolation(f"{term.column.name} is no text")
    return term.expression if term.is_text else cast(term.expression, Text)


def _pattern_operand(term: Term, value: Any) -> str:
    text = _spelled(value)
    if not values.is_storable(text):
        raise ProtocolViolation(f"invalid value for {term.column.name}")
    return text


def contains(connection: Connection, term: Term, *words: str) -> ColumnElement[bool]:
    """The term contains these words one after the other, in any case."""
    pattern = "%" + "%".join(_escaped(_pattern_operand(term, word)) for word in words) + "%"
    side = _pattern_side(term)
    if is_postgresql(connection):
        return side.ilike(pattern, escape="\\")
    return side.like(pattern, escape="\\")


def _escaped(word: str) -> str:
    return word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _words(value: Any) -> list[str]:
    words = _spelled(value).replace("%", " ").split()
    if len(words) > MAX_WORDS:
        raise ProtocolViolation(f"query: more than {MAX_WORDS} words")
    return words


def _fuzzy(connection: Connection, term: Term, value: Any) -> ColumnElement[bool]:
    return contains(connection, term, *_words(value))


def _fuzzy_any(connection: Connection, term: Term, value: Any) -> ColumnElement[bool]:
    return or_(false(), *(contains(connection, term, word) for word in _words(value)))


def _fuzzy_all(connection: Connection, term: Term, value: Any) -> ColumnElement[bool]:
    return and_(true(), *(contains(connection, term, word) for word in _words(value)))


_COMPARE: Final[Mapping[Operator, Callable[[Connection, Term, Any], ColumnElement[bool]]]] = {
    Operator.EQ: _equal,
    Operator.NE: _differs,
    Operator.LT: _ordered(lambda term, value: term < value),
    Operator.LE: _ordered(lambda term, value: term <= value),
    Operator.GT: _ordered(lambda term, value: term > value),
    Operator.GE: _ordered(lambda term, value: term >= value),
    Operator.LIKE: _like,
    Operator.NOT_LIKE: _not_like,
    Operator.IN: _in,
    Operator.NOT_IN: _not_in,
    Operator.EMPTY: _empty,
    Operator.NOT_EMPTY: _filled,
    Operator.TRUE: _is_true,
    Operator.FALSE: _is_false,
    Operator.FUZZY: _fuzzy,
    Operator.FUZZY_ANY: _fuzzy_any,
    Operator.FUZZY_ALL: _fuzzy_all,
}


# -- text and order -------------------------------------------------------------------------


def mentions(
    connection: Connection, terms: Terms, labels: Sequence[str], text: str
) -> ColumnElement[bool]:
    """One of the labels contains the text; no text holds for every row."""
    if not text:
        return true()
    return or_(false(), *(contains(connection, terms[label], text) for label in labels))


def ordering(
    connection: Connection, terms: Terms, sort: Sequence[tuple[str, bool]]
) -> list[UnaryExpression[Any]]:
    """The pieces of ORDER BY; empty values come first, or last when descending."""
    pairs = [(_term(terms, name), down) for name, down in sort]
    return [_ordered_by(connection, term, down) for term, down in pairs if not _is_constant(term)]


def _is_constant(term: Term) -> bool:
    """Whether every row has the same, which orders nothing and PostgreSQL refuses."""
    return isinstance(term.expression, ColumnClause) and term.expression.is_literal


def _ordered_by(connection: Connection, term: Term, is_descending: bool) -> UnaryExpression[Any]:
    side = _by_octets(connection, term)
    ordered = side.desc() if is_descending else side.asc()
    if not is_postgresql(connection):  # where this is so anyhow, and said aloud hides an index
        return ordered
    placed: UnaryExpression[Any] = nulls_last(ordered) if is_descending else nulls_first(ordered)
    return placed
