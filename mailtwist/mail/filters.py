"""Which rows of a table are asked for: a tree of comparisons, and its JSON form in requests.

The JSON form is a list of ``{"column", "operator", "value", "logical_group"?}``: all of them
must hold, but of those with the same ``logical_group`` one is enough. Values stay as JSON gave
them; what they mean depends on the type of the column.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NoReturn, TypeAlias

from mailtwist.errors import ProtocolViolation

MAX_OCTETS: Final = 64 << 10
MAX_ITEMS: Final = 100
MAX_DEPTH: Final = 4
MAX_VALUES: Final = 1_000
MAX_TEXT: Final = 10_000


class Operator(StrEnum):
    EQ = "is"
    NE = "is not"
    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="
    LIKE = "like"  # the caller writes % and _
    NOT_LIKE = "not like"
    IN = "in"
    NOT_IN = "none of"
    EMPTY = "is empty"
    NOT_EMPTY = "is not empty"
    TRUE = "is true"
    FALSE = "is false"
    FUZZY = "fuzzy"  # all words, in this order
    FUZZY_ANY = "fuzzy_any"
    FUZZY_ALL = "fuzzy_all"


_SPELLINGS: Final[dict[Operator, str]] = {
    Operator.EQ: "is, eq, =, equals",
    Operator.NE: "is not, neq, ne, not eq, !=, <>, not equals",
    Operator.LT: "before, less than, lt, <",
    Operator.LE: "lte, le, <=, less than or equal",
    Operator.GT: "after, more than, greater than, gt, >",
    Operator.GE: "gte, ge, >=, more than or equal",
    Operator.LIKE: "contains, like, ilike, begins with, ends with",
    Operator.NOT_LIKE: "not contains, not like, not ilike, notlike, notilike",
    Operator.IN: "in, any of",
    Operator.NOT_IN: "none of, not in, notin",
    Operator.EMPTY: "is empty, empty, is null, isnull",
    Operator.NOT_EMPTY: "is not empty, not empty, is not null, isnotnull",
    Operator.TRUE: "is true, istrue",
    Operator.FALSE: "is false, isfalse",
    Operator.FUZZY: "fuzzy",
    Operator.FUZZY_ANY: "fuzzy_any",
    Operator.FUZZY_ALL: "fuzzy_all",
}
# As people write them, in lower case.
OPERATORS: Final[dict[str, Operator]] = {
    word: operator for operator, words in _SPELLINGS.items() for word in words.split(", ")
} | {"isnot": Operator.NE}
WITHOUT_VALUE: Final = frozenset(
    {Operator.EMPTY, Operator.NOT_EMPTY, Operator.TRUE, Operator.FALSE}
)
WITH_LIST: Final = frozenset({Operator.IN, Operator.NOT_IN})


@dataclass(frozen=True, slots=True)
class Comparison:
    """``value``: a text, number, boolean or None; a tuple of them for ``in`` and ``none of``."""

    column: str
    operator: Operator
    value: Any = None


@dataclass(frozen=True, slots=True)
class AllOf:
    items: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    items: tuple[Tree, ...]


Tree: TypeAlias = Comparison | AllOf | AnyOf


def comparisons(tree: Tree) -> Iterator[Comparison]:
    """Every comparison of a tree."""
    if isinstance(tree, Comparison):
        yield tree
        return
    for item in tree.items:
        yield from comparisons(item)


def required(tree: Tree | None) -> tuple[Comparison, ...]:
    """The comparisons that every row must satisfy: those below no OR of several."""
    match tree:
        case Comparison():
            return (tree,)
        case AllOf(items):
            return tuple(found for item in items for found in required(item))
        case AnyOf((one,)):
            return required(one)
    return ()


def both(a: Tree | None, b: Tree | None) -> Tree | None:
    """A tree for the rows that satisfy both; None asks for nothing."""
    if a is None or b is None:
        return a or b
    return AllOf((a, b))


def parse_query(text: str) -> Tree | None:
    """Read the JSON form; None when it is none, or empty.

    Raises: ProtocolViolation, whose text says what is wrong.
    """
    text = text.strip()
    if not text.startswith("["):
        return None
    items = _loaded(text)
    if len(items) > MAX_ITEMS:
        raise ProtocolViolation(f"query: more than {MAX_ITEMS} items")
    alone: list[Tree] = []
    groups: dict[str, list[Tree]] = {}
    for item in items:
        compared, group = _item(item)
        (groups.setdefault(group, []) if group else alone).append(compared)
    alone.extend(AnyOf(tuple(members)) for members in groups.values())
    return AllOf(tuple(alone)) if alone else None


def _loaded(text: str) -> list[Any]:
    if len(text.encode("utf-8", "replace")) > MAX_OCTETS:
        raise ProtocolViolation(f"query: more than {MAX_OCTETS} octets")
    if _depth(text) > MAX_DEPTH:
        raise ProtocolViolation(f"query: nested deeper than {MAX_DEPTH}")
    try:
        items = json.loads(text, parse_constant=_no_constant)
    except ValueError as error:
        raise ProtocolViolation("query: not valid JSON") from error
    assert isinstance(items, list)  # it begins with a bracket
    return items


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _depth(text: str) -> int:
    """How deep brackets and braces nest outside of strings, in one pass without recursion."""
    depth = deepest = 0
    in_string = is_escaped = False
    for character in text:
        if in_string:
            if is_escaped:
                is_escaped = False
            elif character == "\\":
                is_escaped = True
            elif character == '"':
                in_string = False
        elif character == '"':
            in_string = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _item(item: Any) -> tuple[Comparison, str]:
    """One comparison and the group it is in, "" for none."""
    if not isinstance(item, dict):
        raise ProtocolViolation("query: every item must be an object")
    column, operator = item.get("column", item.get("column_name")), item.get("operator", "is")
    if not isinstance(column, str) or not column:
        raise ProtocolViolation("query: an item without column")
    if not isinstance(operator, str):
        raise ProtocolViolation(f"query: {column[:100]}: the operator must be a text")
    known = OPERATORS.get(" ".join(operator.lower().split()))
    if known is None:
        raise ProtocolViolation(f"query: {column[:100]}: unknown operator {operator[:100]}")
    group = item.get("logical_group")
    if group is not None and not isinstance(group, str | int):
        raise ProtocolViolation(f"query: {column[:100]}: the logical_group must be a text")
    return comparison(column, known, item.get("value")), "" if group is None else str(group)


def comparison(column: str, operator: Operator, value: Any = None) -> Comparison:
    """Make a comparison with a value as JSON gives it. Raises: ProtocolViolation."""
    if operator in WITHOUT_VALUE:
        return Comparison(column, operator)
    if isinstance(value, list | tuple):
        return _listed(column, operator, value)
    _check_scalar(column, value)
    if operator in WITH_LIST:
        return Comparison(column, operator, _split(value))
    if value is None:
        return _compared_to_nothing(column, operator)
    return Comparison(column, operator, value)


_WITH_LISTS: Final = {
    Operator.EQ: Operator.IN,
    Operator.IN: Operator.IN,
    Operator.NE: Operator.NOT_IN,
    Operator.NOT_IN: Operator.NOT_IN,
    Operator.FUZZY: Operator.FUZZY,
    Operator.FUZZY_ANY: Operator.FUZZY_ANY,
    Operator.FUZZY_ALL: Operator.FUZZY_ALL,
}


def _listed(column: str, operator: Operator, values: list[Any] | tuple[Any, ...]) -> Comparison:
    meant = _WITH_LISTS.get(operator)
    if meant is None:
        raise ProtocolViolation(f"query: {column[:100]}: {operator} takes no list")
    if len(values) > MAX_VALUES:
        raise ProtocolViolation(f"query: {column[:100]}: more than {MAX_VALUES} values")
    for value in values:
        _check_scalar(column, value)
    if meant in WITH_LIST:
        return Comparison(column, meant, tuple(values))
    return Comparison(column, meant, " ".join(str(value) for value in values))


def _split(value: Any) -> tuple[Any, ...]:
    """One value, or a text of several with commas between."""
    if isinstance(value, str) and "," in value:
        return tuple(part.strip() for part in value.split(",", MAX_VALUES))
    return (value,)


def _compared_to_nothing(column: str, operator: Operator) -> Comparison:
    if operator is Operator.EQ:
        return Comparison(column, Operator.EMPTY)
    if operator is Operator.NE:
        return Comparison(column, Operator.NOT_EMPTY)
    raise ProtocolViolation(f"query: {column[:100]}: {operator} needs a value")


def _check_scalar(column: str, value: Any) -> None:
    if isinstance(value, list | dict | tuple):
        raise ProtocolViolation(f"query: {column[:100]}: a value must be a text or a number")
    if isinstance(value, str) and len(value) > MAX_TEXT:
        raise ProtocolViolation(f"query: {column[:100]}: a value is too long")
