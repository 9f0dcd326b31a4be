"""Pages of mails: which of millions are shown, without looking at the others.

In a mailbox mails were saved in the order of their uids. So the newest of many mailboxes are
among the newest of each: an ordered branch for each mailbox, merged by the moment. A mailbox
whose newest mail is older than the newest of as many others as the page has rows cannot
contribute, so most have no branch at all. Where clocks disagreed, a mail counts as no newer
than the one that came after it, so that the pages of a list neither miss nor repeat one.

Filters by mailbox and by ``seen`` are answered by the counters of mailboxes. Other orders look
at every mail that the viewer may read.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Subquery,
    and_,
    exists,
    func,
    literal,
    literal_column,
    select,
    true,
)

from mailtwist.store.entities import mail_boxes, sql
from mailtwist.store.entities.mail_asked import (
    BOX,
    IN_BOX,
    ROW,
    Narrow,
    Query,
    Wanted,
    count,
    joined,
    mails_wanted,
    place,
    understood,
)
from mailtwist.store.entities.mail_columns import OF_MAILBOX, PAIR_SORTS, TERMS
from mailtwist.store.entities.mail_cursors import CREATION, Cursor, beside, cursors_of
from mailtwist.store.entities.model import ListRequest, Reading
from mailtwist.store.sql import is_postgresql
from mailtwist.store.tables import mailbox, mailbox_state, message

# How far down a list branches are worth it.
_DEEP: Final = 20_000
_UNLIMITED: Final = 2**31 - 1
# Orders that are the order of creation; of one mailbox so is that of the uids.
_BY_CREATION: Final = frozenset({"created_at", "updated_at"})
_BY_UID: Final = _BY_CREATION | {"uid"}


def page(reading: Reading, request: ListRequest) -> tuple[list[Narrow], int]:
    """The narrow rows of a page in its order, and the total."""
    key = _key(reading, request)
    plan = None if key is None else _plans.get(key)
    if plan is not None:
        total = _number(reading, plan.total)
        if not plan.is_from_end or request.offset <= total // 2:
            return [Narrow(*row) for row in reading.connection.execute(plan.rows)], total
    wanted = understood(reading, request)
    total = _number(reading, count(reading, wanted)) if request.needs_total else 0
    rows = _chosen(reading, request, wanted, total)
    if key is not None and plan is None:
        if len(_plans) >= _MOST_PLANS:
            _plans.clear()
        _plans[key] = _plan(reading, request, wanted)
    return [Narrow(*row) for row in rows], total


def _number(reading: Reading, query: Query) -> int:
    return int(reading.connection.execute(query).scalar_one())


# -- what was asked before ------------------------------------------------------------------


class Plan(NamedTuple):
    """The statements of a page; to put them together takes longer than to run them."""

    total: Query
    rows: Query
    is_from_end: bool  # of one mailbox: pages behind its middle are read from its other end


_MOST_PLANS: Final = 256
_plans: dict[Hashable, Plan] = {}


def _key(reading: Reading, request: ListRequest) -> Hashable | None:
    """All that the statements of a page depend on; None: they are not kept."""
    if request.after or request.before or not request.needs_total:
        return None
    place = (request.text, request.sort, request.size, request.number)
    key = (is_postgresql(reading.connection), reading.viewer, request.filter, *place)
    try:
        hash(key)
    except TypeError:  # a list in the filter
        return None
    return key


def _plan(reading: Reading, request: ListRequest, wanted: Wanted) -> Plan:
    sort = _sort(reading, request)
    total = count(reading, wanted)
    if not _is_of_one(wanted, sort):
        return Plan(total, _query(reading, request, wanted, sort, ()), is_from_end=False)
    mails = mails_wanted(reading, wanted)
    rows = _in_one(wanted, mails, request.size, request.offset, is_descending=sort[0][1])
    return Plan(total, rows, is_from_end=True)


# -- which ----------------------------------------------------------------------------------


def _chosen(reading: Reading, request: ListRequest, wanted: Wanted, total: int) -> Sequence[Any]:
    sort = _sort(reading, request)
    cursors = cursors_of(reading, request)
    if _is_of_one(wanted, sort):
        assert wanted.single is not None
        box = [literal(number) for number in wanted.single]
        mails = and_(mails_wanted(reading, wanted), *beside(cursors, box))
        return _of_one(reading.connection, request, wanted, mails, sort[0][1], total)
    return reading.connection.execute(_query(reading, request, wanted, sort, cursors)).all()


def _is_of_one(wanted: Wanted, sort: Sequence[tuple[str, bool]]) -> bool:
    return _is_branched(wanted) and wanted.single is not None and sort[0][0] in _BY_UID


def _is_branched(wanted: Wanted) -> bool:
    return not (wanted.columns & OF_MAILBOX.keys())


def _query(
    reading: Reading,
    request: ListRequest,
    wanted: Wanted,
    sort: Sequence[tuple[str, bool]],
    cursors: Sequence[Cursor],
) -> Query:
    """The statement for a page of several mailboxes."""
    connection = reading.connection
    mails = mails_wanted(reading, wanted)
    is_near = request.offset + request.size <= _DEEP
    if _is_branched(wanted) and sort[0][0] in _BY_CREATION and is_near:
        return _of_several(connection, request, wanted, mails, sort[0][1], cursors)
    mails = and_(mails, *beside(cursors, CREATION[1:3]))
    return _of_all(connection, request, wanted, mails, sort)


def _sort(reading: Reading, request: ListRequest) -> Sequence[tuple[str, bool]]:
    if not request.sort and (request.after or request.before):
        return (("created_at", bool(request.before)),)
    return request.sort or reading.entity.order


def _of_one(
    connection: Connection,
    request: ListRequest,
    wanted: Wanted,
    mails: ColumnElement[bool],
    is_descending: bool,
    total: int,
) -> Sequence[Any]:
    """A page of the only mailbox, from the nearer end of it where that is known."""
    offset, size, is_turned = request.offset, request.size, False
    if wanted.is_counted and wanted.seen is None and offset > total // 2:
        end = max(0, total - offset)
        size, offset, is_turned = min(size, end), max(0, end - size), True
    query = _in_one(wanted, mails, size, offset, is_descending=is_descending is not is_turned)
    rows = connection.execute(query).all()
    return rows[::-1] if is_turned else rows


def _in_one(
    wanted: Wanted, mails: ColumnElement[bool], size: int, offset: int, *, is_descending: bool
) -> Query:
    assert wanted.single is not None
    account_id, mailbox_id = wanted.single
    return (
        select(*ROW)
        .select_from(joined(wanted))
        .where(
            message.c.account_id == account_id,
            message.c.mailbox_id == mailbox_id,
            exists(select(literal_column("1")).select_from(mail_boxes.PLACE).where(wanted.boxes)),
            mails,
        )
        .order_by(_ordered(message.c.uid, is_descending))
        .limit(size)
        .offset(offset)
    )


def _of_several(
    connection: Connection,
    request: ListRequest,
    wanted: Wanted,
    mails: ColumnElement[bool],
    is_descending: bool,
    cursors: Sequence[Cursor],
) -> Query:
    """The first of each mailbox, merged."""
    depth = request.offset + request.size
    boxes = select(*BOX).select_from(mail_boxes.PLACE).where(wanted.boxes)
    boxes = boxes.where(mailbox_state.c.messages > 0)
    if wanted.is_counted and wanted.seen is None and not cursors:
        boxes = boxes.order_by(_ordered(_end(is_descending), is_descending)).limit(depth)
    else:
        # A limit, if only for SQLite: it would take the parts of the branches in any order.
        boxes = boxes.limit(_UNLIMITED)
    chosen = boxes.subquery("boxes")
    branch = (
        select(*ROW)
        .select_from(joined(wanted))
        .where(
            message.c.account_id == chosen.c.account_id,
            message.c.mailbox_id == chosen.c.mailbox_id,
            mails,
            *beside(cursors, tuple(chosen.c)),
        )
        .order_by(_ordered(message.c.uid, is_descending))
        .limit(depth)
        .correlate(chosen)
    )
    rows = _branches(connection, chosen, branch)
    box = (rows.c.account_id, rows.c.mailbox_id)
    # A mail is no newer than the one after it, and no older than the one before.
    pick = func.min if is_descending else func.max
    moment = pick(rows.c.saved_at).over(
        partition_by=box, order_by=_ordered(rows.c.uid, is_descending)
    )
    merged = select(*rows.c, moment.label("moment")).subquery("merged")
    names = ("moment", "account_id", "mailbox_id", "uid")
    return (
        select(*(merged.c[column.key] for column in ROW))
        .where(merged.c.uid.is_not(None))
        .order_by(*(_ordered(merged.c[name], is_descending) for name in names))
        .limit(request.size)
        .offset(request.offset)
    )


def _ordered(piece: ColumnElement[Any], is_descending: bool) -> ColumnElement[Any]:
    return piece.desc() if is_descending else piece.asc()


def _end(is_descending: bool) -> ColumnElement[int]:
    """When the newest mail of a mailbox, or its oldest, was saved."""
    return (
        select(message.c.saved_at)
        .where(IN_BOX)
        .order_by(_ordered(message.c.uid, is_descending))
        .limit(1)
        .correlate(mailbox)
        .scalar_subquery()
    )


def _branches(connection: Connection, boxes: Subquery, branch: Query) -> FromClause:
    """The rows that a branch gives for each mailbox."""
    if is_postgresql(connection):
        lateral = branch.lateral("branch")
        return select(*lateral.c).select_from(boxes.join(lateral, true())).subquery("rows")
    # SQLite has no LATERAL, but looks each uid of a list up. Only an outer join keeps it from
    # beginning with all messages; the row of a mailbox without any is dropped at the end.
    outer = message.alias("outer_message")
    uids = branch.with_only_columns(message.c.uid).scalar_subquery()
    on = and_(
        outer.c.account_id == boxes.c.account_id,
        outer.c.mailbox_id == boxes.c.mailbox_id,
        outer.c.uid.in_(uids),
    )
    columns = [outer.c[column.key] for column in ROW]
    return select(*columns).select_from(boxes.outerjoin(outer, on)).subquery("rows")


def _of_all(
    connection: Connection,
    request: ListRequest,
    wanted: Wanted,
    mails: ColumnElement[bool],
    sort: Sequence[tuple[str, bool]],
) -> Query:
    """A page in any order, of all that the viewer may read."""
    return (
        select(*ROW)
        .select_from(place(wanted, (name for name, _ in sort)))
        .where(wanted.boxes, mails)
        .order_by(*_order(connection, sort))
        .limit(request.size)
        .offset(request.offset)
    )


def _order(connection: Connection, sort: Sequence[tuple[str, bool]]) -> list[ColumnElement[Any]]:
    pieces: list[ColumnElement[Any]] = []
    is_descending = True
    for name, is_descending in sort:
        if name in _BY_CREATION:
            break
        named = PAIR_SORTS.get(name, (name,))
        pieces += sql.ordering(connection, TERMS, [(each, is_descending) for each in named])
    return [*pieces, *(_ordered(each, is_descending) for each in CREATION)]
