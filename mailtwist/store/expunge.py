"""Taking messages away: EXPUNGE, and what deleting and moving mailboxes needs.

What went is told by one ``expunged`` row for each mailbox and modseq, so that a session
that knows an older state can drop it. The wide half of a message goes with its last
copy; its octets are put in doubt, and a sweeper decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from mailtwist.mail.uidset import compress
from mailtwist.store import content, inbox_rows
from mailtwist.store.ledger import Ledger, MailboxCounters, microseconds, unseen_and_deleted
from mailtwist.store.sql import Statement, many

_DELETED_ROWS = """
    SELECT uid, flags, octets, email_id, entry_id FROM message
    WHERE account_id = ? AND mailbox_id = ? AND (flags & 8) <> 0
"""
_ALL_DELETED = Statement(_DELETED_ROWS + "ORDER BY uid LIMIT ?")
_THOSE_DELETED = Statement(_DELETED_ROWS + "AND uid {numbers} ORDER BY uid LIMIT ?")
_FIRST = Statement(
    """
    SELECT uid, flags, octets, email_id, entry_id FROM message
    WHERE account_id = ? AND mailbox_id = ? ORDER BY uid LIMIT ?
    """
)
_ENTRIES = Statement(
    """
    SELECT m.uid, m.flags, m.octets, m.email_id, m.entry_id
    FROM {each w} CROSS JOIN message AS m
    WHERE m.account_id = ? AND m.entry_id = w.value AND m.mailbox_id = ? ORDER BY m.uid
    """
)
_DELETE = Statement("DELETE FROM message WHERE account_id = ? AND mailbox_id = ? AND uid {numbers}")
# Asked apart from the DELETE: PostgreSQL would join all messages of the account.
_STILL_THERE = Statement("SELECT email_id FROM message WHERE email_id {numbers}")
_DELETE_EMAILS = Statement("DELETE FROM email WHERE email_id {numbers} RETURNING content_id")
DELETE_DETAILS = Statement("DELETE FROM email_detail WHERE email_id {numbers}")
_TELL = Statement(
    "INSERT INTO expunged (account_id, mailbox_id, modseq, uids, at) VALUES (?, ?, ?, ?, ?)"
)

_NO_LIMIT = 2**31


@dataclass(frozen=True, slots=True)
class Expunged:
    """``uids``: what went, ascending; ``modseq`` 0 when nothing did."""

    modseq: int
    uids: list[int]


def expunge(
    connection: Connection,
    account_id: int,
    mailbox_id: int,
    uids: Sequence[int] | None = None,
    *,
    limit: int | None = None,
    now: int | None = None,
) -> Expunged:
    r"""Remove all messages marked \Deleted, or those of ``uids`` that are.

    At most the first ``limit`` of them: the caller repeats until none is left, so that
    no unit is long (a thousand take some 20 ms).
    """
    ledger, _ = Ledger.of(connection, account_id)
    mailbox = ledger.mailbox(account_id, mailbox_id)
    if not mailbox.deleted:
        return Expunged(0, [])
    key = (account_id, mailbox_id)
    most = limit or _NO_LIMIT
    if uids is None:
        rows = _ALL_DELETED(connection, (*key, most)).all()
    else:
        rows = _THOSE_DELETED(connection, (*key, many(connection, uids), most)).all()
    if not rows:
        return Expunged(0, [])
    modseq = _remove(ledger, mailbox, rows, microseconds(now))
    ledger.close()
    return Expunged(modseq, [row[0] for row in rows])


def remove_first(ledger: Ledger, mailbox: MailboxCounters, limit: int, now: int) -> None:
    """Remove the first ``limit`` messages of a mailbox, marked or not."""
    key = (mailbox.account_id, mailbox.mailbox_id)
    rows = _FIRST(ledger.connection, (*key, limit)).all()
    if rows:
        _remove(ledger, mailbox, rows, now)


def remove_entries(
    ledger: Ledger, mailbox: MailboxCounters, entry_ids: Sequence[int], now: int
) -> None:
    """Remove the messages of those entries that are in a mailbox, marked or not."""
    connection = ledger.connection
    key = (mailbox.account_id, mailbox.mailbox_id)
    rows = _ENTRIES(connection, (many(connection, entry_ids), *key)).all()
    if rows:
        _remove(ledger, mailbox, rows, now)


def _remove(
    ledger: Ledger, mailbox: MailboxCounters, rows: Sequence[Sequence[int]], now: int
) -> int:
    connection, account_id = ledger.connection, mailbox.account_id
    modseq = ledger.changed(mailbox)
    uids = many(connection, [row[0] for row in rows])
    _DELETE(connection, (account_id, mailbox.mailbox_id, uids))
    inbox_rows.forget(connection, account_id, [row[4] for row in rows])
    emails = {row[3] for row in rows}
    kept = _STILL_THERE(connection, (many(connection, emails),))
    emails.difference_update(row[0] for row in kept)
    unreferenced = many(connection, emails)
    gone = [row[0] for row in _DELETE_EMAILS(connection, (unreferenced,))]
    DELETE_DETAILS(connection, (unreferenced,))
    content.doubt(connection, gone)
    octets = withdraw(ledger, mailbox, rows, now)
    account = ledger.accounts[account_id]
    account.octets -= octets
    account.messages -= len(rows)
    return modseq


def withdraw(
    ledger: Ledger, mailbox: MailboxCounters, rows: Sequence[Sequence[int]], now: int
) -> int:
    """Tell that rows (uid, flags, octets, ...) left a mailbox, and count them out of it.

    For whoever removed or moved them; tells their octets.
    """
    modseq = ledger.changed(mailbox)
    told = compress(row[0] for row in rows)
    _TELL(ledger.connection, (mailbox.account_id, mailbox.mailbox_id, modseq, told, now))
    unseen, deleted = unseen_and_deleted(row[1] for row in rows)
    octets = sum(row[2] for row in rows)
    mailbox.count(-len(rows), -octets, -unseen, -deleted)
    return octets
