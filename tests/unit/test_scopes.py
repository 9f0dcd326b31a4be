from __future__ import annotations

import pytest

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.permissions import Scope, Viewer
from mailtwist.mail.scopes import format_scope, has_all, may_send, parse_scope, parse_scopes

BOX = "0199c1d0-6f2a-7000-8000-000000000001"


@pytest.mark.parametrize(
    "text, scope",
    [
        ("admin", Scope("admin")),
        (f"mail:read:{BOX}", Scope("mail:read", BOX)),
        (f"mail:read:{BOX.upper()}", Scope("mail:read", BOX)),
        ("send:Example.ORG", Scope("send", "example.org")),
        ("send:münchen.example", Scope("send", "xn--mnchen-3ya.example")),
        ("send:*", Scope("send", "*")),
        (f"project:{BOX.upper()}", Scope("project", BOX)),
    ],
)
def test_a_scope_is_read_and_written_in_one_spelling(text, scope):
    assert parse_scope(text) == scope
    assert parse_scope(format_scope(scope)) == scope


@pytest.mark.parametrize(
    "text",
    ["", "admin:", "Admin", "mail:read", "mail:read:", "mail:read:INBOX", "mail:read:*",
     "mail:write:x", "send", "send:", "send:a b", "send:a\0b", "send:" + "a." * 200,
     ":", "admin:x", "project", "project:", "project:shop", "project:*"],
)  # fmt: skip
def test_a_scope_that_says_nothing_we_know_is_refused_by_name(text):
    with pytest.raises(ProtocolViolation, match="scopes"):
        parse_scope(text)


def test_a_key_has_one_scope_at_least_and_twenty_at_most():
    assert parse_scopes(["admin", "admin"]) == (Scope("admin"),)
    for texts in ([], [f"send:d{n}.example" for n in range(21)]):
        with pytest.raises(ProtocolViolation):
            parse_scopes(texts)


def test_a_key_is_for_one_project_at_most():
    other = BOX.replace("0001", "0002")
    scopes = parse_scopes(["send:*", f"project:{BOX}", f"project:{BOX}"])
    assert Viewer(scopes=scopes).project == BOX
    assert Viewer(scopes=parse_scopes(["admin"])).project == Viewer().project == ""
    with pytest.raises(ProtocolViolation, match="one project"):
        parse_scopes([f"project:{BOX}", f"project:{other}"])


@pytest.mark.parametrize(
    "texts, domain, may",
    [
        (None, "any.example", True),
        (["admin"], "any.example", True),
        (["send:*"], "any.example", True),
        (["send:a.example"], "A.example", True),
        (["send:a.example"], "b.a.example", False),
        (["send:a.example"], "example", False),
        ([f"mail:read:{BOX}"], "a.example", False),
        ([f"project:{BOX}"], "a.example", False),
    ],
)
def test_sending_needs_a_scope_for_the_domain(texts, domain, may):
    scopes = None if texts is None else parse_scopes(texts)
    assert may_send(scopes, domain) is may


def test_only_the_scope_admin_lets_a_key_do_all_that_its_owner_may():
    assert has_all(None)
    assert has_all(parse_scopes(["send:*", "admin"]))
    assert not has_all(parse_scopes(["send:*", f"mail:read:{BOX}"]))
    assert not has_all(())
