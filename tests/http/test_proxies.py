from __future__ import annotations

import pytest

from mailtwist.http.encoding import accepts_gzip, gzip, is_worth
from mailtwist.http.identity import find_token, is_foreign_page
from mailtwist.http.proxies import Proxies, is_host
from mailtwist.http.yaml import dump
from tests.support.now import now

PROXY, OTHER, CLIENT = "10.0.0.1", "10.0.0.2", "203.0.113.9"


def header(**values):
    found = {name.replace("_", "-"): value for name, value in values.items()}
    return lambda name: found.get(name, "")


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        (CLIENT, "198.51.100.1", CLIENT),
        (PROXY, "", PROXY),
        (PROXY, CLIENT, CLIENT),
        (PROXY, f"198.51.100.1, {CLIENT}", CLIENT),
        (PROXY, f"198.51.100.1, {CLIENT}, {OTHER}", CLIENT),
        (PROXY, f"{CLIENT}:4711", CLIENT),
        (PROXY, "[2001:db8::1]:4711", "2001:db8::1"),
        (PROXY, "2001:db8::1", "2001:db8::1"),
        (PROXY, "not an address", PROXY),
        (PROXY, f"{CLIENT}, rubbish", PROXY),
        (PROXY, f"rubbish, {OTHER}", OTHER),
        (PROXY, ", ".join([OTHER] * 10_000), OTHER),
        ("::ffff:10.0.0.1", CLIENT, CLIENT),
        ("", CLIENT, ""),
    ],
)
def test_the_client_is_the_last_address_that_is_no_proxy_of_ours(peer, forwarded, address):
    proxies = Proxies(["10.0.0.0/8"])
    found = proxies.client(peer, header(x_forwarded_for=forwarded), is_secure=False)
    assert found.address == address


def test_nobody_is_believed_without_being_told_to():
    said = header(
        host="mail.example.com",
        x_forwarded_for="198.51.100.1",
        x_forwarded_proto="https",
        x_forwarded_host="evil.net",
        x_request_id="abc",
    )
    found = Proxies().client(CLIENT, said, is_secure=False)
    assert (found.address, found.origin, found.request_id) == (
        CLIENT,
        "http://mail.example.com",
        "",
    )


def test_a_trusted_proxy_tells_scheme_host_and_request_id():
    said = header(
        host="inner:8080",
        x_forwarded_proto="https",
        x_forwarded_host="mail.example.com",
        x_request_id="abc-1",
    )
    found = Proxies(["10.0.0.1"]).client(PROXY, said, is_secure=False)
    assert (found.origin, found.request_id) == ("https://mail.example.com", "abc-1")
    forged = Proxies(["10.0.0.1"]).client(
        PROXY, header(x_request_id="a\nb", x_forwarded_proto="javascript"), is_secure=True
    )
    assert (forged.scheme, forged.request_id) == ("https", "")


@pytest.mark.parametrize("host", ["a", "mail.example.com:8080", "127.0.0.1:1", "[::1]:6336"])
def test_hosts(host):
    assert is_host(host)


@pytest.mark.parametrize("host", ["", "a b", "a/b", "a@b", "a:b", "[::1", "é", "a" * 254, 'x"y'])
def test_what_is_no_host(host):
    assert not is_host(host)


# -- tokens ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "parameters", "text", "by_cookie"),
    [
        ({}, {}, "", False),
        ({"authorization": "Bearer abc"}, {}, "abc", False),
        ({"authorization": "bearer  abc "}, {}, "abc", False),
        ({"authorization": "Bearer "}, {}, "", False),
        ({"authorization": "Basic abc"}, {}, "", False),
        ({"x_api_key": "mt_live_x"}, {}, "mt_live_x", False),
        ({}, {"token": ("abc",)}, "abc", False),
        ({"cookie": "a=b; token=abc"}, {}, "abc", True),
        ({"cookie": 'token="abc"'}, {}, "abc", True),
        ({"cookie": "xtoken=abc; tokens=d"}, {}, "", False),
        ({"authorization": "Bearer a", "cookie": "token=c"}, {"token": ("b",)}, "a", False),
        ({"cookie": "token=c"}, {"token": ("b",)}, "b", False),
    ],
)
def test_where_a_token_is_found(headers, parameters, text, by_cookie):
    found = find_token(header(**headers), parameters, is_foreign_page=False)
    assert (found.text, found.by_cookie) == (text, by_cookie)


def test_the_cookie_does_not_speak_for_a_page_of_another_site():
    cookie = header(cookie="token=abc")
    assert find_token(cookie, {}, is_foreign_page=True).text == ""
    bearer = header(cookie="token=abc", authorization="Bearer x")
    assert find_token(bearer, {}, is_foreign_page=True).text == "x"


@pytest.mark.parametrize(
    ("headers", "is_foreign"),
    [
        ({}, False),
        ({"sec_fetch_site": "same-origin"}, False),
        ({"sec_fetch_site": "none"}, False),
        ({"sec_fetch_site": "cross-site"}, True),
        ({"sec_fetch_site": "same-site"}, True),
        ({"origin": "http://mail.example.com"}, False),
        ({"origin": "http://evil.net"}, True),
        ({"origin": "null"}, True),
    ],
)
def test_pages_of_other_sites(headers, is_foreign):
    assert is_foreign_page(header(**headers), "http://mail.example.com") is is_foreign


# -- encoding, yaml -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "is_accepted"),
    [
        ("", False),
        ("gzip", True),
        ("deflate, gzip;q=0.5, br", True),
        ("GZIP", True),
        ("*", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("identity", False),
        ("br", False),
    ],
)
def test_who_takes_gzip(accept, is_accepted):
    assert accepts_gzip(accept) is is_accepted


def test_gzip():
    import gzip as stock

    pauses = []

    async def pause():
        pauses.append(1)

    body = bytes(range(256)) * 4096
    assert stock.decompress(now(gzip(body, pause))) == body
    assert len(pauses) == 3
    assert is_worth("application/vnd.api+json", 1024)
    assert not is_worth("application/vnd.api+json", 1023)
    assert not is_worth("image/png", 100_000)


def test_yaml_reads_back_the_same():
    import yaml

    tree = {
        "a": {"b": [1, 2.5, None, True, "x: y", "- z", "é\n"], "c": {}, "d": [], "/p/{id}": [[1]]},
        "no": "yes",
        "200": {"x y": [{"a": 1, "b": {"c": "d"}}]},
        "t": (1, 2),
    }
    assert yaml.safe_load(dump(tree)) == {**tree, "t": [1, 2]}
