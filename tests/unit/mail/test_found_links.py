"""Links as a reader meets them: what begins one, what ends one, and what is none."""

from __future__ import annotations

import pytest

from mailtwist.mail.found_links import MAX_LENGTH, MAX_LINKS, links

TEXTS = [
    ("nothing here", []),
    ("Go to https://example.com/verify?t=a%20b&u=1.", ["https://example.com/verify?t=a%20b&u=1"]),
    ("(see http://example.com/a_(b))", ["http://example.com/a_(b)"]),
    ("<https://example.com/x>", ["https://example.com/x"]),
    ("[https://example.com/x]", ["https://example.com/x"]),
    ('"https://example.com/x", he said', ["https://example.com/x"]),
    ("**https://example.com/x**", ["https://example.com/x"]),
    ("Sie https://example.com/straße?ä=1!", ["https://example.com/straße?ä=1"]),
    (
        "https://a.example/1\nHTTPS://B.example/2\r\n",
        ["https://a.example/1", "HTTPS://B.example/2"],
    ),
    ("https://a.example https://a.example", ["https://a.example"]),
    ("https:// and ftp://a.example and mailto:a@b.example and xhttps://c.example", []),
    ("https://example.com:8443/#/reset/abc-_;", ["https://example.com:8443/#/reset/abc-_"]),
    ("https://example.com/a\x00b", ["https://example.com/a"]),
]


@pytest.mark.parametrize(("text", "expected"), TEXTS)
def test_links_of_text(text, expected):
    assert links(text) == expected


HTML = [
    ('<a href="https://example.com/?a=1&amp;b=2">x</a>', ["https://example.com/?a=1&b=2"]),
    ("<A class=button HREF='https://example.com/'>x</A>", ["https://example.com/"]),
    ("<a\nhref = https://example.com/x>x</a>", ["https://example.com/x"]),
    ('<area href="https://example.com/map">', ["https://example.com/map"]),
    ('<a href="\n https://example.com/a b\n">x</a>', ["https://example.com/a%20b"]),
    ('<img src="https://example.com/pixel.gif">', []),
    ('<link href="https://example.com/style.css">', []),
    ('<a name="x" title="href=https://bad.example">x</a>', []),
    ('<a data-href="https://bad.example">x</a>', []),
    ('<a href="mailto:a@b.example">x</a><a href="#top">y</a><a href="/rel">z</a>', []),
    ("<a href=\"javascript:location='https://bad.example'\">x</a>", []),
    ('<!-- <a href="https://old.example">x</a> --><a href="https://new.example">y</a>',
     ["https://new.example"]),
    ("<!-- <a href='https://old.example'>", []),
    ('<a href="https://example.com/unclosed', []),
    ('<a href="&#104;ttps://example.com/">x</a>', ["https://example.com/"]),
    ('<abbr href="https://bad.example">x</abbr>', []),
]  # fmt: skip


@pytest.mark.parametrize(("html", "expected"), HTML)
def test_links_of_html(html, expected):
    assert links("", html) == expected


def test_links_of_both_come_once_and_those_of_the_text_first():
    html = '<a href="https://b.example">b</a><a href="https://a.example">a</a>'
    assert links("https://a.example", html) == ["https://a.example", "https://b.example"]


def test_there_are_never_more_than_the_bound():
    text = " ".join(f"https://example.com/{n}" for n in range(MAX_LINKS + 50))
    assert links(text)[-1] == f"https://example.com/{MAX_LINKS - 1}"
    assert len(links(text)) == MAX_LINKS


def test_a_link_that_is_too_long_is_none():
    assert links("https://example.com/" + "x" * MAX_LENGTH + " https://example.com/") == [
        "https://example.com/"
    ]


@pytest.mark.parametrize(
    "piece", ['<a "', "<a '\"", "<a x=\"'", "http://x)))", "<!--", "<a href=", "https://", "<a/"]
)
def test_what_is_made_to_be_slow_is_read_in_time_that_grows_with_its_length(piece):
    # A hundred times the time of this would be seconds, were the work quadratic.
    text = piece * (200_000 // len(piece))
    assert len(links(text, text)) <= MAX_LINKS
