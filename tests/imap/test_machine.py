"""The input machine: whole commands out of octets, whatever comes and however it is cut."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailtwist.imap.limits import AFTER_LOGIN, BEFORE_LOGIN, Limits
from mailtwist.imap.machine import Machine
from mailtwist.imap.units import (
    AppendEnd,
    AppendStart,
    Block,
    Continue,
    Line,
    Violation,
    Wake,
    Whole,
)

SMALL = Limits(line=60, command=120, message=50, skip=200, answer=30)


def units(
    *chunks: bytes, limits: Limits = AFTER_LOGIN, accepting: bool = True, lines: bool = False
) -> list[Any]:
    """All units; the blocks of a message joined, since only their sum is promised."""
    machine = Machine()
    machine.limits = limits
    machine.expects_line = lines
    found: list[Any] = []
    for chunk in chunks:
        machine.feed(chunk)
        while (unit := machine.next()) is not None:
            if isinstance(unit, AppendStart):
                machine.accept() if accepting else machine.decline()
            if isinstance(unit, Block) and found and isinstance(found[-1], Block):
                found[-1] = Block(found[-1].data + unit.data)
            else:
                found.append(unit)
    return found


def shown(found: list[Any]) -> list[Any]:
    """Violations compare by what the client sees of them."""
    return [
        (unit.tag, type(unit.error), unit.error.text, unit.is_fatal)
        if isinstance(unit, Violation)
        else unit
        for unit in found
    ]


COMMANDS = {
    "one line": (b"a NOOP\r\n", [Whole(b"a NOOP")]),
    "two lines": (b"a NOOP\r\nb NOOP\r\n", [Whole(b"a NOOP"), Whole(b"b NOOP")]),
    "an empty line": (b"\r\n", [Whole(b"")]),
    "half a line": (b"a NOOP\r", []),
    "bare LF is no end": (b"a NOOP\nb NOOP\r\n", [Whole(b"a NOOP\nb NOOP")]),
    "bare CR is no end": (b"a NOOP\rb\r\n", [Whole(b"a NOOP\rb")]),
    "a literal that waits": (
        b"a LOGIN {4}\r\nanna {2}\r\npw\r\n",
        [Continue(), Continue(), Whole(b"a LOGIN {4}\r\nanna {2}\r\npw")],
    ),
    "a literal that does not wait": (
        b"a LOGIN {4+}\r\nanna {2+}\r\npw\r\nb NOOP\r\n",
        [Whole(b"a LOGIN {4+}\r\nanna {2+}\r\npw"), Whole(b"b NOOP")],
    ),
    "an empty literal": (b"a X {0+}\r\n\r\n", [Whole(b"a X {0+}\r\n")]),
    "a literal that looks like commands": (
        b"a X {12+}\r\nb LOGOUT\r\n\r\n\r\nc NOOP\r\n",
        [Whole(b"a X {12+}\r\nb LOGOUT\r\n\r\n"), Whole(b"c NOOP")],
    ),
    "a literal header inside a line is text": (b"a X {4} y\r\n", [Whole(b"a X {4} y")]),
    "a message": (
        b"a APPEND INBOX (\\Seen) {5}\r\nhello\r\nb NOOP\r\n",
        [
            AppendStart(b"a APPEND INBOX (\\Seen)", 5, True),
            Block(b"hello"),
            AppendEnd(b""),
            Whole(b"b NOOP"),
        ],
    ),
    "a message that does not wait": (
        b"a append INBOX {5+}\r\nhello\r\n",
        [AppendStart(b"a append INBOX", 5, False), Block(b"hello"), AppendEnd(b"")],
    ),
    "an empty message": (
        b"a APPEND INBOX {0+}\r\n\r\n",
        [AppendStart(b"a APPEND INBOX", 0, False), AppendEnd(b"")],
    ),
    "a message behind a mailbox that is a literal": (
        b"a APPEND {5+}\r\nINBOX {2+}\r\nhi\r\n",
        [AppendStart(b"a APPEND {5+}\r\nINBOX", 2, False), Block(b"hi"), AppendEnd(b"")],
    ),
    "text behind a message": (
        b"a APPEND INBOX {2+}\r\nhi more\r\n",
        [AppendStart(b"a APPEND INBOX", 2, False), Block(b"hi"), AppendEnd(b" more")],
    ),
    "a second message": (
        b"a APPEND INBOX {2+}\r\nhi {6+}\r\nb NOOP\r\nc NOOP\r\n",
        [
            AppendStart(b"a APPEND INBOX", 2, False),
            Block(b"hi"),
            AppendEnd(b" {6+}"),
            Whole(b"c NOOP"),
        ],
    ),
}


@pytest.mark.parametrize(("octets", "expected"), COMMANDS.values(), ids=COMMANDS)
def test_commands_are_cut_out(octets: bytes, expected: list[Any]) -> None:
    assert units(octets) == expected


REFUSED = {
    "a negative literal": (b"a SEARCH {-100}\r\nb NOOP\r\n", "Invalid literal"),
    "a literal without number": (b"a SEARCH {}\r\nb NOOP\r\n", "Invalid literal"),
    "a huge literal": (
        b"a LOGIN {99999999999999999999999999}\r\nb NOOP\r\n",
        "Literal too long",
    ),
    "a large literal": (b"a LOGIN {121}\r\nb NOOP\r\n", "Literal too long"),
    "a large literal that comes": (
        b"a LOGIN {121+}\r\n" + b"x LOGOUT\r\n" * 12 + b"y\r\nb NOOP\r\n",
        "Literal too long",
    ),
    "many literals": (
        b"a X {50+}\r\n" + b"y" * 50 + b" {50+}\r\n" + b"z" * 50 + b"\r\nb NOOP\r\n",
        "Command too long",
    ),
    "a literal behind a large literal": (
        b"a LOGIN {121+}\r\n" + b"x" * 121 + b" {10+}\r\nb LOGOUT\r\n\r\nb NOOP\r\n",
        "Literal too long",
    ),
    "a large message": (b"a APPEND INBOX {51}\r\nb NOOP\r\n", "Message too large"),
    "a large message that comes": (
        b"a APPEND INBOX {51+}\r\n" + b"x" * 51 + b"\r\nb NOOP\r\n",
        "Message too large",
    ),
    "a binary message": (b"a APPEND INBOX ~{5}\r\nb NOOP\r\n", "Binary literals are not supported"),
    "a binary message that comes": (
        b"a APPEND INBOX ~{5+}\r\n\0\0\0\0\0\r\nb NOOP\r\n",
        "Binary literals are not supported",
    ),
    "a long line": (b"a " + b"x" * 59 + b"\r\nb NOOP\r\n", "Line too long"),
    "a long line that ends in a literal": (
        b"a " + b"x" * 70 + b" {10+}\r\nz LOGOUT\r\n\r\nb NOOP\r\n",
        "Line too long",
    ),
}


@pytest.mark.parametrize(("octets", "text"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_leaves_the_session_in_step(octets: bytes, text: str) -> None:
    found = units(octets, limits=SMALL)
    assert [type(unit) for unit in found] == [Violation, Whole]
    assert (found[0].tag, found[0].error.text, found[0].is_fatal) == (b"a", text, False)
    assert found[1] == Whole(b"b NOOP")


FATAL = {
    "a literal of more than can be": b"a LOGIN {%b+}\r\nxxx" % (b"9" * 40),
    "a literal of gigabytes": b"a LOGIN {9999999999+}\r\nxxx",
    "a message of gigabytes": b"a APPEND INBOX {9999999999+}\r\nxxx",
    "a line without end": b"a " + b"x" * 400,
}


@pytest.mark.parametrize("octets", FATAL.values(), ids=FATAL)
def test_what_would_be_too_much_to_skip_ends_the_session(octets: bytes) -> None:
    found = units(octets, b"b NOOP\r\n", limits=SMALL)
    assert found[-1].is_fatal
    assert all(isinstance(unit, Violation) for unit in found)


def test_a_declined_message_is_skipped_and_never_run() -> None:
    octets = b"a APPEND Nowhere {10+}\r\nb LOGOUT\r\n\r\nc NOOP\r\n"
    found = units(octets, accepting=False)
    assert found == [AppendStart(b"a APPEND Nowhere", 10, False), Whole(b"c NOOP")]


def test_a_declined_message_that_waits_never_comes() -> None:
    found = units(b"a APPEND Nowhere {10}\r\nc NOOP\r\n", accepting=False)
    assert found == [AppendStart(b"a APPEND Nowhere", 10, True), Whole(b"c NOOP")]


def test_before_the_login_nothing_is_large() -> None:
    found = units(b"a LOGIN {8180}\r\n", limits=BEFORE_LOGIN)
    assert found[0].error.imap_code == "TOOBIG"
    # APPEND has no message yet: its literal counts like any other.
    found = units(b"a APPEND INBOX {9000}\r\n", limits=BEFORE_LOGIN)
    assert isinstance(found[0], Violation)
    assert units(b"a LOGIN {4096}\r\n", limits=BEFORE_LOGIN) == [Continue()]


def test_a_continuation_takes_lines_as_they_are() -> None:
    assert units(b"DONE {5}\r\n", lines=True) == [Line(b"DONE {5}")]
    found = units(b"x" * 31 + b"\r\n", limits=SMALL, lines=True)
    assert found[0].error.text == "Line too long"


def test_a_wake_is_for_those_who_wait() -> None:
    machine = Machine()
    machine.wake()
    assert machine.next() is None
    machine.expects_line = True
    machine.wake()
    assert machine.next() == Wake()
    assert machine.next() is None


def test_what_is_cleared_is_forgotten() -> None:
    machine = Machine()
    machine.feed(b"a X {10+}\r\nabc")
    assert machine.next() is None
    machine.clear()
    assert machine.buffered == 0
    machine.feed(b"b NOOP\r\n")
    assert machine.next() == Whole(b"b NOOP")


_PIECES = st.sampled_from(
    [
        b"a NOOP\r\n",
        b"b APPEND INBOX {5}\r\n",
        b"c APPEND INBOX {10+}\r\n",
        b"d APPEND {3+}\r\nbox {5+}\r\n",
        b"hello",
        b"\r\n",
        b"\r",
        b"\n",
        b"{3+}\r\n",
        b" {4}\r\n",
        b"{-1}\r\n",
        b"{30+}\r\n",
        b"{199+}\r\n",
        b"{300+}\r\n",
        b"~{5+}\r\n",
        b"e LOGOUT\r\n",
        b"x" * 59,
        b"y" * 200,
        b"\0",
    ]
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.lists(_PIECES, max_size=12),
    st.lists(st.integers(1, 40), min_size=1, max_size=30),
    st.booleans(),
)
def test_chunks_make_no_difference(pieces: list[bytes], sizes: list[int], accepting: bool) -> None:
    octets = b"".join(pieces)
    whole = units(octets, limits=SMALL, accepting=accepting)
    for cut in (sizes, [1]):
        chunks, position, n = [], 0, 0
        while position < len(octets):
            chunks.append(octets[position : position + cut[n % len(cut)]])
            position += cut[n % len(cut)]
            n += 1
        found = units(*chunks, limits=SMALL, accepting=accepting)
        assert shown(found) == shown(whole)


def test_a_large_message_is_handed_on_and_not_held() -> None:
    machine = Machine()
    machine.limits = replace(AFTER_LOGIN, message=50_000_000)
    machine.feed(b"a APPEND INBOX {40000000+}\r\n")
    assert isinstance(machine.next(), AppendStart)
    machine.accept()
    chunk, came = b"x" * 65536, 0
    while came < 40_000_000:
        machine.feed(chunk[: 40_000_000 - came])
        while (unit := machine.next()) is not None:
            assert isinstance(unit, Block)
            came += len(unit.data)
        assert machine.buffered <= 65536


def test_a_megabyte_of_small_commands_is_quick() -> None:
    machine = Machine()
    began = time.perf_counter()
    count = 0
    for _ in range(16):
        machine.feed(b"a NOOP\r\n" * 8192)
        while machine.next() is not None:
            count += 1
    assert count == 131072
    assert time.perf_counter() - began < 2
