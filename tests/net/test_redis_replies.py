"""What a Redis answers, however it is cut, and what is no answer."""

from __future__ import annotations

from typing import Any

import pytest

from mailtwist.errors import ProtocolViolation
from mailtwist.net import redis_replies
from mailtwist.net.redis_replies import ErrorReply, Replies

WELL = [
    (b"+OK\r\n", b"OK"),
    (b"+\r\n", b""),
    (b"-NOSCRIPT No matching script.\r\n", ErrorReply("NOSCRIPT No matching script.")),
    (b"-\xff\r\n", ErrorReply("\\xff")),
    (b":0\r\n", 0),
    (b":-12\r\n", -12),
    (b":+9223372036854775807\r\n", 9223372036854775807),
    (b"$-1\r\n", None),
    (b"$0\r\n\r\n", b""),
    (b"$7\r\n\r\n$1\r\nx\r\n", b"\r\n$1\r\nx"),
    (b"*-1\r\n", None),
    (b"*0\r\n", []),
    (b"*3\r\n$1\r\na\r\n$-1\r\n:7\r\n", [b"a", None, 7]),
    (b"*2\r\n*2\r\n:1\r\n*0\r\n*1\r\n-ERR no\r\n", [[1, []], [ErrorReply("ERR no")]]),
]
ALL = b"".join(octets for octets, _ in WELL)


@pytest.mark.parametrize(("octets", "reply"), WELL, ids=lambda value: repr(value)[:30])
def test_a_reply_means_its_value(octets, reply):
    assert Replies().feed(octets) == [reply]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 11, 64, len(ALL)])
def test_however_they_are_cut_they_are_the_same(size):
    replies = Replies()
    found = []
    for at in range(0, len(ALL), size):
        found += replies.feed(ALL[at : at + size])
    assert found == [reply for _, reply in WELL]


@pytest.mark.parametrize(
    "octets",
    [
        b"\r\n",
        b"OK\r\n",
        b"%1\r\n+a\r\n+b\r\n",
        b":\r\n",
        b":1.5\r\n",
        b":--1\r\n",
        b": 1\r\n",
        b":\xb2\r\n",
        b":" + b"9" * 20 + b"\r\n",
        b"$-2\r\n",
        b"$x\r\n",
        b"$1\r\nab\r\n",
        b"*-2\r\n",
        b"$%d\r\n" % (redis_replies.MAX_VALUE + 1),
        b"*%d\r\n" % (redis_replies.MAX_ITEMS + 1),
        b"*1\r\n" * (redis_replies.MAX_DEPTH + 1),
        b"+" + b"x" * (redis_replies.MAX_LINE + 1),
        b"+" + b"x" * (redis_replies.MAX_LINE + 1) + b"\r\n",
    ],
    ids=lambda octets: repr(octets)[:30],
)
def test_what_is_no_reply_ends_it(octets):
    with pytest.raises(ProtocolViolation):
        Replies().feed(octets)


def test_all_values_of_a_reply_are_bounded_together(monkeypatch):
    monkeypatch.setattr(redis_replies, "MAX_REPLY", 100)
    fits = b"*2\r\n" + b"$50\r\n%b\r\n" % (b"x" * 50) * 2
    replies = Replies()
    assert [len(replies.feed(fits)) for _ in range(3)] == [1, 1, 1]
    with pytest.raises(ProtocolViolation):
        Replies().feed(b"*3\r\n" + b"$50\r\n%b\r\n" % (b"x" * 50) * 2 + b"$1\r\n")


@pytest.mark.parametrize(
    "octets", [b"$4000000\r\n" + b"x" * 4_000_000 + b"\r\n", b":1\r\n" * 250_000]
)
def test_octets_are_read_once_in_whatever_pieces(octets, monkeypatch):
    looked = 0

    class Counted(bytearray):
        def find(self, sub: Any, start: Any = 0, end: Any = None, /) -> int:
            nonlocal looked
            found = super().find(sub, start, end)
            looked += (len(self) if found < 0 else found) - start
            return found

    replies = Replies()
    replies._buffer = Counted()
    found = []
    for at in range(0, len(octets), 1000):
        found += replies.feed(octets[at : at + 1000])
    assert len(found) in {1, 250_000}
    assert looked <= len(octets)
