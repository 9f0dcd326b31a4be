"""The text that SEARCH BODY looks at."""

from __future__ import annotations

import time

import pytest

from mailtwist.mail.parts import Kind, Part
from mailtwist.mail.structure import Parser
from mailtwist.mail.text import MAX_OCTETS, header_text, searchable, searchable_from, strip_markup


def text_of(data: bytes) -> str:
    parser = Parser()
    parser.feed(data)
    return searchable(data, parser.close().parts)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"Subject: no\r\n\r\nHello World", "hello world"),
        (b"Content-Transfer-Encoding: base64\r\n\r\nR3LDvMOf\r\nZQ==", "grüsse"),
        (
            b"Content-Type: text/plain; charset=iso-8859-1\r\n"
            b"Content-Transfer-Encoding: Quoted-Printable\r\n\r\na=E4=\r\nb",
            "aäb",
        ),
        (b"Content-Type: text/html\r\n\r\n<p>Some <b>B</b>old &amp; low</p>", "some b old & low"),
        (b"Content-Type: image/png\r\n\r\nhidden", ""),
        (
            b"Content-Type: message/rfc822\r\n\r\nSubject: =?utf-8?q?In?=\r\n\r\nX",
            "subject: in\r\n\r\n\nx",
        ),
        (
            b"Content-Type: multipart/mixed; boundary=b\r\n\r\nno\r\n--b\r\n\r\nOne\r\n"
            b"--b\r\nContent-Type: a/b\r\n\r\nno\r\n--b\r\n\r\nTwo\r\n--b--\r\nno",
            "one\ntwo",
        ),
    ],
)
def test_text_parts_are_decoded_and_folded(data: bytes, text: str) -> None:
    assert text_of(data) == text


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("a<br>b", "a b"),
        ("<style>p{color:red}</style>x<SCRIPT>if(a<b)</script >y", "x y"),
        ("a < b > c", "a c"),
        ("&lt;&#65;&#x42;&eacute;&nope;&#0;&#xD800;&#9999999;", "<AB\u00e9&nope;"),
        ("open <tag", "open <tag"),
    ],
)
def test_markup_is_taken_away(html: str, text: str) -> None:
    assert strip_markup(html) == text


@pytest.mark.parametrize("unit", ["<", "<script>", "&", "&#1", "<!--", "</", "<a "])
def test_markup_costs_no_more_than_its_length(unit: str) -> None:
    started = time.process_time()
    strip_markup(unit * (500_000 // len(unit)))
    assert time.process_time() - started < 1


def test_a_header_is_read_unfolded_and_decoded() -> None:
    assert header_text(b"A: b\r\n c\r\nD: =?utf-8?q?=C3=A4?=\r\n") == "A: b c\r\nD: ä\r\n"


def test_no_more_than_the_bound_is_read() -> None:
    read: list[tuple[int, int]] = []

    def reader(start: int, end: int) -> bytes:
        read.append((start, end))
        return b"x" * (end - start)

    leaf = Part(0, 10, 10 + MAX_OCTETS * 3, Kind.LEAF, "text/plain")
    root = Part(0, 0, leaf.end * 2, Kind.MULTIPART, "multipart/mixed", children=[leaf, leaf])
    assert len(searchable_from(reader, root)) == MAX_OCTETS
    assert read == [(10, 10 + MAX_OCTETS)]
