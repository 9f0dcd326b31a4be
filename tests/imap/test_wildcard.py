"""LIST patterns against names: right, and linear."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailtwist.imap.wildcard import Wildcard

TABLE = [
    ("*", "INBOX", True),
    ("*", "a/b/c", True),
    ("%", "a", True),
    ("%", "a/b", False),
    ("%/%", "a/b", True),
    ("a%", "abc", True),
    ("a%c", "ab/c", False),
    ("a*c", "ab/c", True),
    ("*%", "a/b", True),
    ("%*", "a/b", True),
    ("", "a", False),
    ("", "", True),
    ("inbox", "INBOX", True),
    ("inb*", "INBOX", True),
    ("%nbox", "INBOX", True),
    ("inbox/*", "INBOX", False),
    ("sent", "Sent", False),
    ("a.c", "abc", False),
    ("%b", "ab/b", False),
    ("*b", "ab/b", True),
    ("%a*b%", "xa/yb/z", False),
    ("ü%", "über", True),
]


@pytest.mark.parametrize(("pattern", "name", "matches"), TABLE)
def test_patterns(pattern: str, name: str, matches: bool) -> None:
    assert Wildcard(pattern).matches(name) is matches


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.text("ab/*%", max_size=8), st.text("ab/", max_size=8))
def test_it_agrees_with_a_regular_expression(pattern: str, name: str) -> None:
    translated = "".join({"*": ".*", "%": "[^/]*"}.get(c, re.escape(c)) for c in pattern)
    assert Wildcard(pattern).matches(name) is (re.fullmatch(translated, name) is not None)


@pytest.mark.parametrize("pattern", ["*%*%*%*%*%*%z", "*a%a" * 16 + "z", "%a*" * 300 + "z"])
def test_no_pattern_takes_long(pattern: str) -> None:
    wildcard = Wildcard(pattern)
    began = time.perf_counter()
    for _ in range(20):
        assert not wildcard.matches("a" * 250)
        assert not wildcard.matches("a/" * 400)
    assert time.perf_counter() - began < 0.5
