"""Mailboxes: the list of an account, their states, and what changes the list.

Choices that RFC 9051 leaves open:

- CREATE makes the superiors that are missing.
- DELETE of a mailbox with inferiors drops its messages and keeps the inferiors; the name
  is then implied, not a row (§6.3.5). INBOX cannot be deleted.
- RENAME takes the inferiors along, but for INBOX, whose messages move to the new mailbox
  while INBOX and its inferiors stay (§6.3.6).
- Subscriptions are names and outlive their mailboxes (§6.3.7).

Two functions may find more messages than one unit should touch. :func:`delete` takes the
name away at once and :func:`remove_step` empties what it hid; :func:`rename` of a large
INBOX is continued by :func:`rename_step`. Both tell whether they are through;
:mod:`mailtwist.store.steps` repeats them.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection

from mailtwist.errors import Conflict, NotFound, Refusal
from mailtwist.store import copies, expunge
from mailtwist.store.ledger import AccountCounters, Ledger, MailboxCounters, microseconds
from mailtwist.store.names import HIDDEN, INBOX, canonical, checked, is_inferior, superiors
from mailtwist.store.sql import Statement

MAX_MAILBOXES: Final = 5000
STEP: Final = 1000


@dataclass(frozen=True, slots=True)
class Mailbox:
    account_id: int
    mailbox_id: int
    name: str
    special_use: str
    uidvalidity: int
    changed_modseq: int
    created_at: int


@dataclass(frozen=True, slots=True)
class MailboxState:
    uidnext: int
    uidvalidity: int
    messages: int
    unseen: int
    deleted: int
    octets: int
    highestmodseq: int
    recent_from: int


@dataclass(frozen=True, slots=True)
class Deletion:
    """``finished``: nothing is left for :func:`remove_step`."""

    mailbox_id: int
    finished: bool


@dataclass(frozen=True, slots=True)
class Renaming:
    """``finished``: nothing is left for :func:`rename_step`."""

    name: str
    finished: bool


# -- reading --------------------------------------------------------------------------------

_MAILBOXES = """
    SELECT account_id, mailbox_id, name, special_use, uidvalidity, changed_modseq, created_at
    FROM mailbox
"""
_LIST = Statement(_MAILBOXES + "WHERE account_id = ?")
_FIND = Statement(_MAILBOXES + "WHERE account_id = ? AND name = ?")
_STATES = """
    SELECT s.uidnext, b.uidvalidity, s.messages, s.unseen, s.deleted, s.octets,
           s.highestmodseq, s.recent_from, s.mailbox_id
    FROM mailbox_state AS s JOIN mailbox AS b
      ON b.account_id = s.account_id AND b.mailbox_id = s.mailbox_id
    WHERE s.account_id = ? AND substr(b.name, 1, 1) <> ?
"""
_STATE = Statement(_STATES + " AND s.mailbox_id = ?")
_ALL_STATES = Statement(_STATES)
_COUNT_RECENT = Statement(
    """
    SELECT count(*) FROM message AS m JOIN mailbox_state AS s
      ON s.account_id = m.account_id AND s.mailbox_id = m.mailbox_id
    WHERE m.account_id = ? AND m.mailbox_id = ? AND m.uid >= s.recent_from
    """
)
# Spelled as the partial index, or it is not used.
_FIRST_UNSEEN = Statement(
    """
    SELECT uid FROM message {index ix_message_unseen}
    WHERE account_id = ? AND mailbox_id = ? AND (flags & 1) = 0 ORDER BY uid LIMIT 1
    """
)


def list(connection: Connection, account_id: int) -> builtins.list[Mailbox]:
    """List the mailboxes by name, INBOX first. Implied superiors are no mailboxes:
    :func:`mailtwist.store.names.implied` tells them.
    """
    rows = [Mailbox(*row) for row in _LIST(connection, (account_id,))]
    shown = [row for row in rows if not row.name.startswith(HIDDEN)]
    return sorted(shown, key=lambda mailbox: (mailbox.name != INBOX, mailbox.name))


def find(connection: Connection, account_id: int, name: str) -> Mailbox | None:
    """Find a mailbox by name, INBOX in any case."""
    row = _FIND(connection, (account_id, canonical(name))).first()
    return None if row is None else Mailbox(*row)


def get(connection: Connection, account_id: int, name: str) -> Mailbox:
    """Find a mailbox that must be there; NotFound otherwise."""
    found = find(connection, account_id, name)
    if found is None:
        raise NotFound("No such mailbox")
    return found


def status(connection: Connection, account_id: int, mailbox_id: int) -> MailboxState:
    """Read the counters of one mailbox; NotFound when it is deleted."""
    row = _STATE(connection, (account_id, HIDDEN, mailbox_id)).first()
    if row is None:
        raise NotFound("No such mailbox")
    return MailboxState(*row[:8])


def statuses(connection: Connection, account_id: int) -> dict[int, MailboxState]:
    """Read the counters of every mailbox, by mailbox_id, in one statement."""
    rows = _ALL_STATES(connection, (account_id, HIDDEN))
    return {row[8]: MailboxState(*row[:8]) for row in rows}


def count_recent(connection: Connection, account_id: int, mailbox_id: int) -> int:
    r"""Count the messages that no session has claimed as \Recent."""
    return int(_COUNT_RECENT(connection, (account_id, mailbox_id)).scalar())


def first_unseen(connection: Connection, account_id: int, mailbox_id: int) -> int | None:
    r"""Tell the uid of the first message without \Seen."""
    uid = _FIRST_UNSEEN(connection, (account_id, mailbox_id)).scalar()
    return None if uid is None else int(uid)


# -- \Recent --------------------------------------------------------------------------------

_RECENT_FROM = Statement(
    """
    SELECT recent_from, uidnext FROM mailbox_state WHERE account_id = ? AND mailbox_id = ?
    """
)
_CLAIM = Statement(
    "UPDATE mailbox_state SET recent_from = uidnext WHERE account_id = ? AND mailbox_id = ?"
)


def claim_recent(connection: Connection, account_id: int, mailbox_id: int) -> int:
    r"""Take \Recent of all messages there are; tells the uid from which they were recent.

    Only one session gets it (RFC 9051 has dropped the flag, RFC 3501 §2.3.2 wants this).
    Needless when the state's ``recent_from`` equals ``uidnext``. No modseq is used.
    """
    Ledger.of(connection, account_id)
    row = _RECENT_FROM(connection, (account_id, mailbox_id)).first()
    if row is None:
        raise NotFound("No such mailbox")
    if row[0] != row[1]:
        _CLAIM(connection, (account_id, mailbox_id))
    return int(row[0])


# -- creating -------------------------------------------------------------------------------

_INSERT = Statement(
    """
    INSERT INTO mailbox (account_id, mailbox_id, name, special_use, uidvalidity,
                         changed_modseq, created_at)
    VALUES (?, ?, ?, ?, ?, ?, ?)
    """
)
_INSERT_STATE = Statement(
    "INSERT INTO mailbox_state (account_id, mailbox_id, highestmodseq) VALUES (?, ?, ?)"
)
_COUNT = Statement("SELECT count(*) FROM mailbox WHERE account_id = ?")


def create(
    connection: Connection,
    account_id: int,
    name: str,
    special_use: str = "",
    *,
    now: int | None = None,
) -> Mailbox:
    """Make a mailbox and the superiors it lacks; Conflict when it is there."""
    name = checked(name)
    ledger, account = Ledger.of(connection, account_id)
    made = _create(ledger, account, {name: special_use}, microseconds(now))
    ledger.close()
    return made[name]


def create_defaults(
    connection: Connection, account_id: int, wanted: Sequence[tuple[str, str]], *, now: int
) -> None:
    """Make the first mailboxes of an account and subscribe to them."""
    ledger, account = Ledger.of(connection, account_id)
    _create(ledger, account, dict(wanted), now)
    _SUBSCRIBE.each(connection, [(account_id, name) for name, _ in wanted])
    ledger.close()


def _create(
    ledger: Ledger, account: AccountCounters, wanted: dict[str, str], now: int
) -> dict[str, Mailbox]:
    connection, account_id = ledger.connection, account.account_id
    chain = {above: "" for name in wanted for above in superiors(name)} | wanted
    existing = {name for _, name in ledger.all_named((account_id,), chain)}
    for name in wanted:
        if name in existing:
            raise Conflict("Mailbox exists already")
    missing = [name for name in chain if name not in existing]
    count = _COUNT(connection, (account_id,)).scalar()
    if count + len(missing) > MAX_MAILBOXES:
        raise Refusal(f"No more than {MAX_MAILBOXES} mailboxes", imap_code="LIMIT")
    modseq = ledger.list_changed(account_id)
    made = {}
    for name in missing:  # superiors first
        number = account.next_mailbox
        account.next_mailbox += 1
        uidvalidity = account.uidvalidity(now)
        made[name] = Mailbox(account_id, number, name, chain[name], uidvalidity, modseq, now)
    _INSERT.each(
        connection,
        [
            (account_id, m.mailbox_id, m.name, m.special_use, m.uidvalidity, modseq, now)
            for m in made.values()
        ],
    )
    _INSERT_STATE.each(connection, [(account_id, m.mailbox_id, modseq) for m in made.values()])
    return made


# -- deleting -------------------------------------------------------------------------------

_RENAME = Statement(
    "UPDATE mailbox SET name = ?, changed_modseq = ? WHERE account_id = ? AND mailbox_id = ?"
)
_HIDE = Statement(
    """
    UPDATE mailbox SET name = ?, special_use = '', changed_modseq = ?
    WHERE account_id = ? AND mailbox_id = ?
    """
)
_ALL_HIDDEN = Statement(
    """
    SELECT account_id, mailbox_id FROM mailbox WHERE substr(name, 1, 1) = ? LIMIT ?
    """
)
_DROP_EXPUNGED = Statement(
    """
    DELETE FROM expunged WHERE account_id = ? AND mailbox_id = ? AND modseq IN
        (SELECT modseq FROM expunged WHERE account_id = ? AND mailbox_id = ? LIMIT ?)
    """
)
_DROPS = (
    Statement("DELETE FROM mailbox_state WHERE account_id = ? AND mailbox_id = ?"),
    Statement("DELETE FROM mailbox WHERE account_id = ? AND mailbox_id = ?"),
)


def delete(
    connection: Connection, account_id: int, name: str, *, now: int | None = None
) -> Deletion:
    """Delete a mailbox and its messages; its inferiors stay. See :class:`Deletion`."""
    name = canonical(name)
    if name == INBOX:
        raise Refusal("INBOX cannot be deleted", imap_code="CANNOT")  # RFC 9051 §6.3.5
    ledger, _ = Ledger.of(connection, account_id)
    mailbox = ledger.all_named((account_id,), (name,)).get((account_id, name))
    if mailbox is None:
        if _tree(connection, account_id, name):
            # RFC 9051 §6.3.5: an error, for such a name only stands for its inferiors.
            raise Refusal("Mailbox has inferiors and is no mailbox", imap_code="HASCHILDREN")
        raise NotFound("No such mailbox")
    modseq = ledger.list_changed(account_id)
    hidden = f"{HIDDEN}{mailbox.mailbox_id}"
    _HIDE(connection, (hidden, modseq, account_id, mailbox.mailbox_id))
    finished = _remove_some(ledger, mailbox, STEP, microseconds(now))
    ledger.close()
    return Deletion(mailbox.mailbox_id, finished)


def remove_step(
    connection: Connection,
    account_id: int,
    mailbox_id: int,
    limit: int = STEP,
    *,
    now: int | None = None,
) -> bool:
    """Take one bounded step of emptying a deleted mailbox; tells whether it is gone."""
    ledger = Ledger.open(connection, (account_id,))
    if account_id not in ledger.accounts:
        return True
    try:
        mailbox = ledger.mailbox(account_id, mailbox_id)
    except NotFound:
        return True
    assert mailbox.name.startswith(HIDDEN), "only a deleted mailbox is removed"
    finished = _remove_some(ledger, mailbox, limit, microseconds(now))
    ledger.close()
    return finished


def deleted(connection: Connection, limit: int = 100) -> builtins.list[tuple[int, int]]:
    """List (account_id, mailbox_id) of deleted mailboxes that still hold messages."""
    rows = _ALL_HIDDEN(connection, (HIDDEN, limit))
    return [(int(row[0]), int(row[1])) for row in rows]


def _remove_some(ledger: Ledger, mailbox: MailboxCounters, limit: int, now: int) -> bool:
    key = (mailbox.account_id, mailbox.mailbox_id)
    if mailbox.messages:
        expunge.remove_first(ledger, mailbox, limit, now)
    if mailbox.messages:
        return False
    if _DROP_EXPUNGED(ledger.connection, (*key, *key, limit)).rowcount >= limit:
        return False
    for statement in _DROPS:
        statement(ledger.connection, key)
    ledger.forget(mailbox)
    ledger.list_changed(mailbox.account_id)
    return True


# -- renaming -------------------------------------------------------------------------------


def rename(
    connection: Connection, account_id: int, old: str, new: str, *, now: int | None = None
) -> Renaming:
    """Give a mailbox and its inferiors a new name, or move INBOX's messages there."""
    old, new = canonical(old.removesuffix("/")), checked(new)
    now = microseconds(now)
    ledger, account = Ledger.of(connection, account_id)
    if old == INBOX:
        return _rename_inbox(ledger, account, new, now)
    family = _tree(connection, account_id, old)
    if not family:
        raise NotFound("No such mailbox")
    if is_inferior(new, old):
        raise Refusal("A mailbox cannot move into itself", imap_code="CANNOT")
    # A new name may be one of the old ones when a mailbox moves up (a/b, a/b/b -> a, a/b);
    # shortest first, each of these is free when its turn comes.
    moved = {name: checked(new + name[len(old) :]) for name in sorted(family, key=len)}
    taken = ledger.all_named((account_id,), [name for name in moved.values() if name not in moved])
    if taken or new in family:
        raise Conflict("Mailbox exists already")
    existing = {name for _, name in ledger.all_named((account_id,), superiors(new))}
    absent = {above: "" for above in superiors(new) if above not in existing}
    modseq = ledger.list_changed(account_id)
    _RENAME.each(
        connection,
        [(name, modseq, account_id, family[before]) for before, name in moved.items()],
    )
    if absent:
        _create(ledger, account, absent, now)
    ledger.close()
    return Renaming(new, finished=True)


def _tree(connection: Connection, account_id: int, name: str) -> dict[str, int]:
    """Find a mailbox and its inferiors: name to mailbox_id."""
    rows: Any = _LIST(connection, (account_id,))
    return {row[2]: row[1] for row in rows if row[2] == name or is_inferior(row[2], name)}


def _rename_inbox(ledger: Ledger, account: AccountCounters, new: str, now: int) -> Renaming:
    _create(ledger, account, {new: ""}, now)
    finished = _move_some(ledger, new, STEP, now)
    ledger.close()
    return Renaming(new, finished)


def rename_step(
    connection: Connection,
    account_id: int,
    new: str,
    limit: int = STEP,
    *,
    now: int | None = None,
) -> bool:
    """Move more of INBOX's messages to the mailbox it was renamed to; tells whether all went."""
    ledger, _ = Ledger.of(connection, account_id)
    finished = _move_some(ledger, canonical(new), limit, microseconds(now))
    ledger.close()
    return finished


def _move_some(ledger: Ledger, new: str, limit: int, now: int) -> bool:
    (account_id,) = ledger.accounts
    inbox = ledger.named(account_id, INBOX)
    copies.move_first(ledger, inbox, ledger.named(account_id, new), limit, now)
    return not inbox.messages


# -- subscriptions --------------------------------------------------------------------------

_SUBSCRIBE = Statement(
    "INSERT INTO subscription (account_id, name) VALUES (?, ?) ON CONFLICT DO NOTHING"
)
_UNSUBSCRIBE = Statement("DELETE FROM subscription WHERE account_id = ? AND name = ?")
_SUBSCRIBED = Statement("SELECT name FROM subscription WHERE account_id = ? ORDER BY name")
_COUNT_SUBSCRIBED = Statement("SELECT count(*) FROM subscription WHERE account_id = ?")


def subscribe(connection: Connection, account_id: int, name: str) -> None:
    """Subscribe to a name, whether there is a mailbox of that name or not."""
    name = checked(name)
    ledger, _ = Ledger.of(connection, account_id)
    if _COUNT_SUBSCRIBED(connection, (account_id,)).scalar() >= MAX_MAILBOXES:
        raise Refusal(f"No more than {MAX_MAILBOXES} subscriptions", imap_code="LIMIT")
    if _SUBSCRIBE(connection, (account_id, name)).rowcount:
        ledger.list_changed(account_id)
        ledger.close()


def unsubscribe(connection: Connection, account_id: int, name: str) -> None:
    """Drop a subscription; one that is not there is no error."""
    ledger, _ = Ledger.of(connection, account_id)
    if _UNSUBSCRIBE(connection, (account_id, canonical(name))).rowcount:
        ledger.list_changed(account_id)
        ledger.close()


def subscribed(connection: Connection, account_id: int) -> builtins.list[str]:
    """List the names subscribed to."""
    return [row[0] for row in _SUBSCRIBED(connection, (account_id,))]
