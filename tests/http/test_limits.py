from __future__ import annotations

import pytest

from mailtwist.errors import ProtocolViolation
from mailtwist.http import limits
from mailtwist.http.limits import AtOnce, Rates, Window, at_once, rates, read_rates


def test_the_window_is_the_second_of_the_clock():
    window, two = Window(), Rates(2)
    first = [window.count("192.0.2.1", "/ping", two, 100.5) for _ in range(3)]
    assert [each.is_over for each in first] == [False, False, True]
    assert [each.remaining for each in first] == [1, 0, 0]
    assert not window.count("192.0.2.1", "/ping", two, 101.0).is_over
    assert first[0].headers == (
        ("X-RateLimit-Limit", "2"),
        ("X-RateLimit-Remaining", "1"),
        ("X-RateLimit-Reset", "101"),
    )


@pytest.mark.parametrize(
    ("client", "path", "shares"),
    [
        ("192.0.2.1", "/ping", True),
        ("::ffff:192.0.2.1", "/ping", True),
        ("192.0.2.2", "/ping", False),
        ("192.0.2.1", "/health", False),
    ],
)
def test_who_shares_a_count(client, path, shares):
    window, one = Window(), Rates(1)
    window.count("192.0.2.1", "/ping", one, 7)
    assert window.count(client, path, one, 7).is_over is shares


def test_a_network_of_one_customer_shares_a_count():
    window, one = Window(), Rates(1)
    window.count("2001:db8::1", "/", one, 7)
    assert window.count("2001:db8::2:1", "/", one, 7).is_over
    assert not window.count("2001:db8:0:1::1", "/", one, 7).is_over


def test_zero_is_no_limit():
    window = Window()
    found = [window.count("a", "/", Rates(0), 1) for _ in range(1000)]
    assert not any(each.is_over for each in found)
    assert found[0].headers == ()


def test_many_paths_of_many_clients_take_bounded_room(monkeypatch):
    monkeypatch.setattr(limits, "MAX_KEYS", 10)
    window, five = Window(), Rates(5)
    found = [window.count(f"192.0.2.{n}", "/", five, 1) for n in range(20)]
    assert len(window._counts) == 11
    assert found[-1].is_over
    window.count("192.0.2.1", "/", five, 2)
    assert len(window._counts) == 1


@pytest.mark.parametrize(
    ("text", "path", "rate"),
    [
        ("", "/ping", ("/ping", 500)),
        ('{"/ping":2}', "/ping", ("/ping", 2)),
        ('{"/ping":2}', "/health", ("/health", 500)),
        ('{"/ping":"2"}', "/ping", ("/ping", 2)),
        ('{"version":"default","limits":{"/ping":3}}', "/ping", ("/ping", 3)),
        ('{"default":7,"/ping":2}', "/x", ("/x", 7)),
        ('{"/action/*":9,"/action/user_account/*":4}', "/action/a/b", ("/action/*", 9)),
        (
            '{"/action/*":9,"/action/user_account/*":4}',
            "/action/user_account/signin",
            ("/action/user_account/*", 4),
        ),
        ('{"/action/*":9,"/action/a":1}', "/action/a", ("/action/a", 1)),
        ("{}", "/" + "x" * 10_000, ("/" + "x" * 255, 500)),
        ("no json", "/ping", ("/ping", 500)),
    ],
)
def test_the_rate_of_a_path(text, path, rate):
    assert rates(text).of(path) == rate


@pytest.mark.parametrize(
    "text", ["x", "[]", '{"/ping":-1}', '{"/ping":true}', '{"/ping":"a"}', '{"/p":1e300}', "{]"]
)
def test_rates_that_make_no_sense_are_refused(text):
    with pytest.raises(ProtocolViolation):
        read_rates(text)


def test_requests_at_once_are_bounded_for_each_client():
    counts = AtOnce()
    assert [counts.enter("192.0.2.1", 2) for _ in range(3)] == [True, True, False]
    assert counts.enter("192.0.2.2", 2)
    counts.leave("192.0.2.1")
    assert counts.enter("192.0.2.1", 2)
    for client in ("192.0.2.1", "192.0.2.1", "192.0.2.2"):
        counts.leave(client)
    assert counts._counts == {}
    assert all(counts.enter("192.0.2.1", 0) for _ in range(1000))


@pytest.mark.parametrize(
    ("text", "limit"), [("", 100), ("5", 5), (" 7 ", 7), ("0", 0), ("x", 100), ("9" * 99, 100)]
)
def test_the_limit_of_requests_at_once(text, limit):
    assert at_once(text) == limit
