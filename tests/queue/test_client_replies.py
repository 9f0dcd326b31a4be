"""Replies of strangers: what is taken, what is bounded, what it is turned into."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailtwist.queue.client_replies import MAX_LINE, MAX_LINES, Reply, ReplyParser

LINE = b"250 2.1.0 sender ok\r\n"


def parse(data: bytes) -> tuple[list[tuple[int, tuple[bytes, ...]]], str]:
    parser = ReplyParser()
    replies = [(reply.code, reply.lines) for reply in parser.feed(data)]
    return replies, parser.problem


@pytest.mark.parametrize(
    ("data", "replies"),
    [
        (b"250 ok\r\n", [(250, (b"ok",))]),
        (b"250 ok\n", [(250, (b"ok",))]),
        (b"250\r\n", [(250, (b"",))]),
        (b"250 \r\n", [(250, (b"",))]),
        (b"250-a\r\n250-b\r\n250 c\r\n", [(250, (b"a", b"b", b"c"))]),
        (b"250-a\r\n250\r\n", [(250, (b"a", b""))]),
        (b"250 a\r\n354 b\r\n", [(250, (b"a",)), (354, (b"b",))]),
        (b"250 a\r\n250-b\r\n250", [(250, (b"a",))]),
    ],
)
def test_replies_are_cut_from_octets(data, replies):
    assert parse(data) == (replies, "")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"hello\r\n", "a line that is no reply"),
        (b"\r\n", "a line that is no reply"),
        (b"25 ok\r\n", "a line that is no reply"),
        (b"150 ok\r\n", "a line that is no reply"),
        (b"650 ok\r\n", "a line that is no reply"),
        (b"2500 ok\r\n", "a line that is no reply"),
        (b"250ok\r\n", "a line that is no reply"),
        (b"\x00\xff\xfe\r\n", "a line that is no reply"),
        (b"250-a\r\n251 b\r\n", "a reply of two codes"),
        (b"250 " + b"x" * MAX_LINE + b"\r\n", "an over-long line"),
        (b"250 " + b"x" * MAX_LINE, "an over-long line"),
        (b"250-more\r\n" * MAX_LINES, "a reply of too many lines"),
    ],
)
def test_what_is_no_reply_is_a_problem(data, problem):
    assert parse(data) == ([], problem)
    # The replies in front of it count all the same.
    assert parse(LINE + data)[0] == [(250, (b"2.1.0 sender ok",))]


def test_nothing_is_read_after_a_problem():
    parser = ReplyParser()
    parser.feed(b"what?\r\n250 ok\r\n")
    assert parser.feed(LINE) == []


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=8))
def test_it_does_not_matter_how_octets_arrive(data, borders):
    data = data.replace(b"\x00", b"\r\n").replace(b"\x01", LINE)
    whole = parse(data)
    parser = ReplyParser()
    found = []
    cuts = sorted({0, len(data), *(border for border in borders if border < len(data))})
    for start, end in itertools.pairwise(cuts):
        found += [(reply.code, reply.lines) for reply in parser.feed(data[start:end])]
    assert (found, parser.problem) == whole


@pytest.mark.parametrize(
    ("code", "lines", "status", "text"),
    [
        (550, (b"5.1.1 no such user",), "5.1.1", "no such user"),
        (550, (b"no such user",), "5.0.0", "no such user"),
        (451, (b"4.7.1 come", b"4.7.1 back"), "4.7.1", "come back"),
        (550, (b"2.0.0 it lies",), "5.0.0", "it lies"),
        (550, (b"5.1.1",), "5.1.1", ""),
        (250, (b"2.0.0 ok\x1b[31m\r\nX: y",), "2.0.0", "ok?[31m?X: y"),
        (550, ("5.7.1 gr\u00fc\u00df".encode(),), "5.7.1", "gr?"),
        (550, (b"5.7.1 " + b"x" * 2000,), "5.7.1", "x" * 500),
    ],
)
def test_a_reply_becomes_one_printable_line(code, lines, status, text):
    said = Reply(code, lines).said("rcpt")
    assert (said.code, said.status, said.text, said.stage) == (code, status, text, "rcpt")
    assert not said.is_ours
