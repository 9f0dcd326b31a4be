"""Encoded words and charsets: decoded where possible, never an error."""

from __future__ import annotations

import pytest

from mailtwist.mail.words import decode, decode_base64, decode_words, fold

WORDS = [
    (b"plain", "plain"),
    (b"=?utf-8?q?Gr=C3=BC=C3=9Fe?=", "Grüße"),
    (b"=?UTF-8?B?R3LDvMOfZQ==?=", "Grüße"),
    (b"=?iso-8859-1?Q?a_b?= c", "a b c"),
    (b"Re: =?utf-8?q?a?= =?utf-8?q?b?= c", "Re: ab c"),
    # A character cut in two by its sender.
    (b"=?utf-8?b?w5?= =?utf-8?b?Dw==?=", "\ufffd\x0f"),
    (b"=?utf-8?q?=C3?=\t=?utf-8?q?=A4?=", "ä"),
    (b"=?utf-8?q?=C3?= =?iso-8859-1?q?=A4?=", "\ufffd¤"),
    (b"=?utf-8*de?q?a?=", "a"),
    (b'"=?utf-8?q?a?=" <x@y>', '"a" <x@y>'),
    (b"=?gb2312?b?xOO6ww==?=", "你好"),
    (b"=?iso-2022-jp?b?GyRCRnxLXBsoQg==?=", "日本"),
    (b"=?x-unknown?q?=E4?=", "ä"),
    (b"=?punycode?q?a-=C3?=", "a-Ã"),
    (b"=?unicode_escape?q?=5Cud800?=", "\\ud800"),
    (b"=?utf-7?q?+2AA-?=", "\ufffd"),
    (b"=?utf-8?q?=00a?=", "a"),
    (b"=?utf-8?x?a?=", "=?utf-8?x?a?="),
    (b"=?utf-8?q?open", "=?utf-8?q?open"),
    (b"=?utf-8?b?A?=", ""),
    (b"=?utf-8?b?YW$Jj?=", "abc"),
    ("roh ä".encode(), "roh ä"),
    (b"raw \xe4", "raw ä"),
    (b"", ""),
]


@pytest.mark.parametrize(("data", "text"), WORDS)
def test_words_are_decoded(data: bytes, text: str) -> None:
    assert decode_words(data) == text


@pytest.mark.parametrize(
    ("data", "charset", "text"),
    [
        (b"\xe4", "ISO-8859-1", "ä"),
        (b"\xa4", "iso-8859-15", "€"),
        (b"\x80", "windows-1252", "€"),
        (b"\xc1", " KOI8-R ", "а"),
        (b"\xe4", "utf-8", "\ufffd"),
        (b"\xe4", "us-ascii", "ä"),
        (b"\xe4", "no such", "ä"),
        (b"h\0i\0", "utf-16le", "hi"),
        (b"a\0b", "", "ab"),
    ],
)
def test_charsets_are_decoded(data: bytes, charset: str, text: str) -> None:
    assert decode(data, charset) == text


@pytest.mark.parametrize(
    ("data", "octets"),
    [
        (b"YWI=", b"ab"),
        (b"YWI", b"ab"),
        (b"Y W\r\nI=", b"ab"),
        (b"YWJjZ", b"abc"),
        (b"", b""),
        (b"=", b""),
        (b"A", b""),
        (b"!!", b""),
    ],
)
def test_broken_base64_gives_what_there_is(data: bytes, octets: bytes) -> None:
    assert decode_base64(data) == octets


def test_folding_makes_spellings_equal() -> None:
    assert fold("ÄRGER") == fold("a\u0308rger")
    assert fold("STRASSE") == fold("straße")
    assert fold("Plain") == "plain"
