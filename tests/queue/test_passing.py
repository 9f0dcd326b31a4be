"""The header of a message is found however its octets are cut, and nothing is lost."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from mailtwist.queue.passing import MAX_HEADER, Passing, missing_fields

pieces = st.lists(
    st.sampled_from([b"\r\n", b"Date: x\r\n", b"message-id: <a@b>\r\n", b"a", b"\r", b"\n", b" "]),
    max_size=20,
).map(b"".join)
ABOVE = b"X-Above: 1\r\n"


def passed(blocks: list[bytes]) -> tuple[bytes, bytes]:
    """What the spool gets, and what is taken for the header."""
    passing = Passing(rewrite=lambda header: ABOVE + header)
    spooled = b"".join([passing.take(block) for block in blocks]) + passing.close()
    return spooled, passing.header


@given(message=pieces, cuts=st.lists(st.integers(1, 7), max_size=30))
def test_cuts_change_nothing(message: bytes, cuts: list[int]) -> None:
    blocks, rest = [], message
    for size in cuts:
        blocks.append(rest[:size])
        rest = rest[size:]
    spooled, header = passed([*blocks, rest])
    assert spooled == ABOVE + message
    # The same rule, told otherwise: up to the first empty line, or all of it.
    first = 0 if message.startswith(b"\r\n") else message.find(b"\r\n\r\n") + 2
    assert header == ABOVE + (message if first == 1 else message[:first])


def test_a_header_without_end_is_held_back_no_longer_than_it_is_looked_at() -> None:
    passing = Passing(rewrite=lambda header: ABOVE + header)
    taken = b"".join(passing.take(b"x" * 1000) for _ in range(100))
    assert taken == b"x" * 100_000
    assert len(passing.header) == MAX_HEADER


def test_a_header_octet_by_octet_costs_no_time() -> None:
    passing = Passing()
    began = time.perf_counter()
    for _ in range(MAX_HEADER):
        passing.take(b"x")
    assert time.perf_counter() - began < 1


def test_fields_are_only_looked_for_at_the_start_of_lines() -> None:
    def missing(header: bytes) -> bytes:
        return missing_fields(header, message_id="n@h", seconds=0)

    both = b"Date: Thu, 1 Jan 1970 00:00:00 +0000\r\nMessage-ID: <n@h>\r\n"
    assert missing(b"") == both
    assert missing(b"X: Date: y\r\n\tMessage-ID: z\r\n") == both
    assert missing(b"Resent-Date: y\r\nX-Message-ID: z\r\n") == both
    assert missing(b"DATE:\r\nMESSAGE-ID :\r\n") == b""
    assert missing(b"\xff" * 60_000 + b"\r\nDate: x\r\n") == b"Message-ID: <n@h>\r\n"
