"""Nothing that content holds can leave as a second message."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mailtwist.queue.client_content import BareLineEnd, LineEnds, Stuffer, stuffed

# Words of which hostile content is made.
HOSTILE = st.lists(
    st.sampled_from([b"\r\n", b".", b"\r", b"\n", b"..", b"a", b"\r\n.\r\n", b"MAIL FROM:<>"]),
    max_size=12,
).map(b"".join)
CUTS = st.lists(st.integers(0, 40), max_size=6)


def blocks_of(content: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut for cut in cuts if cut < len(content)), len(content)]
    return [content[a:b] for a, b in itertools.pairwise(places)]


def sent(blocks: list[bytes]) -> bytes:
    stuffer = Stuffer()
    return b"".join([*map(stuffer.feed, blocks), stuffer.close()])


def unstuffed(wire: bytes) -> bytes:
    """What a server that keeps to RFC 5321 §4.5.2 makes of it, up to the end."""
    lines: list[bytes] = []
    for line in wire.split(b"\r\n"):
        if line == b".":
            return b"".join(lines)
        lines.append((line[1:] if line.startswith(b".") else line) + b"\r\n")
    raise AssertionError("there is no end")


def has_bare(content: bytes) -> bool:
    return re.search(rb"(?<!\r)\n|\r(?!\n)", content) is not None


@settings(derandomize=True, deadline=None, max_examples=300)
@given(HOSTILE, CUTS)
@example(b".", [])
@example(b"a\r\n.\r\nb\r\n", [2, 3])
@example(b"a\r\n.", [3, 3])
@example(b"", [])
def test_whatever_the_content_and_its_blocks_it_arrives_whole_and_alone(content, cuts):
    blocks = blocks_of(content, cuts)
    assert b"".join(blocks) == content
    if has_bare(content):
        with pytest.raises(BareLineEnd):
            sent(blocks)
        return
    wire = sent(blocks)
    whole = content if content.endswith(b"\r\n") or not content else content + b"\r\n"
    assert unstuffed(wire) == whole
    # A server that takes a lone CR or LF for a line end sees the end where we put it.
    assert re.split(rb"\r\n|\r|\n", wire).index(b".") == wire.count(b"\r\n") - 1
    assert wire == stuffed(content)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(HOSTILE, CUTS)
def test_line_ends_are_checked_across_blocks(content, cuts):
    ends = LineEnds()
    try:
        for block in blocks_of(content, cuts):
            ends.check(block)
        missing = ends.close()
    except BareLineEnd:
        assert has_bare(content)
    else:
        assert not has_bare(content)
        assert (content + missing).endswith(b"\r\n") or not content


@pytest.mark.parametrize(
    "content",
    [
        b"a\n.\r\nMAIL FROM:<x@y>\r\n",
        b"a\r\n.\nMAIL FROM:<x@y>\r\n",
        b"a\r.\r\nMAIL FROM:<x@y>\r\n",
        b"a\r\n.\rMAIL FROM:<x@y>\r\n",
        b"a\n.\nMAIL FROM:<x@y>\r\n",
        b"a\r\r\n.\r\n",
        b"a\r",
        b"\n",
    ],
)
def test_known_forms_of_smuggling_are_refused(content):
    for cut in range(len(content) + 1):
        with pytest.raises(BareLineEnd):
            sent([content[:cut], content[cut:]])
