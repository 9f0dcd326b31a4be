"""The mail that a page of mails comes after, or before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, and_, case, or_, select, tuple_

from mailtwist.errors import ProtocolViolation
from mailtwist.store.entities import ids, mail_boxes
from mailtwist.store.entities.ids import Kind
from mailtwist.store.entities.mail_asked import IN_BOX
from mailtwist.store.entities.model import ListRequest, Reading
from mailtwist.store.tables import message

_ABOVE_UIDS: Final = 2**32

# What tells which of two mails came first.
CREATION: Final = (
    message.c.saved_at,
    message.c.account_id,
    message.c.mailbox_id,
    message.c.uid,
)


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where the mail stands."""

    is_after: bool
    account_id: int
    mailbox_id: int
    uid: int
    saved_at: int


def cursors_of(reading: Reading, request: ListRequest) -> list[Cursor]:
    """Find the mails that the page is to come after and before. Raises: ProtocolViolation."""
    asked = (("after", request.after), ("before", request.before))
    return [_cursor(reading, which, reference) for which, reference in asked if reference]


def _cursor(reading: Reading, which: str, reference: str) -> Cursor:
    key = ids.unpack(Kind.MAIL, reference)
    row = None
    if key is not None:
        # Only one that the viewer may read: pages would tell of others where they stand.
        query = (
            select(message.c.account_id, message.c.mailbox_id, message.c.uid, message.c.saved_at)
            .select_from(mail_boxes.PLACE.join(message, IN_BOX))
            .where(message.c.account_id == key[0], message.c.entry_id == key[1])
            .where(mail_boxes.SHOWN, mail_boxes.visible(reading))
        )
        row = reading.connection.execute(query).first()
    if row is None:
        raise ProtocolViolation(f"page[{which}]: no such row")
    return Cursor(which == "after", *row)


def beside(
    cursors: Iterable[Cursor], box: Sequence[ColumnElement[int]]
) -> Iterator[ColumnElement[bool]]:
    """The conditions for mails of a mailbox that were saved after, or before, the cursors.

    In the mailbox of the cursor the uids tell, as a bound that an index understands.
    """
    for cursor in cursors:
        is_same = and_(box[0] == cursor.account_id, box[1] == cursor.mailbox_id)
        place = (cursor.saved_at, cursor.account_id, cursor.mailbox_id, cursor.uid)
        if cursor.is_after:
            yield message.c.uid > case((is_same, cursor.uid), else_=0)
            yield or_(is_same, tuple_(*CREATION) > place)
        else:
            yield message.c.uid < case((is_same, cursor.uid), else_=_ABOVE_UIDS)
            yield or_(is_same, tuple_(*CREATION) < place)
