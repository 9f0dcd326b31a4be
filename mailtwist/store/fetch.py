"""Rows of messages for FETCH, page by page, straight from the driver's cursor.

FETCH reads hundreds of thousands of rows a second; SQLAlchemy's rows cost more
than the database does, so statements are put together here once per set of
columns and tuples leave as the driver makes them. Callers run inside
``Database.read`` and render in the same thread.

A page is a list of uids in ascending order. A *dense* page lists every
message its reader knows between its first and its last uid, so that a range
is enough to find it. Uids that are gone are missing from the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mailtwist.store.sql import is_postgresql, many

if TYPE_CHECKING:
    from sqlalchemy import Connection

Row = tuple[Any, ...]

# What a column of a page is called, and where it stands.
COLUMNS = {
    "uid": "m.uid",
    "flags": "m.flags",
    "modseq": "m.modseq",
    "octets": "m.octets",
    "internaldate": "m.internaldate",
    "envelope": "e.envelope",
    "bodystructure": "e.bodystructure",
    "body": "d.body",
    "prefix": "e.prefix",
    "header_octets": "e.header_octets",
    "content_octets": "e.octets",
    "parts": "d.parts",
    "content_id": "e.content_id",
    "data": "c.data",
    # The content's header block alone.
    "header": "substr(c.data, 1, CAST(e.header_octets AS INTEGER))",
}

_PAGE = "m.account_id = {0} AND m.mailbox_id = {0} AND m.uid BETWEEN {0} AND {0}"
_LISTED = {
    "sqlite": " AND m.uid IN (SELECT value FROM json_each(?))",
    "postgresql": " AND m.uid = ANY(%s::bigint[])",
}
_MARK = {"sqlite": "?", "postgresql": "%s"}
# CROSS JOIN keeps SQLite from beginning with the e-mails of the account.
_JOINS = {
    "e.": (" CROSS JOIN email e", " AND e.email_id = m.email_id"),
    "d.": (" CROSS JOIN email_detail d", " AND d.email_id = m.email_id"),
    "c.": (" CROSS JOIN content c", " AND c.content_id = e.content_id"),
}


@lru_cache(maxsize=256)
def statement(dialect: str, columns: tuple[str, ...], *, listed: bool) -> str:
    """The SELECT of a page: parameters account, mailbox, first and last uid, the list."""
    sources = ", ".join(COLUMNS[column] for column in columns)
    tables, condition = "message m", _PAGE.format(_MARK[dialect])
    for alias, (table, on) in _JOINS.items():
        if alias in sources or (alias == "e." and "c." in sources):
            tables, condition = tables + table, condition + on
    if listed:
        condition += _LISTED[dialect]
    return f"SELECT {sources} FROM {tables} WHERE {condition} ORDER BY m.uid"


def execute(connection: Connection, sql: str, parameters: Sequence[Any]) -> Any:
    """Run a statement on the driver's own cursor and return it."""
    driver: Any = connection.connection.driver_connection
    if is_postgresql(connection):
        # In text form each octet of a bytea travels as two.
        return driver.cursor(binary=True).execute(sql, parameters)
    return driver.execute(sql, parameters)


def rows(
    connection: Connection,
    account_id: int,
    mailbox_id: int,
    uids: Sequence[int],
    columns: tuple[str, ...],
    *,
    dense: bool = False,
) -> list[Row]:
    """Return the rows of one page in the order of their uids."""
    if not uids:
        return []
    sql = statement(connection.dialect.name, columns, listed=not dense)
    parameters = [account_id, mailbox_id, uids[0], uids[-1]]
    if not dense:
        parameters.append(many(connection, uids))
    found: list[Row] = execute(connection, sql, parameters).fetchall()
    return found


def fit(
    connection: Connection,
    account_id: int,
    mailbox_id: int,
    uids: Sequence[int],
    octets: int,
    *,
    dense: bool = False,
) -> int:
    """Return how many uids of the page to read so that about ``octets`` come; at least one.

    A single larger message is a page of its own.
    """
    sql = statement(connection.dialect.name, ("uid", "octets"), listed=not dense)
    parameters = [account_id, mailbox_id, uids[0], uids[-1]]
    if not dense:
        parameters.append(many(connection, uids))
    cursor = execute(connection, sql, parameters)
    total = count = 0
    gone = len(uids)
    for _, size in cursor:
        total += size
        if total > octets and count:
            break
        count += 1
    else:
        return gone
    cursor.close()
    return count
