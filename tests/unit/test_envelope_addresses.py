"""Addresses read back from a rendered ENVELOPE."""

from __future__ import annotations

import time

import pytest

from mailtwist.mail.envelope_addresses import MAX_SHOWN, Addresses, read
from mailtwist.mail.structure import Parser

HEADERS: list[tuple[bytes, Addresses]] = [
    (b"From: a@b\r\n", Addresses("a@b", "a@b", "a@b", "")),
    (
        b'From: "A \\"x\\" (B)" <a.b@X.org>, c@d\r\nSender: s@t\r\nReply-To: <"we ird"@host>\r\n'
        b'To: g: x@y, w@v;, =?utf-8?q?=C3=A4?= <t@t>\r\nSubject: h\xc3\xa4 {3} (" \\\r\n',
        Addresses("a.b@X.org, c@d", "s@t", "we ird@host", "x@y, w@v, t@t"),
    ),
    (b"Subject: x\r\nTo: only@to\r\nCc: not@shown\r\n", Addresses(to="only@to")),
    (b"X: y\r\n", Addresses()),
]


@pytest.mark.parametrize(("header", "wanted"), HEADERS)
def test_addresses_of_a_message(header: bytes, wanted: Addresses) -> None:
    parser = Parser()
    parser.feed(header + b"\r\nhi\r\n")
    assert read(parser.close().envelope) == wanted


@pytest.mark.parametrize(
    "envelope", [b"", b"(NIL)", b"junk", b"((((", b'("', b"({99999}\r\nx", b")))"]
)
def test_what_is_no_envelope_says_nothing(envelope: bytes) -> None:
    assert read(envelope) == Addresses()


def test_a_thousand_recipients_are_cut_in_no_time() -> None:
    parser = Parser()
    parser.feed(b"To: " + b",\r\n ".join(b"somebody%d@example.com" % n for n in range(5000)))
    parser.feed(b"\r\n\r\n")
    envelope = parser.close().envelope
    started = time.process_time()
    shown = read(envelope).to
    assert time.process_time() - started < 1
    assert MAX_SHOWN - 40 < len(shown) <= MAX_SHOWN
    assert shown.endswith(".com")
