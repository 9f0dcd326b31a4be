"""The counters that a unit changes: read under lock, moved in memory, written back once.

Every unit that changes an account's mail opens a ledger on the accounts first. That locks
their state rows, in the order of their numbers, until COMMIT; so units of many nodes
neither deadlock nor overtake each other, and a modseq that can be seen is never followed by
a smaller one. The rows of the mailboxes need no lock of their own: nobody touches them
without the account's.

An account takes one modseq in a unit, however many mailboxes and messages change; the
expunged rows rely on that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlalchemy import Connection

from mailtwist.errors import NotFound, OverQuota
from mailtwist.mail import flags as bits
from mailtwist.store import changes
from mailtwist.store.ids import now_us
from mailtwist.store.sql import Statement, many

_LOCK_ACCOUNTS = Statement(
    """
    SELECT s.account_id, s.modseq, s.next_mailbox, s.next_entry, s.next_uidvalidity,
           s.octets, s.messages, a.quota_octets, a.quota_messages
    FROM account_state AS s JOIN account AS a ON a.account_id = s.account_id
    WHERE s.account_id {numbers} AND a.state <> 'removing'
    ORDER BY s.account_id {lock s}
    """
)
_COUNTERS = """
    SELECT b.account_id, b.mailbox_id, b.name, b.uidvalidity, s.uidnext, s.messages,
           s.unseen, s.deleted, s.octets, s.highestmodseq
    FROM mailbox AS b JOIN mailbox_state AS s
      ON s.account_id = b.account_id AND s.mailbox_id = b.mailbox_id
"""
_BY_NAME = Statement(_COUNTERS + "WHERE b.account_id {numbers} AND b.name {texts}")
_BY_NUMBER = Statement(_COUNTERS + "WHERE b.account_id = ? AND b.mailbox_id {numbers}")
_SAVE_ACCOUNT = Statement(
    """
    UPDATE account_state SET modseq = ?, next_mailbox = ?, next_entry = ?,
           next_uidvalidity = ?, octets = ?, messages = ?
    WHERE account_id = ?
    """
)
_SAVE_MAILBOX = Statement(
    """
    UPDATE mailbox_state SET uidnext = ?, messages = ?, unseen = ?, deleted = ?, octets = ?,
           highestmodseq = ?
    WHERE account_id = ? AND mailbox_id = ?
    """
)

# RFC 9051 §2.3.1.1: UIDs and UIDVALIDITY are 32-bit.
MAX_UID = 2**32 - 1


def microseconds(now: int | None = None) -> int:
    """Tell the time in the store's unit, or pass on what the caller took as the time."""
    return now_us() if now is None else now


@dataclass(slots=True)
class AccountCounters:
    """One account_state row, and the limits that hold for it."""

    account_id: int
    modseq: int
    next_mailbox: int
    next_entry: int
    next_uidvalidity: int
    octets: int
    messages: int
    quota_octets: int
    quota_messages: int
    is_changed: bool = False

    def entries(self, count: int) -> int:
        """Take ``count`` numbers for entries or e-mails; tells the first."""
        first = self.next_entry
        self.next_entry += count
        self.is_changed = True
        return first

    def uidvalidity(self, now: int) -> int:
        """Take a UIDVALIDITY above all that the account ever had.

        It follows the clock too, so that an account made again under an old name does
        not repeat what clients may have cached.
        """
        value = max(self.next_uidvalidity, now // 1_000_000)
        self.next_uidvalidity = value + 1
        self.is_changed = True
        return value

    def has_room(self, octets: int, messages: int) -> bool:
        if self.quota_octets and self.octets + octets > self.quota_octets:
            return False
        return not (self.quota_messages and self.messages + messages > self.quota_messages)

    def require_room(self, octets: int, messages: int) -> None:
        if not self.has_room(octets, messages):
            raise OverQuota


@dataclass(slots=True)
class MailboxCounters:
    """One mailbox_state row with the name and UIDVALIDITY of its mailbox."""

    account_id: int
    mailbox_id: int
    name: str
    uidvalidity: int
    uidnext: int
    messages: int
    unseen: int
    deleted: int
    octets: int
    highestmodseq: int
    is_changed: bool = False

    def uids(self, count: int) -> int:
        """Take ``count`` UIDs; tells the first."""
        first = self.uidnext
        if first + count > MAX_UID:
            raise OverQuota("No UIDs left in this mailbox")
        self.uidnext += count
        return first

    def count(self, messages: int, octets: int, unseen: int, deleted: int) -> None:
        """Add messages; negative numbers take them away."""
        self.messages += messages
        self.octets += octets
        self.unseen += unseen
        self.deleted += deleted


def unseen_and_deleted(flags: Iterable[int]) -> tuple[int, int]:
    """Count what the flags of some messages add to the mailbox's two counters."""
    unseen = deleted = 0
    for value in flags:
        unseen += not value & bits.SEEN
        deleted += bool(value & bits.DELETED)
    return unseen, deleted


@dataclass(slots=True)
class Ledger:
    """The counters of one unit. Nothing is written before :meth:`close`."""

    connection: Connection
    accounts: dict[int, AccountCounters]
    _mailboxes: dict[tuple[int, int], MailboxCounters] = field(default_factory=dict)
    _raised: dict[int, int] = field(default_factory=dict)
    _listed: set[int] = field(default_factory=set)

    @classmethod
    def open(cls, connection: Connection, account_ids: Iterable[int]) -> Ledger:
        """Lock the accounts; those that do not exist or are being removed are left out."""
        rows = _LOCK_ACCOUNTS(connection, (many(connection, sorted(set(account_ids))),))
        return cls(connection, {row[0]: AccountCounters(*row) for row in rows})

    @classmethod
    def of(cls, connection: Connection, account_id: int) -> tuple[Ledger, AccountCounters]:
        """Lock one account, which must exist."""
        ledger = cls.open(connection, (account_id,))
        if account_id not in ledger.accounts:
            raise NotFound("No such account", detail=f"account {account_id}")
        return ledger, ledger.accounts[account_id]

    def mailbox(self, account_id: int, mailbox_id: int) -> MailboxCounters:
        """Read one mailbox by number; NotFound when it is gone."""
        known = self._mailboxes.get((account_id, mailbox_id))
        if known is None:
            numbers = many(self.connection, (mailbox_id,))
            known = self._keep(_BY_NUMBER(self.connection, (account_id, numbers)).first())
        return known

    def named(self, account_id: int, name: str, imap_code: str = "NONEXISTENT") -> MailboxCounters:
        """Read one mailbox by its canonical name; NotFound with ``imap_code`` when absent."""
        found = self.all_named((account_id,), (name,))
        if (account_id, name) not in found:
            raise NotFound("No such mailbox", imap_code=imap_code)
        return found[account_id, name]

    def all_named(
        self, account_ids: Iterable[int], names: Iterable[str]
    ) -> dict[tuple[int, str], MailboxCounters]:
        """Read the mailboxes of those names in all those accounts, in one statement."""
        connection = self.connection
        rows = _BY_NAME(connection, (many(connection, account_ids), many(connection, names)))
        found = (self._keep(row) for row in rows)
        return {(mailbox.account_id, mailbox.name): mailbox for mailbox in found}

    def changed(self, mailbox: MailboxCounters) -> int:
        """Note that messages of the mailbox change in this unit; tells their modseq."""
        modseq = self.raised(mailbox.account_id)
        mailbox.highestmodseq = modseq
        mailbox.is_changed = True
        return modseq

    def list_changed(self, account_id: int) -> int:
        """Note that the set of mailboxes, their names or subscriptions change."""
        self._listed.add(account_id)
        return self.raised(account_id)

    def raised(self, account_id: int) -> int:
        """Take the account's next modseq, once in this unit."""
        modseq = self._raised.get(account_id)
        if modseq is None:
            counters = self.accounts[account_id]
            counters.modseq = modseq = self._raised[account_id] = counters.modseq + 1
            counters.is_changed = True
        return modseq

    def forget(self, mailbox: MailboxCounters) -> None:
        """Drop a mailbox whose rows the unit deleted."""
        self._mailboxes.pop((mailbox.account_id, mailbox.mailbox_id), None)

    def close(self) -> None:
        """Write back what changed and tell the change feed."""
        accounts = [a for a in self.accounts.values() if a.is_changed]
        mailboxes = [b for b in self._mailboxes.values() if b.is_changed]
        _SAVE_ACCOUNT.each(
            self.connection,
            [
                (a.modseq, a.next_mailbox, a.next_entry, a.next_uidvalidity, a.octets,
                 a.messages, a.account_id)
                for a in accounts
            ],
        )  # fmt: skip
        _SAVE_MAILBOX.each(
            self.connection,
            [
                (b.uidnext, b.messages, b.unseen, b.deleted, b.octets, b.highestmodseq,
                 b.account_id, b.mailbox_id)
                for b in mailboxes
            ],
        )  # fmt: skip
        for account_id in self._listed:
            changes.touched(self.connection, account_id, 0, self._raised[account_id])
        for mailbox in mailboxes:
            changes.touched(
                self.connection, mailbox.account_id, mailbox.mailbox_id, mailbox.highestmodseq
            )

    def _keep(self, row: object) -> MailboxCounters:
        if row is None:
            raise NotFound("No such mailbox")
        read = MailboxCounters(*row)  # type: ignore[misc]
        return self._mailboxes.setdefault((read.account_id, read.mailbox_id), read)
