"""The entity mail: the messages of mailboxes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from sqlalchemy import select, tuple_

from mailtwist.mail.permissions import LOCKED, OWN_MAIL, Bit
from mailtwist.store.entities import ids, mail_facts, mail_lists
from mailtwist.store.entities import mail_writing as writing
from mailtwist.store.entities.ids import Kind
from mailtwist.store.entities.items import make_item
from mailtwist.store.entities.mail_asked import ROW, Narrow
from mailtwist.store.entities.mail_columns import COLUMNS, RELATIONS
from mailtwist.store.entities.mail_facts import Facts
from mailtwist.store.entities.model import (
    OWNER_RELATION,
    Entity,
    ListRequest,
    Reading,
    Slice,
    Stored,
    private_bits,
)
from mailtwist.store.names import HIDDEN
from mailtwist.store.tables import message


class Mails:
    """Messages as rows."""

    def page(self, reading: Reading, request: ListRequest) -> Slice:
        rows, total = mail_lists.page(reading, request)
        return Slice(tuple(_stored(reading, rows)), total)

    def rows(self, reading: Reading, wanted: Collection[str]) -> Mapping[str, Stored]:
        keys = {key for each in wanted if (key := ids.unpack(Kind.MAIL, each)) is not None}
        if not keys:
            return {}
        named = tuple_(message.c.account_id, message.c.entry_id).in_(sorted(keys))
        found = reading.connection.execute(select(*ROW).where(named))
        return {row.item.id: row for row in _stored(reading, [Narrow(*row) for row in found])}


def _stored(reading: Reading, rows: Sequence[Narrow]) -> list[Stored]:
    if not rows:
        return []
    facts = mail_facts.read(reading.connection, rows)
    return [_made(reading, row, facts) for row in rows if _is_shown(row, facts)]


def _is_shown(row: Narrow, facts: Facts) -> bool:
    box = facts.boxes.get((row.account_id, row.mailbox_id))
    return box is not None and not box.name.startswith(HIDDEN)


def _made(reading: Reading, row: Narrow, facts: Facts) -> Stored:
    box = facts.boxes[row.account_id, row.mailbox_id]
    permission = private_bits(box.permission)
    item = make_item(
        reading,
        ids.pack(Kind.MAIL, row.account_id, row.entry_id),
        mail_facts.kept(reading, row, facts),
        permission=permission,
        created_at=row.saved_at,
        updated_at=row.saved_at,
        references={
            OWNER_RELATION: box.owner_reference,
            "mail_box_id": ids.pack(Kind.MAIL_BOX, row.account_id, row.mailbox_id),
        },
    )
    return Stored(item, row, box.owner, permission, ("mail_account", row.account_id))


ENTITY: Final = Entity(
    name="mail",
    doc="The mails in the mailboxes.",
    columns={column.name: column for column in COLUMNS},
    relations={relation.name: relation for relation in RELATIONS},
    source=Mails(),
    create=writing.create,
    update=writing.change,
    delete=writing.remove,
    is_private=True,
    is_shared=False,
    table_permission=LOCKED | (Bit.UPDATE | Bit.DELETE) << 7,
    row_permission=OWN_MAIL,
    fresh_row_permission=OWN_MAIL,
    labels=("subject", "from_address", "to_address"),
)
