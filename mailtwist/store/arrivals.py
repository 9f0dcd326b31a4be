"""All mail that came, whoever got it, in the order in which it was written.

What a test wants to see of a server. The events ``received`` say what came where
(:mod:`mailtwist.store.events`); a message that is gone from every mailbox is left out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection

from mailtwist.store import content, inbox
from mailtwist.store.events import RECEIVED
from mailtwist.store.expunge import remove_first
from mailtwist.store.ledger import Ledger
from mailtwist.store.sql import Statement

MAX_READ: Final = 500
_READ_OCTETS: Final = 1 << 20
_REMOVED_AT_ONCE: Final = 1_000


@dataclass(frozen=True, slots=True)
class Arrival:
    """One copy of a message. ``recipients``: who it was captured for, or the one who got it.

    ``prefix``: the trace fields that its delivery put before ``data``, which is what was sent.
    ``header_octets`` and ``parts`` (:mod:`mailtwist.mail.parts`) are about ``data``; ``subject`` is
    decoded; ``received_at`` in microseconds.
    """

    event_id: int
    queue_id: int
    reverse_path: str
    recipients: tuple[str, ...]
    received_at: int
    subject: str
    prefix: bytes
    data: bytes
    header_octets: int
    parts: bytes


_EVENTS = Statement(
    """
    SELECT event_id, account_id, at, data FROM event
    WHERE event_id > ? AND kind = ? ORDER BY event_id LIMIT ?
    """
)
_ENTRY = Statement(
    """
    SELECT e.prefix, e.content_id, e.octets, e.header_octets, d.parts, d.subject
    FROM message AS m
    JOIN email AS e ON e.email_id = m.email_id
    JOIN email_detail AS d ON d.email_id = m.email_id
    WHERE m.account_id = ? AND m.entry_id = ?
    """
)
_FULL_ACCOUNTS = Statement("SELECT account_id FROM account_state WHERE messages > 0")
_FULL_MAILBOXES = Statement(
    "SELECT mailbox_id FROM mailbox_state WHERE account_id = ? AND messages > 0"
)


def after(
    connection: Connection, event_id: int, limit: int = MAX_READ
) -> tuple[list[Arrival], int]:
    """What came behind an event, and the last event that was looked at.

    At most ``limit`` events are: the caller goes on until the number stays the same.
    """
    found = []
    for row in _EVENTS(connection, (event_id, RECEIVED, limit)):
        event_id = row[0]
        arrival = _arrival(connection, *row)
        if arrival is not None:
            found.append(arrival)
    return found, event_id


def _arrival(
    connection: Connection, event_id: int, account_id: int, at: int, data: str
) -> Arrival | None:
    event: dict[str, Any] = json.loads(data)
    row = _ENTRY(connection, (account_id, event["entry"])).first()
    if row is None:
        return None
    prefix, content_id, octets, header_octets, parts, subject = row
    captured = inbox.addresses(connection, account_id, event["entry"])
    return Arrival(
        event_id=event_id,
        queue_id=event["queue_id"],
        reverse_path=event["sender"],
        recipients=tuple(captured) or (event["recipient"],),
        received_at=at,
        subject=subject,
        prefix=bytes(prefix),
        data=_whole(connection, content_id, octets),
        header_octets=header_octets,
        parts=bytes(parts),
    )


def _whole(connection: Connection, content_id: int, octets: int) -> bytes:
    steps = range(0, octets, _READ_OCTETS)
    return b"".join(
        content.read(connection, content_id, at, min(at + _READ_OCTETS, octets)) for at in steps
    )


def full_accounts(connection: Connection) -> list[int]:
    """The accounts that hold any message."""
    return [row[0] for row in _FULL_ACCOUNTS(connection)]


def empty_step(connection: Connection, account_id: int, now: int) -> bool:
    """Remove messages from all mailboxes of an account; True: none is left.

    At most a thousand of each mailbox: the caller repeats. Committed by whoever calls.
    """
    ledger, _ = Ledger.of(connection, account_id)
    for (mailbox_id,) in _FULL_MAILBOXES(connection, (account_id,)):
        remove_first(ledger, ledger.mailbox(account_id, mailbox_id), _REMOVED_AT_ONCE, now)
    is_empty = ledger.accounts[account_id].messages == 0
    ledger.close()
    return is_empty
