"""The columns of mail rows: what they are called, and where each stands in SQL."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import ColumnElement, Text, case, cast, exists, func, literal_column

from mailtwist.mail.flags import DELETED, SEEN
from mailtwist.store.entities import mail_boxes
from mailtwist.store.entities.ids import Kind
from mailtwist.store.entities.model import (
    OWNER_RELATION,
    SYSTEM_COLUMNS,
    Column,
    Relation,
    Type,
)
from mailtwist.store.entities.pairs import Pair, number
from mailtwist.store.entities.sql import Term
from mailtwist.store.entities.tables import user_account
from mailtwist.store.tables import email_detail, keyword, mailbox_state, message

MAX_RAW: Final = 64 * 2**20  # of a message that is appended, in base64

COLUMNS: Final = (
    Column("message_id", is_readonly=True, doc="Of its Message-ID field."),
    Column("mail_id", is_readonly=True, doc="What its sender was told: queued as."),
    Column("from_address", is_readonly=True, doc="Of the envelope; else the From field, folded."),
    Column("to_address", is_readonly=True, doc="Of the envelope; else the To field, folded."),
    Column("reply_to_address", is_readonly=True, is_virtual=True),
    Column("sender_address", is_readonly=True, is_virtual=True),
    Column("subject", is_readonly=True, doc="Decoded."),
    Column("body", is_readonly=True, is_virtual=True, is_hidden=True, doc="The first text part."),
    Column(
        "mail",
        is_fixed=True,
        is_virtual=True,
        is_hidden=True,
        max_length=MAX_RAW,
        doc="The whole message in base64.",
    ),
    Column("internal_date", Type.TIMESTAMP, is_fixed=True, doc="When it arrived."),
    Column(
        "spam_score",
        Type.NUMBER,
        is_readonly=True,
        doc="What the checks counted against it; above 50: marked, above 299: in Spam.",
    ),
    Column("hash", is_readonly=True, doc="The same as mail_id."),
    Column("content_type", is_readonly=True, is_virtual=True),
    Column("recipient", is_readonly=True, doc="Whom it was for, as the envelope said."),
    Column("has_attachment", Type.BOOLEAN, is_readonly=True),
    Column("ip_addr", is_readonly=True, doc="Of the client it came from."),
    Column("return_path", is_readonly=True, doc="Of the envelope."),
    Column("is_tls", Type.BOOLEAN, is_readonly=True, doc="It came over TLS."),
    Column("seen", Type.BOOLEAN),
    Column("recent", Type.BOOLEAN, is_readonly=True, doc="No IMAP session was told of it yet."),
    Column("deleted", Type.BOOLEAN, doc="It goes with the next EXPUNGE."),
    Column("spam", Type.BOOLEAN, doc="It has the keyword $Junk."),
    Column("uid", Type.INTEGER, is_readonly=True, doc="Its number in the mailbox."),
    Column("size", Type.INTEGER, is_readonly=True, doc="In octets."),
    Column("flags", is_virtual=True, doc="Flags and keywords, parted by commas."),
)
RELATIONS: Final = (
    Relation("mail_box_id", "mail_box", is_required=True, doc="Changed: the mail is moved there."),
)

# Keywords by which clients say that a mail is spam; we say it by the first.
JUNK: Final = ("$Junk", "Junk", "Spam")

_IS_JUNK: Final = exists().where(
    keyword.c.account_id == message.c.account_id,
    keyword.c.folded.in_([name.lower() for name in JUNK]),
    func.coalesce(message.c.flags.op(">>")(keyword.c.bit).op("&")(1), 0) == 1,
)
_FROM: Final = case(
    (func.coalesce(email_detail.c.return_path, "") != "", email_detail.c.return_path),
    else_=email_detail.c.folded_from,
)
_TO: Final = case(
    (email_detail.c.recipient != "", email_detail.c.recipient),
    else_=email_detail.c.folded_to,
)


def _truth(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return case((condition, literal_column("1")), else_=literal_column("0"))


def _bit(flag: int) -> ColumnElement[int]:
    return _truth(message.c.flags.op("&")(flag) != 0)


_QUEUED_AS: Final = func.coalesce(cast(email_detail.c.received_as, Text), "")

# What filters and orders may name, by the rows it takes: those of messages alone, with their
# details, or with their mailboxes.
NARROW: Final[dict[str, ColumnElement[Any]]] = {
    "internal_date": message.c.internaldate,
    "seen": _bit(SEEN),
    "deleted": _bit(DELETED),
    "spam": _truth(_IS_JUNK),
    "uid": message.c.uid,
    "size": message.c.octets,
    "created_at": message.c.saved_at,
    "updated_at": message.c.saved_at,
    "#account": message.c.account_id,
    "#mailbox": message.c.mailbox_id,
    "#entry": message.c.entry_id,
}
DETAIL: Final[dict[str, ColumnElement[Any]]] = {
    "message_id": email_detail.c.message_id,
    "mail_id": _QUEUED_AS,
    "hash": _QUEUED_AS,
    "from_address": _FROM,
    "to_address": _TO,
    "subject": email_detail.c.subject,
    "recipient": email_detail.c.recipient,
    "has_attachment": email_detail.c.has_attachment,
    "ip_addr": email_detail.c.client_address,
    "return_path": func.coalesce(email_detail.c.return_path, ""),
    "is_tls": email_detail.c.is_tls,
    "spam_score": email_detail.c.spam_score,
}
OF_MAILBOX: Final[dict[str, ColumnElement[Any]]] = {
    "recent": _truth(message.c.uid >= mailbox_state.c.recent_from),
    "permission": mail_boxes.PERMISSION,
    OWNER_RELATION: user_account.c.reference_id,
}

_NAMED: Final = {column.name: column for column in COLUMNS} | dict(SYSTEM_COLUMNS)
TERMS: Final = {
    name: Term(expression, _NAMED.get(name) or (Column(name) if name[0] != "#" else number(name)))
    for name, expression in (NARROW | DETAIL | OF_MAILBOX).items()
}
PAIRS: Final = {
    "reference_id": Pair(Kind.MAIL, "#account", "#entry"),
    "mail_box_id": Pair(Kind.MAIL_BOX, "#account", "#mailbox"),
}
# The orders that need no term of their own.
PAIR_SORTS: Final = {
    "reference_id": ("#account", "#entry"),
    "mail_box_id": ("#account", "#mailbox"),
}
