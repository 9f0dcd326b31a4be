"""The JSON form of filters: what it means, and what of it is refused at once."""

from __future__ import annotations

import json
import time

import pytest

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.filters import (
    MAX_ITEMS,
    OPERATORS,
    AllOf,
    AnyOf,
    Comparison,
    Operator,
    both,
    comparisons,
    parse_query,
    required,
)

NAME = Comparison("name", Operator.EQ, "a")


def item(operator: str, value: object = "x", **more: object) -> dict[str, object]:
    return {"column": "name", "operator": operator, "value": value, **more}


@pytest.mark.parametrize("text", ["", "  ", "name", "{}", "null", "x[1]"])
def test_what_is_no_list_is_no_filter(text: str) -> None:
    assert parse_query(text) is None


def test_an_empty_list_asks_for_nothing() -> None:
    assert parse_query(" [] ") is None


# what is written, what is meant
MEANT = [
    ("is", "x", Comparison("name", Operator.EQ, "x")),
    ("EQ", 5, Comparison("name", Operator.EQ, 5)),
    ("is not", "x", Comparison("name", Operator.NE, "x")),
    ("neq", True, Comparison("name", Operator.NE, True)),
    ("is  not", None, Comparison("name", Operator.NOT_EMPTY)),
    ("is", None, Comparison("name", Operator.EMPTY)),
    ("before", 3, Comparison("name", Operator.LT, 3)),
    ("less than", 3, Comparison("name", Operator.LT, 3)),
    ("after", 3, Comparison("name", Operator.GT, 3)),
    ("more than", 3, Comparison("name", Operator.GT, 3)),
    ("gte", 3, Comparison("name", Operator.GE, 3)),
    ("contains", "%x%", Comparison("name", Operator.LIKE, "%x%")),
    ("begins with", "x%", Comparison("name", Operator.LIKE, "x%")),
    ("ilike", "x", Comparison("name", Operator.LIKE, "x")),
    ("not contains", "%x%", Comparison("name", Operator.NOT_LIKE, "%x%")),
    ("in", "x, y", Comparison("name", Operator.IN, ("x", "y"))),
    ("any of", ["x", 1], Comparison("name", Operator.IN, ("x", 1))),
    ("is", ["x", "y"], Comparison("name", Operator.IN, ("x", "y"))),
    ("none of", ["x"], Comparison("name", Operator.NOT_IN, ("x",))),
    ("is empty", "ignored", Comparison("name", Operator.EMPTY)),
    ("is true", None, Comparison("name", Operator.TRUE)),
    ("is false", None, Comparison("name", Operator.FALSE)),
    ("fuzzy_any", ["x", "y"], Comparison("name", Operator.FUZZY_ANY, "x y")),
]


@pytest.mark.parametrize("operator, value, meant", MEANT)
def test_an_operator_is_understood(operator: str, value: object, meant: Comparison) -> None:
    assert parse_query(json.dumps([item(operator, value)])) == AllOf((meant,))


def test_the_operator_of_an_item_without_one_is_equality() -> None:
    assert parse_query('[{"column": "name", "value": "a"}]') == AllOf((NAME,))


def test_items_of_one_logical_group_are_alternatives() -> None:
    text = json.dumps(
        [
            item("is", "a", logical_group="g"),
            item("is", "b"),
            item("is", "c", logical_group="g"),
            item("is", "d", logical_group=2),
        ]
    )
    a, b, c, d = (Comparison("name", Operator.EQ, each) for each in "abcd")
    tree = parse_query(text)
    assert tree == AllOf((b, AnyOf((a, c)), AnyOf((d,))))
    assert set(comparisons(tree)) == {a, b, c, d}
    assert required(tree) == (b, d)


def test_both_joins_what_there_is() -> None:
    assert both(None, None) is None
    assert both(NAME, None) is NAME
    assert both(None, NAME) is NAME
    assert both(NAME, NAME) == AllOf((NAME, NAME))


DEEP = "[" * 5 + "]" * 5
BAD = [
    ("[", "not valid JSON"),
    ("[1]", "every item must be an object"),
    ("[{}]", "without column"),
    ('[{"column": 5}]', "without column"),
    ('[{"column": "name", "operator": 5}]', "operator must be a text"),
    ('[{"column": "name", "operator": "drop"}]', "unknown operator drop"),
    ('[{"column": "name", "operator": "lt"}]', "needs a value"),
    ('[{"column": "name", "operator": "lt", "value": [1]}]', "takes no list"),
    ('[{"column": "name", "value": {"a": 1}}]', "must be a text or a number"),
    ('[{"column": "name", "operator": "in", "value": [[1]]}]', "must be a text or a number"),
    ('[{"column": "name", "value": NaN}]', "not valid JSON"),
    ('[{"column": "name", "value": 1, "logical_group": []}]', "logical_group must be a text"),
    (DEEP, "nested deeper"),
    (json.dumps([item("is")] * (MAX_ITEMS + 1)), "more than 100 items"),
    (json.dumps([item("in", list(range(1001)))]), "more than 1000 values"),
    (json.dumps([item("is", "x" * 10_001)]), "too long"),
    (json.dumps([item("is", "x" * 70_000)]), "octets"),
]


@pytest.mark.parametrize("text, reason", BAD)
def test_what_is_wrong_is_said(text: str, reason: str) -> None:
    with pytest.raises(ProtocolViolation, match=reason):
        parse_query(text)


def test_a_number_of_ten_thousand_digits_is_refused_at_once() -> None:
    text = f'[{{"column": "name", "value": {"9" * 10_000}}}]'
    start = time.perf_counter()
    with pytest.raises(ProtocolViolation):
        parse_query(text)
    assert time.perf_counter() - start < 0.5


def test_brackets_in_texts_do_not_nest() -> None:
    value = '[[[[[[{{{{"\\"' * 10
    assert parse_query(json.dumps([item("is", value)])) == AllOf(
        (Comparison("name", Operator.EQ, value),)
    )


def test_every_operator_has_a_spelling() -> None:
    assert set(OPERATORS.values()) == set(Operator)
