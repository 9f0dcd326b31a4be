"""The next message that fits, for whoever waits for it: no polling, and none is missed.

:meth:`Waiting.wait` is a plain coroutine, for HTTP (``/emails/{name}/wait``) as for the testing
package; nothing here knows of requests::

    waiting = Waiting(database, finding, clock=reactor)
    captured = await waiting.wait(Wanted(account_id, "bob", subject="welcome"), timeout_s=30)

Who waits is entered first and looks then, so that a message that comes in between is seen by
one or the other. When an account changes, one look-up finds what is new for all who wait there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailtwist.errors import MailError, TemporaryFailure
from mailtwist.http.inbox.finding import Finding, Wanted
from mailtwist.mail.search import Node
from mailtwist.store import inbox
from mailtwist.store.engine import Connection
from mailtwist.store.inbox import Captured

log = Logger()

MAX_WAITING: Final = 10_000
# Messages that one look-up takes.
PAGE: Final = 200
# After a look-up that failed.
RETRY_S: Final = 1.0


@dataclass(eq=False, slots=True)
class Waiter:
    """``answer`` is given a message, None when the time is over, or a failure."""

    wanted: Wanted
    answer: Deferred[Captured | None]

    def give(self, captured: Captured | None) -> None:
        if not self.answer.called:
            self.answer.callback(captured)

    def fail(self, why: Failure) -> None:
        if not self.answer.called:
            self.answer.errback(why)


@dataclass(slots=True)
class Watched:
    """An account in which somebody waits, and those who do, by the name of their inbox."""

    account_id: int
    unsubscribe: Callable[[], None] = field(default=lambda: None)
    waiters: dict[str | None, dict[Waiter, None]] = field(default_factory=dict)
    known: int = -1  # the entry up to which everything was told; -1: not looked yet
    is_looking: bool = False
    has_changed: bool = False
    retry: Any = None

    def add(self, waiter: Waiter) -> None:
        self.waiters.setdefault(waiter.wanted.local_part, {})[waiter] = None

    def remove(self, waiter: Waiter) -> None:
        name = waiter.wanted.local_part
        same = self.waiters.get(name, {})
        same.pop(waiter, None)
        if not same:
            self.waiters.pop(name, None)

    def waiting_for(self, captured: Captured) -> Iterator[Waiter]:
        for name in (captured.local_part, None):
            for waiter in tuple(self.waiters.get(name, ())):
                if waiter.wanted.fits(captured):
                    yield waiter

    def everybody(self) -> list[Waiter]:
        return [waiter for same in self.waiters.values() for waiter in same]


class Waiting:
    """All who wait in this process. ``clock``: IReactorTime."""

    def __init__(self, database: Any, finding: Finding, *, clock: Any) -> None:
        self._database = database
        self._finding = finding
        self._clock = clock
        self._accounts: dict[int, Watched] = {}
        self._count = 0
        self._is_closed = False

    def __len__(self) -> int:
        return self._count

    async def wait(self, wanted: Wanted, *, timeout_s: float) -> Captured | None:
        """The newest message that fits, else the first that comes; None: none came in time.

        With ``timeout_s`` 0 it looks once. May be cancelled. Raises: TemporaryFailure when too
        many wait or the server stops, and what :meth:`Finding.newest` raises.
        """
        if timeout_s <= 0:
            return await self._look(wanted)
        self._check()
        waiter = Waiter(wanted, Deferred())
        watched = self._enter(waiter)
        timer = self._clock.callLater(timeout_s, waiter.give, None)
        try:
            if not waiter.answer.called:
                found = await self._first(watched, wanted)
                if found is not None:
                    return found
            return await waiter.answer
        finally:
            if timer.active():
                timer.cancel()
            self._leave(watched, waiter)
            # It may have been told that the server stops while it was looking.
            waiter.answer.addErrback(lambda _: None)

    def close(self) -> None:
        """Tell everybody that the server stops; who comes later is told so too."""
        self._is_closed = True
        for watched in list(self._accounts.values()):
            for waiter in watched.everybody():
                waiter.fail(Failure(_stopping()))

    def _check(self) -> None:
        if self._is_closed:
            raise _stopping()
        if self._count >= MAX_WAITING:
            raise TemporaryFailure("Too many clients wait for mail")

    async def _look(self, wanted: Wanted) -> Captured | None:
        found = await self._finding.newest(wanted, limit=1)
        return found.messages[0] if found.messages else None

    async def _first(self, watched: Watched, wanted: Wanted) -> Captured | None:
        if watched.known < 0:
            entry = await self._database.read(
                lambda connection: inbox.latest_entry(connection, watched.account_id),
                account_id=watched.account_id,
            )
            # Whatever came later is told; who looks from now on sees all that came before. So
            # the first answer counts: a later one would pass over what others are to be told.
            if watched.known < 0:
                watched.known = entry
                self._look_again(watched)
        return await self._look(wanted)

    # -- who waits ----------------------------------------------------------------------------

    def _enter(self, waiter: Waiter) -> Watched:
        account_id = waiter.wanted.account_id
        watched = self._accounts.get(account_id)
        if watched is None:
            watched = self._accounts[account_id] = Watched(account_id)

            def changed(mailbox_id: int, modseq: int, watched: Watched = watched) -> None:
                watched.has_changed = True
                self._look_again(watched)

            watched.unsubscribe = self._database.changes.subscribe(account_id, changed)
        watched.add(waiter)
        self._count += 1
        return watched

    def _leave(self, watched: Watched, waiter: Waiter) -> None:
        watched.remove(waiter)
        self._count -= 1
        if not watched.waiters and self._accounts.get(watched.account_id) is watched:
            del self._accounts[watched.account_id]
            watched.unsubscribe()
            if watched.retry is not None and watched.retry.active():
                watched.retry.cancel()

    # -- what is new --------------------------------------------------------------------------

    def _look_again(self, watched: Watched) -> None:
        """Look for what is new, now or when the look-up that is under way has ended."""
        if watched.is_looking or watched.known < 0 or not watched.has_changed:
            return
        watched.is_looking = True
        looking = Deferred.fromCoroutine(self._look_up(watched))
        looking.addErrback(lambda failure: log.failure("waiting for mail", failure))

    async def _look_up(self, watched: Watched) -> None:
        try:
            while watched.has_changed and watched.waiters:
                watched.has_changed = False
                found = await self._new(watched)
                await self._tell(watched, found)
                if found:
                    # Not before: what could not be told is found once more.
                    watched.known = found[-1].entry_id
                    watched.has_changed |= len({each.entry_id for each in found}) >= PAGE
        except MailError as error:
            log.info("new mail was not looked up: {detail}", detail=error.detail or error.text)
            watched.has_changed = True
            watched.retry = self._clock.callLater(RETRY_S, self._look_again, watched)
        finally:
            watched.is_looking = False

    async def _new(self, watched: Watched) -> list[Captured]:
        account_id, known = watched.account_id, watched.known

        def work(connection: Connection) -> list[Captured]:
            return inbox.new(connection, account_id, known, PAGE)

        found: list[Captured] = await self._database.read(work, account_id=account_id)
        return found

    async def _tell(self, watched: Watched, found: list[Captured]) -> None:
        """Give each message to those whom it fits; one search for all who ask the same."""
        asked: dict[Node, dict[Waiter, list[Captured]]] = {}
        for captured in found:
            for waiter in watched.waiting_for(captured):
                if waiter.wanted.tree is None:
                    waiter.give(captured)
                else:
                    asked.setdefault(waiter.wanted.tree, {}).setdefault(waiter, []).append(captured)
        for tree, waiters in asked.items():
            try:
                await self._search(tree, waiters)
            except TemporaryFailure:
                raise
            except Exception:
                # It would fail again, and keep from the others what comes.
                for waiter in waiters:
                    waiter.fail(Failure())

    async def _search(self, tree: Node, waiters: dict[Waiter, list[Captured]]) -> None:
        each_once = {each.uid: each for fitting in waiters.values() for each in fitting}
        found = await self._finding.matching(tree, list(each_once.values()))
        matching = {each.uid for each in found}
        for waiter, fitting in waiters.items():
            first = next((each for each in fitting if each.uid in matching), None)
            if first is not None:
                waiter.give(first)


def _stopping() -> TemporaryFailure:
    return TemporaryFailure("The server stops")
