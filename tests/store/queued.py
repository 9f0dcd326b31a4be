"""Messages of the queue for the tests of the store."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from mailtwist.store.deliver import Acceptance, deliver
from mailtwist.store.queue import claims
from mailtwist.store.queue.outcomes import Finished, record
from mailtwist.store.queue.values import (
    Attempt,
    Lease,
    Message,
    Outcome,
    Recipient,
    State,
)
from mailtwist.store.sql import Statement
from tests.store.making import NOW, spooled

MINUTE = 60 * 1_000_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
NODE = 7
LEASE = Lease(NODE, NOW + 10 * MINUTE)
_QUEUE_IDS = itertools.count(1000)


def queued(*addresses: str, data: bytes = b"", **message: Any) -> Acceptance:
    """A message for foreign recipients, as it is accepted."""
    recipients = tuple(
        Recipient(n, address, address.rpartition("@")[2]) for n, address in enumerate(addresses)
    )
    lease = message.pop("lease", None)
    values: dict[str, Any] = {
        "queue_id": next(_QUEUE_IDS),
        "reverse_path": "anna@example.com",
        "recipients": recipients,
        "received_at": NOW,
        "expires_at": NOW + 5 * DAY,
        "attend_at": NOW + 4 * HOUR,
        "prefix": b"Received: x\r\n",
    }
    made = Message(**(values | message))
    content = spooled(data or b"Subject: hello\r\n\r\nhello\r\n")
    return Acceptance(content, (), made.queue_id, NOW, queue=made, lease=lease)


def enqueue(connection: Connection, *acceptances: Acceptance) -> list[int]:
    """Accept messages; tells their queue ids."""
    answers = deliver(connection, list(acceptances))
    assert answers == [()] * len(acceptances), answers
    return [acceptance.queue.queue_id for acceptance in acceptances if acceptance.queue]


def claim(
    connection: Connection,
    *,
    now: int = NOW,
    node_id: int = NODE,
    destinations: int = 50,
    per_destination: int = 100,
    skip: Collection[str] = (),
) -> list[Message]:
    return claims.claim(
        connection,
        node_id=node_id,
        now=now,
        lease_until=now + 10 * MINUTE,
        destinations=destinations,
        per_destination=per_destination,
        skip=skip,
    )


def delivered(**values: Any) -> Attempt:
    made = Attempt(
        0, Outcome.DELIVERED, 250, "2.0.0", "ok", "end", "mx.example.net", "192.0.2.1:25",
        "TLSv1.3", NOW, NOW + 1,
    )  # fmt: skip
    return replace(made, **values)


_DEFERRED: dict[str, Any] = {
    "outcome": Outcome.DEFERRED,
    "code": 451,
    "status": "4.7.1",
    "text": "try later",
}
_FAILED: dict[str, Any] = {
    "outcome": Outcome.FAILED,
    "code": 550,
    "status": "5.1.1",
    "text": "no such user",
    "stage": "rcpt",
}


def deferred(due_at: int = NOW + 2 * MINUTE, **values: Any) -> Attempt:
    return delivered(**(_DEFERRED | {"due_at": due_at} | values))


def failed(**values: Any) -> Attempt:
    return delivered(**(_FAILED | values))


def outcome(message: Message, *attempts: Attempt, node_id: int = NODE, **values: Any) -> Finished:
    """What came of a message: one attempt for all its recipients, or one for each."""
    if len(attempts) < len(message.recipients):
        attempts = attempts * len(message.recipients)
    told = tuple(
        replace(made, n=recipient.n)
        for made, recipient in zip(attempts, message.recipients, strict=True)
    )
    return Finished(message, told, node_id=node_id, **{"now": NOW, **values})


def conclude(connection: Connection, made: Attempt, *, now: int = NOW, **values: Any) -> int:
    """Claim all that is due and record the same outcome for it; tells for how many."""
    messages = claim(connection, now=now)
    found = [outcome(message, made, now=now, **values) for message in messages]
    assert record(connection, found) == [True] * len(found)
    return len(found)


_STATES = Statement("SELECT queue_id, n, state FROM queue_recipient ORDER BY queue_id, n")


def states(connection: Connection) -> dict[tuple[int, int], State]:
    return {(queue_id, n): State(state) for queue_id, n, state in _STATES(connection)}


def keys(messages: Sequence[Message]) -> list[tuple[int, int]]:
    return [
        (message.queue_id, recipient.n) for message in messages for recipient in message.recipients
    ]


def value(connection: Connection, sql: str, *parameters: Any) -> Any:
    """The first value that a statement gives."""
    return Statement(sql)(connection, parameters).scalar()
