"""The entity mail_box: the mailboxes of accounts, with their counters."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, and_, case, exists, func, literal, tuple_

from mailtwist.mail.permissions import LOCKED, OWN_MAIL, Bit
from mailtwist.store.entities import ids
from mailtwist.store.entities import mail_box_writing as writing
from mailtwist.store.entities.ids import Kind
from mailtwist.store.entities.items import make_item
from mailtwist.store.entities.mail_accounts import LIVING, reachable
from mailtwist.store.entities.model import (
    OWNER_RELATION,
    SYSTEM_COLUMNS,
    Column,
    Entity,
    Reading,
    Relation,
    Stored,
    Type,
    private_bits,
)
from mailtwist.store.entities.pairs import Pair, number
from mailtwist.store.entities.rows import Fields, Rows
from mailtwist.store.entities.sql import Term
from mailtwist.store.entities.tables import user_account
from mailtwist.store.names import HIDDEN
from mailtwist.store.tables import account, mailbox, mailbox_state, subscription

MAX_NAME: Final = 1000
MAX_WORDS: Final = 1000

_COLUMNS: Final = (
    Column("name", is_required=True, max_length=MAX_NAME, doc="Levels are parted by a slash."),
    Column("subscribed", Type.BOOLEAN, default=True),
    Column("uidvalidity", Type.INTEGER, is_readonly=True, doc="RFC 9051, 2.3.1.1."),
    Column("nextuid", Type.INTEGER, is_readonly=True, doc="The uid of the next mail."),
    Column("attributes", max_length=MAX_WORDS, doc="As given; else those of LIST."),
    Column("flags", max_length=MAX_WORDS, doc="As given; else those a mail may have."),
    Column("permanent_flags", max_length=MAX_WORDS, doc="As given; else those that are kept."),
)
_RELATIONS: Final = (
    Relation("mail_account_id", "mail_account", is_required=True, doc="Whose mailbox it is."),
    Relation("mail_id", "mail", is_many=True, inverse="mail_box_id"),
)

# What the three texts are when nobody gave others.
ATTRIBUTES: Final = "\\HasNoChildren"
FLAGS: Final = "\\Seen \\Answered \\Flagged \\Deleted \\Draft"
PERMANENT_FLAGS: Final = FLAGS + " \\*"

PLACE: Final = (
    mailbox.join(account, account.c.account_id == mailbox.c.account_id)
    .join(
        mailbox_state,
        and_(
            mailbox_state.c.account_id == mailbox.c.account_id,
            mailbox_state.c.mailbox_id == mailbox.c.mailbox_id,
        ),
    )
    .outerjoin(user_account, user_account.c.user_id == account.c.owner_user_id)
)
# A deleted mailbox that is still being emptied is no mailbox.
SHOWN: Final = func.substr(mailbox.c.name, 1, 1) != HIDDEN
# Its own permission, or its account's.
PERMISSION: Final[ColumnElement[int]] = func.coalesce(mailbox.c.permission, account.c.permission)

_SUBSCRIBED: Final = case(
    (
        exists().where(
            subscription.c.account_id == mailbox.c.account_id,
            subscription.c.name == mailbox.c.name,
        ),
        1,
    ),
    else_=0,
)


def _or_else(given: ColumnElement[str], otherwise: ColumnElement[str]) -> ColumnElement[str]:
    return case((given != "", given), else_=otherwise)


_EXPRESSIONS: Final[dict[str, ColumnElement[Any]]] = {
    "name": mailbox.c.name,
    "subscribed": _SUBSCRIBED,
    "uidvalidity": mailbox.c.uidvalidity,
    "nextuid": mailbox_state.c.uidnext,
    "attributes": _or_else(
        mailbox.c.attributes,
        func.rtrim(literal(ATTRIBUTES + " ").concat(mailbox.c.special_use)),
    ),
    "flags": _or_else(mailbox.c.flags, literal(FLAGS)),
    "permanent_flags": _or_else(mailbox.c.permanent_flags, literal(PERMANENT_FLAGS)),
    "permission": PERMISSION,
    "created_at": mailbox.c.created_at,
    "updated_at": mailbox.c.created_at,
}
_TERMS: Final = {
    name: Term(expression, ({c.name: c for c in _COLUMNS} | dict(SYSTEM_COLUMNS))[name])
    for name, expression in _EXPRESSIONS.items()
} | {
    "mail_account_id": Term(account.c.reference_id, Column("mail_account_id")),
    OWNER_RELATION: Term(user_account.c.reference_id, Column(OWNER_RELATION)),
    "#account": Term(mailbox.c.account_id, number("reference_id")),
    "#mailbox": Term(mailbox.c.mailbox_id, number("reference_id")),
}
_PAIRS: Final = {"reference_id": Pair(Kind.MAIL_BOX, "#account", "#mailbox")}


def _fields(reading: Reading) -> Sequence[ColumnElement[Any]]:
    read = [expression.label(name) for name, expression in _EXPRESSIONS.items()]
    return [
        mailbox.c.account_id,
        mailbox.c.mailbox_id,
        account.c.owner_user_id,
        account.c.reference_id.label("account_reference"),
        user_account.c.reference_id.label("owner_reference"),
        *read,
    ]


def _made(reading: Reading, row: Row[Fields]) -> Stored:
    fields = row._mapping
    permission = private_bits(row.permission)
    item = make_item(
        reading,
        ids.pack(Kind.MAIL_BOX, row.account_id, row.mailbox_id),
        {column.name: fields[column.name] for column in _COLUMNS},
        permission=permission,
        created_at=row.created_at,
        updated_at=row.updated_at,
        references={
            OWNER_RELATION: row.owner_reference,
            "mail_account_id": row.account_reference,
        },
    )
    key = writing.Key(row.account_id, row.mailbox_id, row.name)
    shared = ("mail_account", row.account_id)
    return Stored(item, key, row.owner_user_id, permission, shared)


def visible(reading: Reading) -> ColumnElement[bool]:
    """The gate of mailboxes as SQL: their accounts', and what an API key is held to."""
    gate = reachable(reading, PERMISSION)
    held = reading.viewer.readable_mailboxes()
    return gate if held is None else and_(gate, named(held))


def named(wanted: Collection[str]) -> ColumnElement[bool]:
    """The condition for the mailboxes with these ids; others name none."""
    keys = [key for each in wanted if (key := ids.unpack(Kind.MAIL_BOX, each)) is not None]
    return tuple_(mailbox.c.account_id, mailbox.c.mailbox_id).in_(sorted(set(keys)))


SOURCE: Final = Rows(
    place=PLACE,
    base=and_(SHOWN, LIVING),
    fields=_fields,
    terms=_TERMS,
    creation=(mailbox.c.created_at, mailbox.c.account_id, mailbox.c.mailbox_id),
    visible=visible,
    has_ids=named,
    made=_made,
    pairs=_PAIRS,
)

ENTITY: Final = Entity(
    name="mail_box",
    doc="The mailboxes of mail accounts, as IMAP shows them.",
    columns={column.name: column for column in _COLUMNS},
    relations={relation.name: relation for relation in _RELATIONS},
    source=SOURCE,
    create=writing.create,
    update=writing.change,
    delete=writing.remove,
    is_private=True,
    is_shared=False,
    table_permission=LOCKED | (Bit.UPDATE | Bit.DELETE) << 7,
    row_permission=OWN_MAIL,
    fresh_row_permission=OWN_MAIL,
    labels=("name",),
)
