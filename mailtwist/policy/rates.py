"""How much one client may do in a time: connections, messages, recipients.

The rules are rows of a table: what is counted, of whom, and which setting says how many. A
window begins with the first event that is counted and ends at its time; what is refused is
not counted, so that a client that hammers gets back in when its window has passed.

Counts are kept here and written in groups, once a second at most, for other nodes and for the
next start; what a subject did once is not worth a row. A subject that is new here is read from
its row first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailtwist.config import Settings
from mailtwist.config.rates import MINUTE, Rate
from mailtwist.errors import MailError
from mailtwist.mail.address import Address
from mailtwist.net.counters import network_of
from mailtwist.net.networks import Networks
from mailtwist.store import rates as rows

log = Logger()

WRITE_EVERY_S: Final = 1.0
ROWS_AT_ONCE: Final = 200
MAX_WINDOWS: Final = 50_000


class Event(StrEnum):
    CONNECTION = "connection"
    LOGIN = "login"
    MESSAGE = "message"  # counted at MAIL
    RECIPIENT = "recipient"


@dataclass(frozen=True, slots=True)
class Client:
    """``username``: of the login, "" without one. ``reverse_path``: of the message."""

    address: str
    username: str = ""
    reverse_path: Address | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """``subject``: who is counted, "" for nobody."""

    scope: str
    event: Event
    subject: Callable[[Client], str]
    rate: Callable[[Settings], Rate]


def _network(client: Client) -> str:
    return network_of(client.address)


def _stranger(client: Client) -> str:
    """Behind one address there may be many users, who are known by name."""
    return "" if client.username else network_of(client.address)


def _login(client: Client) -> str:
    return client.username


def _sender(client: Client) -> str:
    """Bounces have no sender: all that there are must not be counted as one's."""
    return client.reverse_path.folded if client.reverse_path is not None else ""


def _inbox_rate(settings: Settings) -> Rate:
    return Rate(settings.inbox.smtp_rate if settings.inbox.domain else 0, MINUTE)


RULES: Final = (
    Rule("connections", Event.CONNECTION, _network, lambda s: s.limits.connection_rate),
    Rule("connections of account", Event.LOGIN, _login, lambda s: s.limits.account_connection_rate),
    Rule("messages of address", Event.MESSAGE, _stranger, lambda s: s.limits.message_rate),
    Rule("messages of account", Event.MESSAGE, _login, lambda s: s.limits.account_message_rate),
    Rule("messages of sender", Event.MESSAGE, _sender, _inbox_rate),
    Rule("recipients of address", Event.RECIPIENT, _stranger, lambda s: s.limits.recipient_rate),
    Rule(
        "recipients of account", Event.RECIPIENT, _login, lambda s: s.limits.account_recipient_rate
    ),
)
# Of a client by its address, who may be exempt.
_BY_ADDRESS: Final = frozenset({_network, _stranger})

Key = tuple[str, str]  # scope and subject


@dataclass(slots=True, eq=False)
class Window:
    """What a subject did: ``written`` is in its row, ``pending`` not yet. Microseconds."""

    ends_at: int
    lasts: int
    written: int = 0
    pending: int = 0
    is_told: bool = False

    @property
    def count(self) -> int:
        return self.written + self.pending

    def adopt(self, found: rows.Count) -> None:
        """Take what the row says."""
        self.written, self.ends_at = found


@dataclass(frozen=True, slots=True)
class _Asked:
    """One rule for one client."""

    key: Key
    rate: Rate

    @property
    def lasts(self) -> int:
        return int(self.rate.window_s * 1_000_000)


class Rates:
    """The counts of this process. ``clock``: IReactorTime, of the wall."""

    def __init__(self, database: Any, *, settings: Settings, clock: Any) -> None:
        self._database = database
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
        return self._take(asked, client)

    def take_at_once(self, event: Event, client: Client) -> bool:
        """The same where nobody can wait: rows of new subjects are read afterwards."""
        asked = self._asked(event, client)
        for each in asked:
            if self._open(each) is None:
                self._add(each, None)
                Deferred.fromCoroutine(self._learn(each))
        return self._take(asked, client)

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
            subject = "" if is_exempt and rule.subject in _BY_ADDRESS else rule.subject(client)
            if subject:
                found.append(_Asked((rule.scope, rows.storable(subject)), rate))
        return found

    def _take(self, asked: Sequence[_Asked], client: Client) -> bool:
        """All rules count an event, or none does."""
        for each in asked:
            window = self._windows[each.key]
            if window.count >= each.rate.count:
                self._tell(each, window, client)
                return False
        for each in asked:
            window = self._windows[each.key]
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

    def _add(self, each: _Asked, found: rows.Count | None) -> None:
        if self._open(each) is not None:
            return  # somebody else was here while we looked
        self._windows.pop(each.key, None)  # to stand behind those that were opened before
        if len(self._windows) >= MAX_WINDOWS:
            del self._windows[next(iter(self._windows))]
        window = self._windows[each.key] = Window(self._now() + each.lasts, each.lasts)
        if found is not None:
            window.adopt(found)

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


NO_RATES: Final = Rates(None, settings=Settings(), clock=None)
