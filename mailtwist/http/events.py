"""``GET /events``: what happens to one's mail, as server-sent events, as long as one listens.

A stream begins with what is behind ``Last-Event-ID`` (or ``?after=``), as far as it is kept, and
goes on with what is new; ``?kind=received,bounced`` leaves the rest out. It ends when the token
does, when the client reads too slowly, or when the server stops; a client that comes back with
``Last-Event-ID`` has missed nothing.

Standards: HTML Living Standard §9.2 (server-sent events).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred

from mailtwist.actions.feed import Feed, sees
from mailtwist.errors import MailError, ProtocolViolation, Refusal
from mailtwist.http.exchange import Answer, Exchange, Route, Sink, encoded
from mailtwist.http.limits import TooMany
from mailtwist.mail.permissions import Viewer
from mailtwist.policy.identities import Unauthorized
from mailtwist.store.event_feed import MAX_READ, Event
from mailtwist.store.events import KINDS

EVENT_STREAM: Final = "text/event-stream"
HEARTBEAT_S: Final = 15.0
# A client that takes nothing for so long is gone, or might as well be.
STUCK_S: Final = 60.0
MAX_STREAMS: Final = 100
MAX_OF_USER: Final = 5
# Events that wait for a slow client; then the stream ends.
MAX_WAITING: Final = 1_000
RETRY: Final = b"retry: 3000\n\n"
COMMENT: Final = b": still here\n\n"
# How old an event's number may claim to be.
MAX_NUMBER: Final = 2**63 - 1


class Streams:
    """All streams of a process."""

    def __init__(self, feed: Feed, *, clock: Any) -> None:
        self._feed = feed
        self._clock = clock
        self._streams: dict[Stream, int] = {}

    def routes(self) -> tuple[Route, ...]:
        return (Route("/events", ("GET",), self.open),)

    async def open(self, exchange: Exchange) -> Answer:
        """Raises: Unauthorized, Refusal, ProtocolViolation, TooMany."""
        kinds = _kinds(exchange)
        after = _after(exchange)
        viewer = await exchange.identify()
        check(viewer)
        self._check_room(viewer)
        stream = Stream(self._feed, viewer, kinds, after, exchange.identify_again, self._clock)
        self._streams[stream] = viewer.user_id
        return Answer(
            content_type=EVENT_STREAM,
            headers=(("X-Accel-Buffering", "no"),),
            stream=partial(self._run, stream),
        )

    async def _run(self, stream: Stream, sink: Sink) -> None:
        try:
            await stream.run(sink)
        finally:
            self._streams.pop(stream, None)

    def _check_room(self, viewer: Viewer) -> None:
        own = Counter(self._streams.values())[viewer.user_id]
        if len(self._streams) >= MAX_STREAMS or own >= MAX_OF_USER:
            raise TooMany("Too many event streams")

    def recheck(self) -> None:
        """Ask for every stream again who it is: users, groups or keys have changed."""
        for stream in list(self._streams):
            stream.recheck()

    def close(self) -> None:
        """End them all: the server stops."""
        for stream in list(self._streams):
            stream.end()


def check(viewer: Viewer) -> None:
    """Let pass whoever may see any events. Raises: Unauthorized, Refusal."""
    if viewer.is_guest:
        raise Unauthorized("Sign in first")
    if viewer.readable_mailboxes() == frozenset():
        raise Refusal("The key has no scope to read mail")


def _kinds(exchange: Exchange) -> frozenset[str]:
    asked = [
        kind for value in exchange.parameters.get("kind", ()) for kind in value.split(",") if kind
    ]
    unknown = [kind for kind in asked if kind not in KINDS]
    if unknown:
        raise ProtocolViolation(f"kind: some of {', '.join(KINDS)} are expected")
    return frozenset(asked or KINDS)


def _after(exchange: Exchange) -> int | None:
    """The number behind which to begin; None: now. What the browser saw last is newer."""
    text = exchange.header("last-event-id").strip() or exchange.first("after").strip()
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 19 or int(text) > MAX_NUMBER:
        raise ProtocolViolation("after: the number of an event is expected")
    return int(text)


def encode(event: Event) -> bytes:
    """One event for the wire. JSON has no line ends of its own."""
    head = f"id: {event.event_id}\nevent: {event.kind}\ndata: "
    return head.encode("ascii") + encoded(event.document) + b"\n\n"


class Stream:
    """One client that follows. ``again``: who asks, asked anew."""

    def __init__(
        self,
        feed: Feed,
        viewer: Viewer,
        kinds: frozenset[str],
        after: int | None,
        again: Callable[[], Any],
        clock: Any,
    ) -> None:
        self._feed = feed
        self._viewer = viewer
        self._kinds = kinds
        self._after = after
        self._again = again
        self._clock = clock
        self._waiting: deque[Event] = deque()
        self._sent: set[int] = set()
        self._is_ended = False
        self._is_doubtful = False
        self._sleeping: Deferred[None] | None = None

    def end(self) -> None:
        self._is_ended = True
        self._wake()

    def recheck(self) -> None:
        self._is_doubtful = True
        self._wake()

    async def run(self, sink: Sink) -> None:
        """Write until it ends."""
        sink.on_drain(self._wake)
        sink.write(RETRY)
        unfollow = await self._feed.follow(self._take)
        try:
            await self._catch_up(sink)
            await self._go_on(sink)
        except MailError:
            pass  # its client comes back, and hears why not
        finally:
            unfollow()

    def _wants(self, event: Event) -> bool:
        return event.kind in self._kinds and sees(self._viewer, event)

    def _take(self, event: Event) -> None:
        if not self._wants(event):
            return
        if len(self._waiting) >= MAX_WAITING:
            self.end()
            return
        self._waiting.append(event)
        self._wake()

    async def _catch_up(self, sink: Sink) -> None:
        """Write what was there before we followed."""
        position, told_from = self._after, self._feed.settled
        while position is not None and not self._is_ended:
            found = await self._feed.after(position)
            for event in filter(self._wants, found):
                sink.write(encode(event))
            # These we are told of as well.
            self._sent.update(each.event_id for each in found if each.event_id > told_from)
            position = found[-1].event_id if len(found) >= MAX_READ else None
            await self._room(sink)

    async def _room(self, sink: Sink) -> None:
        """Wait until the client took what is written; one that does not is given up."""
        until = self._clock.seconds() + STUCK_S
        while sink.is_full and not self._is_ended:
            left = until - self._clock.seconds()
            if left <= 0:
                self.end()
            else:
                await self._sleep(left)

    async def _go_on(self, sink: Sink) -> None:
        beat = self._clock.seconds() + HEARTBEAT_S
        while not self._is_ended:
            while self._waiting and not sink.is_full:
                event = self._waiting.popleft()
                if event.event_id not in self._sent:
                    sink.write(encode(event))
            await self._room(sink)
            left = beat - self._clock.seconds()
            if left <= 0 or self._is_doubtful:
                await self._identify()
            if left <= 0:
                sink.write(COMMENT)
                beat = self._clock.seconds() + HEARTBEAT_S
                self._sent.clear()
            elif not self._waiting:
                await self._sleep(left)

    async def _identify(self) -> None:
        """Whether the token still counts, and what its owner may now. Raises: Refusal."""
        self._is_doubtful = False
        self._viewer = await self._again()
        check(self._viewer)

    async def _sleep(self, seconds: float) -> None:
        """Wait until woken, or so long."""
        if self._is_ended or self._is_doubtful:
            return
        sleeping = self._sleeping = Deferred()
        timer = self._clock.callLater(seconds, self._wake)
        try:
            await sleeping
        finally:
            self._sleeping = None
            if timer.active():
                timer.cancel()

    def _wake(self) -> None:
        sleeping, self._sleeping = self._sleeping, None
        if sleeping is not None and not sleeping.called:
            sleeping.callback(None)
