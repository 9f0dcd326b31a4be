"""Hot statements as plain SQL, written once and spelled for both engines.

Core's cost for each execution is about that of the statement itself on SQLite, so what runs
for every message is text for the driver. It is written with ``?`` for a value and these marks:

=============  ==========================================  ======================
mark           SQLite                                      PostgreSQL
=============  ==========================================  ======================
``{numbers}``  ``IN (SELECT value FROM json_each(?))``     ``= ANY(?::bigint[])``
``{texts}``    the same                                    ``= ANY(?::text[])``
``{each X}``   ``json_each(?) AS X``: to join from; the    ``unnest(?::bigint[])
               column is ``value``                         AS X(value)``
``{lock X}``   nothing: there is one writer                ``FOR UPDATE OF X``
``{skip X}``   nothing                                     the same, ``SKIP LOCKED``
``{index X}``  ``INDEXED BY X``: its planner would scan    nothing
=============  ==========================================  ======================

A set is one parameter, made by :func:`many`, so that its size never changes the
text and both engines keep the prepared form.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Connection

# A mark with a name in it, and how SQLite and PostgreSQL spell it.
_MARKS = (
    (re.compile(r"\{lock (\w+)\}"), "", r"FOR UPDATE OF \1"),
    (re.compile(r"\{skip (\w+)\}"), "", r"FOR UPDATE OF \1 SKIP LOCKED"),
    (re.compile(r"\{index (\w+)\}"), r"INDEXED BY \1", ""),
    (re.compile(r"\{each (\w+)\}"), r"json_each(?) AS \1", r"unnest(?::bigint[]) AS \1(value)"),
)
_SQLITE_SET = "IN (SELECT value FROM json_each(?))"


def is_postgresql(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"


def many(connection: Connection, values: Iterable[int] | Iterable[str]) -> Any:
    """Make the one parameter that stands for a set of values."""
    listed = list(values)
    return listed if is_postgresql(connection) else json.dumps(listed)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a statement gave: all of its rows as tuples, or how many rows it changed."""

    rows: Sequence[Any]
    rowcount: int

    def __iter__(self) -> Iterator[Any]:
        return iter(self.rows)

    def all(self) -> Sequence[Any]:
        return self.rows

    def first(self) -> Any:
        """The first row, None when there is none."""
        return self.rows[0] if self.rows else None

    def scalar(self) -> Any:
        """The first value of the first row, None when there is no row."""
        return self.rows[0][0] if self.rows else None


class Statement:
    """One hot statement; calling it executes it.

    On SQLite it goes to the driver directly, which halves what a small unit costs; the
    transaction must be the engine's, which is begun here when nothing ran in it yet.
    """

    __slots__ = ("_postgresql", "_sqlite")

    def __init__(self, text: str) -> None:
        sqlite = postgresql = text
        for mark, for_sqlite, for_postgresql in _MARKS:
            sqlite = mark.sub(for_sqlite, sqlite)
            postgresql = mark.sub(for_postgresql, postgresql)
        self._sqlite = (
            sqlite.replace("{numbers}", _SQLITE_SET).replace("{texts}", _SQLITE_SET).strip()
        )
        self._postgresql = (
            postgresql.replace("%", "%%")
            .replace("{numbers}", "= ANY(?::bigint[])")
            .replace("{texts}", "= ANY(?::text[])")
            .replace("?", "%s")
            .strip()
        )

    def __call__(self, connection: Connection, parameters: Sequence[Any] = ()) -> Answer:
        if is_postgresql(connection):
            result = connection.exec_driver_sql(self._postgresql, tuple(parameters))
            return Answer(result.all() if result.returns_rows else (), result.rowcount)
        cursor = _driver(connection).execute(self._sqlite, parameters)
        # To the end: a statement that returns rows has changed them all only then.
        return Answer(cursor.fetchall(), cursor.rowcount)

    def each(self, connection: Connection, rows: list[tuple[Any, ...]]) -> None:
        """Execute it for every row of parameters, in one call of the driver."""
        if not rows:
            return
        if is_postgresql(connection):
            connection.exec_driver_sql(self._postgresql, rows)
        else:
            _driver(connection).executemany(self._sqlite, rows)

    def stream(self, connection: Connection, parameters: Sequence[Any]) -> Iterable[Any]:
        """Execute it and take the rows one by one, for answers of many thousands."""
        if not is_postgresql(connection):
            return _driver(connection).execute(self._sqlite, parameters)
        result = connection.exec_driver_sql(self._postgresql, tuple(parameters))
        return cast("Iterable[Any]", result.cursor)


def _driver(connection: Connection) -> sqlite3.Connection:
    if not connection.in_transaction():
        connection.begin()
    return cast("sqlite3.Connection", connection.connection.driver_connection)
