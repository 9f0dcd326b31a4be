"""Taking captured mail away: what somebody clears, and what was kept long enough."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from sqlalchemy import Connection

from mailtwist.store import expunge, inbox_rows
from mailtwist.store.inbox_rows import MAX_QUEUE_ID, condition, is_possible, parameters
from mailtwist.store.ledger import Ledger, microseconds
from mailtwist.store.names import INBOX
from mailtwist.store.sql import Statement, many

# Messages of one unit; 500 take some 15 ms.
STEP: Final = 500

_BY_QUEUE_ID: Final = "{index ix_inbox_message_account_id_queue_id}"
_ONE: Final = " AND i.queue_id = ?"
_SOME_OF: Final = {
    (is_named, is_held, is_one): Statement(
        "SELECT DISTINCT i.entry_id FROM inbox_message AS i "
        + (_BY_QUEUE_ID if is_one and not is_named else "")
        + f" WHERE {condition(is_named, is_held)}{_ONE if is_one else ''} LIMIT ?"
    )
    for is_named in (False, True)
    for is_held in (False, True)
    for is_one in (False, True)
}
_DROP_OF: Final = {
    (is_named, is_held): Statement(
        "DELETE FROM inbox_message AS i"
        f" WHERE {condition(is_named, is_held)} AND i.entry_id {{numbers}}"
    )
    for is_named in (False, True)
    for is_held in (False, True)
}
_STILL_CAPTURED = Statement(
    "SELECT DISTINCT entry_id FROM inbox_message WHERE account_id = ? AND entry_id {numbers}"
)
_EXPIRED = Statement(
    """
    SELECT account_id, entry_id FROM inbox_message
    WHERE received_at < ? ORDER BY received_at LIMIT ?
    """
)


def delete(
    connection: Connection,
    account_id: int,
    local_part: str | None,
    queue_id: int | None,
    *,
    domain: str = "",
    limit: int = STEP,
    now: int | None = None,
) -> int:
    """Take a message, or all, out of an inbox, or out of all of the account (None).

    A message goes when it is in no inbox any more. At most ``limit`` of them in one call; tells
    how many, so that the caller repeats until 0.
    """
    if not is_possible(local_part, domain) or not 0 <= (queue_id or 0) <= MAX_QUEUE_ID:
        return 0
    ledger = Ledger.open(connection, (account_id,))
    if account_id not in ledger.accounts:
        return 0
    is_named, is_held = local_part is not None, bool(domain)
    whose = [account_id, *parameters(local_part, domain)]
    one = [] if queue_id is None else [queue_id]
    some = _SOME_OF[is_named, is_held, bool(one)](connection, (*whose, *one, limit))
    entries = {row[0] for row in some}
    if entries:
        _DROP_OF[is_named, is_held](connection, (*whose, many(connection, entries)))
        kept = _STILL_CAPTURED(connection, (account_id, many(connection, entries)))
        _remove(ledger, account_id, entries.difference(row[0] for row in kept), microseconds(now))
        ledger.close()
    return len(entries)


def sweep(connection: Connection, now: int, retention_us: int, limit: int = STEP) -> bool:
    """Take away some of what is older than ``retention_us``; tells whether nothing is left."""
    oldest = now - retention_us
    account_ids = {row[0] for row in _EXPIRED(connection, (oldest, limit))}
    if not account_ids:
        return True
    ledger = Ledger.open(connection, account_ids)
    # Again, now that nobody else changes them.
    rows = _EXPIRED(connection, (oldest, limit)).all()
    expired: dict[int, set[int]] = {}
    for account_id, entry_id in rows:
        if account_id in account_ids:
            expired.setdefault(account_id, set()).add(entry_id)
    for account_id, entries in expired.items():
        inbox_rows.forget(connection, account_id, entries)
        # The removal of an account takes its messages.
        if account_id in ledger.accounts:
            _remove(ledger, account_id, entries, now)
    ledger.close()
    return len(rows) < limit


def _remove(ledger: Ledger, account_id: int, entries: Collection[int], now: int) -> None:
    """Remove messages that are in no inbox any more."""
    if entries:
        box = ledger.named(account_id, INBOX)
        expunge.remove_entries(ledger, box, sorted(entries), now)
