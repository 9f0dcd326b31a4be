"""Paths and addresses: what is read, what is refused and with which code."""

from __future__ import annotations

import time

import pytest

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.address import Address, fold_domain, parse_address, parse_path

READ = [
    (b"<ann@example.org> SIZE=10", "ann@example.org", b" SIZE=10"),
    (b" <ann@example.org>", "ann@example.org", b""),
    (b"<Ann.Bo@EXAMPLE.Org>", "Ann.Bo@example.org", b""),
    (b"<ann+tag@example.org>", "ann+tag@example.org", b""),
    (b'<"ann bo"@example.org>', '"ann bo"@example.org', b""),
    (b'<"ann"@example.org>', "ann@example.org", b""),
    (b'<"a\\"b\\\\"@example.org>', '"a\\"b\\\\"@example.org', b""),
    (b'<"a>b"@example.org>x', '"a>b"@example.org', b"x"),
    (b"<@one.example,@two.example:ann@example.org>", "ann@example.org", b""),
    (b"<ann@[127.0.0.1]>", "ann@[127.0.0.1]", b""),
    (b"<ann@[IPv6:0:0::1]>", "ann@[IPv6:::1]", b""),
    (b"<ann@host_a.example>", "ann@host_a.example", b""),
    # Never routed: a percent hack and a bang path are local parts like any other.
    (b"<ann%example.net@example.org>", "ann%example.net@example.org", b""),
    (b"<host!ann@example.org>", "host!ann@example.org", b""),
    (b"<PostMaster>", "PostMaster", b""),
]


@pytest.mark.parametrize(("data", "wire", "rest"), READ)
def test_a_path_is_read_and_written_again(data: bytes, wire: str, rest: bytes) -> None:
    address, left = parse_path(data)
    assert (str(address), left) == (wire, rest)


def test_the_null_path_is_none() -> None:
    assert parse_path(b"<> BODY=8BITMIME") == (None, b" BODY=8BITMIME")


REFUSED = [
    b"",
    b"<",
    b"<ann",
    b"ann@example.org",
    b"<ann@example.org",
    b"<ann>",
    b"<ann@>",
    b"<@example.org>",
    b"<ann@@example.org>",
    b"<a@b@example.org>",
    b"<.ann@example.org>",
    b"<ann..bo@example.org>",
    b"<ann bo@example.org>",
    b"<ann@example..org>",
    b"<ann@-example.org>",
    b"<ann@example-.org>",
    b"<ann@example.org.>",
    b"<ann@" + b"x" * 64 + b".org>",
    b"<ann@[127.0.0.256]>",
    b"<ann@[IPv6:fe80::1%eth0]>",
    b"<ann@[IPv6:1:2]>",
    b"<ann@[tag:x]>",
    b'<"ann@example.org>',
    b'<"a\nb"@example.org>',
    b'<"a\0b"@example.org>',
    b"<ann\r\nRCPT TO:<x@y>@example.org>",
    b"<\xff@example.org>",
    "<a\u2028b@example.org>".encode(),
    '<"a\x85b"@example.org>'.encode(),
]


@pytest.mark.parametrize("data", REFUSED)
def test_a_broken_path_is_refused_with_501(data: bytes) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        parse_path(data, smtputf8=True)
    assert (caught.value.code, caught.value.status) == (501, "5.5.4")
    assert caught.value.text == "Invalid address"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"<" + b"a" * 65 + b"@example.org>", "Local part too long"),
        (b'<"' + b"a" * 63 + b'"@example.org>', "Local part too long"),
        (b"<ann@" + b"x." * 125 + b"org>", "Path too long"),
        (b"<@" + b"x" * 240 + b":ann@example.org>", "Path too long"),
    ],
)
def test_too_long_is_refused_with_550(data: bytes, text: str) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        parse_path(data)
    assert (caught.value.code, caught.value.status) == (550, "5.5.4")
    assert caught.value.text.startswith(text)


def test_the_longest_of_each_passes() -> None:
    assert parse_path(b"<" + b"a" * 64 + b"@example.org>")[0] is not None
    path = b"<ann@" + b".".join([b"x" * 49] * 5) + b">"
    assert len(path) == 255
    assert parse_path(path)[0] is not None


def test_beyond_ascii_needs_smtputf8() -> None:
    data = "<grüße@bücher.example>".encode()
    with pytest.raises(ProtocolViolation) as caught:
        parse_path(data)
    assert (caught.value.code, caught.value.status) == (553, "5.6.7")
    assert parse_path(data, smtputf8=True)[0] == Address("grüße", "xn--bcher-kva.example")


def test_spellings_of_one_mailbox_fold_to_one_key() -> None:
    spellings = ["Ann@Example.ORG", "ann@example.org", '"ANN"@example.org']
    assert {parse_address(text).folded for text in spellings} == {"ann@example.org"}
    composed, decomposed = "\u00e9@example.org", "e\u0301@example.org"
    assert parse_address(composed).folded == parse_address(decomposed).folded


@pytest.mark.parametrize("text", ["", "ann", "@", "ann@", "<ann@example.org>", "a@b c", "a@b>x"])
def test_an_address_of_people_must_be_whole(text: str) -> None:
    with pytest.raises(ProtocolViolation):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("Example.ORG", "example.org"),
        ("Bücher.example", "xn--bcher-kva.example"),
        ("[192.0.2.1]", "[192.0.2.1]"),
        ("[ipv6:2001:DB8::1]", "[IPv6:2001:db8::1]"),
    ],
)
def test_domains_fold_to_a_labels(text: str, folded: str) -> None:
    assert fold_domain(text) == folded


@pytest.mark.parametrize("text", ["", ".", "a b", "-a", "a.", "\u2024", "ü" * 300, "a\n.b"])
def test_what_is_no_domain_is_refused(text: str) -> None:
    with pytest.raises(ProtocolViolation):
        fold_domain(text)


def test_a_long_name_is_refused_before_it_is_converted() -> None:
    started = time.process_time()
    with pytest.raises(ProtocolViolation):
        fold_domain("ü" * 1_000_000)
    assert time.process_time() - started < 0.05


@pytest.mark.parametrize(
    "unit", [b"a", b"a.", b"<", b"@", b",", b'"', b"\\", b'"\\', b"[", b"@a,", b"\xc3\xbc", b" "]
)
def test_sixteen_kilobytes_of_anything_are_refused_at_once(unit: bytes) -> None:
    started = time.process_time()
    for opening in (b"<", b'<"', b"<@", b"<a@", b"<a@["):
        with pytest.raises(ProtocolViolation):
            parse_path(opening + unit * (16384 // len(unit)), smtputf8=True)
    # The stock parser needed 250 ms for one of them.
    assert time.process_time() - started < 0.1
