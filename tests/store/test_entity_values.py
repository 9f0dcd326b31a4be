"""What clients may write for a value, and what they read."""

from __future__ import annotations

import json

import pytest

from mailtwist.errors import ProtocolViolation
from mailtwist.store.entities.model import Column, Type
from mailtwist.store.entities.values import iso, moment, renderer, stored

MOMENT = 1_800_000_000_000_000

# type, what is written, what is kept
KEPT: list[tuple[Type, object, object]] = [
    (Type.TEXT, "ä\u2028", "ä\u2028"),
    (Type.INTEGER, "20", 20),
    (Type.INTEGER, " -3 ", -3),
    (Type.INTEGER, 7.0, 7),
    (Type.INTEGER, "7.00", 7),
    (Type.NUMBER, "1.5", 1.5),
    (Type.NUMBER, 2, 2.0),
    (Type.NUMBER, "1e3", 1000.0),
    (Type.BOOLEAN, "On", 1),
    (Type.BOOLEAN, 0, 0),
    (Type.TIMESTAMP, "2027-01-15T08:00:00Z", MOMENT),
    (Type.TIMESTAMP, "2027-01-15T10:00:00+02:00", MOMENT),
    (Type.TIMESTAMP, "2027-01-15 08:00:00", MOMENT),
    (Type.TIMESTAMP, "2027-01-15", MOMENT - 8 * 3_600_000_000),
    (Type.TIMESTAMP, 1_800_000_000, MOMENT),
    (Type.TIMESTAMP, "1800000000", MOMENT),
    (Type.TIMESTAMP, 1_800_000_000_000, MOMENT),
    (Type.TIMESTAMP, MOMENT, MOMENT),
    (Type.JSON, '{"a": [1]}', '{"a": [1]}'),
    (Type.JSON, {"a": [1]}, '{"a": [1]}'),
    (Type.JSON, "", ""),
    (Type.LIST, ["a", "ü"], '["a", "ü"]'),
    (Type.LIST, '["a"]', '["a"]'),
    (Type.LIST, "a", '["a"]'),
    (Type.TEXT, None, None),
    (Type.LIST, None, None),
]


@pytest.mark.parametrize("type_, written, kept", KEPT)
def test_a_value_is_kept_in_one_form(type_: Type, written: object, kept: object) -> None:
    assert stored(Column("c", type_), written) == kept


REFUSED: list[tuple[Type, object]] = [
    (Type.TEXT, 5),
    (Type.TEXT, ["a"]),
    (Type.TEXT, "a\0"),
    (Type.TEXT, "\udfff"),
    (Type.TEXT, "a" * 10_001),
    (Type.INTEGER, ""),
    (Type.INTEGER, "0x10"),
    (Type.INTEGER, "١"),
    (Type.INTEGER, "1e3"),
    (Type.INTEGER, 2**54),
    (Type.INTEGER, "9" * 100_000),
    (Type.INTEGER, float("nan")),
    (Type.INTEGER, None.__class__),
    (Type.NUMBER, "nan"),
    (Type.NUMBER, "1" * 100_000),
    (Type.NUMBER, float("inf")),
    (Type.NUMBER, 10**400),
    (Type.NUMBER, True),
    (Type.BOOLEAN, "yes please"),
    (Type.BOOLEAN, 0.5),
    (Type.BOOLEAN, {}),
    (Type.TIMESTAMP, ""),
    (Type.TIMESTAMP, True),
    (Type.TIMESTAMP, -1),
    (Type.TIMESTAMP, 10**400),
    (Type.TIMESTAMP, "2027-13-01"),
    (Type.TIMESTAMP, "0001-01-01T00:00:00+23:59" * 2),
    (Type.TIMESTAMP, []),
    (Type.JSON, "{"),
    (Type.JSON, "[" * 9_000),
    (Type.LIST, [1]),
    (Type.LIST, {"a": "b"}),
    (Type.LIST, "[" * 9_000),
    (Type.LIST, ["a"] * 1_001),
    (Type.LIST, ["\0"]),
]


@pytest.mark.parametrize("type_, written", REFUSED)
def test_what_means_nothing_is_refused_by_name(type_: Type, written: object) -> None:
    with pytest.raises(ProtocolViolation, match="column_name"):
        stored(Column("column_name", type_), written)


def test_values_are_read_in_one_form() -> None:
    assert renderer(Column("c", Type.BOOLEAN))(1) is True
    assert renderer(Column("c", Type.TIMESTAMP))(MOMENT + 5) == "2027-01-15T08:00:00.000005Z"
    assert renderer(Column("c", Type.LIST))(json.dumps(["a"])) == ["a"]
    assert renderer(Column("c", Type.JSON))("{}") == "{}"


@pytest.mark.parametrize("microseconds", [0, 1, MOMENT, MOMENT + 999_999])
def test_a_moment_that_is_read_may_be_written_back(microseconds: int) -> None:
    assert moment(iso(microseconds)) == microseconds


def test_a_moment_beyond_the_calendar_is_the_last_of_it() -> None:
    assert iso(2**62) == "9999-12-31T23:59:59Z"
