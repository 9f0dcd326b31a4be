"""Messages and accounts for the tests of the store."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

from sqlalchemy import Connection

from mailtwist.mail.structure import Structure
from mailtwist.store import accounts
from mailtwist.store.content import Spooled
from mailtwist.store.deliver import Acceptance, Delivered, Entry, deliver
from mailtwist.store.ids import now_us
from mailtwist.store.tables import node

NOW = 1_800_000_000_000_000
_CONTENT_IDS = itertools.count(1)

STRUCTURE = Structure(
    octets=0,
    header_octets=14,
    envelope=b"(NIL)",
    bodystructure=b"(NIL)",
    body=b"(NIL)",
    parts=b"",
    message_id="<a@b>",
    subject="hello",
    folded_subject="hello",
    folded_from="a@b",
    folded_to="",
    folded_cc="",
    folded_bcc="",
    sent_at=None,
    sent_day=None,
    has_attachment=False,
    received_count=0,
)


def spooled(data: bytes = b"Subject: hello\r\n\r\nhello\r\n") -> Spooled:
    return Spooled(next(_CONTENT_IDS), len(data), hashlib.sha256(data).digest(), data, STRUCTURE)


def account(connection: Connection, name: str = "anna@example.com", **options: int) -> int:
    return accounts.add(connection, name, [], now=NOW, **options).account_id


def acceptance(
    account_id: int,
    mailbox: str = "INBOX",
    *,
    data: bytes = b"Subject: hello\r\n\r\nhello\r\n",
    received_as: int | None = None,
    **entry: Any,
) -> Acceptance:
    entries = (Entry(account_id, mailbox, **entry),)
    return Acceptance(spooled(data), entries, received_as, NOW)


def put(
    connection: Connection, account_id: int, mailbox: str = "INBOX", count: int = 1, **entry: Any
) -> list[Delivered]:
    """Deliver some messages, which must succeed."""
    answers = deliver(connection, [acceptance(account_id, mailbox, **entry) for _ in range(count)])
    delivered: list[Delivered] = []
    for answer in answers:
        assert isinstance(answer, tuple), answer
        delivered.extend(answer)
    return delivered


def another_node(connection: Connection, node_id: int) -> None:
    """A process of another machine that shares the store and lives."""
    values = {"node_id": node_id, "name": "elsewhere/1/x", "version": "0", "seen_at": now_us()}
    connection.execute(node.insert().values(**values))
