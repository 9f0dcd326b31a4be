"""COPY and MOVE inside an account.

A copy is a new row of ``message`` for the same ``email``: no octet is touched, whatever the
size. A move keeps the row's ``entry_id``, by which the outside knows the message. Both take
any number of messages in one unit, for RFC 9051 §6.4.7 wants a copy whole or not at all,
and cost some 20 us for each on SQLite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from mailtwist.store import inbox_rows
from mailtwist.store.expunge import withdraw
from mailtwist.store.ledger import Ledger, MailboxCounters, microseconds, unseen_and_deleted
from mailtwist.store.names import canonical
from mailtwist.store.sql import Statement, many

_ROWS = "SELECT uid, flags, octets, entry_id FROM message WHERE account_id = ? AND mailbox_id = ?"
_THOSE = Statement(_ROWS + " AND uid {numbers} ORDER BY uid")
_FIRST = Statement(_ROWS + " ORDER BY uid LIMIT ?")
# Numbered in the order of the uids, as the rows that were read.
_COPY = Statement(
    """
    INSERT INTO message (account_id, mailbox_id, uid, entry_id, email_id, flags, modseq,
                         octets, internaldate, saved_at)
    SELECT account_id, ?, ? + row_number() OVER (ORDER BY uid) - 1,
           ? + row_number() OVER (ORDER BY uid) - 1,
           email_id, flags, ?, octets, internaldate, ?
    FROM message WHERE account_id = ? AND mailbox_id = ? AND uid {numbers}
    """
)
_MOVE = Statement(
    """
    UPDATE message SET mailbox_id = ?, uid = moved.target, modseq = ?, saved_at = ?
    FROM (SELECT uid AS source, ? + row_number() OVER (ORDER BY uid) - 1 AS target
          FROM message WHERE account_id = ? AND mailbox_id = ? AND uid {numbers}) AS moved
    WHERE account_id = ? AND mailbox_id = ? AND uid = moved.source
    """
)


@dataclass(frozen=True, slots=True)
class Copied:
    """``uidvalidity`` of the target, pairs (source uid, target uid) ascending in both.

    ``modseq`` is 0 when none of the messages was there.
    """

    uidvalidity: int
    uids: list[tuple[int, int]]
    modseq: int


def copy(
    connection: Connection,
    account_id: int,
    source_id: int,
    uids: Sequence[int],
    target_name: str,
    *,
    now: int | None = None,
) -> Copied:
    """Copy messages with flags and dates; all or none.

    Uids that are gone are left out. NotFound with TRYCREATE when there is no such target,
    OverQuota when they do not all fit.
    """
    ledger, account = Ledger.of(connection, account_id)
    target = ledger.named(account_id, canonical(target_name), "TRYCREATE")
    ledger.mailbox(account_id, source_id)
    rows = _THOSE(connection, (account_id, source_id, many(connection, uids))).all()
    if not rows:
        return Copied(target.uidvalidity, [], 0)
    octets = sum(row[2] for row in rows)
    account.require_room(octets, len(rows))
    account.octets += octets
    account.messages += len(rows)
    first = _admit(ledger, target, rows)
    _COPY(
        connection,
        (target.mailbox_id, first, account.entries(len(rows)), target.highestmodseq,
         microseconds(now), account_id, source_id, many(connection, [row[0] for row in rows])),
    )  # fmt: skip
    ledger.close()
    return _copied(target, rows, first)


def move(
    connection: Connection,
    account_id: int,
    source_id: int,
    uids: Sequence[int],
    target_name: str,
    *,
    now: int | None = None,
) -> Copied:
    """Move messages; like :func:`copy`, but they leave the source and need no room."""
    ledger, _ = Ledger.of(connection, account_id)
    target = ledger.named(account_id, canonical(target_name), "TRYCREATE")
    source = ledger.mailbox(account_id, source_id)
    rows = _THOSE(connection, (account_id, source_id, many(connection, uids))).all()
    if not rows:
        return Copied(target.uidvalidity, [], 0)
    first = _move(ledger, source, target, rows, microseconds(now))
    ledger.close()
    return _copied(target, rows, first)


def move_first(
    ledger: Ledger, source: MailboxCounters, target: MailboxCounters, limit: int, now: int
) -> None:
    """Move the first ``limit`` messages of one mailbox to another."""
    rows = _FIRST(ledger.connection, (source.account_id, source.mailbox_id, limit)).all()
    if rows:
        _move(ledger, source, target, rows, now)


def _move(
    ledger: Ledger,
    source: MailboxCounters,
    target: MailboxCounters,
    rows: Sequence[Sequence[int]],
    now: int,
) -> int:
    first = _admit(ledger, target, rows)
    uids = many(ledger.connection, [row[0] for row in rows])
    source_key = (source.account_id, source.mailbox_id)
    _MOVE(
        ledger.connection,
        (target.mailbox_id, target.highestmodseq, now, first, *source_key, uids, *source_key),
    )
    # What was captured and is moved was meant to be kept.
    inbox_rows.forget(ledger.connection, source.account_id, [row[3] for row in rows])
    withdraw(ledger, source, rows, now)
    return first


def _admit(ledger: Ledger, target: MailboxCounters, rows: Sequence[Sequence[int]]) -> int:
    """Count messages into the target; tells the first of their new uids."""
    ledger.changed(target)
    unseen, deleted = unseen_and_deleted(row[1] for row in rows)
    target.count(len(rows), sum(row[2] for row in rows), unseen, deleted)
    return target.uids(len(rows))


def _copied(target: MailboxCounters, rows: Sequence[Sequence[int]], first: int) -> Copied:
    pairs = [(row[0], first + n) for n, row in enumerate(rows)]
    return Copied(target.uidvalidity, pairs, target.highestmodseq)
