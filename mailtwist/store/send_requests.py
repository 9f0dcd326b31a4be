"""What was sent over HTTP: who asked, for whom, and the keys under which nothing is sent twice.

A request is written with its message, in one transaction, so that a key is taken if and only if
the mail is. What became of remote recipients stands in the queue's rows; here is what was known
when the request was taken. Times are in microseconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import Connection

from mailtwist.errors import Conflict
from mailtwist.store.queue.values import State
from mailtwist.store.sql import Statement, many

KEY_US: Final = 86_400 * 1_000_000
REQUEST_US: Final = 7 * 86_400 * 1_000_000
MAX_SUBJECT: Final = 1000

QUEUED: Final = "queued"
DEFERRED: Final = "deferred"
DELIVERED: Final = "delivered"
FAILED: Final = "failed"
REFUSED: Final = "refused"
CAPTURED: Final = "captured"


@dataclass(frozen=True, slots=True)
class Key:
    """An idempotency key. ``name`` stands for who asks and what he gave, ``digest`` for what he
    wants.
    """

    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class Expected:
    """A recipient when the request was taken; QUEUED: the queue's rows tell more."""

    address: str
    state: str
    reply: str = ""


@dataclass(frozen=True, slots=True)
class SendRequest:
    """``scope``: who asked, in the words of whoever wrote it; ``message_id`` without brackets."""

    queue_id: int
    scope: str
    sender: str
    subject: str
    message_id: str
    recipients: tuple[Expected, ...]
    created_at: int
    key: Key | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """The answer that stands under a key. ``status`` of HTTP; ``details``: why it failed."""

    digest: str
    queue_id: int
    status: int
    details: str


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one recipient. ``next_attempt_at`` 0: there is none."""

    address: str
    state: str
    reply: str = ""
    attempts: int = 0
    next_attempt_at: int = 0


class KeyTaken(Conflict):
    """Another request has this key; nothing was written."""

    default_text = "The Idempotency-Key is taken"


_INSERT = Statement(
    """
    INSERT INTO send_request (queue_id, scope, sender, subject, message_id, recipients, created_at)
    VALUES (?, ?, ?, ?, ?, ?, ?)
    """
)
# A key whose time has ended is anybody's, whether or not it was swept.
_TAKE = Statement(
    """
    INSERT INTO send_key (name, digest, queue_id, status, details, created_at)
    VALUES (?, ?, ?, 200, '', ?)
    ON CONFLICT (name) DO UPDATE SET
        digest = excluded.digest, queue_id = excluded.queue_id, status = 200, details = '',
        created_at = excluded.created_at
    WHERE send_key.created_at <= ?
    """
)
_TAKEN = Statement("SELECT queue_id FROM send_key WHERE name {texts}")
_GIVE_BACK = Statement("DELETE FROM send_key WHERE name {texts}")
_KEPT = Statement(
    """
    SELECT digest, queue_id, status, details FROM send_key WHERE name = ? AND created_at > ?
    """
)
_ANSWER = Statement("UPDATE send_key SET status = ?, details = ? WHERE name = ? AND queue_id = ?")
_FIND = Statement(
    """
    SELECT scope, sender, subject, message_id, recipients, created_at
    FROM send_request WHERE queue_id = ?
    """
)
_RECIPIENTS = Statement(
    """
    SELECT original, address, state, code, status, reply, attempts, due_at
    FROM queue_recipient WHERE queue_id = ? ORDER BY n
    """
)
_SWEEP_KEYS = Statement(
    """
    DELETE FROM send_key WHERE name IN (
        SELECT name FROM send_key {index ix_send_key_created_at} WHERE created_at <= ?
        ORDER BY created_at LIMIT ?)
    """
)
_OLD = Statement(
    """
    SELECT r.queue_id FROM send_request AS r {index ix_send_request_created_at}
    WHERE r.created_at <= ?
      AND NOT EXISTS (SELECT 1 FROM queue_message AS m WHERE m.queue_id = r.queue_id)
    ORDER BY r.created_at LIMIT ?
    """
)
_REMOVE = Statement("DELETE FROM send_request WHERE queue_id {numbers}")


# -- written with the message -----------------------------------------------------------------


def take_keys(connection: Connection, requests: Iterable[SendRequest]) -> set[int]:
    """Take the keys of requests; the queue ids of those whose key another one has."""
    keyed = [(each.key, each) for each in requests if each.key is not None]
    if not keyed:
        return set()
    # In one order everywhere, so that two nodes never wait for each other.
    keyed.sort(key=lambda pair: pair[0].name)
    _TAKE.each(
        connection,
        [
            (key.name, key.digest, each.queue_id, each.created_at, each.created_at - KEY_US)
            for key, each in keyed
        ],
    )
    names = many(connection, [key.name for key, _ in keyed])
    ours = {queue_id for (queue_id,) in _TAKEN(connection, (names,))}
    return {each.queue_id for _, each in keyed} - ours


def write(
    connection: Connection, kept: Sequence[SendRequest], dropped: Sequence[SendRequest] = ()
) -> None:
    """Write the requests of messages that are written; give back the keys of the others."""
    _INSERT.each(connection, [_row(each) for each in kept])
    names = [each.key.name for each in dropped if each.key is not None]
    if names:
        _GIVE_BACK(connection, (many(connection, names),))


def _row(request: SendRequest) -> tuple[Any, ...]:
    recipients = [[each.address, each.state, each.reply] for each in request.recipients]
    return (
        request.queue_id, request.scope, request.sender, request.subject[:MAX_SUBJECT],
        request.message_id, json.dumps(recipients, separators=(",", ":")), request.created_at,
    )  # fmt: skip


# -- read -------------------------------------------------------------------------------------


def kept(connection: Connection, name: str, *, now: int) -> Kept | None:
    """The answer under a key; None: it is free."""
    row = _KEPT(connection, (name, now - KEY_US)).first()
    return None if row is None else Kept(*row)


def keep(connection: Connection, request: SendRequest, *, status: int, details: str) -> None:
    """Keep another answer than that the mail was taken."""
    if request.key is not None:
        _ANSWER(connection, (status, details, request.key.name, request.queue_id))


def find(connection: Connection, queue_id: int) -> SendRequest | None:
    row = _FIND(connection, (queue_id,)).first()
    if row is None:
        return None
    scope, sender, subject, message_id, recipients, created_at = row
    expected = tuple(Expected(*each) for each in json.loads(recipients))
    return SendRequest(queue_id, scope, sender, subject, message_id, expected, created_at)


def fates(connection: Connection, request: SendRequest) -> list[Fate]:
    """What became of every recipient until now, in the order in which they were given."""
    rows = [
        ({original, address}, _fate(*rest))
        for original, address, *rest in _RECIPIENTS(connection, (request.queue_id,))
    ]
    return [
        _worst(each.address, rows)
        if each.state == QUEUED
        else Fate(each.address, each.state, each.reply)
        for each in request.recipients
    ]


_WORST: Final = (FAILED, DEFERRED, QUEUED, DELIVERED)


def _worst(address: str, rows: Sequence[tuple[set[str], Fate]]) -> Fate:
    """The worst of those whom an address leads to, which may have no row that names it."""
    fates = [fate for names, fate in rows if address in names] or [fate for _, fate in rows]
    gone = Fate("", FAILED, "it was taken out of the queue")
    found = min(fates, key=lambda fate: _WORST.index(fate.state), default=gone)
    return replace(found, address=address)


_ENDED: Final = {State.DELIVERED: DELIVERED, State.FAILED: FAILED}


def _fate(state: int, code: int, status: str, reply: str, attempts: int, due_at: int) -> Fate:
    text = " ".join(word for word in (str(code or ""), status, reply) if word)
    ended = _ENDED.get(State(state))
    if ended is not None:
        return Fate("", ended, text, attempts)
    is_waiting = state == State.WAITING
    return Fate("", DEFERRED if attempts else QUEUED, text, attempts, due_at if is_waiting else 0)


# -- given up ---------------------------------------------------------------------------------


def sweep(connection: Connection, now: int, limit: int = 500) -> bool:
    """Give up a helping of what is kept long enough; True: nothing is left to do.

    A request is kept as long as its message is in the queue, and for seven days.
    """
    keys = _SWEEP_KEYS(connection, (now - KEY_US, limit)).rowcount
    old = [queue_id for (queue_id,) in _OLD(connection, (now - REQUEST_US, limit))]
    if old:
        _REMOVE(connection, (many(connection, old),))
    return max(keys, len(old)) < limit
