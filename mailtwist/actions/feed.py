"""What happens to messages, told to everybody who follows it here: one reader for all of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from mailtwist.actions.turns import Turn
from mailtwist.mail.permissions import Viewer
from mailtwist.store import event_feed, events
from mailtwist.store.event_feed import MAX_READ, Cursor, Event

# Commits of another process on SQLite wake nobody.
EVERY_S: Final = 2.0

Follower = Callable[[Event], object]


def sees(viewer: Viewer, event: Event) -> bool:
    """Whether an event is about an account of the viewer's; administrators see all.

    A key to read mailboxes sees what they received.
    """
    if viewer.is_admin:
        return True
    if not viewer.owns(event.owner):
        return False
    boxes = viewer.readable_mailboxes()
    return boxes is None or event.document["data"].get("mail_box_id") in boxes


class Feed:
    """One in a process; nothing is read while nobody follows."""

    def __init__(self, database: Any, *, clock: Any) -> None:
        self._database = database
        self._followers: dict[object, Follower] = {}
        self._cursor: Cursor | None = None
        self._turn = Turn("events", self._look, every_s=EVERY_S, clock=clock)

    def start(self) -> None:
        self._database.changes.watch(events.KIND, self._woken)
        self._turn.start()

    async def stop(self) -> None:
        await self._turn.stop()

    @property
    def settled(self) -> int:
        """Whoever follows is told of everything behind this number."""
        return 0 if self._cursor is None else self._cursor.settled

    def _woken(self) -> None:
        if self._followers:
            self._turn.wake()

    async def follow(self, follower: Follower) -> Callable[[], None]:
        """Call with each event that is written from here on; the answer ends it."""
        key = object()
        self._followers[key] = follower
        try:
            if self._cursor is None:
                latest = await self._database.read(events.latest)
                if self._cursor is None:
                    self._cursor = Cursor(latest)
        except BaseException:
            self._unfollow(key)
            raise
        return partial(self._unfollow, key)

    def _unfollow(self, key: object) -> None:
        self._followers.pop(key, None)
        if not self._followers:
            self._cursor = None

    async def after(self, number: int) -> list[Event]:
        """What is still there behind an event, oldest first, at most 500."""
        reading: event_feed.Reading = await self._database.read(
            partial(event_feed.read_after, after=number)
        )
        return list(reading.events)

    async def _look(self) -> float | None:
        cursor = self._cursor
        if cursor is None:
            return None
        reading = await self._database.read(
            partial(event_feed.read_after, after=cursor.settled, limit=cursor.limit)
        )
        new = cursor.new(reading)
        for event in new:
            for follower in list(self._followers.values()):
                follower(event)
        return 0.0 if len(new) >= MAX_READ else None
