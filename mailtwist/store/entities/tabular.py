"""Entities whose rows are those of one table with few of them: reading and writing in general.

A page is one statement with both its gate and its filter in it; a second one counts. References
to other rows are sub-selects of their ids, so a page costs the same whatever its rows say.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    Table,
    delete,
    exc,
    func,
    insert,
    literal,
    select,
    true,
    update,
)

from mailtwist.errors import Conflict, ProtocolViolation
from mailtwist.store import changes
from mailtwist.store.entities import sql
from mailtwist.store.entities.items import is_read, make_item
from mailtwist.store.entities.model import (
    OWNER_RELATION,
    SYSTEM_COLUMNS,
    Change,
    Column,
    Entity,
    ListRequest,
    Reading,
    Slice,
    Stored,
)
from mailtwist.store.entities.permissions import visible
from mailtwist.store.entities.sql import Term, Terms
from mailtwist.store.entities.tables import row_group, user_account
from mailtwist.store.reference import reference_id


@dataclass(frozen=True, slots=True)
class Reference:
    """A relation to one: our column holds the other table's key."""

    column: ColumnElement[int]
    table: Table
    key: ColumnElement[int]

    @property
    def id(self) -> ColumnElement[str | None]:
        """The id of the other row, as SQL."""
        other = self.table.alias()
        return (
            select(other.c.reference_id)
            .where(other.c[self.key.key or ""] == self.column)
            .scalar_subquery()
        )


class Tabular:
    """The rows of one table, and how they are written.

    ``expressions``: columns that are not simply those of the table. ``kinds``: the generations
    that a write raises.
    """

    def __init__(
        self,
        table: Table,
        key: str,
        *,
        expressions: Mapping[str, ColumnElement[Any]] | None = None,
        references: Mapping[str, Reference] | None = None,
        owner: ColumnElement[int] | None = None,
        permission: ColumnElement[int] | None = None,
        where: ColumnElement[bool] | None = None,
        kinds: Collection[str] = (),
    ) -> None:
        self.table = table
        self.key = table.c[key]
        self._expressions = dict(expressions or {})
        self._references = dict(references or {})
        self._owner = self._column_or(owner, "owner_user_id", 0)
        self._permission = self._column_or(permission, "permission", 0)
        self._where = true() if where is None else where
        self._kinds = tuple(kinds)
        owner_reference = Reference(self._owner, user_account, user_account.c.user_id)
        # Made once: to build them costs more than to run them.
        self._ids = {OWNER_RELATION: owner_reference.id} | {
            name: reference.id for name, reference in self._references.items()
        }
        self._terms: dict[str, Terms] = {}

    def _column_or(
        self, given: ColumnElement[int] | None, name: str, otherwise: int
    ) -> ColumnElement[int]:
        if given is not None:
            return given
        return self.table.c[name] if name in self.table.c else literal(otherwise)

    # -- reading ----------------------------------------------------------------------------

    def terms(self, entity: Entity) -> Terms:
        """What filters and orders may name."""
        if entity.name not in self._terms:
            self._terms[entity.name] = self._made_terms(entity)
        return self._terms[entity.name]

    def _made_terms(self, entity: Entity) -> Terms:
        found = {
            name: Term(self._expression(name), column)
            for name, column in {**SYSTEM_COLUMNS, **entity.columns}.items()
            if column.is_queryable
        }
        return found | {name: Term(id_, Column(name)) for name, id_ in self._ids.items()}

    def _expression(self, name: str) -> ColumnElement[Any]:
        if name == "permission":
            return self._permission
        return self._expressions[name] if name in self._expressions else self.table.c[name]

    def page(self, reading: Reading, request: ListRequest) -> Slice:
        connection, terms = reading.connection, self.terms(reading.entity)
        wanted = [
            self._where,
            self._gate(reading),
            sql.condition(connection, terms, request.filter),
            sql.mentions(connection, terms, reading.entity.labels, request.text),
        ]
        query = self._select(reading).where(*wanted, *self._away(reading, request))
        query = query.order_by(*self._order(reading, terms, request))
        rows = connection.execute(query.limit(request.size).offset(request.offset)).all()
        total = 0
        if request.needs_total:
            count = select(func.count()).select_from(self.table).where(*wanted)
            total = connection.execute(count).scalar_one()
        return Slice(tuple(self._stored(reading, row) for row in rows), total)

    def rows(self, reading: Reading, ids: Collection[str]) -> Mapping[str, Stored]:
        query = self._select(reading).where(
            self._where, self.table.c.reference_id.in_(sorted(set(ids)))
        )
        found = (self._stored(reading, row) for row in reading.connection.execute(query))
        return {row.item.id: row for row in found}

    def _gate(self, reading: Reading) -> ColumnElement[bool]:
        return visible(
            reading.viewer,
            reading.entity,
            permission=self._permission,
            owner=self._owner,
            key=self.key,
        )

    def _select(self, reading: Reading) -> Select[*tuple[Any, ...]]:
        columns = [
            self._expression(name).label(f"c_{name}")
            for name, column in reading.entity.columns.items()
            if is_read(reading, column) and not column.is_virtual
        ]
        references = [id_.label(f"r_{name}") for name, id_ in self._ids.items()]
        return select(
            self.key.label("s_key"),
            self.table.c.reference_id.label("s_id"),
            self._permission.label("s_permission"),
            self._owner.label("s_owner"),
            self.table.c.created_at.label("s_created_at"),
            self.table.c.updated_at.label("s_updated_at"),
            *columns,
            *references,
        )

    def _stored(self, reading: Reading, row: Row[*tuple[Any, ...]]) -> Stored:
        fields = row._mapping
        kept = {
            name: fields[f"c_{name}"] for name in reading.entity.columns if f"c_{name}" in fields
        }
        references = {name: fields[f"r_{name}"] for name in self._ids}
        item = make_item(
            reading,
            fields["s_id"],
            kept,
            permission=fields["s_permission"],
            created_at=fields["s_created_at"],
            updated_at=fields["s_updated_at"],
            references=references,
        )
        return Stored(item, fields["s_key"], fields["s_owner"], fields["s_permission"])

    def _order(self, reading: Reading, terms: Terms, request: ListRequest) -> list[Any]:
        if not request.sort and (request.after or request.before):
            return [self.key.asc() if request.after else self.key.desc()]
        sort = request.sort or reading.entity.order
        tie = self.key.desc() if sort[0][1] else self.key.asc()
        return [*sql.ordering(reading.connection, terms, sort), tie]

    def _away(self, reading: Reading, request: ListRequest) -> list[ColumnElement[bool]]:
        """Only the rows made later than one, or earlier."""
        found = []
        if request.after:
            found.append(self.key > self._cursor(reading, "after", request.after))
        if request.before:
            found.append(self.key < self._cursor(reading, "before", request.before))
        return found

    def _cursor(self, reading: Reading, which: str, id_: str) -> Any:
        query = select(self.key).where(self.table.c.reference_id == id_)
        key = reading.connection.execute(query).scalar_one_or_none()
        if key is None:
            raise ProtocolViolation(f"page[{which}]: no such row")
        return key

    # -- writing ----------------------------------------------------------------------------

    def create(self, change: Change) -> str:
        """Insert a row with the values, relations, owner and permission of the change."""
        self.insert(change, reference := reference_id(change.now))
        return reference

    def insert(self, change: Change, reference: str, **more: Any) -> int:
        """Insert with ``more`` columns than the change says; gives the key.

        Raises: Conflict, when another row has what must be unique.
        """
        self.check_free(change)
        values = {
            **self._columns(change),
            "reference_id": reference,
            "created_at": change.now,
            "updated_at": change.now,
            **more,
        }
        query = insert(self.table).values(values).returning(self.key)
        number = int(_unique(change, query).scalar_one())
        self.announce(change.connection)
        return number

    def update(self, change: Change) -> None:
        """Write what the change says. Raises: Conflict."""
        self.write(change)

    def write(self, change: Change, **more: Any) -> None:
        """Write ``more`` columns than the change says. Raises: Conflict."""
        self.check_free(change)
        values = {**self._columns(change), "updated_at": change.now, **more}
        _unique(change, update(self.table).where(self.key == change.key).values(values))
        self.announce(change.connection)

    def delete(self, change: Change) -> None:
        """Delete the row and what shares it with groups."""
        connection = change.connection
        if change.entity.is_shared:
            shared = (row_group.c.entity == change.entity.name) & (row_group.c.row_id == change.key)
            connection.execute(delete(row_group).where(shared))
        connection.execute(delete(self.table).where(self.key == change.key))
        self.announce(connection)

    def announce(self, connection: Connection) -> None:
        """Raise the generations of what this table is cached as."""
        for kind in self._kinds:
            changes.bump(connection, kind)

    def _columns(self, change: Change) -> dict[str, Any]:
        """The table's columns that the change sets; passwords and the like are the caller's."""
        values = {name: value for name, value in change.values.items() if name in self.table.c}
        for name, row in change.relations.items():
            reference = self._references.get(name)
            if reference is not None:
                values[str(reference.column.key)] = 0 if row is None else row.key
        for name, value in (("owner_user_id", change.owner), ("permission", change.permission)):
            if value is not None and name in self.table.c:
                values[name] = value
        return values

    def check_free(self, change: Change) -> None:
        """Refuse what another row has already. Raises: Conflict naming the column."""
        for name, column in change.entity.columns.items():
            if not column.is_unique or change.values.get(name) is None:
                continue
            query = select(self.key).where(self._expression(name) == change.values[name])
            if change.row is not None:
                query = query.where(self.key != change.key)
            if change.connection.execute(query.limit(1)).first() is not None:
                raise Conflict(f"{name} exists already")


def _unique(change: Change, statement: Any) -> Any:
    """Execute; what another node wrote between our look and this is a conflict as well."""
    try:
        return change.connection.execute(statement)
    except exc.IntegrityError as error:
        raise Conflict(detail=f"{change.entity.name}: {error.orig}") from error
