"""Webhooks as whoever posts to them needs them: whom to tell what, when, and what came of it.

An event becomes one row of ``webhook_delivery`` for each webhook that wants it, with all that is
posted; from then on the event itself may go. The numbers of event and webhook together are
unique, so that reading events again tells nobody twice.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection

from mailtwist.store import changes
from mailtwist.store.entities.webhooks import KIND
from mailtwist.store.event_feed import Event
from mailtwist.store.identities import ADMINISTRATORS
from mailtwist.store.reference import reference_id
from mailtwist.store.sql import Statement, many

SECOND: Final = 1_000_000
HOUR: Final = 3_600 * SECOND
DAY: Final = 24 * HOUR
FIRST_WAIT: Final = 60 * SECOND
LONGEST_WAIT: Final = HOUR
GIVEN_UP: Final = DAY
DISABLED: Final = 3 * DAY
KEPT: Final = 3 * DAY
MAX_WAITING: Final = 10_000
MAX_ERROR: Final = 500
MAX_WEBHOOKS: Final = 1_000
PAUSED: Final = "Too many deliveries wait: events were passed over"

_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

_ACTIVE = Statement(
    """
    SELECT w.webhook_id, w.url, w.kinds, w.secret, w.owner_user_id, w.permission, w.position,
           w.failing_since,
           EXISTS (SELECT 1 FROM user_group AS m JOIN usergroup AS g ON g.group_id = m.group_id
                   WHERE m.user_id = w.owner_user_id AND g.name = ?)
    FROM webhook AS w WHERE w.active <> 0 ORDER BY w.webhook_id LIMIT ?
    """
)
_COUNT = Statement(
    """
    SELECT count(*) FROM (SELECT 1 FROM webhook_delivery
                          WHERE webhook_id = ? AND state = 'waiting' LIMIT ?) AS few
    """
)
_INSERT = Statement(
    """
    INSERT INTO webhook_delivery (webhook_id, event_id, kind, body, state, due_at, owner_user_id,
        permission, reference_id, created_at, updated_at)
    VALUES (?, ?, ?, ?, 'waiting', ?, ?, ?, ?, ?, ?)
    ON CONFLICT (webhook_id, event_id) DO NOTHING
    """
)
_MOVE = Statement("UPDATE webhook SET position = ? WHERE webhook_id {numbers} AND position < ?")
_SAY = Statement("UPDATE webhook SET last_error = ? WHERE webhook_id = ?")
_DUE = Statement(
    """
    SELECT delivery_id, webhook_id, reference_id, event_id, kind, body, attempts, created_at
    FROM webhook_delivery WHERE webhook_id = ? AND state = 'waiting' AND due_at <= ?
    ORDER BY due_at, delivery_id LIMIT ?
    """
)
_NEXT = Statement(
    "SELECT min(due_at) FROM webhook_delivery WHERE webhook_id = ? AND state = 'waiting'"
    " AND due_at > ?"
)
_END = Statement(
    """
    UPDATE webhook_delivery SET state = ?, attempts = attempts + 1, code = ?, error = ?,
           due_at = ?, updated_at = ?
    WHERE delivery_id = ? AND state = 'waiting'
    """
)
_WELL = Statement(
    """
    UPDATE webhook SET failing_since = NULL, last_sent_at = ?, last_error = ''
    WHERE webhook_id = ?
    """
)
_UNWELL = Statement(
    """
    UPDATE webhook SET failing_since = coalesce(failing_since, ?), last_error = ?
    WHERE webhook_id = ?
    """
)
_DISABLE = Statement(
    """
    UPDATE webhook SET active = 0, last_error = ?
    WHERE webhook_id = ? AND active <> 0 AND failing_since <= ?
    """
)
_OLD = Statement(
    """
    SELECT delivery_id FROM webhook_delivery {index ix_webhook_delivery_ended}
    WHERE state <> 'waiting' AND updated_at <= ? ORDER BY updated_at LIMIT ?
    """
)
_REMOVE = Statement("DELETE FROM webhook_delivery WHERE delivery_id {numbers}")
_ABANDON = Statement(
    """
    UPDATE webhook_delivery SET state = 'failed', error = 'The webhook is not active',
           updated_at = ?
    WHERE state = 'waiting' AND due_at <= ?
      AND webhook_id IN (SELECT webhook_id FROM webhook WHERE active = 0)
    """
)


@dataclass(frozen=True, slots=True)
class Webhook:
    """``sees_all``: its owner is an administrator. ``secret``: sealed."""

    webhook_id: int
    url: str
    kinds: frozenset[str]
    secret: str
    owner: int
    permission: int
    position: int
    failing_since: int
    sees_all: bool

    def wants(self, event: Event) -> bool:
        if event.event_id <= self.position or (self.kinds and event.kind not in self.kinds):
            return False
        return bool(self.owner) and (self.sees_all or event.owner == self.owner)


@dataclass(frozen=True, slots=True)
class Delivery:
    delivery_id: int
    webhook_id: int
    reference_id: str
    event_id: int
    kind: str
    body: str
    attempts: int
    created_at: int


def active(connection: Connection) -> list[Webhook]:
    """The webhooks that are told anything at all."""
    return [
        Webhook(
            webhook_id,
            url,
            frozenset(json.loads(kinds or "[]")),
            secret,
            owner,
            permission,
            position,
            failing_since or 0,
            bool(sees_all),
        )
        for webhook_id, url, kinds, secret, owner, permission, position, failing_since, sees_all
        in _ACTIVE(connection, (ADMINISTRATORS, MAX_WEBHOOKS))
    ]  # fmt: skip


def enqueue(
    connection: Connection,
    webhooks: Iterable[Webhook],
    events: Sequence[Event],
    *,
    settled: int,
    now: int,
) -> None:
    """Make a delivery of each event for each webhook that wants it.

    ``settled``: nothing up to this number will appear any more.
    """
    bodies: dict[int, str] = {}
    rows: list[tuple[Any, ...]] = []
    numbers = []
    for webhook in webhooks:
        numbers.append(webhook.webhook_id)
        wanted = [event for event in events if webhook.wants(event)]
        room = MAX_WAITING - _waiting(connection, webhook) if wanted else 0
        if len(wanted) > room:
            _SAY(connection, (PAUSED, webhook.webhook_id))
        for event in wanted[: max(room, 0)]:
            number = event.event_id
            body = bodies.get(number) or bodies.setdefault(number, _encode(event.document))
            reference = reference_id(now)
            rows.append(
                (webhook.webhook_id, number, event.kind, body, now, webhook.owner,
                 webhook.permission, reference, now, now)
            )  # fmt: skip
    _INSERT.each(connection, rows)
    _MOVE(connection, (settled, many(connection, numbers), settled))


def _waiting(connection: Connection, webhook: Webhook) -> int:
    return int(_COUNT(connection, (webhook.webhook_id, MAX_WAITING)).scalar())


def due(
    connection: Connection, rooms: Mapping[int, int], busy: Collection[int], now: int
) -> tuple[list[Delivery], int | None]:
    """What to post now and, beyond that, when the next is due.

    ``rooms``: webhooks, and how many more each may be told at a time; ``busy``: deliveries that
    are under way.
    """
    found: list[Delivery] = []
    later: list[int] = []
    for webhook_id, room in rooms.items():
        rows = _DUE(connection, (webhook_id, now, room + len(busy))).all() if room else ()
        new = [Delivery(*row) for row in rows if row[0] not in busy]
        found += new[:room]
        next_due = _NEXT(connection, (webhook_id, now)).scalar()
        if next_due is not None:
            later.append(next_due)
    return found, min(later, default=None)


def sent(connection: Connection, delivery: Delivery, code: int, now: int) -> None:
    """Note that a webhook took a delivery."""
    _END(connection, ("sent", code, "", now, now, delivery.delivery_id))
    _WELL(connection, (now, delivery.webhook_id))


def failed(connection: Connection, delivery: Delivery, code: int, error: str, now: int) -> None:
    """Note that it did not, and when it is tried again; after a day it is given up."""
    error = error[:MAX_ERROR]
    next_due = now + min(FIRST_WAIT << min(delivery.attempts, 20), LONGEST_WAIT)
    is_last = next_due > delivery.created_at + GIVEN_UP
    state = "failed" if is_last else "waiting"
    _END(connection, (state, code, error, next_due, now, delivery.delivery_id))
    _UNWELL(connection, (now, error, delivery.webhook_id))
    reason = f"Not active any more, for nothing was taken in 3 days: {error}"
    if _DISABLE(connection, (reason, delivery.webhook_id, now - DISABLED)).rowcount:
        changes.bump(connection, KIND)


def sweep(connection: Connection, now: int, limit: int = 1_000) -> bool:
    """Remove deliveries that ended long ago; True: nothing is left to do."""
    _ABANDON(connection, (now, now - GIVEN_UP))
    old = [row[0] for row in _OLD(connection, (now - KEPT, limit))]
    if old:
        _REMOVE(connection, (many(connection, old),))
    return len(old) < limit
