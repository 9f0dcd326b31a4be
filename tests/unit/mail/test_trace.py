"""Trace headers, and that no client writes into them."""

from __future__ import annotations

import email
import email.utils

import pytest

from mailtwist.mail.address import Address
from mailtwist.mail.trace import protocol_name, received, return_path


def _received(**changes: object) -> bytes:
    values: dict[str, object] = {
        "helo": "client.example",
        "client_address": "192.0.2.7",
        "hostname": "mx.example.org",
        "protocol": "ESMTPS",
        "queue_id": "123456",
        "recipient": Address("ann", "example.org"),
        "seconds": 1794823200.9,
    }
    return received(**{**values, **changes})  # type: ignore[arg-type]


def test_received_has_the_form_of_rfc_5321() -> None:
    assert _received() == (
        b"Received: from client.example ([192.0.2.7])\r\n"
        b"\tby mx.example.org with ESMTPS id 123456\r\n"
        b"\tfor <ann@example.org>;\r\n"
        b"\tMon, 16 Nov 2026 10:00:00 +0000\r\n"
    )


def test_the_date_is_one_that_others_can_read() -> None:
    value = email.message_from_bytes(_received())["Received"]
    date = email.utils.parsedate_to_datetime(value.rpartition(";")[2].strip())
    assert date.timestamp() == 1794823200


def test_an_ipv6_client_is_tagged_and_the_recipient_may_be_left_out() -> None:
    field = _received(client_address="2001:db8::1", recipient=None)
    assert b"([IPv6:2001:db8::1])" in field
    assert b" for " not in field
    assert b"\tfor" not in field


@pytest.mark.parametrize(
    "helo",
    [
        "a\r\nX-Injected: yes",
        "a\nX-Injected: yes",
        "a (b",
        "a) by evil.example; x",
        "\0\x7f\x85\u2028ü",
        "x" * 100_000,
        "",
        '"\\',
        "<a>",
        "a;b",
    ],
)
def test_no_helo_writes_more_than_its_word(helo: str) -> None:
    field = _received(helo=helo)
    lines = field.split(b"\r\n")
    assert len(lines) == 5
    assert all(line.startswith(b"\t") for line in lines[1:4])
    assert len(lines[0]) < 400
    assert b"X-Injected: " not in field
    assert [field.count(mark) for mark in (b"(", b")", b";", b"<", b'"')] == [1, 1, 1, 1, 0]
    assert field.isascii()


def test_return_path_holds_the_reverse_path() -> None:
    assert return_path(None) == b"Return-Path: <>\r\n"
    assert return_path(Address("ann", "example.org")) == b"Return-Path: <ann@example.org>\r\n"
    assert return_path(Address("a\r\nX: y", "b")).count(b"\r\n") == 1


@pytest.mark.parametrize(
    ("is_esmtp", "is_tls", "is_authenticated", "name"),
    [
        (False, False, False, "SMTP"),
        (True, False, False, "ESMTP"),
        (True, True, False, "ESMTPS"),
        (True, False, True, "ESMTPA"),
        (True, True, True, "ESMTPSA"),
    ],
)
def test_the_protocol_is_named_as_registered(
    is_esmtp: bool, is_tls: bool, is_authenticated: bool, name: str
) -> None:
    found = protocol_name(is_esmtp=is_esmtp, is_tls=is_tls, is_authenticated=is_authenticated)
    assert found == name


# RFC 6531 §4.3
@pytest.mark.parametrize(
    ("is_tls", "is_authenticated", "name"),
    [(False, False, "UTF8SMTP"), (True, False, "UTF8SMTPS"), (True, True, "UTF8SMTPSA")],
)
def test_the_protocol_of_smtputf8_is_named_too(
    is_tls: bool, is_authenticated: bool, name: str
) -> None:
    found = protocol_name(
        is_esmtp=True, is_tls=is_tls, is_authenticated=is_authenticated, is_utf8=True
    )
    assert found == name
