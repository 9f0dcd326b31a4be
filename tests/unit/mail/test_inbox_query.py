"""The search language of inboxes: what each term means, and what is none."""

from __future__ import annotations

from datetime import date

import pytest

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.inbox_query import MAX_LENGTH, MAX_TERMS, parse
from mailtwist.mail.search import (
    And,
    Attached,
    Body,
    Field,
    InternalDate,
    Larger,
    Not,
    Or,
    Smaller,
    Text,
    check_bounds,
)

TERMS = [
    ("lunch", Text("lunch")),
    ('"see you"', Text("see you")),
    ("from:anna", Field("FROM", "anna")),
    ("FROM:Anna", Field("FROM", "Anna")),
    ('from:"Anna Bee"', Field("FROM", "Anna Bee")),
    ("to:bob", Or(Field("TO", "bob"), Or(Field("CC", "bob"), Field("BCC", "bob")))),
    ("subject:re", Field("SUBJECT", "re")),
    ('body:"a b"', Body("a b")),
    ("has:attachment", Attached()),
    ("before:2026-03-01", InternalDate("<", date(2026, 3, 1))),
    ("after:2026/3/1", InternalDate(">=", date(2026, 3, 1))),
    ("larger:10k", Larger(10_240)),
    ("smaller:2MB", Smaller(2 << 20)),
    ("larger:0", Larger(0)),
    ("-lunch", Not(Text("lunch"))),
    ('-subject:"re: x"', Not(Field("SUBJECT", "re: x"))),
    ('"from:anna"', Text("from:anna")),
    ("http://example.com/a", Text("http://example.com/a")),
    ("12:30", Text("12:30")),
    ('"unclosed quote', Text("unclosed quote")),
    ("or", Text("or")),
    ("a OR b", Or(Text("a"), Text("b"))),
    ("a OR -b", Or(Text("a"), Not(Text("b")))),
    ('"OR"', Text("OR")),
    ("ü:x", Text("ü:x")),
]


@pytest.mark.parametrize(("query", "node"), TERMS)
def test_a_term(query, node):
    assert parse(query) == And((node,))


def test_all_terms_must_hold_and_or_binds_closer():
    assert parse("a b OR c d") == And((Text("a"), Or(Text("b"), Text("c")), Text("d")))


@pytest.mark.parametrize("query", ["", "  ", "\t\n"])
def test_without_terms_every_message_is_found(query):
    assert parse(query) == And(())


WRONG = [
    ("foo:x", 'unknown key foo; write "foo:" in quotes'),
    ("Re: hello", "unknown key re"),
    ("from:", "from needs a value"),
    ('subject:""', "subject needs a value"),
    ("has:wings", "has takes attachment alone"),
    ("before:yesterday", "before takes a day"),
    ("after:2026-02-31", "after takes a day"),
    ("larger:much", "larger takes a size"),
    ("smaller:-1", "smaller takes a size"),
    ("OR a", "OR stands between two terms"),
    ("a OR", "OR stands between two terms"),
    ("a OR OR b", "OR stands between two terms"),
    ("-", "a term is empty"),
    ("a\0b", "a NUL is in it"),
    ("x" * (MAX_LENGTH + 1), "at most 1000 characters"),
    ("x " * (MAX_TERMS + 1), "at most 30 terms"),
]


@pytest.mark.parametrize(("query", "reason"), WRONG)
def test_what_makes_no_sense_is_refused_with_the_reason(query, reason):
    with pytest.raises(ProtocolViolation, match="query: ") as refused:
        parse(query)
    assert reason in refused.value.text


@pytest.mark.parametrize("word", ["to:a", "-to:a", "a OR", '"x"'])
def test_the_largest_query_is_within_the_bounds_of_searches(word):
    if word.endswith("OR"):
        query = f"{word} " * (MAX_TERMS // 2 - 1) + "b"
    else:
        query = f"{word} " * MAX_TERMS
    check_bounds(parse(query))
