"""The entity mail_account: the store's accounts."""

from __future__ import annotations

from typing import Final

from sqlalchemy import ColumnElement, and_

from mailtwist.mail.permissions import LOCKED, OWN_MAIL
from mailtwist.store.entities import mail_account_writing as writing
from mailtwist.store.entities.model import Column, Entity, Reading, Relation, Type
from mailtwist.store.entities.permissions import visible
from mailtwist.store.entities.tables import mail_server
from mailtwist.store.entities.tabular import Reference, Tabular
from mailtwist.store.removal import REMOVING
from mailtwist.store.tables import account

MAX_USERNAME: Final = 254  # RFC 5321 §4.5.3.1.3, without the brackets

_COLUMNS: Final = (
    Column(
        "username",
        is_required=True,
        is_unique=True,
        max_length=MAX_USERNAME,
        doc="The address, in lower case. Without a domain it is in the first local one.",
    ),
    Column("password", Type.PASSWORD, is_required=True, doc="Read as an empty text."),
    Column("password_md5", is_writeonly=True, doc="Taken from older clients and not kept."),
)
_RELATIONS: Final = (
    Relation("mail_server_id", "mail_server", doc="Without effect: an account works on every one."),
    Relation("mail_box_id", "mail_box", is_many=True, inverse="mail_account_id"),
)
LIVING: Final = account.c.state != REMOVING

ENTITY: Final = Entity(
    name=writing.NAME,
    doc="Who has mailboxes here, and may send.",
    columns={column.name: column for column in _COLUMNS},
    relations={relation.name: relation for relation in _RELATIONS},
    source=Tabular(
        account,
        "account_id",
        references={
            "mail_server_id": Reference(
                account.c.mail_server_id, mail_server, mail_server.c.mail_server_id
            )
        },
        where=LIVING,
    ),
    create=writing.create,
    update=writing.change,
    delete=writing.remove,
    is_private=True,
    table_permission=LOCKED,
    row_permission=OWN_MAIL,
    fresh_row_permission=OWN_MAIL,
    labels=("username",),
)


def reachable(reading: Reading, permission: ColumnElement[int]) -> ColumnElement[bool]:
    """The gate for rows that belong to an account: its owner's, and of whom it is shared with."""
    return and_(
        LIVING,
        visible(
            reading.viewer,
            ENTITY,
            permission=permission,
            owner=account.c.owner_user_id,
            key=account.c.account_id,
        ),
    )
