"""Credentials for services elsewhere, as those read them who use them. Contents are sealed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from mailtwist.store.engine import Connection
from mailtwist.store.identities import ADMINISTRATORS
from mailtwist.store.sql import Statement

# What the column's content is sealed for.
PURPOSE: Final = "credential.content"

_SELECT = """
    SELECT c.reference_id, c.name, c.content, c.owner_user_id,
           EXISTS (SELECT 1 FROM user_group AS ug
                   JOIN usergroup AS g ON g.group_id = ug.group_id
                   WHERE ug.user_id = c.owner_user_id AND g.name = ?)
    FROM credential AS c WHERE
"""
_BY_REFERENCE = Statement(f"{_SELECT} c.reference_id = ?")
_BY_NAME = Statement(f"{_SELECT} c.name = ? ORDER BY c.credential_id LIMIT 100")


@dataclass(frozen=True, slots=True)
class Stored:
    """``is_trusted``: nobody owns it, or an administrator does."""

    reference_id: str
    name: str
    sealed: str = field(repr=False)
    owner_user_id: int
    is_trusted: bool


def find(connection: Connection, reference_id: str) -> Stored | None:
    row = _BY_REFERENCE(connection, (ADMINISTRATORS, reference_id)).first()
    return None if row is None else _stored(row)


def named(connection: Connection, name: str) -> list[Stored]:
    """All of a name, which need not be one's own; the oldest first."""
    return [_stored(row) for row in _BY_NAME(connection, (ADMINISTRATORS, name))]


def _stored(row: tuple[str, str, str, int, int]) -> Stored:
    reference, name, sealed, owner, by_administrator = row
    return Stored(reference, name, sealed, owner, not owner or bool(by_administrator))
