"""Groups: who is in them, and which rows are shared with them.

Whoever is in the group :data:`ADMINISTRATORS` may do everything, so nobody may take that name,
and the group never becomes empty again: the next who asked would become administrator.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import ColumnElement, Connection, Table, delete, func, insert, select

from mailtwist.errors import Conflict
from mailtwist.store import identities
from mailtwist.store.entities.model import Entity, Links, Ref
from mailtwist.store.entities.tables import row_group, user_account, user_group, usergroup
from mailtwist.store.identities import ADMINISTRATORS

GUESTS: Final = "guests"
USERS: Final = "users"
RESERVED: Final = (ADMINISTRATORS, USERS, GUESTS)


@dataclass(frozen=True, slots=True)
class LinkTable:
    """Links that are rows of a table with two keys; ``constant``: columns that are always so."""

    table: Table
    near: ColumnElement[int]
    far: ColumnElement[int]
    target: str
    target_table: Table
    target_key: ColumnElement[int]
    constant: Mapping[str, str] = field(default_factory=dict)
    is_membership: bool = False

    def refs(self, connection: Connection, keys: Collection[int]) -> Mapping[int, tuple[Ref, ...]]:
        query = (
            select(self.near, self.target_table.c.reference_id)
            .join(self.target_table, self.target_key == self.far)
            .where(self.near.in_(sorted(keys)), *self._fixed())
            .order_by(self.near, self.far)
        )
        found: dict[int, tuple[Ref, ...]] = defaultdict(tuple)
        for key, id_ in connection.execute(query):
            found[key] += (Ref(self.target, id_),)
        return found

    def add(self, connection: Connection, key: int, others: Collection[int]) -> None:
        present = set(
            connection.execute(select(self.far).where(self.near == key, *self._fixed())).scalars()
        )
        rows = [
            {**self.constant, str(self.near.key): key, str(self.far.key): other}
            for other in sorted(set(others) - present)
        ]
        if rows:
            connection.execute(insert(self.table), rows)
        self._announce(connection)

    def remove(self, connection: Connection, key: int, others: Collection[int]) -> None:
        gone = self.far.in_(sorted(others))
        with keeping_an_administrator(connection) if self.is_membership else nullcontext():
            connection.execute(delete(self.table).where(self.near == key, gone, *self._fixed()))
        self._announce(connection)

    def _fixed(self) -> list[ColumnElement[bool]]:
        return [self.table.c[name] == value for name, value in self.constant.items()]

    def _announce(self, connection: Connection) -> None:
        if self.is_membership:
            identities.changed(connection)


GROUPS_OF_USER: Final[Links] = LinkTable(
    user_group,
    user_group.c.user_id,
    user_group.c.group_id,
    "usergroup",
    usergroup,
    usergroup.c.group_id,
    is_membership=True,
)
USERS_OF_GROUP: Final[Links] = LinkTable(
    user_group,
    user_group.c.group_id,
    user_group.c.user_id,
    "user_account",
    user_account,
    user_account.c.user_id,
    is_membership=True,
)


def sharing(entity: str) -> Links:
    """The groups that the rows of an entity are shared with."""
    return LinkTable(
        row_group,
        row_group.c.row_id,
        row_group.c.group_id,
        "usergroup",
        usergroup,
        usergroup.c.group_id,
        constant={"entity": entity},
    )


def links_of(entity: Entity, relation: str) -> Links:
    """How a relation to many is kept."""
    return entity.links.get(relation) or sharing(entity.name)


def has_administrator(connection: Connection) -> bool:
    """Tell whether anybody administers the server."""
    return _administrators(connection) > 0


def _administrators(connection: Connection) -> int:
    query = (
        select(func.count())
        .select_from(user_group)
        .join(usergroup, usergroup.c.group_id == user_group.c.group_id)
        .where(usergroup.c.name == ADMINISTRATORS)
    )
    return int(connection.execute(query).scalar_one())


@contextmanager
def keeping_an_administrator(connection: Connection) -> Iterator[None]:
    """Refuse a body that takes the last administrator away. Raises: Conflict."""
    was_administered = has_administrator(connection)
    yield
    if was_administered and not has_administrator(connection):
        raise Conflict("The last administrator stays")
