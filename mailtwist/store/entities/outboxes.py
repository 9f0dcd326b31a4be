"""The entity outbox: what leaves for other servers, a row for each recipient of each mail."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Row,
    Text,
    and_,
    case,
    cast,
    func,
    literal_column,
    null,
    true,
    tuple_,
)

from mailtwist.mail.permissions import OWN_MAIL
from mailtwist.store.entities import contents, ids
from mailtwist.store.entities import outbox_writing as writing
from mailtwist.store.entities.contents import Budget, Octets
from mailtwist.store.entities.ids import Kind
from mailtwist.store.entities.items import make_item
from mailtwist.store.entities.mail_accounts import reachable
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
from mailtwist.store.entities.tables import mail_server, user_account
from mailtwist.store.queue.tables import queue_message, queue_recipient
from mailtwist.store.queue.values import LOCAL, SES, State
from mailtwist.store.tables import account

_COLUMNS: Final = (
    Column("from_address", is_readonly=True, doc="The reverse-path; empty for a report."),
    Column("to_address", is_readonly=True, doc="Whom the next hop is told."),
    Column("to_host", is_readonly=True, doc="The domain of that address."),
    Column("mail", is_readonly=True, is_virtual=True, is_hidden=True, doc="All of it, in base64."),
    Column("sent", Type.BOOLEAN, is_readonly=True),
    Column("retry_count", Type.INTEGER, is_readonly=True, doc="How many attempts failed."),
    Column("last_error", is_readonly=True, doc="What was said when the last attempt failed."),
    Column("next_retry_at", Type.TIMESTAMP, doc="Empty when there is no next attempt."),
)
_RELATIONS: Final = (
    Relation(
        "mail_server_id", "mail_server", is_readonly=True, doc="By whose name the mail leaves."
    ),
)

_message, _recipient = queue_message.c, queue_recipient.c
_PLACE: Final = (
    queue_recipient.join(queue_message, _message.queue_id == _recipient.queue_id)
    .outerjoin(account, account.c.account_id == _message.account_id)
    .outerjoin(user_account, user_account.c.user_id == account.c.owner_user_id)
    .outerjoin(mail_server, mail_server.c.hostname == _message.hostname)
)
_IS_SENT: Final = _recipient.state == literal_column(str(int(State.DELIVERED)))


def _word(value: ColumnElement[str], is_there: ColumnElement[bool]) -> ColumnElement[str]:
    return case((is_there, value.concat(" ")), else_="")


_ERROR: Final = case(
    (_IS_SENT, ""),
    else_=func.rtrim(
        _word(cast(_recipient.code, Text), _recipient.code != 0)
        .concat(_word(_recipient.status, _recipient.status != ""))
        .concat(_recipient.reply)
    ),
)
_WAITS: Final = _recipient.state.in_([int(State.WAITING), int(State.HELD)])
_EXPRESSIONS: Final[dict[str, ColumnElement[Any]]] = {
    "from_address": _message.reverse_path,
    "to_address": _recipient.address,
    "to_host": _recipient.destination,
    "sent": case((_IS_SENT, literal_column("1")), else_=literal_column("0")),
    "retry_count": _recipient.attempts
    - case((and_(_IS_SENT, _recipient.attempts > 0), 1), else_=0),
    "last_error": _ERROR,
    "next_retry_at": case((_WAITS, _recipient.due_at), else_=null()),
    "permission": func.coalesce(account.c.permission, OWN_MAIL),
    "created_at": _message.received_at,
    "updated_at": func.coalesce(_recipient.ended_at, _message.received_at),
}
_NAMED: Final = {column.name: column for column in _COLUMNS} | dict(SYSTEM_COLUMNS)
_TERMS: Final = {
    name: Term(expression, _NAMED[name]) for name, expression in _EXPRESSIONS.items()
} | {
    "mail_server_id": Term(mail_server.c.reference_id, Column("mail_server_id")),
    OWNER_RELATION: Term(user_account.c.reference_id, Column(OWNER_RELATION)),
    "#queue_id": Term(_recipient.queue_id, number("reference_id")),
    "#n": Term(_recipient.n, number("reference_id")),
}


def _fields(reading: Reading) -> Sequence[ColumnElement[Any]]:
    return [
        _recipient.queue_id,
        _recipient.n,
        _message.account_id,
        _message.content_id,
        _message.octets,
        _message.prefix,
        func.coalesce(account.c.owner_user_id, 0).label("owner"),
        user_account.c.reference_id.label("owner_reference"),
        mail_server.c.reference_id.label("server_reference"),
        *(expression.label(f"c_{name}") for name, expression in _EXPRESSIONS.items()),
    ]


def _made(reading: Reading, row: Row[Fields]) -> Stored:
    fields = row._mapping
    permission = private_bits(row.c_permission)
    kept = {name: fields[f"c_{name}"] for name in _EXPRESSIONS}
    if row.c_to_host == LOCAL or row.c_to_host.startswith(SES):
        kept["to_host"] = row.c_to_address.rpartition("@")[2]
    if reading.wants("mail"):
        octets = Octets(row.content_id, row.octets, bytes(row.prefix))
        kept["mail"] = contents.raw(reading.connection, octets, Budget())
    item = make_item(
        reading,
        ids.pack(Kind.OUTBOX, row.queue_id, row.n),
        kept,
        permission=permission,
        created_at=row.c_created_at,
        updated_at=row.c_updated_at,
        references={OWNER_RELATION: row.owner_reference, "mail_server_id": row.server_reference},
    )
    shared = ("mail_account", row.account_id) if row.account_id else None
    return Stored(item, writing.Key(row.queue_id, row.n), row.owner, permission, shared)


def _visible(reading: Reading) -> ColumnElement[bool]:
    """What the accounts submitted that the viewer may read; administrators see all."""
    if reading.viewer.is_admin:
        return true()
    # The number as it is: only so the index of what accounts submitted serves.
    submitted = _message.account_id != literal_column("0")
    return and_(submitted, reachable(reading, account.c.permission))


def _has_ids(wanted: Collection[str]) -> ColumnElement[bool]:
    keys = [key for each in wanted if (key := ids.unpack(Kind.OUTBOX, each)) is not None]
    return tuple_(_recipient.queue_id, _recipient.n).in_(sorted(set(keys)))


ENTITY: Final = Entity(
    name="outbox",
    doc="Mails on their way to other servers, and those that left within the last days.",
    columns={column.name: column for column in _COLUMNS},
    relations={relation.name: relation for relation in _RELATIONS},
    source=Rows(
        place=_PLACE,
        base=true(),
        fields=_fields,
        terms=_TERMS,
        creation=(_recipient.queue_id, _recipient.n),
        visible=_visible,
        has_ids=_has_ids,
        made=_made,
        pairs={"reference_id": Pair(Kind.OUTBOX, "#queue_id", "#n")},
    ),
    update=writing.change,
    delete=writing.remove,
    is_private=True,
    is_shared=False,
    row_permission=OWN_MAIL,
    fresh_row_permission=OWN_MAIL,
    labels=("from_address", "to_address", "last_error"),
)
