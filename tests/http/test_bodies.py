from __future__ import annotations

import json
import time

import pytest

from mailtwist.errors import ProtocolViolation
from mailtwist.http.bodies import (
    MAX_DEPTH,
    MAX_DIGITS,
    UnsupportedType,
    is_json,
    parse_json,
    read_form,
    read_json,
    read_parameters,
)

MIB = 1 << 20


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": [1, 2.5, "x", null, true]}', {"a": [1, 2.5, "x", None, True]}),
        (b"\xef\xbb\xbf[]", []),
        (b'"\\u00e9 \\ud83d\\ude00"', "é 😀"),
        (b'"\\\\u0000"', "\\u0000"),
        (b"1" * MAX_DIGITS, int("1" * MAX_DIGITS)),
        (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, None),
        (b'"' + b"[" * 1000 + b'"', "[" * 1000),
        (b'["\\"' + b"{[" * 100 + b'"]', ['"' + "{[" * 100]),
        (json.dumps([{"a": [1]}] * 1000).encode(), [{"a": [1]}] * 1000),
    ],
)
def test_json_is_read(body, value):
    got = parse_json(body)
    if value is not None:
        assert got == value


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"nope",
        b"'a'",
        b"[1,]",
        b"\xff",
        b'"\xc3"',
        b"NaN",
        b"[Infinity]",
        b"-Infinity",
        b"1e999",
        b"-1e400",
        b"1" * (MAX_DIGITS + 1),
        b"0." + b"1" * 10_000,
        b"[" + b"9" * 10_000 + b"]",
        b'"\\ud800"',
        b'{"\\udfff": 1}',
        b'["\\u0000"]',
        b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
        b"[" * 100_000,
        b"]" * 100_000,
    ],
)
def test_json_out_of_bounds_is_refused(body):
    with pytest.raises(ProtocolViolation) as caught:
        parse_json(body)
    assert caught.value.http_status == 400
    assert caught.value.text


@pytest.mark.parametrize(
    "body",
    [
        b"[" * MIB,
        b"[]" * (MIB // 2),
        b"[[],[" * (MIB // 5),
        b"1" * MIB,
        b"[" + b"1" * MAX_DIGITS + b",",
        b'"' * MIB,
        b'\\"' * (MIB // 2),
        b'["\\u0041' + b"a" * MIB,
        b'{"a":{"a":{"b":"' * (MIB // 16),
        b"1e" + b"9" * MIB,
    ],
)
def test_hostile_bodies_cost_little(body):
    began = time.process_time()
    with pytest.raises(ProtocolViolation):
        parse_json(body)
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    ("content_type", "is_read"),
    [
        ("", True),
        ("application/json", True),
        ("application/json;charset=utf-8", True),
        ("application/vnd.api+json", True),
        ("Application/VND.API+JSON; ext=bulk", True),
        ("application/x-www-form-urlencoded", True),
        ("text/plain", True),
        ("text/xml", False),
        ("image/png", False),
        ("multipart/form-data; boundary=x", False),
        ("application/javascript", False),
        ("nonsense", False),
    ],
)
def test_a_body_is_read_when_its_type_may_be_json(content_type, is_read):
    if is_read:
        assert read_json(b'{"a": 1}', content_type) == {"a": 1}
    else:
        with pytest.raises(UnsupportedType) as caught:
            read_json(b'{"a": 1}', content_type)
        assert caught.value.http_status == 415


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded"])
def test_what_a_foreign_page_can_send_is_not_read_on_a_cookie(content_type):
    with pytest.raises(UnsupportedType):
        read_json(b"{}", content_type, is_strict=True)
    assert read_json(b"{}", "application/json", is_strict=True) == {}


@pytest.mark.parametrize("body", [b"", b" \r\n"])
def test_no_body_is_an_empty_object(body):
    assert read_json(body) == {}
    assert read_json(body, "text/xml", is_strict=True) == {}


def test_which_types_are_json():
    assert is_json("application/json")
    assert is_json("application/problem+json; charset=utf-8")
    assert not is_json("text/json")
    assert not is_json("json")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (b"", {}),
        (b"a=1&b=2&a=3", {"a": ("1", "3"), "b": ("2",)}),
        (b"page[size]=5&page%5Bnumber%5D=2", {"page[size]": ("5",), "page[number]": ("2",)}),
        (b'query=[{"column":"a","value":"b c"}]', {"query": ('[{"column":"a","value":"b c"}]',)}),
        (b"a=%C3%A9+x&b=", {"a": ("é x",), "b": ("",)}),
    ],
)
def test_parameters(query, found):
    assert read_parameters(query) == found


@pytest.mark.parametrize(
    "query", [b"a=%ff", b"a=\xff", b"a=%00", b"%00=1", b"&".join([b"a=1"] * 101), b"a" * 70_000]
)
def test_bad_parameters_are_refused(query):
    with pytest.raises(ProtocolViolation):
        read_parameters(query)


def test_forms():
    form = "application/x-www-form-urlencoded"
    assert read_form(b"email=a%40x.org&password=p", form) == {
        "email": ("a@x.org",),
        "password": ("p",),
    }
    assert read_form(b'{"a": "b=c"}', form) == {}
    assert read_form(b"a=b", "text/plain") == {}
