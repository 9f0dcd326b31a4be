"""Whole messages in a store, for the tests of FETCH and SEARCH."""

from __future__ import annotations

from mailtwist.store import accounts
from mailtwist.store.content import Spool
from mailtwist.store.database import Inline
from mailtwist.store.deliver import Acceptance, Delivered, Entry, deliver
from mailtwist.store.snapshot import Snapshot, Snapshots
from tests.store.making import NOW
from tests.support.now import now

BLOCK = 65536


def new_account(database: Inline) -> int:
    with database.engine.write() as connection:
        return accounts.add(connection, "anna@example.com", [], now=NOW).account_id


def put(database: Inline, account_id: int, data: bytes, **entry: object) -> Delivered:
    """Store a message as APPEND does, from spool to row."""
    spool = Spool(database, limit=1 << 30)
    for start in range(0, len(data), BLOCK):
        now(spool.write(data[start : start + BLOCK]))
    spooled = now(spool.finish())
    entries = (Entry(account_id, "INBOX", **entry),)  # type: ignore[arg-type]
    (delivered,) = now(database.write_set(deliver, Acceptance(spooled, entries, None, NOW)))
    return delivered


def view_of(database: Inline, delivered: Delivered) -> Snapshot:
    return now(Snapshots(database).current(delivered.account_id, delivered.mailbox_id))
