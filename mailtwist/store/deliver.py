"""Accepted messages become rows: delivery, APPEND and import, many at once.

:func:`deliver` is a set writer: it takes all acceptances of a batch and costs the same
number of statements for one as for sixty. An acceptance has its entries whole or not at
all; the others of the batch don't notice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from mailtwist.errors import MailError, NotFound, OverQuota
from mailtwist.mail.flags import DELETED, SEEN
from mailtwist.store import content, events, inbox_rows, keywords, send_requests
from mailtwist.store.content import Spooled
from mailtwist.store.ledger import AccountCounters, Ledger, MailboxCounters
from mailtwist.store.names import INBOX, canonical
from mailtwist.store.queue import rows
from mailtwist.store.queue.values import Lease, Message
from mailtwist.store.send_requests import KeyTaken, SendRequest
from mailtwist.store.sql import Statement


@dataclass(frozen=True, slots=True)
class Entry:
    """One mailbox that gets the message.

    ``prefix``: trace headers that stand before the shared content; ``internaldate`` in
    microseconds; ``return_path`` None when it did not come by SMTP. ``is_exempt``: the quota
    does not hold for it (a report on mail that the account sent). ``verdicts``: what checks
    found, in the words of Authentication-Results. ``inbox``: the addresses that the message is
    captured for; the mailbox is INBOX then.
    """

    account_id: int
    mailbox: str
    prefix: bytes = b""
    flags: int = 0
    keywords: tuple[str, ...] = ()
    internaldate: int = 0
    return_path: str | None = None
    recipient: str = ""
    client_address: str = ""
    is_tls: bool = False
    is_exempt: bool = False
    spam_score: float = 0.0
    verdicts: str = ""
    inbox: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Acceptance:
    """A message with all who get it; ``now`` in microseconds.

    ``queue``: it also leaves, for the recipients in there, and waits unless there is a
    ``lease``. There may be no entries then.

    ``received_as``: the id of "queued as" for mail that was delivered. Such mail falls into
    INBOX where its mailbox is missing; None (APPEND, import) names the mailbox on
    purpose, and a missing one is NotFound with TRYCREATE.

    ``request``: how it was asked for over HTTP; KeyTaken when its key is another one's.
    """

    content: Spooled
    entries: tuple[Entry, ...]
    received_as: int | None
    now: int
    queue: Message | None = None
    lease: Lease | None = None
    request: SendRequest | None = None


@dataclass(frozen=True, slots=True)
class Delivered:
    """Where an entry went."""

    account_id: int
    mailbox_id: int
    uidvalidity: int
    uid: int
    modseq: int


_INSERT_EMAIL = Statement(
    """
    INSERT INTO email (email_id, account_id, content_id, octets, header_octets, prefix,
        envelope, bodystructure)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    """
)
_INSERT_DETAIL = Statement(
    """
    INSERT INTO email_detail (email_id, account_id, body, parts, sent_at, sent_day, message_id,
        subject, folded_subject, folded_from, folded_to, folded_cc, folded_bcc,
        has_attachment, return_path, recipient, client_address, is_tls, received_as,
        spam_score, verdicts)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    """
)
_INSERT_MESSAGE = Statement(
    """
    INSERT INTO message (account_id, mailbox_id, uid, entry_id, email_id, flags, modseq,
        octets, internaldate, saved_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    """
)


def deliver(
    connection: Connection, acceptances: Sequence[Acceptance]
) -> list[tuple[Delivered, ...] | MailError]:
    """Write every acceptance of a batch; UIDs ascend in their order.

    The answers stand in the order of the acceptances: where each entry went, or why none
    did: NotFound (account or mailbox gone), OverQuota, KeyTaken.
    """
    entries = [entry for acceptance in acceptances for entry in acceptance.entries]
    ledger = Ledger.open(connection, (entry.account_id for entry in entries))
    mailboxes = ledger.all_named(
        ledger.accounts, {INBOX}.union(canonical(entry.mailbox) for entry in entries)
    )
    known = _keywords(connection, ledger, entries)
    requests = [each.request for each in acceptances if each.request is not None]
    repeated = send_requests.take_keys(connection, requests) if requests else set()
    batch = _Batch(ledger, mailboxes, known, repeated)
    answers = [batch.accept(acceptance) for acceptance in acceptances]
    batch.write()
    return answers


def _keywords(
    connection: Connection, ledger: Ledger, entries: Iterable[Entry]
) -> dict[int, keywords.Keywords]:
    wanted: dict[int, list[str]] = {}
    for entry in entries:
        if entry.keywords and entry.account_id in ledger.accounts:
            wanted.setdefault(entry.account_id, []).extend(entry.keywords)
    return keywords.add_fitting(connection, wanted) if wanted else {}


class _Batch:
    """The rows of the acceptances that fit, gathered before they are written together."""

    def __init__(
        self,
        ledger: Ledger,
        mailboxes: dict[tuple[int, str], MailboxCounters],
        known: dict[int, keywords.Keywords],
        repeated: set[int],
    ) -> None:
        self._repeated = repeated
        self._requests: list[SendRequest] = []
        self._dropped: list[SendRequest] = []
        self._ledger = ledger
        self._mailboxes = mailboxes
        self._keywords = known
        self._contents: list[Spooled] = []
        self._emails: list[tuple[Any, ...]] = []
        self._details: list[tuple[Any, ...]] = []
        self._messages: list[tuple[Any, ...]] = []
        self._inbox: list[tuple[Any, ...]] = []
        self._events: list[events.Told] = []
        self._tells = events.are_kept(ledger.connection)
        self._queue: list[tuple[Message, Spooled, Lease | None]] = []

    def accept(self, acceptance: Acceptance) -> tuple[Delivered, ...] | MailError:
        request = acceptance.request
        if request is not None and request.queue_id in self._repeated:
            return KeyTaken()
        try:
            places = [self._place(acceptance, entry) for entry in acceptance.entries]
            self._require_room(acceptance)
        except MailError as refusal:
            if request is not None:
                self._dropped.append(request)
            return refusal
        if request is not None:
            self._requests.append(request)
        if acceptance.entries or acceptance.queue is not None:
            self._contents.append(acceptance.content)
        if acceptance.queue is not None:
            self._queue.append((acceptance.queue, acceptance.content, acceptance.lease))
        return tuple(
            self._enter(acceptance, entry, account, mailbox)
            for entry, (account, mailbox) in zip(acceptance.entries, places, strict=True)
        )

    def write(self) -> None:
        connection = self._ledger.connection
        if self._contents:
            content.write_new(connection, self._contents)
        _INSERT_EMAIL.each(connection, self._emails)
        _INSERT_DETAIL.each(connection, self._details)
        _INSERT_MESSAGE.each(connection, self._messages)
        inbox_rows.INSERT.each(connection, self._inbox)
        self._ledger.close()
        if self._queue:
            rows.insert(connection, self._queue)
        if self._requests or self._dropped:
            send_requests.write(connection, self._requests, self._dropped)
        events.write(connection, self._events)

    def _place(
        self, acceptance: Acceptance, entry: Entry
    ) -> tuple[AccountCounters, MailboxCounters]:
        account = self._ledger.accounts.get(entry.account_id)
        if account is None:
            raise NotFound("User unknown", detail=f"account {entry.account_id}")
        mailbox = self._mailboxes.get((entry.account_id, canonical(entry.mailbox)))
        if mailbox is None and acceptance.received_as is not None:
            mailbox = self._mailboxes.get((entry.account_id, INBOX))
        if mailbox is None:
            raise NotFound("No such mailbox", imap_code="TRYCREATE")
        return account, mailbox

    def _require_room(self, acceptance: Acceptance) -> None:
        added: dict[int, tuple[int, int]] = {}
        for entry in acceptance.entries:
            if entry.is_exempt:
                continue
            octets, messages = added.get(entry.account_id, (0, 0))
            octets += len(entry.prefix) + acceptance.content.octets
            added[entry.account_id] = octets, messages + 1
        for account_id, (octets, messages) in added.items():
            if not self._ledger.accounts[account_id].has_room(octets, messages):
                raise OverQuota(detail=f"account {account_id}")

    def _enter(
        self,
        acceptance: Acceptance,
        entry: Entry,
        account: AccountCounters,
        mailbox: MailboxCounters,
    ) -> Delivered:
        spooled = acceptance.content
        structure = spooled.structure
        flags = entry.flags
        if entry.keywords:
            flags |= self._keywords[entry.account_id].mask(entry.keywords)
        size = len(entry.prefix) + spooled.octets
        number = account.entries(1)  # of the entry and, inside the account, of its e-mail
        email_id = entry.account_id << 32 | number
        uid = mailbox.uids(1)
        modseq = self._ledger.changed(mailbox)
        account.octets += size
        account.messages += 1
        mailbox.count(1, size, not flags & SEEN, bool(flags & DELETED))
        self._emails.append(
            (email_id, entry.account_id, spooled.content_id, spooled.octets,
             structure.header_octets, entry.prefix, structure.envelope, structure.bodystructure)
        )  # fmt: skip
        self._details.append(
            (email_id, entry.account_id, structure.body, structure.parts, structure.sent_at,
             structure.sent_day, structure.message_id, structure.subject,
             structure.folded_subject, structure.folded_from, structure.folded_to,
             structure.folded_cc, structure.folded_bcc, int(structure.has_attachment),
             entry.return_path, entry.recipient, entry.client_address, int(entry.is_tls),
             acceptance.received_as, entry.spam_score, entry.verdicts)
        )  # fmt: skip
        self._messages.append(
            (entry.account_id, mailbox.mailbox_id, uid, number, email_id, flags, modseq, size,
             entry.internaldate, acceptance.now)
        )  # fmt: skip
        if entry.inbox and acceptance.received_as is not None:
            self._inbox += inbox_rows.of_entry(
                entry.account_id, acceptance.received_as, number, entry.inbox, acceptance.now
            )
        # Nobody received what was appended, imported or filed as the sender's own copy.
        if self._tells and acceptance.received_as is not None and entry.return_path is not None:
            self._events.append(_received(acceptance, entry, mailbox.mailbox_id, number, size))
        return Delivered(entry.account_id, mailbox.mailbox_id, mailbox.uidvalidity, uid, modseq)


def _received(
    acceptance: Acceptance, entry: Entry, mailbox_id: int, entry_id: int, octets: int
) -> events.Told:
    structure = acceptance.content.structure
    return (
        entry.account_id,
        events.RECEIVED,
        {
            "sender": entry.return_path,
            "recipient": entry.recipient,
            "subject": structure.subject[: events.MAX_TEXT],
            "message_id": structure.message_id[: events.MAX_TEXT],
            "queue_id": acceptance.received_as,
            "octets": octets,
            "mailbox": mailbox_id,
            "entry": entry_id,
        },
    )
