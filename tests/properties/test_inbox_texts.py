"""What is read out of mail that anybody may send, and out of searches: never an error of ours."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import example, given
from hypothesis import strategies as st

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.found_codes import MAX_CODES, codes
from mailtwist.mail.found_links import MAX_LINKS, links
from mailtwist.mail.inbox_query import parse
from mailtwist.mail.search import check_bounds
from mailtwist.mail.shown import show
from mailtwist.mail.structure import Parser

PIECES = st.sampled_from(
    [
        "your code", "482913", "12 34", "PIN: ", "\n", "\r\n", " ", "€", "12.50", "2024", "A1B2C3",
        "https://x.example/", "<a href=", '"', "'", ">", "<!--", "-->", "&amp;", "&#0;", ".", ")",
        "OR", "-", "from:", "before:2026-01-01", "larger:1k", "İ", "ß", "\ud800", "\0",
    ]
)  # fmt: skip
TEXTS = st.lists(PIECES | st.text(max_size=5), max_size=30).map("".join)


@given(TEXTS, TEXTS)
@example("İ" * 10, "code 482913")
def test_codes_are_short_words_of_the_text(subject, text):
    found = codes(subject, text)
    assert len(found) == len(set(found)) <= MAX_CODES
    for code in found:
        assert code.replace("-", "").isalnum()
        assert 4 <= len(code) <= 11


@given(TEXTS, TEXTS)
def test_links_are_web_addresses_without_blanks(text, html):
    found = links(text, html)
    assert len(found) == len(set(found)) <= MAX_LINKS
    for link in found:
        assert link.lower().startswith(("http://", "https://"))
        assert not set(link) & set(" \t\r\n")


@given(TEXTS)
def test_a_query_is_a_search_within_bounds_or_refused(query):
    with suppress(ProtocolViolation):
        check_bounds(parse(query))


@given(st.binary(max_size=300) | TEXTS.map(lambda text: text.encode("utf-8", "replace")))
@example(b'Content-Type: multipart/mixed; boundary="a"\r\n\r\n--a\r\n\r\nx\r\n--a--')
def test_any_octets_are_shown(octets):
    parser = Parser()
    parser.feed(octets)
    found = show(parser.close().parts, lambda start, end: octets[start:end])
    assert "\0" not in found.text + found.html
    assert all(each.filename for each in found.attachments)
