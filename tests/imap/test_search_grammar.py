"""SEARCH keys from octets to the tree."""

from __future__ import annotations

import time
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailtwist.errors import ProtocolViolation, Refusal
from mailtwist.imap.grammar import Parser
from mailtwist.imap.search_grammar import KEYS, parse_search
from mailtwist.mail import search as tree
from mailtwist.mail.search import And, Field, Flag, Header, Keyword, Not, Or, Sequence, Uid
from mailtwist.mail.uidset import SequenceSet


def key(text: bytes) -> tree.Node:
    return parse_search(Parser(text)).key


SEEN = Flag("\\Seen")
FEB = date(1994, 2, 1)


@pytest.mark.parametrize(
    "text, node",
    [
        (b"ALL", tree.All()),
        (b"seen", SEEN),
        (b"UNSEEN", Flag("\\Seen", False)),
        (b"SEEN UNDELETED", And((SEEN, Flag("\\Deleted", False)))),
        (b"(SEEN)", SEEN),
        (b"((SEEN (ALL)))", And((SEEN, tree.All()))),
        (b"NOT SEEN", Not(SEEN)),
        (b"NOT NOT SEEN", Not(Not(SEEN))),
        (b"OR SEEN NOT ALL", Or(SEEN, Not(tree.All()))),
        (b"OR (SEEN ALL) OR ALL ALL", Or(And((SEEN, tree.All())), Or(tree.All(), tree.All()))),
        (b"2:4,9:*", Sequence(SequenceSet.parse(b"2:4,9:*"))),
        (b"*", Sequence(SequenceSet.parse(b"*"))),
        (b"UID 1:*", Uid(SequenceSet.parse(b"1:*"))),
        (b"KEYWORD $Junk", Keyword("$Junk")),
        (b"UNKEYWORD x", Keyword("x", False)),
        (b'FROM "a \\"b\\""', Field("FROM", 'a "b"')),
        (b"SUBJECT {5}\r\nh\xc3\xa9ll", Field("SUBJECT", "héll")),
        (b"SUBJECT {3+}\r\na b SEEN", And((Field("SUBJECT", "a b"), SEEN))),
        (b"TO a CC b BCC c", And((Field("TO", "a"), Field("CC", "b"), Field("BCC", "c")))),
        (b"HEADER Message-ID <a@b>", Header("Message-ID", "<a@b>")),
        (b'HEADER X-Y ""', Header("X-Y", "")),
        (b"TEXT a BODY b", And((tree.Text("a"), tree.Body("b")))),
        (b"LARGER 100 SMALLER 200", And((tree.Larger(100), tree.Smaller(200)))),
        (b"BEFORE 1-Feb-1994", tree.InternalDate("<", FEB)),
        (b'ON "1-Feb-1994"', tree.InternalDate("=", FEB)),
        (b"SINCE 01-feb-1994", tree.InternalDate(">=", FEB)),
        (b"SENTBEFORE 1-Feb-1994", tree.SentDate("<", FEB)),
        (b"SENTON 1-Feb-1994", tree.SentDate("=", FEB)),
        (b"SENTSINCE 1-Feb-1994", tree.SentDate(">=", FEB)),
        (b"NEW OLD RECENT", And((tree.New(), tree.Old(), tree.Recent()))),
        (b"CHARSET utf-8 SEEN", SEEN),
        (b'CHARSET "US-ASCII" SEEN', SEEN),
    ],
)
def test_a_key_is_its_node(text: bytes, node: tree.Node) -> None:
    assert key(text) == node


@pytest.mark.parametrize(
    "text, returns",
    [
        (b"ALL", None),
        (b"RETURN () ALL", {"ALL"}),
        (b"RETURN (MIN max Count) ALL", {"MIN", "MAX", "COUNT"}),
        (b"RETURN (ALL) CHARSET UTF-8 ALL", {"ALL"}),
    ],
)
def test_what_is_to_be_returned(text: bytes, returns: set[str] | None) -> None:
    assert parse_search(Parser(text)).returns == returns


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"()",
        b"NOTHING",
        b"SEEN ",
        b"SEEN  SEEN",
        b"NOT",
        b"OR SEEN",
        b"(SEEN",
        b"FROM",
        b"FROM {5}\r\nab",
        b"SUBJECT {1}\r\n\xff",
        b"HEADER a",
        b'HEADER "a b" c',
        b"KEYWORD \\Seen",
        b"LARGER x",
        b"LARGER 99999999999999999999",
        b"BEFORE 31-Feb-1994",
        b"BEFORE yesterday",
        b"0",
        b"1:",
        b"UID x",
        b"RETURN (FIRST) ALL",
        b"RETURN (ALL)",
        b"(" * 33 + b"ALL" + b")" * 33,
        b"NOT " * 40 + b"ALL",
        b"OR ALL " * 40 + b"ALL",
        b"ALL " * 1500 + b"ALL",
    ],
)
def test_what_is_no_key_is_a_violation(text: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        key(text)


def test_an_unknown_charset_is_answered_with_those_that_are_known() -> None:
    with pytest.raises(Refusal) as caught:
        key(b"CHARSET KOI8-R SEEN")
    assert caught.value.imap_code == "BADCHARSET (US-ASCII UTF-8)"


@pytest.mark.parametrize(
    "text",
    [
        b"(" * 10_000,
        b"NOT " * 50_000,
        b"OR " * 50_000,
        b"1," * 30_000,
        b"{-100}zzz",
        b"ALL " * 60_000,
    ],
)
def test_bad_input_is_refused_in_milliseconds(text: bytes) -> None:
    start = time.process_time()
    with pytest.raises(ProtocolViolation):
        key(text)
    assert time.process_time() - start < 0.25


words = st.sampled_from([name.encode() for name in KEYS]) | st.sampled_from(
    [b"(", b")", b"1:*", b'"a"', b"1-Feb-1994", b"{1}\r\nx", b"RETURN", b"CHARSET", b"UTF-8"]
)


@given(st.lists(words, max_size=12))
def test_any_words_are_a_tree_or_a_violation(pieces: list[bytes]) -> None:
    try:
        tree.check_bounds(key(b" ".join(pieces)))
    except (ProtocolViolation, Refusal):
        pass
