"""How much one client may do in a time: connections, messages, recipients, requests.

The rules are rows of a table, :mod:`mailtwist.policy.rate_rules`. A window begins with the
first event that is counted and ends at its time; what is refused is not counted, so that a
client that hammers gets back in when its window has passed.

Counts are kept here and written in groups, once a second at most, for other nodes and for the
next start; what a subject did once is not worth a row. A subject that is new here is read from
its row first.

Where a Redis is up, each event is counted there too, in one window of all nodes at once. What
is counted here goes on beside it, and the fuller of the two decides: a Redis that goes away,
or comes back empty, opens nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailtwist.config import Settings
from mailtwist.config.outgoing import Inbox, Send
from mailtwist.config.rates import Rate
from mailtwist.errors import MailError
from mailtwist.net.networks import Networks
from mailtwist.net.redis import Redis, RedisAway
from mailtwist.net.redis import Window as Shared
from mailtwist.policy.rate_rules import BY_ADDRESS, RULES, Client, Event, Rule
from mailtwist.store import rates as rows

__all__ = ["Client", "Event", "Rates", "NO_RATES"]

log = Logger()

WRITE_EVERY_S: Final = 1.0
ROWS_AT_ONCE: Final = 200
MAX_WINDOWS: Final = 50_000


Key = tuple[str, str]  # scope and subject
_NOTHING: Final = rows.Count(0, 0)


@dataclass(slots=True, eq=False)
class Window:
    """What a subject did: ``written`` is in its row, ``pending`` not yet. Microseconds.

    ``shared``: what Redis said last, of its window, which may end at another time.
    """

    ends_at: int
    lasts: int
    written: int = 0
    pending: int = 0
    shared: rows.Count = _NOTHING
    is_told: bool = False

    @property
    def count(self) -> int:
        return self.written + self.pending

    def adopt(self, found: rows.Count) -> None:
        """Take what the row says."""
        self.written, self.ends_at = found

    def closed_until(self, limit: int, now: int) -> int:
        """When it lets events in again; 0: it does."""
        own = self.ends_at if self.count >= limit else 0
        is_full = self.shared.n >= limit and self.shared.ends_at > now
        return max(own, self.shared.ends_at) if is_full else own


@dataclass(frozen=True, slots=True)
class _Asked:
    """One rule for one client."""

    key: Key
    rate: Rate

    @property
    def lasts(self) -> int:
        return int(self.rate.window_s * 1_000_000)

    @property
    def shared(self) -> Shared:
        scope, subject = self.key
        return Shared(f"rate:{scope}:{subject}", self.rate.count, self.lasts // 1000)


class Rates:
    """The counts of this process. ``clock``: IReactorTime, of the wall."""

    def __init__(
        self, database: Any, *, settings: Settings, clock: Any, redis: Redis | None = None
    ) -> None:
        self._database = database
        self._redis = redis
        self._clock = clock
        self._windows: dict[Key, Window] = {}  # in the order in which they were opened
        self._unwritten: dict[Key, Window] = {}
        self._timer: Any = None
        self._writing: Deferred[None] | None = None
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Take other rates; what was counted stays counted."""
        self._exempt = Networks(settings.limits.exempt)
        rated = [(rule, rule.rate(settings)) for rule in RULES]
        self._active: dict[Event, Sequence[tuple[Rule, Rate]]] = {
            event: [(rule, rate) for rule, rate in rated if rule.event is event and rate.count]
            for event in Event
        }

    def counts(self, event: Event) -> bool:
        """Whether any rule is about such an event: where there is none, it costs nothing."""
        return bool(self._active[event])

    async def take(self, event: Event, client: Client) -> bool:
        """Count an event in; False: there were enough of them for now."""
        asked = self._asked(event, client)
        for each in asked:
            if self._open(each) is None:
                self._add(each, await self._find(each))
        if self._redis is not None and asked:
            # Who hammers is not told so by Redis each time.
            if self._tell_closed(asked, client):
                return False
            if self._redis.is_up and not await self._take_shared(self._redis, asked):
                self._tell_closed(asked, client)
                return False
        return self._take(asked, client)

    def take_at_once(self, event: Event, client: Client) -> bool:
        """The same where nobody can wait: rows and Redis are asked afterwards."""
        asked = self._asked(event, client)
        for each in asked:
            if self._open(each) is None:
                self._add(each, None)
                Deferred.fromCoroutine(self._learn(each))
        if self._redis is not None and asked:
            if self._tell_closed(asked, client):
                return False
            if self._redis.is_up:
                Deferred.fromCoroutine(self._take_shared(self._redis, asked))
        return self._take(asked, client)

    def ends_in(self, event: Event, client: Client) -> float:
        """Seconds until such an event is let in again; 0: it is now."""
        waits = [self._wait(each) for each in self._asked(event, client)]
        return max(waits, default=0) / 1_000_000

    def _wait(self, each: _Asked) -> int:
        window, now = self._open(each), self._now()
        return 0 if window is None else max(0, window.closed_until(each.rate.count, now) - now)

    async def stop(self) -> None:
        """Write what is not written yet; the database is still open."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writing is not None:
            await self._writing
        await self._write()

    # -- windows ------------------------------------------------------------------------------

    def _asked(self, event: Event, client: Client) -> list[_Asked]:
        is_exempt = bool(self._exempt) and client.address in self._exempt
        found = []
        for rule, rate in self._active[event]:
            subject = "" if is_exempt and rule.subject in BY_ADDRESS else rule.subject(client)
            if subject:
                found.append(_Asked((rule.scope, rows.storable(subject)), rate))
        return found

    def _tell_closed(self, asked: Sequence[_Asked], client: Client) -> bool:
        """Whether a window is full, ours or that of all nodes; the log hears of it."""
        now = self._now()
        for each in asked:
            window = self._window(each)
            if window.closed_until(each.rate.count, now):
                self._tell(each, window, client)
                return True
        return False

    def _take(self, asked: Sequence[_Asked], client: Client) -> bool:
        """All rules count an event, or none does."""
        windows = [(each, self._window(each)) for each in asked]
        for each, window in windows:
            if window.count >= each.rate.count:
                self._tell(each, window, client)
                return False
        for each, window in windows:
            window.pending += 1
            if window.count > 1 or each.rate.count == 1:
                self._unwritten[each.key] = window
                self._write_soon()
        return True

    def _tell(self, each: _Asked, window: Window, client: Client) -> None:
        """One line a window: who hammers would fill the log."""
        if window.is_told:
            return
        window.is_told = True
        scope, subject = each.key
        log.info(
            "rate limit exceeded",
            rule=scope,
            subject=subject,
            limit=each.rate.count,
            window_s=each.rate.window_s,
            client=client.address,
        )

    def _now(self) -> int:
        return int(self._clock.seconds() * 1_000_000)

    def _open(self, each: _Asked) -> Window | None:
        window = self._windows.get(each.key)
        if window is None or not rows.is_open(window.ends_at, each.lasts, self._now()):
            return None
        return window

    def _add(self, each: _Asked, found: rows.Count | None) -> Window:
        others = self._open(each)
        if others is not None:
            return others  # somebody else was here while we looked
        self._windows.pop(each.key, None)  # to stand behind those that were opened before
        if len(self._windows) >= MAX_WINDOWS:
            del self._windows[next(iter(self._windows))]
        window = self._windows[each.key] = Window(self._now() + each.lasts, each.lasts)
        if found is not None:
            window.adopt(found)
        return window

    def _window(self, each: _Asked) -> Window:
        """It may have ended, or been forgotten, while something else was waited for."""
        window = self._open(each)
        return self._add(each, None) if window is None else window

    # -- all nodes at once --------------------------------------------------------------------

    async def _take_shared(self, redis: Redis, asked: Sequence[_Asked]) -> bool:
        """Count an event where all nodes do; True too where that is not possible now."""
        try:
            taken = await redis.take([each.shared for each in asked])
        except RedisAway:
            return True
        now = self._now()
        for each, n, ends_in in zip(asked, taken.counts, taken.ends_in_ms, strict=True):
            self._window(each).shared = rows.Count(n, now + ends_in * 1000)
        return taken.is_taken

    # -- rows ---------------------------------------------------------------------------------

    async def _find(self, each: _Asked) -> rows.Count | None:
        now = self._now()
        try:
            found: rows.Count | None = await self._database.read(
                lambda connection: rows.find(connection, *each.key, lasts=each.lasts, now=now)
            )
        except MailError as error:
            # A limit that cannot be looked up stops no mail.
            log.warn("a rate was not read: {detail}", detail=error.detail or error.text)
            return None
        return found

    async def _learn(self, each: _Asked) -> None:
        found = await self._find(each)
        window = self._open(each)
        if found is not None and window is not None and not window.written:
            window.adopt(found)

    def _write_soon(self) -> None:
        if self._timer is None and self._writing is None:
            self._timer = self._clock.callLater(WRITE_EVERY_S, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._writing = Deferred.fromCoroutine(self._write())
        self._writing.addErrback(lambda failure: log.failure("rates", failure))
        self._writing.addCallback(self._written)

    def _written(self, _: None) -> None:
        self._writing = None
        if self._unwritten:
            self._write_soon()

    async def _write(self) -> None:
        """Write what was counted up to now; what fails is tried again with the next."""
        while self._unwritten:
            keys = sorted(self._unwritten)[:ROWS_AT_ONCE]
            batch = {key: self._unwritten.pop(key) for key in keys}
            try:
                await self._write_batch(batch)
            except MailError as error:
                self._unwritten = batch | self._unwritten
                log.info("rates were not written: {detail}", detail=error.detail or error.text)
                return

    async def _write_batch(self, batch: dict[Key, Window]) -> None:
        now = self._now()
        living = {
            key: window
            for key, window in batch.items()
            if rows.is_open(window.ends_at, window.lasts, now)
        }
        added = [
            rows.Added(*key, window.pending, window.ends_at, window.lasts)
            for key, window in living.items()
        ]
        if not added:
            return
        found = await self._database.write(lambda connection: rows.add(connection, added, now=now))
        for window, event, count in zip(living.values(), added, found, strict=True):
            window.pending -= event.n
            window.adopt(count)


NO_RATES: Final = Rates(
    None, settings=Settings(inbox=Inbox(api_rate=0), send=Send(rate=0)), clock=None
)
