from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailtwist.errors import Refusal
from mailtwist.store.names import canonical, checked, implied, superiors

ALLOWED = [
    ("Work", "Work"),
    ("inbox", "INBOX"),
    ("InBox/a", "INBOX/a"),
    ("inboxes", "inboxes"),
    ("a/b/", "a/b"),
    ("Entw\u00fcrfe", "Entw\u00fcrfe"),
    ("Entwu\u0308rfe", "Entw\u00fcrfe"),
    ("100% * \"sure\" \\", "100% * \"sure\" \\"),
    ("\U0001f469\u200d\U0001f680", "\U0001f469\u200d\U0001f680"),
    ("x" * 255, "x" * 255),
    ("/".join("x" * 32), "/".join("x" * 32)),
]  # fmt: skip

REFUSED = [
    "",
    "/",
    "/a",
    "a//b",
    "a/b//",
    "a\x00b",
    "a\nb",
    "a\x7f",
    "a\x85b",
    "a\u2028b",
    "\ud800",
    "\x011",
    "x" * 256,
    "\u20ac" * 400,
    "/".join("x" * 33),
    "x" * 100_000,
]


@pytest.mark.parametrize(("name", "expected"), ALLOWED)
def test_names_are_brought_into_one_form(name: str, expected: str) -> None:
    assert checked(name) == expected
    assert checked(expected) == expected


@pytest.mark.parametrize("name", REFUSED, ids=range(len(REFUSED)))
def test_names_out_of_bounds_are_refused(name: str) -> None:
    with pytest.raises(Refusal) as caught:
        checked(name)
    assert caught.value.imap_code == "CANNOT"


@given(st.text())
def test_no_text_is_more_than_refused(name: str) -> None:
    canonical(name)
    try:
        allowed = checked(name)
    except Refusal:
        return
    assert canonical(allowed) == allowed == checked(allowed)


def test_superiors_come_outermost_first() -> None:
    assert superiors("a/b/c") == ["a", "a/b"]
    assert superiors("a") == []


def test_superiors_that_are_no_mailbox_are_implied() -> None:
    assert implied(["INBOX", "a", "a/b/c", "d/e"]) == ["a/b", "d"]
