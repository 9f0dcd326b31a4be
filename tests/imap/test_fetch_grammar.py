"""FETCH items from octets to values and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailtwist.errors import ProtocolViolation
from mailtwist.imap.fetch_grammar import (
    Item,
    Section,
    format_section,
    parse_fetch,
    parse_items,
    parse_section,
)
from mailtwist.imap.grammar import Parser


def items(text: bytes) -> tuple[Item, ...]:
    parser = Parser(text)
    found = parse_items(parser)
    parser.end()
    return found


@pytest.mark.parametrize(
    "text, names",
    [
        (b"FAST", [b"FLAGS", b"INTERNALDATE", b"RFC822.SIZE"]),
        (b"all", [b"FLAGS", b"INTERNALDATE", b"RFC822.SIZE", b"ENVELOPE"]),
        (b"FULL", [b"FLAGS", b"INTERNALDATE", b"RFC822.SIZE", b"ENVELOPE", b"BODY"]),
        (b"uid", [b"UID"]),
        (b"(UID Flags BODYSTRUCTURE)", [b"UID", b"FLAGS", b"BODYSTRUCTURE"]),
        (b"(FLAGS FLAGS)", [b"FLAGS"]),
        (b"BODY", [b"BODY"]),
        (b"BODY[]", [b"BODY[]"]),
        (b"BODY.PEEK[HEADER]", [b"BODY[HEADER]"]),
        (b"body[text]<0.10>", [b"BODY[TEXT]<0>"]),
        (b"BODY[1.2.3]", [b"BODY[1.2.3]"]),
        (b"BODY[1.MIME]", [b"BODY[1.MIME]"]),
        (b"BODY[2.HEADER]<5.1>", [b"BODY[2.HEADER]<5>"]),
        (
            b"BODY.PEEK[HEADER.FIELDS (From SUBJECT)]",
            [b"BODY[HEADER.FIELDS (From SUBJECT)]"],
        ),
        (
            b'BODY[1.HEADER.FIELDS.NOT ("x-a" {3}\r\nX-B)]',
            [b"BODY[1.HEADER.FIELDS.NOT (x-a X-B)]"],
        ),
        (b"RFC822", [b"RFC822"]),
        (b"(RFC822.HEADER RFC822.TEXT RFC822.SIZE)",
         [b"RFC822.HEADER", b"RFC822.TEXT", b"RFC822.SIZE"]),
    ],
)  # fmt: skip
def test_answers_are_named_as_the_rfc_says(text: bytes, names: list[bytes]) -> None:
    assert [item.name for item in items(text)] == names


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"()",
        b"(UID",
        b"(UID FAST)",
        b"(UID  FLAGS)",
        b"NOTHING",
        b"BODY[",
        b"BODY[]<0>",
        b"BODY[]<0.0>",
        b"BODY[]<-1.5>",
        b"BODY[]<0.99999999999999999999>",
        b"BODY[MIME]",
        b"BODY[0]",
        b"BODY[1.]",
        b"BODY[.1]",
        b"BODY[1.HEADERS]",
        b"BODY[HEADER.FIELDS]",
        b"BODY[HEADER.FIELDS ()]",
        b"BODY[HEADER.FIELDS (a b]",
        b'BODY[HEADER.FIELDS ("a b")]',
        b'BODY[HEADER.FIELDS ("")]',
        b"BODY[" + b"1." * 40 + b"1]",
        b"BODY[1" + b"0" * 5000 + b"]",
        b"RFC822[]",
        b"BODYSTRUCTURE[]",
        b"(" * 10_000,
        b"(" + b" ".join(b"BODY[%d]" % n for n in range(1, 500)) + b")",
    ],
)
def test_what_is_no_fetch_item_is_a_violation(text: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        items(text)


@pytest.mark.parametrize(
    "text, seen",
    [
        (b"1 BODY[]", True),
        (b"1 BODY.PEEK[]", False),
        (b"1 (FLAGS BODY.PEEK[1] BODY[2])", True),
        (b"1 RFC822", True),
        (b"1 RFC822.TEXT", True),
        (b"1 RFC822.HEADER", False),
        (b"1 (UID BODY BODYSTRUCTURE)", False),
    ],
)
def test_only_reading_without_peek_marks_as_seen(text: bytes, seen: bool) -> None:
    assert parse_fetch(Parser(text)).sets_seen is seen


names = st.from_regex(rb"[A-Za-z][A-Za-z0-9-]{0,20}", fullmatch=True)
sections = st.builds(
    Section,
    st.lists(st.integers(1, 2**32 - 1), max_size=8).map(tuple),
    st.sampled_from(["", "HEADER", "TEXT"]),
) | st.builds(
    Section,
    st.lists(st.integers(1, 99), max_size=8).map(tuple),
    st.sampled_from(["HEADER.FIELDS", "HEADER.FIELDS.NOT"]),
    st.lists(names, min_size=1, max_size=5).map(tuple),
)


@given(sections)
def test_a_section_is_what_its_text_says(section: Section) -> None:
    parser = Parser(format_section(section))
    assert parse_section(parser) == section
    assert parser.at_end


@given(st.binary(max_size=60))
def test_any_octets_are_an_item_or_a_violation(data: bytes) -> None:
    try:
        parse_fetch(Parser(b"1 " + data))
    except ProtocolViolation:
        pass
