"""Types and parameters: kept as spelled, joined by RFC 2231, forgiving."""

from __future__ import annotations

import pytest

from mailtwist.mail.mediatype import (
    MESSAGE,
    TEXT_PLAIN,
    decoded_parameter,
    parse_media_type,
    parse_token,
    parse_word,
)

PARAMETERS = [
    (b"a/b; x=y", ((b"x", b"y"),)),
    (b'a/b; Name="A B.TXT"', ((b"Name", b"A B.TXT"),)),
    (b'a/b;x="a\\"b\\\\c"', ((b"x", b'a"b\\c'),)),
    (b'a/b; x="open', ((b"x", b"open"),)),
    (b"a/b; x=y;", ((b"x", b"y"),)),
    (b"a/b ; x = y ; z", ((b"x", b"y"),)),
    (b"a/b; x=us-ascii (Plain text)", ((b"x", b"us-ascii"),)),
    (b"a/b; name=my file (1).pdf", ((b"name", b"my file (1).pdf"),)),
    (b"a/b; x=; y=z", ((b"x", b""), (b"y", b"z"))),
    (b'a/b; x="a;b=c"; d=e', ((b"x", b"a;b=c"), (b"d", b"e"))),
    (b"a/b; x*=utf-8''%41", ((b"x*", b"utf-8''%41"),)),
    (b'a/b; x*1="two"; y=z; X*0="one "', ((b"X", b"one two"), (b"y", b"z"))),
    (b"a/b; x*0*=utf-8''%e2; x*1*=%82; x*2=%b c", ((b"x*", b"utf-8''%e2%82%25b%20c"),)),
    (b"a/b; x*0=a; x*0=b; x*2=gap", ((b"x", b"a"),)),
    (b"a/b; x*5=a", ((b"x", b"a"),)),
    (b"a/b; x**=a; x*01=b", ((b"x**", b"a"), (b"x*01", b"b"))),
]


@pytest.mark.parametrize(("value", "parameters"), PARAMETERS)
def test_parameters_are_read(value: bytes, parameters: tuple[tuple[bytes, bytes], ...]) -> None:
    media = parse_media_type(value)
    assert (media.main, media.sub) == (b"a", b"b")
    assert {name.lower(): text for name, text in media.parameters} == {
        name.lower(): text for name, text in parameters
    }


@pytest.mark.parametrize(
    "value", [None, b"", b"text", b"text/", b"/plain", b"te xt/plain", b"\xff/x"]
)
def test_what_is_no_type_is_text_plain(value: bytes | None) -> None:
    assert parse_media_type(value) is TEXT_PLAIN


def test_the_default_counts_only_where_no_type_is_given() -> None:
    assert parse_media_type(None, MESSAGE) is MESSAGE
    assert parse_media_type(b"broken", MESSAGE) is TEXT_PLAIN


@pytest.mark.parametrize(
    ("value", "name", "text"),
    [
        (b"a/b; filename*=utf-8''na%C3%AFve%20plan", b"filename", "naïve plan"),
        (b"a/b; filename*=iso-8859-1'en'%E4", b"filename", "ä"),
        (b"a/b; filename*=broken%41", b"filename", "brokenA"),
        (b'a/b; filename="=?utf-8?q?=C3=A4?="', b"filename", "ä"),
        (b"a/b; FileName=plain", b"filename", "plain"),
        (b"a/b", b"filename", ""),
        (b"a/b; x*0*=utf-8''a; x*1=%41", b"x", "a%41"),
    ],
)
def test_a_parameter_becomes_text(value: bytes, name: bytes, text: str) -> None:
    assert decoded_parameter(parse_media_type(value).parameters, name) == text


def test_single_words_are_read() -> None:
    assert parse_word(b" attachment; a=b") == (b"attachment", ((b"a", b"b"),))
    assert parse_word(b"; a=b") is None
    assert [parse_token(value) for value in (None, b"", b" 8bit (x)", b";")] == [
        b"",
        b"",
        b"8bit",
        b"",
    ]
