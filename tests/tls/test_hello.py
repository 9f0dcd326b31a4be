from __future__ import annotations

import pytest
from OpenSSL import SSL

from mailtwist.tls import hello
from mailtwist.tls.hello import Incomplete, server_name


def client_hello(name=b"", *, low=SSL.TLS1_2_VERSION):
    """What OpenSSL says first."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(low)
    client = SSL.Connection(context, None)
    client.set_connect_state()
    if name:
        client.set_tlsext_host_name(name)
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    return client.bio_read(1 << 16)


def in_records(octets, size):
    """The same message in records of this size."""
    body = octets[5:]
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(octets[:3] + len(part).to_bytes(2, "big") + part for part in parts)


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        (b"mail.example.com", "mail.example.com"),
        (b"MAIL.Example.com", "mail.example.com"),
        (b"x" * 63 + b".example", "x" * 63 + ".example"),
        (b"", ""),
    ],
)
def test_the_name_is_found(asked, name):
    octets = client_hello(asked)
    assert server_name(octets) == name
    assert server_name(octets + b"more") == name


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 40, 100])
def test_a_hello_may_lie_in_many_records(size):
    assert server_name(in_records(client_hello(b"a.example"), size)) == "a.example"


def test_each_octet_may_come_alone():
    octets = client_hello(b"a.example")
    for end in range(len(octets)):
        with pytest.raises(Incomplete):
            server_name(octets[:end])
    assert server_name(octets) == "a.example"


@pytest.mark.parametrize(
    "octets",
    [
        b"EHLO there\r\n",
        b"GET / HTTP/1.1\r\n",
        b"\x15\x03\x01\x00\x02\x02\x00",  # an alert
        b"\x16\x03\x01\x00\x00",  # an empty record
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",  # no ClientHello
        b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",  # an empty one
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03",
        b"\x16\x03\x01" + b"\xff\xff" + b"\x01\x00\x40\x00" + b"\x00" * (1 << 14),
    ],
)
def test_what_is_no_hello_asks_for_nobody(octets):
    assert server_name(octets) == ""


def test_who_never_comes_to_an_end_is_not_waited_for():
    endless = b"\x16\x03\x01\x40\x00\x01\xff\xff\xff"
    with pytest.raises(Incomplete):
        server_name(endless)
    assert server_name(endless.ljust(hello.MAX_OCTETS, b"\x00")) == ""


def test_who_sends_each_octet_in_a_record_of_its_own_is_read_seldom():
    octets = in_records(b"\x16\x03\x01\x00\x00\x01\x00\x40\x00".ljust(9 + 2700, b"\x00"), 1)
    needed = looks = 0
    for end in range(len(octets)):
        if end >= needed:
            looks += 1
            with pytest.raises(Incomplete) as raised:
                server_name(octets[:end])
            needed = raised.value.octets
            assert end < needed <= hello.MAX_OCTETS
    assert looks < 40


def test_octets_that_are_changed_do_no_harm():
    octets = client_hello(b"a.example")
    for at in range(5, len(octets)):
        for value in (0, 0x7F, 0xFF):
            changed = octets[:at] + bytes([value]) + octets[at + 1 :]
            try:
                assert isinstance(server_name(changed), str)
            except Incomplete:
                assert at < 9, "the length of the message alone makes it wait"
