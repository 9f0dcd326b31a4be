"""Where a copy of a sent message belongs: the sender's own mailbox for it."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection

from mailtwist.errors import NotFound
from mailtwist.store import accounts
from mailtwist.store.names import HIDDEN
from mailtwist.store.sql import Statement

SPECIAL_USE: Final = "\\Sent"  # RFC 6154 §2

_MAILBOXES = Statement(
    "SELECT mailbox_id, name FROM mailbox WHERE account_id = ? AND special_use = ?"
    " ORDER BY mailbox_id"
)
_IS_FILED = Statement(
    """
    SELECT 1 FROM email_detail AS d JOIN message AS m ON m.email_id = d.email_id
    WHERE d.account_id = ? AND d.message_id = ? AND m.account_id = ? AND m.mailbox_id = ?
    LIMIT 1
    """
)


def place(connection: Connection, account_id: int, message_id: str, octets: int) -> str | None:
    """The mailbox that lacks a message of this Message-ID and has room for it.

    None: there is no such mailbox, it has the message, or the account is full or gone.
    """
    rows = _MAILBOXES(connection, (account_id, SPECIAL_USE))
    found = next(((number, name) for number, name in rows if not name.startswith(HIDDEN)), None)
    if found is None or not _has_room(connection, account_id, octets):
        return None
    number, name = found
    filed = _IS_FILED(connection, (account_id, message_id, account_id, number))
    return None if message_id and filed.first() else str(name)


def _has_room(connection: Connection, account_id: int, octets: int) -> bool:
    try:
        account = accounts.get(connection, account_id)
    except NotFound:
        return False
    fits = not account.quota_octets or account.octets + octets <= account.quota_octets
    return fits and (not account.quota_messages or account.messages < account.quota_messages)
