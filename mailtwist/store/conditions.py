"""Search keys as SQL: what the columns of ``message`` and ``email`` can tell.

Texts are compared as folded substrings, numbers and dates as such. No piece is
ever NULL, so that NOT means what it says. Nothing of a client stands in a
statement but as a parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from mailtwist.mail import search as tree
from mailtwist.mail.words import fold
from mailtwist.store.sql import is_postgresql

if TYPE_CHECKING:
    from sqlalchemy import Connection

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
DAY_US: Final = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Condition:
    """A piece of a WHERE clause, with ``?`` for its parameters."""

    sql: str
    parameters: tuple[Any, ...] = ()
    needs_detail: bool = False


EVERYTHING: Final = Condition("1 = 1")


def midnight(day: date) -> int:
    """The beginning of a day, UTC, in microseconds."""
    moment = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return (moment - EPOCH) // timedelta(microseconds=1)


def compiled(node: tree.Node) -> Condition | None:
    """The node as SQL, or None when columns alone cannot tell."""
    compile_ = _COMPILE.get(type(node))
    return None if compile_ is None else compile_(node)


def chained(word: str, conditions: Sequence[Condition]) -> Condition:
    """Join by AND or OR, balanced: SQLite bounds the depth of an expression."""
    if len(conditions) == 1:
        return conditions[0]
    half = len(conditions) // 2
    a, b = chained(word, conditions[:half]), chained(word, conditions[half:])
    return Condition(
        f"({a.sql} {word} {b.sql})", a.parameters + b.parameters, a.needs_detail or b.needs_detail
    )


def select(connection: Connection, columns: str, condition: Condition, *, listed: bool) -> str:
    """The statement of a page: account, mailbox, first and last uid, the list of uids if
    ``listed``, then the condition's parameters.
    """
    tables, where = "message m", "m.account_id = ? AND m.mailbox_id = ? AND m.uid BETWEEN ? AND ?"
    if condition.needs_detail:
        # CROSS JOIN keeps SQLite from beginning with the e-mails of the account.
        tables += " CROSS JOIN email_detail d"
        where += " AND d.email_id = m.email_id"
    if listed:
        where += " AND m.uid {numbers}"
    sql = f"SELECT {columns} FROM {tables} WHERE {where} AND {condition.sql}"
    if is_postgresql(connection):
        sql = sql.replace("{numbers}", "= ANY(?::bigint[])").replace("instr(", "strpos(")
        return sql.replace("?", "%s")
    return sql.replace("{numbers}", "IN (SELECT value FROM json_each(?))")


# -- one function for each kind of node -----------------------------------------------------

_COLUMNS: Final[dict[str, str]] = {
    "FROM": "d.folded_from",
    "TO": "d.folded_to",
    "CC": "d.folded_cc",
    "BCC": "d.folded_bcc",
    "SUBJECT": "d.folded_subject",
}


def _contains(column: str, value: str) -> Condition:
    return Condition(f"instr({column}, ?) > 0", (fold(value),), needs_detail=True)


def _header(node: tree.Header) -> Condition | None:
    """The header fields that have a column; the empty value asks whether the field is there."""
    if not node.value:
        return None
    match node.name.upper():
        case "SUBJECT":
            return _contains("d.folded_subject", node.value)
        case "MESSAGE-ID" if node.value.isascii():
            return _contains("lower(d.message_id)", node.value)
    return None


def _internal_date(node: tree.InternalDate) -> Condition:
    start = midnight(node.date)
    match node.op:
        case "<":
            return Condition("m.internaldate < ?", (start,))
        case ">=":
            return Condition("m.internaldate >= ?", (start,))
    return Condition("(m.internaldate >= ? AND m.internaldate < ?)", (start, start + DAY_US))


def _sent_date(node: tree.SentDate) -> Condition:
    # Never NULL, so that NOT finds the messages without a date.
    day = (node.date - EPOCH.date()).days
    return Condition(
        f"(d.sent_day IS NOT NULL AND d.sent_day {node.op} ?)", (day,), needs_detail=True
    )


def _not(node: tree.Not) -> Condition | None:
    inner = compiled(node.a)
    if inner is None:
        return None
    return Condition(f"NOT ({inner.sql})", inner.parameters, inner.needs_detail)


def _joined(word: str, nodes: Iterable[tree.Node]) -> Condition | None:
    conditions = []
    for node in nodes:
        condition = compiled(node)
        if condition is None:
            return None
        conditions.append(condition)
    return chained(word, conditions) if conditions else EVERYTHING


_COMPILE: Final[dict[type, Callable[[Any], Condition | None]]] = {
    tree.All: lambda node: EVERYTHING,
    tree.And: lambda node: _joined("AND", node.items),
    tree.Or: lambda node: _joined("OR", (node.a, node.b)),
    tree.Not: _not,
    tree.Header: _header,
    tree.Field: lambda node: _contains(_COLUMNS[node.column], node.value),
    tree.Larger: lambda node: Condition("m.octets > ?", (node.octets,)),
    tree.Smaller: lambda node: Condition("m.octets < ?", (node.octets,)),
    tree.InternalDate: _internal_date,
    tree.SentDate: _sent_date,
    tree.Attached: lambda node: Condition("d.has_attachment <> 0", needs_detail=True),
    tree.ModSeq: lambda node: Condition("m.modseq >= ?", (node.modseq,)),
}
