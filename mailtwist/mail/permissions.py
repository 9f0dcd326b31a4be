"""Who may do what with a table or a row: an integer of three times seven bits, and who asks.

The lowest seven bits are everybody's, the next seven the owner's, the last seven those of the
groups that the row is shared with. For a table the second seven belong to whoever signed in.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from typing import Final


class Bit(IntFlag):
    PEEK = 1
    READ = 2
    CREATE = 4
    UPDATE = 8
    DELETE = 16
    EXECUTE = 32
    REFER = 64


GUEST: Final = 0
OWNER: Final = 7
GROUP: Final = 14

ALL: Final = 127
GUEST_BITS: Final = ALL << GUEST
OWN_MAIL: Final = ALL << OWNER
OPEN: Final = 2_097_151  # every bit of the three
AUTHENTICATED_EXECUTE: Final = 1 << 21  # whoever signed in may execute
HIGHEST: Final = AUTHENTICATED_EXECUTE | OPEN

# Guests peek and execute, users and groups read and execute.
LOCKED: Final = 561_441
# Users read and execute, groups do everything.
ACTION_LOCKED: Final = 2_085_120
ACTION_GUESTS: Final = int(ACTION_LOCKED | Bit.EXECUTE << GUEST)
# Rows of their owner that everybody may use, as long as nobody administers the server.
OWNED: Final = LOCKED | OWN_MAIL


def allows(permission: int, bit: Bit, *, is_user: bool, in_group: bool) -> bool:
    """Tell whether a permission grants a bit.

    ``is_user``: the owner of a row; for a table: signed in. ``in_group``: in one of the groups
    that it is shared with.
    """
    return bool(
        permission >> GUEST & bit
        or (is_user and permission >> OWNER & bit)
        or (in_group and permission >> GROUP & bit)
    )


@dataclass(frozen=True, slots=True)
class Scope:
    """What an API key was given.

    ``mail:read`` of a mailbox, ``send`` for a domain, a ``project``, ``admin``.
    """

    kind: str
    target: str = ""


MAIL_READ: Final = "mail:read"
SEND: Final = "send"
PROJECT: Final = "project"
ADMIN: Final = "admin"
# What a key to read mail sees of the tables.
_MAIL_TABLES: Final = frozenset({"mail", "mail_box"})


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who asks. ``user_id`` 0: a guest. ``scopes`` None: not an API key, so without limits."""

    user_id: int = 0
    reference_id: str = ""
    email: str = ""
    groups: frozenset[int] = frozenset()
    is_admin: bool = False
    scopes: tuple[Scope, ...] | None = None
    is_test: bool = False  # a test key: what it sends is captured

    @property
    def is_guest(self) -> bool:
        return not self.user_id and not self.is_admin

    def owns(self, owner: int) -> bool:
        """Tell whether a row with this owner (0: nobody) is the viewer's."""
        return bool(owner) and owner == self.user_id

    def in_scope(self, entity: str, bit: Bit) -> bool:
        """Tell whether the key that is used, if any, reaches this far at all.

        A key to read one mailbox is held to that mailbox by the source of the rows.
        """
        if self.scopes is None or any(scope.kind == ADMIN for scope in self.scopes):
            return True
        return (
            entity in _MAIL_TABLES
            and bit in {Bit.PEEK, Bit.READ}
            and any(scope.kind == MAIL_READ for scope in self.scopes)
        )

    @property
    def project(self) -> str:
        """The id of the project that the key is for: it captures all that is sent with it.

        "": of none. That the owner of the key may use the project is to be asked of its row.
        """
        targets = (scope.target for scope in self.scopes or () if scope.kind == PROJECT)
        return next(targets, "")

    def readable_mailboxes(self) -> frozenset[str] | None:
        """The mailboxes that the key is held to; None: no such limit."""
        if self.scopes is None or any(scope.kind == ADMIN for scope in self.scopes):
            return None
        return frozenset(scope.target for scope in self.scopes if scope.kind == MAIL_READ)


NOBODY: Final = Viewer()
SYSTEM: Final = Viewer(is_admin=True)
