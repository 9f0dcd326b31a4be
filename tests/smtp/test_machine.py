"""The input machine equals a naive model of lines, however the octets are cut."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailtwist.smtp.machine import LINE, LONGEST_LINE, Block, Input, LineEnds, Violation

pieces = st.lists(
    st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"\r\n.", b"\r\n.\r\n", b"a", b"..", b"bc"]),
    max_size=40,
).map(b"".join)
cuts = st.lists(st.integers(1, 9), max_size=60)


def chunks(data: bytes, sizes: Iterable[int]) -> list[bytes]:
    result = []
    for size in sizes:
        result.append(data[:size])
        data = data[size:]
    return [chunk for chunk in [*result, data] if chunk]


def model(stream: bytes) -> tuple[bytes, bool, bytes] | None:
    """What the octets behind 354 mean: the message, whether it is bare, what follows."""
    whole = b"\r\n" + stream
    end = whole.find(b"\r\n.\r\n")
    if end < 0:
        return None
    body = whole[: end + 2]
    lines = body[2:].split(b"\r\n")
    message = b"\r\n".join(line[1:] if line[:1] == b"." else line for line in lines)
    bare = re.search(rb"\r(?!\n)|(?<!\r)\n", body) is not None
    return message, bare, whole[end + 5 :]


@given(stream=pieces, sizes=cuts)
def test_a_message_is_what_its_lines_say(stream: bytes, sizes: list[int]) -> None:
    machine = Input()
    machine.start_message()
    message, bare, ended, rest = b"", False, False, b""
    for chunk in chunks(stream, sizes):
        if ended:
            rest += chunk
            continue
        machine.feed(chunk)
        while not ended and (unit := machine.next()) is not None:
            assert isinstance(unit, Block)
            message += unit.data
            bare = bare or unit.bare
            ended = unit.last
        if ended:
            rest = machine._buffer[machine._position :]
    expected = model(stream)
    assert ended == (expected is not None)
    if expected is not None:
        assert (message, bare, rest) == expected


@given(stream=pieces, sizes=cuts)
def test_an_unfinished_message_keeps_only_a_tail(stream: bytes, sizes: list[int]) -> None:
    machine = Input()
    machine.start_message()
    for chunk in chunks(stream.replace(b"\r\n.\r\n", b""), sizes):
        machine.feed(chunk)
        while (unit := machine.next()) is not None:
            assert isinstance(unit, Block)
            if unit.last:
                return
        assert machine.buffered <= 8


line = st.binary(max_size=20).filter(lambda value: b"\n" not in value and b"\r" not in value)


@given(lines=st.lists(line, max_size=10), sizes=cuts)
def test_lines_come_as_they_were_sent(lines: list[bytes], sizes: list[int]) -> None:
    machine = Input()
    found = []
    for chunk in chunks(b"".join(each + b"\r\n" for each in lines), sizes):
        machine.feed(chunk)
        while (unit := machine.next()) is not None:
            found.append(unit)
    assert found == lines


@pytest.mark.parametrize(
    "octets, unit",
    [
        (b"NOOP\r\n", b"NOOP"),
        (b"\r\n", b""),
        (b"NOOP\n", Violation.BARE),
        (b"\n", Violation.BARE),
        (b"NO\rOP\r\n", Violation.BARE),
        (b"NOOP\r\r\n", Violation.BARE),
        (b"NOOP " + b"x" * (LINE - 7) + b"\r\n", b"NOOP " + b"x" * (LINE - 7)),
        (b"NOOP " + b"x" * (LINE - 6) + b"\r\n", Violation.TOO_LONG),
        (b"mail " + b"x" * (2048 - 7) + b"\r\n", b"mail " + b"x" * (2048 - 7)),
        (b"RCPT " + b"x" * (2048 - 6) + b"\r\n", Violation.TOO_LONG),
        (b"AUTH " + b"x" * (12288 - 7) + b"\r\n", b"AUTH " + b"x" * (12288 - 7)),
        (b"AUTH " + b"x" * (12288 - 6) + b"\r\n", Violation.TOO_LONG),
        (b"x" * 100_000 + b"\r\n", Violation.TOO_LONG),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1_000_000])
def test_a_line_has_its_bound(octets: bytes, unit: object, size: int) -> None:
    machine = Input()
    found = []
    for chunk in chunks(octets + b"RSET\r\n", [size] * (len(octets) // size + 1)):
        machine.feed(chunk)
        while (each := machine.next()) is not None:
            found.append(each)
        assert machine.buffered <= LONGEST_LINE
    assert found == [unit, b"RSET"]


def test_what_is_cleared_is_gone() -> None:
    machine = Input()
    machine.feed(b"STARTTLS\r\nMAIL FROM:<a@b>\r\nhalf")
    assert machine.next() == b"STARTTLS"
    machine.clear()
    assert machine.next() is None
    machine.feed(b"NOOP\r\n")
    assert machine.next() == b"NOOP"


@given(data=pieces, sizes=cuts)
def test_lone_line_ends_are_found_however_a_message_is_cut(data: bytes, sizes: list[int]) -> None:
    line_ends = LineEnds()
    said = [line_ends.feed(chunk) for chunk in chunks(data, sizes)]
    assert line_ends.end() == (re.search(rb"\r(?!\n)|(?<!\r)\n", data) is not None)
    # What was found is never taken back.
    assert said == sorted(said)


@given(
    sent=st.lists(st.binary(max_size=20), min_size=1, max_size=6),
    sizes=cuts,
)
def test_chunks_are_their_octets_and_lines_go_on_behind_them(
    sent: list[bytes], sizes: list[int]
) -> None:
    stream = b"".join(b"BDAT\r\n" + each for each in sent) + b"NOOP\r\n"
    machine, lines, taken = Input(), 0, [b""]
    for chunk in chunks(stream, sizes):
        machine.feed(chunk)
        while (unit := machine.next()) is not None:
            if isinstance(unit, Block):
                taken[-1] += unit.data
                if unit.last:
                    taken.append(b"")
                continue
            assert unit == (b"BDAT" if lines < len(sent) else b"NOOP")
            if lines < len(sent):
                machine.start_chunk(len(sent[lines]))
            lines += 1
    assert lines == len(sent) + 1
    assert taken == [*sent, b""]
