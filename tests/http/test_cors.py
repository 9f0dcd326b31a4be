from __future__ import annotations

import json

import pytest

from mailtwist.errors import ProtocolViolation
from mailtwist.http.cors import CLOSED, is_preflight, policy, read_policy

APP = "https://app.example.com"


def make(**members):
    return read_policy(json.dumps(members))


@pytest.mark.parametrize(
    ("allowed", "origin", "is_allowed"),
    [
        ([], APP, False),
        ([APP], APP, True),
        ([APP + "/"], APP, True),
        ([APP], "https://APP.example.com", True),
        ([APP], "http://app.example.com", False),
        ([APP], "https://app.example.com:8443", False),
        ([APP], "https://app.example.com.evil.net", False),
        ([APP], "null", False),
        (["*"], "https://any.example.net", True),
        (["https://*.example.com"], APP, True),
        (["https://*.example.com"], "https://a.b.example.com", True),
        (["https://*.example.com"], "https://example.com", False),
        (["https://*.example.com"], "https://.example.com", False),
        (["https://*.example.com"], "https://evil.net/.example.com", False),
        (["https://*.example.com"], "https://evil.net#.example.com", False),
        (["https://*.example.com"], "https://user@x.example.com", False),
        (["http://localhost:*"], "http://localhost:5173", True),
        (["http://localhost:*"], "http://localhost:5173@evil.net", False),
    ],
)
def test_which_origins_are_allowed(allowed, origin, is_allowed):
    found = make(allowed_origins=allowed)
    assert found.allows(origin) is is_allowed
    headers = dict(found.answer_headers(origin))
    assert ("Access-Control-Allow-Origin" in headers) is is_allowed


def test_without_configuration_nothing_is_said():
    assert policy("") is CLOSED
    assert CLOSED.answer_headers(APP) == ()
    assert CLOSED.preflight_headers(APP, "GET", "") is None


def test_an_allowed_origin_is_named_exactly():
    headers = dict(make(allowed_origins=[APP], allow_credentials=True).answer_headers(APP))
    assert headers["Access-Control-Allow-Origin"] == APP
    assert headers["Access-Control-Allow-Credentials"] == "true"
    assert headers["Vary"] == "Origin"
    assert "Location" in headers["Access-Control-Expose-Headers"]


def test_any_origin_never_comes_with_credentials():
    found = make(allowed_origins=["*"], allow_credentials=True, allowed_headers=["*"])
    headers = dict(found.answer_headers("https://evil.net"))
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in headers


def test_what_is_not_allowed_is_kept_apart_in_caches():
    assert make(allowed_origins=[APP]).answer_headers("") == (("Vary", "Origin"),)
    assert make(allowed_origins=[APP]).answer_headers("https://b.net") == (("Vary", "Origin"),)


@pytest.mark.parametrize(
    ("members", "method", "headers", "is_allowed"),
    [
        ({}, "PATCH", "", True),
        ({}, "POST", "Authorization, Content-Type", True),
        ({}, "TRACE", "", False),
        ({}, "POST", "x-own", False),
        ({"allowed_headers": ["X-Own"]}, "POST", "x-own", True),
        ({"allowed_headers": ["X-Own"]}, "POST", "authorization", False),
        ({"allowed_headers": ["*"]}, "POST", "x-own,x-other", True),
        ({"allowed_methods": ["get"]}, "GET", "", True),
        ({"allowed_methods": ["get"]}, "POST", "", False),
    ],
)
def test_a_preflight(members, method, headers, is_allowed):
    found = make(allowed_origins=[APP], max_age=600, **members)
    answer = found.preflight_headers(APP, method, headers)
    assert (answer is not None) is is_allowed
    if answer is not None:
        given = dict(answer)
        assert given["Access-Control-Allow-Origin"] == APP
        assert given["Access-Control-Max-Age"] == "600"
        assert method in given["Access-Control-Allow-Methods"]


def test_what_a_preflight_is():
    assert is_preflight("OPTIONS", APP, "POST")
    assert not is_preflight("OPTIONS", "", "POST")
    assert not is_preflight("OPTIONS", APP, "")
    assert not is_preflight("GET", APP, "POST")


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "[]",
        '{"allowed_origins": "https://a"}',
        '{"allowed_origins": [1]}',
        '{"allowed_methods": ["GET\\r\\nX: y"]}',
        '{"max_age": "x"}',
        json.dumps({"allowed_origins": ["x"] * 101}),
    ],
)
def test_what_cannot_be_read_opens_nothing(text):
    with pytest.raises(ProtocolViolation):
        read_policy(text)
    assert policy(text) is CLOSED
