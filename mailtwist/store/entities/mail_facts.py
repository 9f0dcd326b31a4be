"""What the rows of mails show beside their narrow half, read for a whole page at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection

from mailtwist.mail.envelope_addresses import Addresses
from mailtwist.mail.envelope_addresses import read as read_addresses
from mailtwist.mail.flags import DELETED, SEEN, SYSTEM
from mailtwist.store import keywords
from mailtwist.store.entities import contents
from mailtwist.store.entities.contents import Budget, Octets
from mailtwist.store.entities.mail_asked import Narrow
from mailtwist.store.entities.mail_columns import JUNK
from mailtwist.store.entities.model import Reading
from mailtwist.store.keywords import Keywords
from mailtwist.store.sql import Statement, many

_DETAILS: Final = Statement(
    """
    SELECT d.email_id, d.message_id, d.subject, d.folded_from, d.folded_to, d.has_attachment,
           d.return_path, d.recipient, d.client_address, d.is_tls, d.received_as,
           d.spam_score, d.parts,
           e.envelope, e.content_id, e.octets, e.prefix
    FROM email_detail AS d JOIN email AS e ON e.email_id = d.email_id
    WHERE d.email_id {numbers}
    """
)
# Of all accounts on a page at once: the mailboxes that are not on it are few beside its mails.
_MAILBOXES: Final = Statement(
    """
    SELECT b.account_id, b.mailbox_id, b.name, coalesce(b.permission, a.permission),
           s.recent_from, a.owner_user_id, u.reference_id
    FROM mailbox AS b
    JOIN mailbox_state AS s ON s.account_id = b.account_id AND s.mailbox_id = b.mailbox_id
    JOIN account AS a ON a.account_id = b.account_id AND a.state <> 'removing'
    LEFT JOIN user_account AS u ON u.user_id = a.owner_user_id
    WHERE b.account_id {numbers} AND b.mailbox_id {numbers}
    """
)


class Detail(NamedTuple):
    email_id: int
    message_id: str
    subject: str
    folded_from: str
    folded_to: str
    has_attachment: int
    return_path: str | None
    recipient: str
    client_address: str
    is_tls: int
    received_as: int | None
    spam_score: float
    parts: bytes
    envelope: bytes
    content_id: int
    octets: int
    prefix: bytes


class Box(NamedTuple):
    account_id: int
    mailbox_id: int
    name: str
    permission: int
    recent_from: int
    owner: int
    owner_reference: str | None


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a page of mails shows, by what names it."""

    details: Mapping[int, Detail]
    boxes: Mapping[tuple[int, int], Box]
    words: Mapping[int, Keywords]
    budget: Budget


def read(connection: Connection, rows: Sequence[Narrow]) -> Facts:
    """Read what rows need, in as many statements for one as for a thousand."""
    accounts = many(connection, sorted({row.account_id for row in rows}))
    mailboxes = many(connection, sorted({row.mailbox_id for row in rows}))
    emails = many(connection, sorted({row.email_id for row in rows}))
    details = (Detail(*found) for found in _DETAILS(connection, (emails,)))
    boxes = (Box(*found) for found in _MAILBOXES(connection, (accounts, mailboxes)))
    return Facts(
        {detail.email_id: detail for detail in details},
        {(box.account_id, box.mailbox_id): box for box in boxes},
        _words(connection, rows),
        Budget(),
    )


def _words(connection: Connection, rows: Iterable[Narrow]) -> Mapping[int, Keywords]:
    named = {row.account_id for row in rows if row.flags >> 8}
    return keywords.load_all(connection, sorted(named)) if named else {}


def kept(reading: Reading, row: Narrow, facts: Facts) -> dict[str, Any]:
    """The columns of one mail."""
    detail = facts.details[row.email_id]
    queued_as = "" if detail.received_as is None else str(detail.received_as)
    words = facts.words.get(row.account_id, keywords.EMPTY).spelled(row.flags)
    addresses = _addresses(reading, detail)
    return {
        "message_id": detail.message_id,
        "mail_id": queued_as,
        "from_address": detail.return_path or detail.folded_from,
        "to_address": detail.recipient or detail.folded_to,
        "reply_to_address": addresses.reply_to,
        "sender_address": addresses.sender,
        "subject": detail.subject,
        "internal_date": row.internaldate,
        "spam_score": detail.spam_score,
        "hash": queued_as,
        "content_type": contents.content_type(detail.parts),
        "recipient": detail.recipient,
        "has_attachment": detail.has_attachment,
        "ip_addr": detail.client_address,
        "return_path": detail.return_path or "",
        "is_tls": detail.is_tls,
        "seen": bool(row.flags & SEEN),
        "recent": row.uid >= facts.boxes[row.account_id, row.mailbox_id].recent_from,
        "deleted": bool(row.flags & DELETED),
        "spam": not _JUNK.isdisjoint(word.lower() for word in words),
        "uid": row.uid,
        "size": row.octets,
        "flags": ",".join([*(name for name, bit in SYSTEM.items() if row.flags & bit), *words]),
        **_octets(reading, detail, facts.budget),
    }


_JUNK: Final = frozenset(word.lower() for word in JUNK)


def _addresses(reading: Reading, detail: Detail) -> Addresses:
    if reading.wants("reply_to_address") or reading.wants("sender_address"):
        return read_addresses(detail.envelope)
    return Addresses()


def _octets(reading: Reading, detail: Detail, budget: Budget) -> dict[str, str]:
    """What must be read from the content, when it is asked for."""
    message = Octets(detail.content_id, detail.octets, detail.prefix)
    found = {}
    if reading.wants("mail"):
        found["mail"] = contents.raw(reading.connection, message, budget)
    if reading.wants("body"):
        found["body"] = contents.body(reading.connection, message, detail.parts, budget)
    return found
