"""What a list of mails asks for: which mailboxes, and what of their mails; and how many that is.

Filters by mailbox and by ``seen`` are taken apart from the rest, for the counters of mailboxes
answer them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    and_,
    func,
    literal_column,
    select,
    true,
    tuple_,
)

from mailtwist.mail.filters import AllOf, AnyOf, Comparison, Operator, Tree, comparisons
from mailtwist.store.entities import ids, mail_boxes, pairs, sql
from mailtwist.store.entities.ids import Kind
from mailtwist.store.entities.mail_columns import DETAIL, PAIRS, TERMS
from mailtwist.store.entities.model import ListRequest, Reading
from mailtwist.store.tables import email_detail, mailbox, mailbox_state, message

Query: TypeAlias = Select[*tuple[Any, ...]]

ROW: Final = (
    message.c.account_id,
    message.c.mailbox_id,
    message.c.uid,
    message.c.entry_id,
    message.c.email_id,
    message.c.flags,
    message.c.octets,
    message.c.internaldate,
    message.c.saved_at,
)
BOX: Final = (mailbox.c.account_id, mailbox.c.mailbox_id)
IN_BOX: Final = and_(
    message.c.account_id == mailbox.c.account_id, message.c.mailbox_id == mailbox.c.mailbox_id
)
# The account is in the number already; so named, the index of Message-IDs serves.
_IS_DETAIL: Final = and_(
    email_detail.c.email_id == message.c.email_id,
    email_detail.c.account_id == message.c.account_id,
)


class Narrow(NamedTuple):
    """The narrow row of a mail: :data:`ROW`."""

    account_id: int
    mailbox_id: int
    uid: int
    entry_id: int
    email_id: int
    flags: int
    octets: int
    internaldate: int
    saved_at: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of a request is left once the mailboxes are chosen.

    ``boxes``: the condition for those. ``single``: the only one, where the request names it.
    ``seen``: only such mails, or others. ``rest``: what else the mails must satisfy.
    """

    boxes: ColumnElement[bool]
    single: tuple[int, int] | None
    seen: bool | None
    rest: Tree | None
    text: str

    @property
    def is_counted(self) -> bool:
        """Whether the counters of the mailboxes know how many there are."""
        return self.rest is None and not self.text

    @property
    def columns(self) -> frozenset[str]:
        return frozenset(each.column for each in comparisons(self.rest)) if self.rest else _NONE


_NONE: Final[frozenset[str]] = frozenset()


def understood(reading: Reading, request: ListRequest) -> Wanted:
    named: set[tuple[int, int]] | None = None
    seen: bool | None = None
    rest: list[Tree] = []
    for item in _conjuncts(request.filter):
        keys = _mailboxes(item)
        state = _seen(item)
        if keys is not None:
            named = keys if named is None else named & keys
        elif state is not None and seen is None:
            seen = state
        else:
            rest.append(item)
    boxes = [mail_boxes.SHOWN, mail_boxes.visible(reading)]
    single = None
    if named is not None:
        boxes.append(tuple_(*BOX).in_(sorted(named)))
        single = next(iter(named)) if len(named) == 1 else None
    tree = pairs.rewritten(AllOf(tuple(rest)), PAIRS) if rest else None
    return Wanted(and_(*boxes), single, seen, tree, request.text)


def _conjuncts(tree: Tree | None) -> Iterable[Tree]:
    """What must hold all together."""
    match tree:
        case None:
            return
        case AllOf(items):
            for item in items:
                yield from _conjuncts(item)
        case AnyOf((one,)):
            yield from _conjuncts(one)
        case _:
            yield tree


def _mailboxes(tree: Tree) -> set[tuple[int, int]] | None:
    """The mailboxes that a comparison names; None: it does something else."""
    if not isinstance(tree, Comparison) or tree.column != "mail_box_id":
        return None
    if tree.operator not in {Operator.EQ, Operator.IN}:
        return None
    given = tree.value if tree.operator is Operator.IN else (tree.value,)
    keys = (ids.unpack(Kind.MAIL_BOX, str(value)) for value in given)
    return {key for key in keys if key is not None}


def _seen(tree: Tree) -> bool | None:
    """What a comparison wants of ``seen``; None: it does something else."""
    if not isinstance(tree, Comparison) or tree.column != "seen":
        return None
    match tree.operator:
        case Operator.TRUE | Operator.FALSE:
            return tree.operator is Operator.TRUE
        case Operator.EQ | Operator.NE:
            return bool(sql.operand(TERMS["seen"], tree.value)) is (tree.operator is Operator.EQ)
    return None


# -- how many -------------------------------------------------------------------------------


def total(reading: Reading, wanted: Wanted) -> int:
    return int(reading.connection.execute(count(reading, wanted)).scalar_one())


def count(reading: Reading, wanted: Wanted) -> Query:
    if wanted.is_counted:
        counter = func.coalesce(func.sum(_COUNTERS[wanted.seen]), 0)
        return select(counter).select_from(mail_boxes.PLACE).where(wanted.boxes)
    return select(func.count()).select_from(place(wanted)).where(_all(reading, wanted))


_COUNTERS: Final[dict[bool | None, ColumnElement[int]]] = {
    None: mailbox_state.c.messages,
    True: mailbox_state.c.messages - mailbox_state.c.unseen,
    False: mailbox_state.c.unseen,
}


def place(wanted: Wanted, sort: Iterable[str] = ()) -> FromClause:
    """All that the viewer may read, as one join."""
    place = mail_boxes.PLACE.join(message, IN_BOX)
    names = {*wanted.columns, *sort}
    if wanted.text or names & DETAIL.keys():
        return place.join(email_detail, _IS_DETAIL)
    return place


def _all(reading: Reading, wanted: Wanted) -> ColumnElement[bool]:
    return and_(wanted.boxes, mails_wanted(reading, wanted))


def mails_wanted(reading: Reading, wanted: Wanted) -> ColumnElement[bool]:
    """What mails must hold beside being in one of the mailboxes."""
    connection, labels = reading.connection, reading.entity.labels
    found = [
        sql.condition(connection, TERMS, wanted.rest),
        sql.mentions(connection, TERMS, labels, wanted.text),
    ]
    if wanted.seen is not None:
        found.append(_HAS_SEEN[wanted.seen])
    return and_(true(), *found)


# The second as the partial index has it.
_HAS_SEEN: Final = {
    True: message.c.flags.op("&")(1) != 0,
    False: literal_column("(message.flags & 1) = 0"),
}


def joined(wanted: Wanted) -> FromClause:
    """Messages, with their details where the filter asks for them."""
    if wanted.text or wanted.columns & DETAIL.keys():
        return message.join(email_detail, _IS_DETAIL)
    return message
