"""STORE: changing the flags of many messages at once.

Every form of it is ``flags & keep | put`` with two masks, so one statement changes
all messages that differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection

from mailtwist.errors import ProtocolViolation
from mailtwist.store import keywords as keyword_rows
from mailtwist.store.ledger import Ledger, unseen_and_deleted
from mailtwist.store.sql import Statement, many

_ROWS = Statement(
    """
    SELECT uid, flags, modseq FROM message
    WHERE account_id = ? AND mailbox_id = ? AND uid {numbers} ORDER BY uid
    """
)
_UPDATE = Statement(
    """
    UPDATE message SET flags = (flags & ?) | ?, modseq = ?
    WHERE account_id = ? AND mailbox_id = ? AND uid {numbers}
    """
)


@dataclass(frozen=True, slots=True)
class Stored:
    """What came of a STORE.

    ``changed``: (uid, flags, modseq) of the messages that differ now, ascending;
    ``unchanged``: the same of those that were so already;
    ``modified``: uids left alone because they changed after ``unchanged_since``;
    ``modseq``: of the change, 0 when nothing changed.
    """

    modseq: int
    changed: list[tuple[int, int, int]]
    modified: list[int]
    unchanged: list[tuple[int, int, int]] = field(default_factory=list)


def _masks(op: str, mask: int) -> tuple[int, int]:
    match op:
        case "+":
            return ~mask, mask
        case "-":
            return ~mask, 0
        case "=":
            return 0, mask
    raise ProtocolViolation("Unknown STORE operation")


def store_flags(
    connection: Connection,
    account_id: int,
    mailbox_id: int,
    uids: Sequence[int],
    op: str,
    flags: int,
    keywords: Sequence[str] = (),
    unchanged_since: int | None = None,
) -> Stored:
    """Add ("+"), remove ("-") or replace ("=") system flags and keywords.

    Uids that are gone are left out. Keywords get bits as needed, except to be removed;
    Refusal with LIMIT when none is left. A thousand messages take some 10 ms; callers
    with more split them, for RFC 9051 does not want a STORE whole.
    """
    ledger, _ = Ledger.of(connection, account_id)
    mailbox = ledger.mailbox(account_id, mailbox_id)
    if keywords:
        known = (
            keyword_rows.load(connection, account_id)
            if op == "-"
            else keyword_rows.add(connection, account_id, keywords)
        )
        flags |= known.mask(keywords)
    keep, put = _masks(op, flags)
    changed, unchanged, modified, before = [], [], [], []
    for row in _ROWS(connection, (account_id, mailbox_id, many(connection, uids))):
        uid, old, modseq = row
        new = old & keep | put
        # RFC 7162 §3.1.3
        if unchanged_since is not None and modseq > unchanged_since:
            modified.append(uid)
        elif new == old:
            unchanged.append((uid, old, modseq))
        else:
            changed.append((uid, new))
            before.append(old)
    if not changed:
        return Stored(0, [], modified, unchanged)
    modseq = ledger.changed(mailbox)
    touched = many(connection, [uid for uid, _ in changed])
    _UPDATE(connection, (keep, put, modseq, account_id, mailbox_id, touched))
    unseen, deleted = unseen_and_deleted(new for _, new in changed)
    unseen_before, deleted_before = unseen_and_deleted(before)
    mailbox.count(0, 0, unseen - unseen_before, deleted - deleted_before)
    ledger.close()
    return Stored(modseq, [(uid, new, modseq) for uid, new in changed], modified, unchanged)
