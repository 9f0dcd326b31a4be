"""Permission integers and who they let pass."""

from __future__ import annotations

import pytest

from mailtwist.mail.permissions import (
    ACTION_GUESTS,
    ACTION_LOCKED,
    ADMIN,
    GROUP,
    LOCKED,
    MAIL_READ,
    NOBODY,
    OPEN,
    OWN_MAIL,
    OWNER,
    SEND,
    SYSTEM,
    Bit,
    Scope,
    Viewer,
    allows,
)

# permission, bit, who: guest, user, in a group
TABLE = [
    (OPEN, Bit.DELETE, "guest user group"),
    (LOCKED, Bit.PEEK, "guest user group"),
    (LOCKED, Bit.READ, "user group"),
    (LOCKED, Bit.CREATE, ""),
    (LOCKED, Bit.EXECUTE, "guest user group"),
    (ACTION_LOCKED, Bit.EXECUTE, "user group"),
    (ACTION_LOCKED, Bit.UPDATE, "group"),
    (ACTION_GUESTS, Bit.EXECUTE, "guest user group"),
    (OWN_MAIL, Bit.READ, "user"),
    (OWN_MAIL, Bit.REFER, "user"),
    (768, Bit.UPDATE, ""),
    (768, Bit.CREATE, "user"),
    (Bit.UPDATE << GROUP, Bit.UPDATE, "group"),
    (Bit.UPDATE << OWNER, Bit.UPDATE, "user"),
    (0, Bit.PEEK, ""),
]


@pytest.mark.parametrize("permission, bit, who", TABLE)
def test_a_permission_lets_pass(permission: int, bit: Bit, who: str) -> None:
    assert allows(permission, bit, is_user=False, in_group=False) == ("guest" in who)
    assert allows(permission, bit, is_user=True, in_group=False) == ("user" in who)
    assert allows(permission, bit, is_user=False, in_group=True) == ("group" in who)


def test_the_numbers_are_those_that_clients_know() -> None:
    assert (OPEN, LOCKED, ACTION_LOCKED, ACTION_GUESTS) == (2097151, 561441, 2085120, 2085152)
    assert OWN_MAIL == 16256


def test_nobody_owns_what_nobody_owns() -> None:
    assert not NOBODY.owns(0)
    assert not SYSTEM.owns(0)
    assert Viewer(user_id=3).owns(3)
    assert not Viewer(user_id=3).owns(4)
    assert NOBODY.is_guest
    assert not SYSTEM.is_guest
    assert not Viewer(user_id=3).is_guest


SCOPES = [
    (None, "mail_server", Bit.DELETE, True),
    ((), "mail", Bit.READ, False),
    ((Scope(ADMIN),), "mail_server", Bit.DELETE, True),
    ((Scope(MAIL_READ, "a"),), "mail", Bit.READ, True),
    ((Scope(MAIL_READ, "a"),), "mail_box", Bit.PEEK, True),
    ((Scope(MAIL_READ, "a"),), "mail", Bit.UPDATE, False),
    ((Scope(MAIL_READ, "a"),), "mail_account", Bit.READ, False),
    ((Scope(SEND, "x.org"),), "mail", Bit.READ, False),
]


@pytest.mark.parametrize("scopes, entity, bit, is_in", SCOPES)
def test_a_key_reaches_as_far_as_its_scopes(
    scopes: tuple[Scope, ...] | None, entity: str, bit: Bit, is_in: bool
) -> None:
    assert Viewer(user_id=1, scopes=scopes).in_scope(entity, bit) == is_in


def test_a_key_to_read_is_held_to_its_mailboxes() -> None:
    scopes = (Scope(MAIL_READ, "a"), Scope(SEND, "x.org"), Scope(MAIL_READ, "b"))
    assert Viewer(user_id=1, scopes=scopes).readable_mailboxes() == frozenset({"a", "b"})
    assert Viewer(user_id=1, scopes=(Scope(ADMIN),)).readable_mailboxes() is None
    assert Viewer(user_id=1).readable_mailboxes() is None
