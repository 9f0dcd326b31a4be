"""Web addresses that others give, and which IP addresses are public."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from mailtwist.errors import ProtocolViolation
from mailtwist.net.urls import MAX_URL, is_public, read_url


@pytest.mark.parametrize(
    ("text", "host", "port", "asked"),
    [
        ("https://example.com", "example.com", 443, "https://example.com/"),
        ("http://Example.COM:8080/a?b=c#d", "example.com", 8080, "http://example.com:8080/a?b=c"),
        ("http://example.com./", "example.com", 80, "http://example.com/"),
        ("http://[2001:db8::1]:8/x", "2001:db8::1", 8, "http://[2001:db8::1]:8/x"),
        ("http://192.0.2.1/", "192.0.2.1", 80, "http://192.0.2.1/"),
    ],
)
def test_a_web_address_is_taken_apart(text: str, host: str, port: int, asked: str) -> None:
    url = read_url(text)
    assert (url.host, url.port, url.text) == (host, port, asked)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.com",
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "https://",
        "https:///path",
        "https://user:secret@example.com/",
        "https://user@example.com/",
        "https://example.com:0/",
        "https://example.com:70000/",
        "https://example.com:x/",
        "https://exa mple.com/",
        "https://example.com/\r\nHost: x",
        "https://example.com/\x00",
        "https://example.com\\@127.0.0.1/",
        "https://2130706433/",
        "https://127.1/",
        "https://0x7f.1/",
        "https://0x7f000001/",
        "https://[fe80::1%25eth0]/",
        "https://[::1/",
        "https://exämple.com/",
        "https://example.com/" + "a" * MAX_URL,
    ],
)
def test_what_is_no_web_address_of_ours_is_refused(text: str) -> None:
    with pytest.raises(ProtocolViolation):
        read_url(text)


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "127.0.0.1",
        "127.255.255.255",
        "169.254.169.254",
        "172.16.0.1",
        "192.168.1.1",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a00:1",
        "2002:7f00:1::",
        "2002:c0a8:101::1",
        "fe80::1",
        "fec0::1",
        "fc00::1",
        "fd12:3456::1",
        "ff02::1",
        "2001:db8::1",
    ],
)
def test_what_is_not_public_is_known(text: str) -> None:
    assert not is_public(ip_address(text))


@pytest.mark.parametrize(
    "text",
    ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"],
)
def test_what_is_public_is_known(text: str) -> None:
    assert is_public(ip_address(text))
