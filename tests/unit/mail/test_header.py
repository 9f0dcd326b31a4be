"""Fields chosen from a block, and fields made."""

from __future__ import annotations

import email
import email.policy

import pytest

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.header import (
    MAX_BLOCK,
    fold_line,
    format_field,
    select_fields,
    split_fields,
)

BLOCK = (
    b"Received: one\r\n\tby x\r\n"
    b"From:  Ann <ann@example.org>\r\n"
    b"no field at all\r\n"
    b"received: two\r\n"
    b"Subject : spaced\r\n"
    b"\r\n"
    b"Body: none\r\n"
)


def test_fields_keep_their_octets_and_their_order() -> None:
    fields = split_fields(BLOCK)
    assert [name for name, _ in fields] == [b"Received", b"From", b"", b"received", b"Subject"]
    assert b"".join(raw for _, raw in fields) + b"\r\nBody: none\r\n" == BLOCK


SELECTIONS = [
    ([b"RECEIVED"], False, b"Received: one\r\n\tby x\r\nreceived: two\r\n\r\n"),
    ([b"subject", b"from"], False, b"From:  Ann <ann@example.org>\r\nSubject : spaced\r\n\r\n"),
    ([b"x"], False, b"\r\n"),
    ([], False, b"\r\n"),
    ([b"received", b"subject"], True, b"From:  Ann <ann@example.org>\r\nno field at all\r\n\r\n"),
    ([], True, BLOCK[: BLOCK.index(b"Body")]),
]


@pytest.mark.parametrize(("names", "exclude", "chosen"), SELECTIONS)
def test_fields_are_chosen_as_they_are(names: list[bytes], exclude: bool, chosen: bytes) -> None:
    assert select_fields(BLOCK, names, exclude=exclude) == chosen


def test_a_block_without_its_end_still_ends_with_the_blank_line() -> None:
    assert select_fields(b"A: b", [b"a"]) == b"A: b\r\n\r\n"
    assert select_fields(b"A: b\n", [b"a"]) == b"A: b\n\r\n"
    assert select_fields(b"", [b"a"]) == b"\r\n"


def test_of_an_endless_header_only_the_start_is_read() -> None:
    block = b"A:\n" * MAX_BLOCK + b"To: late\n\n"
    chosen = select_fields(block, [b"a", b"to"])
    assert MAX_BLOCK - 3 < len(chosen) <= MAX_BLOCK + 4
    assert b"late" not in chosen


@pytest.mark.parametrize(
    "value",
    ["a\r\nBcc: x", "a\nb", "a\rb", "a\0b", "a\x85b", "a\u2028b", "a\u2029b", "a\x0bb", "a\x0cb"],
)
def test_no_value_begins_another_line(value: str) -> None:
    with pytest.raises(ProtocolViolation):
        format_field("Subject", value)


@pytest.mark.parametrize("name", ["", "A B", "A:", "Ä", "A\r\nB", "A" * 77])
def test_an_invalid_name_is_refused(name: str) -> None:
    with pytest.raises(ProtocolViolation):
        format_field(name, "x")


@pytest.mark.parametrize(
    "value",
    [
        "short",
        "word " * 60 + "end",
        "Grüße aus München " * 12 + ".",
        "日本語" * 40,
        "x" * 300,
        "a  b",
    ],
)
def test_what_is_formatted_reads_back(value: str) -> None:
    made = format_field("Subject", value)
    assert made.endswith(b"\r\n")
    if " " in value or not value.isascii():
        assert all(len(line) <= 78 for line in made.split(b"\r\n"))
    parsed = email.message_from_bytes(made, policy=email.policy.default)
    assert parsed["Subject"] == value


def test_a_long_word_stays_whole() -> None:
    assert fold_line(b"X: " + b"y" * 200) == b"X: " + b"y" * 200 + b"\r\n"
