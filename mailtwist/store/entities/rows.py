"""A source that is one SELECT: what its pages, counts and single rows have in common."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Row,
    and_,
    func,
    select,
    true,
    tuple_,
)

from mailtwist.errors import ProtocolViolation
from mailtwist.store.entities import pairs, sql
from mailtwist.store.entities.model import ListRequest, Reading, Slice, Stored
from mailtwist.store.entities.pairs import Pair
from mailtwist.store.entities.sql import Term

Fields = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of ``place`` that hold ``base``.

    ``fields``: what to select for a reader. ``creation``: numbers that tell the order in which
    rows came to be; the sort by created_at and the cursor go by them. ``has_ids``: a condition
    for the rows with these ids. ``made``: a row for its reader.
    """

    place: FromClause
    base: ColumnElement[bool]
    fields: Callable[[Reading], Sequence[ColumnElement[Any]]]
    terms: Mapping[str, Term]
    creation: tuple[ColumnElement[int], ...]
    visible: Callable[[Reading], ColumnElement[bool]]
    has_ids: Callable[[Collection[str]], ColumnElement[bool]]
    made: Callable[[Reading, Row[Fields]], Stored]
    pairs: Mapping[str, Pair] = field(default_factory=dict)

    def page(self, reading: Reading, request: ListRequest) -> Slice:
        connection = reading.connection
        wanted = self.matching(reading, request)
        total = self.count(connection, wanted) if request.needs_total else 0
        query = (
            select(*self.fields(reading))
            .select_from(self.place)
            .where(wanted, self._beside(reading, request))
            .order_by(*self.order(connection, request, reading.entity.order))
            .limit(request.size)
            .offset(request.offset)
        )
        found = connection.execute(query).all()
        return Slice(tuple(self.made(reading, row) for row in found), total)

    def matching(self, reading: Reading, request: ListRequest) -> ColumnElement[bool]:
        """What every row of the list holds, whatever the page."""
        connection = reading.connection
        tree = pairs.rewritten(request.filter, self.pairs)
        return and_(
            self.base,
            self.visible(reading),
            sql.condition(connection, self.terms, tree),
            sql.mentions(connection, self.terms, reading.entity.labels, request.text),
        )

    def count(self, connection: Connection, wanted: ColumnElement[bool]) -> int:
        query = select(func.count()).select_from(self.place).where(wanted)
        return connection.execute(query).scalar_one()

    def order(
        self,
        connection: Connection,
        request: ListRequest,
        default: Sequence[tuple[str, bool]],
    ) -> list[ColumnElement[Any]]:
        """The pieces of ORDER BY; the order of creation decides where others don't."""
        if not request.sort and (request.after or request.before):
            default = (("created_at", bool(request.before)),)
        pieces: list[ColumnElement[Any]] = []
        is_descending = True
        for name, is_descending in request.sort or default:
            if name == "created_at":
                break
            pieces += sql.ordering(connection, self.terms, [(name, is_descending)])
        # Of two rows none was made at the same moment, so nothing behind it matters.
        ends = [each.desc() if is_descending else each.asc() for each in self.creation]
        return [*pieces, *ends]

    def _beside(self, reading: Reading, request: ListRequest) -> ColumnElement[bool]:
        """The condition for rows made after, or before, the one with an id."""
        beside: ColumnElement[bool] = true()
        for name, reference in (("after", request.after), ("before", request.before)):
            if not reference:
                continue
            # Only one that the viewer may read: pages would tell of others where they stand.
            query = select(*self.creation).select_from(self.place)
            seen = and_(self.base, self.visible(reading), self.has_ids([reference]))
            row = reading.connection.execute(query.where(seen)).first()
            if row is None:
                raise ProtocolViolation(f"page[{name}]: no such row")
            own = tuple_(*self.creation)
            beside = and_(beside, own > tuple(row) if name == "after" else own < tuple(row))
        return beside

    def rows(self, reading: Reading, ids: Collection[str]) -> Mapping[str, Stored]:
        query = select(*self.fields(reading)).select_from(self.place)
        found = reading.connection.execute(query.where(self.base, self.has_ids(ids))).all()
        made = (self.made(reading, row) for row in found)
        return {row.item.id: row for row in made}
