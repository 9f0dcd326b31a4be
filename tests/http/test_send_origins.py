"""``send.allowed_hosts``: which pages it stands for, and which it does not."""

from __future__ import annotations

import pytest

from mailtwist.http.send.origins import policy_of

PREFLIGHT = "content-type, x-api-key"


@pytest.mark.parametrize(
    ("item", "origin", "is_allowed"),
    [
        ("example.com", "https://example.com", True),
        ("example.com", "http://example.com:8080", True),
        ("example.com", "https://www.example.com", False),
        ("example.com", "https://example.com.evil.example", False),
        ("example.com", "https://notexample.com", False),
        ("Example.COM.", "https://example.com", True),
        ("example.com:8080", "http://example.com:8080", True),
        ("example.com:8080", "http://example.com", False),
        ("localhost:3000", "http://localhost:3000", True),
        ("https://example.com", "https://example.com", True),
        ("https://example.com/", "https://example.com", True),
        ("https://example.com/form.html", "https://example.com", True),
        ("https://example.com:443", "https://example.com", True),
        ("https://example.com", "http://example.com", False),
        ("https://example.com", "https://example.com:8443", False),
        ("*.example.com", "https://www.example.com", True),
        ("*.example.com", "https://a.b.example.com:81", True),
        ("*.example.com", "https://example.com", False),
        ("*.example.com", "https://.example.com", False),
        ("*.example.com", "https://xexample.com", False),
        ("https://*.example.com", "http://a.example.com", False),
        ("bücher.example", "https://xn--bcher-kva.example", True),
        ("192.0.2.1", "http://192.0.2.1:8000", True),
        ("[2001:db8::1]", "http://[2001:db8::1]:8000", True),
        ("*", "https://anything.example", True),
        ("*", "null", True),
        ("example.com", "null", False),
        ("example.com", "example.com", False),
        ("example.com", "https://example.com@evil.example", False),
        ("example.com", "https://evil.example#example.com", False),
        ("example.com", "https://example.com:99999999", False),
        ("example.com", "x" * 5000, False),
    ],
)
@pytest.mark.mission("DIN-18")
def test_what_an_item_stands_for(item, origin, is_allowed):
    assert policy_of((item,)).allows(origin) is is_allowed


@pytest.mark.parametrize(
    "hosts", [("a.example", "b.example"), ("a.example, b.example",), (" a.example  b.example ",)]
)
@pytest.mark.mission("DIN-19")
def test_a_list_may_come_as_one_text(hosts):
    policy = policy_of(hosts)
    assert policy.allows("https://a.example")
    assert policy.allows("https://b.example")
    assert not policy.allows("https://a.example, b.example")


def test_a_preflight_names_what_a_page_may_send():
    found = policy_of(("a.example",)).preflight_headers("https://a.example", "POST", PREFLIGHT)
    assert found is not None
    named = dict(found)
    assert named["Access-Control-Allow-Origin"] == "https://a.example"
    assert "POST" in named["Access-Control-Allow-Methods"]
    for name in ("Content-Type", "X-API-Key", "Idempotency-Key", "Authorization"):
        assert name in named["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Credentials" not in named


@pytest.mark.parametrize(
    ("origin", "method", "headers"),
    [
        ("https://evil.example", "POST", ""),
        ("https://a.example", "DELETE", ""),
        ("https://a.example", "POST", "x-forwarded-for"),
    ],
)
def test_a_preflight_for_more_is_refused(origin, method, headers):
    assert policy_of(("a.example",)).preflight_headers(origin, method, headers) is None


def test_without_a_list_no_page_may():
    policy = policy_of(())
    assert not policy.allows("https://a.example")
    assert policy.answer_headers("https://a.example") == ()
