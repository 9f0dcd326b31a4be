"""Reading what happened, in the order it was written and nothing twice.

PostgreSQL numbers events when they are written and shows them when their transaction ends, so
that a lower number may appear after a higher one. A :class:`Cursor` therefore remembers what it
has seen above the number up to which all is settled. It is settled up to what was seen once
every transaction has ended that ran then. SQLite has one writer: all is settled at once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from sqlalchemy import Connection

from mailtwist.store.entities.ids import Kind, pack
from mailtwist.store.entities.values import iso
from mailtwist.store.events import KINDS
from mailtwist.store.sql import Statement, is_postgresql

MAX_READ: Final = 500
# A transaction that never ends must not make everybody read and remember for ever.
MAX_UNSETTLED: Final = 20_000

_AFTER = Statement(
    """
    SELECT e.event_id, e.account_id, e.kind, e.at, e.data,
           coalesce(a.owner_user_id, 0), coalesce(a.reference_id, '')
    FROM event AS e LEFT JOIN account AS a ON a.account_id = e.account_id
    WHERE e.event_id > ? ORDER BY e.event_id LIMIT ?
    """
)
_RUNNING = Statement(
    """
    SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
           pg_snapshot_xmax(pg_current_snapshot())::text::bigint
    """
)


@dataclass(frozen=True)
class Event:
    """``owner``: the user whose account it is about, 0: nobody's."""

    event_id: int
    account_id: int
    kind: str
    at: int
    data: str
    owner: int
    account: str  # its id for the outside

    @cached_property
    def document(self) -> dict[str, Any]:
        """What is told of it."""
        data = json.loads(self.data)
        mailbox, entry = data.pop("mailbox", None), data.pop("entry", None)
        n, due = data.pop("n", None), data.pop("due", None)
        queue_id = data.get("queue_id")
        if queue_id is not None:
            data["queue_id"] = str(queue_id)  # JavaScript has no such numbers
        if mailbox is not None:
            data["mail_box_id"] = pack(Kind.MAIL_BOX, self.account_id, mailbox)
            data["mail_id"] = pack(Kind.MAIL, self.account_id, entry)
        if n is not None and queue_id is not None:
            data["outbox_id"] = pack(Kind.OUTBOX, queue_id, n)
        if due is not None:
            data["next_attempt_at"] = iso(due)
        return {
            "id": str(self.event_id),
            "kind": self.kind,
            "at": iso(self.at),
            "mail_account_id": self.account,
            "data": data,
        }


@dataclass(frozen=True, slots=True)
class Reading:
    """Events behind a number; ``oldest`` and ``next`` are transactions, 0 where there are none.

    All transactions before ``oldest`` have ended, none from ``next`` on had begun.
    """

    events: Sequence[Event]
    oldest: int
    next: int


def read_after(connection: Connection, after: int, limit: int = MAX_READ) -> Reading:
    """Read the first events behind a number."""
    oldest = next_ = 0
    if is_postgresql(connection):
        oldest, next_ = _RUNNING(connection).first()
    rows = _AFTER(connection, (after, limit))
    return Reading([Event(*row) for row in rows], oldest, next_)


@dataclass(slots=True)
class Cursor:
    """Where somebody has got to. ``settled``: nothing up to there will appear any more."""

    settled: int
    _seen: set[int] = field(default_factory=set)
    # (number, transaction): once all before the transaction ended, the number is settled.
    _doubts: list[tuple[int, int]] = field(default_factory=list)

    @property
    def limit(self) -> int:
        """How many to read, for those that were seen come again."""
        return MAX_READ + len(self._seen)

    def new(self, reading: Reading) -> list[Event]:
        """The events of a reading behind ``settled`` that were not there before."""
        events = [event for event in reading.events if event.event_id not in self._seen]
        self._seen.update(event.event_id for event in events)
        highest = max(self._seen, default=self.settled)
        if events:
            self._doubts.append((highest, reading.next))
        done = [number for number, until in self._doubts if reading.oldest >= until]
        if len(self._seen) > MAX_UNSETTLED:
            done.append(highest)
        if done:
            self._settle(max(done))
        return events

    def _settle(self, number: int) -> None:
        self.settled = max(self.settled, number)
        self._seen = {each for each in self._seen if each > number}
        self._doubts = [doubt for doubt in self._doubts if doubt[0] > number]


def is_kind(text: str) -> bool:
    return text in KINDS
