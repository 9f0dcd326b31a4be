"""Address fields: each address a whole tuple, whatever the field holds."""

from __future__ import annotations

import pytest

from mailtwist.mail.addresslist import Budget, render_addresses

ROWS = [
    (b"ann@example.org", b'(NIL NIL "ann" "example.org")'),
    (b"Ann <a@b>", b'("Ann" NIL "a" "b")'),
    (b'"Ann, B" <a@b>, c@d', b'("Ann, B" NIL "a" "b")(NIL NIL "c" "d")'),
    (b"Ann  B.  C. <a@b>", b'("Ann B. C." NIL "a" "b")'),
    (b"=?utf-8?q?=C3=A4?= <a@b>", b'("=?utf-8?q?=C3=A4?=" NIL "a" "b")'),
    (b'"a \\"b\\" c" <a@b>', b'("a \\"b\\" c" NIL "a" "b")'),
    ("Zoë <z@x>".encode(), b'({4}\r\nZo\xc3\xab NIL "z" "x")'),
    (b'"ann bo"@x', b'(NIL NIL "ann bo" "x")'),
    (b'"ann"."bo"@x', b'(NIL NIL "ann.bo" "x")'),
    (b'x <"y z"@w>', b'("x" NIL "y z" "w")'),
    (b"a@[192.0.2.1]", b'(NIL NIL "a" "[192.0.2.1]")'),
    (b"a@b (Ann (deep \\) ) B)", b'("Ann (deep ) ) B" NIL "a" "b")'),
    (b"(x) Ann (y) <a@b> (z)", b'("Ann" NIL "a" "b")'),
    (b"ann @ example . org", b'(NIL NIL "ann" "example.org")'),
    (b"<@one,@two:a@b>", b'(NIL "@one,@two" "a" "b")'),
    (b"< @one , @two : a@b>", b'(NIL "@one , @two" "a" "b")'),
    (b"undisclosed-recipients:;", b'(NIL NIL "undisclosed-recipients" NIL)(NIL NIL NIL NIL)'),
    (
        b"G: a@b, c@d; e@f",
        b'(NIL NIL "G" NIL)(NIL NIL "a" "b")(NIL NIL "c" "d")(NIL NIL NIL NIL)(NIL NIL "e" "f")',
    ),
    (b"G: a@b", b'(NIL NIL "G" NIL)(NIL NIL "a" "b")(NIL NIL NIL NIL)'),
    # Broken ones.
    (b"root", b'(NIL NIL "root" "")'),
    (b"Ann Example", b'("Ann Example" NIL "" "")'),
    (b"Ann <root>", b'("Ann" NIL "root" "")'),
    (b"Ann Bo a@b", b'("Ann Bo" NIL "a" "b")'),
    (b"a@b <a@b>", b'("a@b" NIL "a" "b")'),
    (b"a@b@c", b'(NIL NIL "a@b" "c")'),
    (b"a@", b'(NIL NIL "a" "")'),
    (b"@b", b'(NIL NIL "" "b")'),
    (b"<>", b'(NIL NIL "" "")'),
    (b"<a@b", b'(NIL NIL "a" "b")'),
    (b"<a@b, c@d>", b'(NIL NIL "a" "b")(NIL NIL "c" "d")'),
    (b"a <b@c> d <e@f>", b'("a" NIL "b" "c")("d" NIL "e" "f")'),
    (b'"open', b'(NIL NIL "open" "")'),
    (b"a@b (open", b'("open" NIL "a" "b")'),
    (b", ,, ", b""),
    (b"", b""),
]


@pytest.mark.parametrize(("value", "rendered"), ROWS)
def test_a_field_is_rendered(value: bytes, rendered: bytes) -> None:
    assert b"".join(render_addresses(value, Budget())) == rendered


def test_the_budget_is_shared_by_the_fields_of_a_message() -> None:
    budget = Budget(addresses=3, tokens=10)
    assert len(render_addresses(b"a@b, c@d", budget)) == 2
    assert len(render_addresses(b"a@b, c@d", budget)) == 1
    assert render_addresses(b"a@b", budget) == []
    costly = Budget(tokens=10)
    render_addresses(b"a (x)" * 100, costly)
    assert costly.tokens == 0
