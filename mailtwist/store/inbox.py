"""Captured mail: inboxes that need no account, read over HTTP and kept for a while.

Two kinds of accounts capture: the one *inbox account*, which has the mail of the inbox domains
and, in dev_mode, what nobody owns; and the account of each project. What they captured lies in
their INBOX, with one row here for each address it was for. An inbox is a folded local part of
such an account. A message is named by its queue id, and has a row exactly as long as it lies in
INBOX: who moves it elsewhere keeps it for good.

Times are in microseconds. ``since``: what is older is not told of, whether it was swept or not.
``domain``: only addresses of it; "": of any.
"""

from __future__ import annotations

import builtins
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection

from mailtwist.store import accounts, domains
from mailtwist.store.inbox_removal import STEP, delete, sweep
from mailtwist.store.inbox_rows import MAX_QUEUE_ID, condition, is_possible, name_of, parameters
from mailtwist.store.sql import Statement, many

__all__ = [
    "ACCOUNT",
    "STEP",
    "Captured",
    "account",
    "addresses",
    "delete",
    "ensure_account",
    "find",
    "latest_entry",
    "list",
    "name_of",
    "new",
    "sweep",
]

# The inbox account. `.invalid` can be nobody's domain (RFC 2606 §2).
ACCOUNT: Final = "captured@mailtwist.invalid"


@dataclass(frozen=True, slots=True)
class Captured:
    """One message as one address got it.

    ``local_part``: the inbox's name; ``address``: as the sender spelled it. ``return_path`` None:
    it did not come by SMTP; "": the null path. ``octets`` of the whole message: ``prefix`` (trace
    fields) and content. ``parts`` (:mod:`mailtwist.mail.parts`) and ``header_octets`` are about
    the content, which :func:`mailtwist.store.content.read` gives.
    """

    account_id: int
    entry_id: int
    email_id: int
    mailbox_id: int
    uid: int
    queue_id: int
    local_part: str
    domain: str
    address: str
    received_at: int
    octets: int
    content_id: int
    content_octets: int
    header_octets: int
    prefix: bytes
    parts: bytes
    subject: str
    message_id: str
    has_attachment: bool
    return_path: str | None
    client_address: str
    is_tls: bool
    folded_from: str = ""  # the field From, decoded and folded: names and addresses


# -- the inbox account ----------------------------------------------------------------------

_ACCOUNT = Statement("SELECT account_id FROM account WHERE username = ?")


def account(connection: Connection) -> int:
    """The number of the inbox account, 0 while there is none."""
    return int(_ACCOUNT(connection, (ACCOUNT,)).scalar() or 0)


def ensure_account(connection: Connection, *, now: int | None = None) -> int:
    """The number of the inbox account, which is made where it is missing.

    Nobody can log in to it, nor write to it by its own address.
    """
    found = account(connection)
    if found:
        return found
    domains.ensure(connection, ACCOUNT.rpartition("@")[2], "relay", now=now)
    return accounts.add(connection, ACCOUNT, [], now=now).account_id


# -- reading --------------------------------------------------------------------------------

# Newest first, each message once, however many of its addresses fit.
_NEWEST: Final = """
    SELECT i.queue_id, min(i.entry_id) FROM inbox_message AS i
    WHERE {condition} AND i.queue_id < ? AND i.received_at >= ?
    GROUP BY i.queue_id ORDER BY i.queue_id DESC LIMIT ?
"""
_NEWEST_OF: Final = {
    (is_named, is_held): Statement(_NEWEST.format(condition=condition(is_named, is_held)))
    for is_named in (False, True)
    for is_held in (False, True)
}
_OF_ENTRIES = Statement(
    """
    SELECT entry_id, queue_id, local_part, domain, address, received_at FROM inbox_message
    WHERE account_id = ? AND entry_id {numbers} ORDER BY entry_id, local_part, domain
    """
)
_LATER = Statement(
    """
    SELECT DISTINCT entry_id FROM inbox_message
    WHERE account_id = ? AND entry_id > ? ORDER BY entry_id LIMIT ?
    """
)
_LATEST = Statement("SELECT max(entry_id) FROM inbox_message WHERE account_id = ?")
# CROSS JOIN keeps SQLite from beginning with all messages of the account.
_MESSAGES = Statement(
    """
    SELECT m.entry_id, m.email_id, m.mailbox_id, m.uid, m.octets, e.content_id, e.octets,
           e.header_octets, e.prefix, d.parts, d.subject, d.message_id, d.has_attachment,
           d.return_path, d.client_address, d.is_tls, d.folded_from
    FROM {each w} CROSS JOIN message AS m CROSS JOIN email AS e CROSS JOIN email_detail AS d
    WHERE m.account_id = ? AND m.entry_id = w.value
      AND e.email_id = m.email_id AND d.email_id = m.email_id
    """
)


def list(
    connection: Connection,
    account_id: int,
    local_part: str | None,
    *,
    domain: str = "",
    since: int,
    before: int | None = None,
    limit: int,
) -> builtins.list[Captured]:
    """The newest messages of an inbox, or of all of the account (None), each once.

    ``before``: a queue id, for the page after.
    """
    if not is_possible(local_part, domain):
        return []
    query = _NEWEST_OF[local_part is not None, bool(domain)]
    upper = MAX_QUEUE_ID if before is None else min(before, MAX_QUEUE_ID)
    chosen = query(
        connection, (account_id, *parameters(local_part, domain), upper, since, limit)
    ).all()
    entries = [entry_id for _, entry_id in chosen]
    found: dict[int, Captured] = {}
    for each in _captured(connection, account_id, entries):
        if local_part in {None, each.local_part} and domain in {"", each.domain}:
            found.setdefault(each.entry_id, each)
    return [found[entry_id] for entry_id in entries if entry_id in found]


def find(
    connection: Connection,
    account_id: int,
    local_part: str | None,
    queue_id: int,
    *,
    domain: str = "",
    since: int,
) -> Captured | None:
    """One message by its queue id."""
    if not 0 < queue_id < MAX_QUEUE_ID:
        return None
    found = list(
        connection, account_id, local_part, domain=domain, since=since,
        before=queue_id + 1, limit=1,
    )  # fmt: skip
    return next((each for each in found if each.queue_id == queue_id), None)


def new(
    connection: Connection, account_id: int, after_entry: int, limit: int
) -> builtins.list[Captured]:
    """What came after an entry, by entry, with one value for each address.

    At most ``limit`` messages, all addresses of each.
    """
    rows = _LATER(connection, (account_id, after_entry, limit))
    return _captured(connection, account_id, [row[0] for row in rows])


def latest_entry(connection: Connection, account_id: int) -> int:
    """The entry of the message that came last, 0 when there is none: where ``new`` goes on."""
    return int(_LATEST(connection, (account_id,)).scalar() or 0)


def addresses(connection: Connection, account_id: int, entry_id: int) -> builtins.list[str]:
    """All addresses that one message was captured for."""
    rows = _OF_ENTRIES(connection, (account_id, many(connection, (entry_id,))))
    return [row[4] for row in rows]


def _captured(
    connection: Connection, account_id: int, entry_ids: Collection[int]
) -> builtins.list[Captured]:
    """By entry, then by address."""
    if not entry_ids:
        return []
    wanted = many(connection, entry_ids)
    messages = {row[0]: row for row in _MESSAGES(connection, (wanted, account_id))}
    return [
        _one(account_id, row, messages[row[0]])
        for row in _OF_ENTRIES(connection, (account_id, wanted))
        # An older process, which knows no inboxes, may have taken the message away.
        if row[0] in messages
    ]


def _one(account_id: int, row: Sequence[Any], message: Sequence[Any]) -> Captured:
    entry_id, queue_id, local_part, domain, address, received_at = row
    (_, email_id, mailbox_id, uid, octets, content_id, content_octets, header_octets, prefix,
     parts, subject, message_id, has_attachment, return_path, client_address,
     is_tls, folded_from) = message  # fmt: skip
    return Captured(
        account_id=account_id,
        entry_id=entry_id,
        email_id=email_id,
        mailbox_id=mailbox_id,
        uid=uid,
        queue_id=queue_id,
        local_part=local_part,
        domain=domain,
        address=address,
        received_at=received_at,
        octets=octets,
        content_id=content_id,
        content_octets=content_octets,
        header_octets=header_octets,
        prefix=prefix,
        parts=parts,
        subject=subject,
        message_id=message_id,
        has_attachment=bool(has_attachment),
        return_path=return_path,
        client_address=client_address,
        is_tls=bool(is_tls),
        folded_from=folded_from,
    )
