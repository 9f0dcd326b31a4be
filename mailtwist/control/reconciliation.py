"""Brings the listeners in line with file, rows and ``_config`` keys, one order at a time.

Rows and keys only say what is wanted: listeners move at the start, when
:meth:`Reconciliation.apply` is called (``sync_mail_servers``, ``restart_daptin``, ``POST
/listeners/apply``), and when another node or the command line has ordered it. Every node says
in ``listener_state`` what it has bound, and what came of the last order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from mailtwist.config import Listener
from mailtwist.control import listing
from mailtwist.control.desired import desired
from mailtwist.control.listeners import Listeners
from mailtwist.control.listing import Listing
from mailtwist.control.plan import Plan, Problem, Step, plan, reasons
from mailtwist.control.serving import Running, Unbindable
from mailtwist.errors import ConfigError, Conflict, MailError, TemporaryFailure
from mailtwist.store import listener_states, mail_servers
from mailtwist.store.config_values import ConfigValues
from mailtwist.store.database import Database
from mailtwist.store.engine import Connection
from mailtwist.store.ids import now_us
from mailtwist.store.listener_states import FAILED, ListenerState
from mailtwist.store.mail_servers import MailServer

log = Logger()

# The answer to who asks for a restart is out by then.
RESTART_S: Final = 0.1

Number = Callable[[Connection, int], int]
Expect = Callable[[Sequence[Listener]], Awaitable[None]]


class Refused(Conflict):
    """An order that cannot be carried out; nothing has changed. ``report``: by listener."""

    def __init__(self, problems: Sequence[Problem], report: Sequence[Step]) -> None:
        super().__init__("; ".join(each.text for each in problems))
        self.report = tuple(report)


class Reconciliation:
    """One in a process. ``expect`` is told which listeners are about to run."""

    def __init__(
        self,
        database: Database,
        listeners: Listeners,
        values: ConfigValues,
        *,
        expect: Expect,
        reactor: Any,
    ) -> None:
        self._database = database
        self._listeners = listeners
        self._values = values
        self._expect = expect
        self._reactor = reactor
        self._one_at_a_time = DeferredLock()
        self._generation = 0
        self._is_running = False
        self._is_paused = False
        self._has_stopped = False
        self.broken: tuple[ListenerState, ...] = ()
        """The listeners that are wanted and could not be opened when this was last tried."""
        database.changes.watch(listener_states.KIND, self._hear)

    # -- questions ----------------------------------------------------------------------------

    async def plan(self) -> Plan:
        """What an order would do now, and what forbids it."""
        return (await self._look())[1]

    async def _look(self) -> tuple[int, Plan]:
        """The number of the last order, and what is wanted then or later."""

        def read(connection: Connection) -> tuple[int, Sequence[MailServer]]:
            return listener_states.generation(connection), mail_servers.every(connection)

        ordered, rows = await self._database.read(read)
        await self._values.load()
        wanted, problems = desired(self._values.settings, rows, self._values.get)
        return ordered, plan(wanted, self._running, problems)

    async def listing(self) -> Listing:
        """What every node that lives has bound."""
        return await self._database.read(lambda connection: listing.read(connection, now_us()))

    @property
    def _running(self) -> list[Listener]:
        return [each.listener for each in self._listeners.running]

    # -- orders -------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open what the file names, and as many of the other listeners as can be opened.

        Raises: MailError when one of the file's cannot: with a row that is wrong the server
        runs, so that somebody can mend it.
        """
        async with self._one_at_a_time:
            ordered, found = await self._look()
            wanted, problems = found.wanted, found.conflicts
            await self._expect(wanted)
            try:
                if problems:
                    raise Unbindable(problems)
                await self._listeners.reconcile(wanted)
            except MailError as error:
                log.error("not every listener can be opened: {error}", error=error)
                problems = await self._one_by_one(wanted, problems)
            self._listeners.settle()
            await self._record(ordered, problems, wanted)
            self._is_running = True
        # What was ordered meanwhile was heard by nobody.
        self._hear()

    async def apply(self) -> tuple[Step, ...]:
        """Open, close and change what differs, all or nothing; every other node follows.

        The report has a step for each listener. Raises: Refused that names the host names and
        addresses concerned, TemporaryFailure while another process is to take over or once this
        one ends; nothing has changed then.
        """
        if self._has_stopped:
            # A request that was under way would open again what is closed.
            raise TemporaryFailure("The server is being stopped")
        if self._is_paused:
            raise TemporaryFailure("The server is being replaced; try again soon")
        async with self._one_at_a_time:
            return await self._reconcile(listener_states.order_others)

    def restart(self) -> None:
        """The same soon, after the answer to who asks is out; what fails goes to the log."""
        self._reactor.callLater(RESTART_S, self._in_background, self.apply)

    async def pause(self) -> None:
        """Let the order at hand end and take no other: the sockets are to be handed over."""
        self._is_paused = True
        await self._one_at_a_time.acquire()
        self._one_at_a_time.release()

    def resume(self) -> None:
        """Nobody has taken them: follow what was ordered meanwhile."""
        self._is_paused = False
        self._hear()

    async def stop(self) -> None:
        """Take no more orders, let the one at hand end, and tell that nothing is bound here."""
        self._has_stopped = True
        was_running, self._is_running = self._is_running, False
        async with self._one_at_a_time:
            if not was_running:
                return
            forget = partial(listener_states.forget, node_id=self._database.ids.node_id)
            with contextlib.suppress(MailError):
                await self._database.write(forget)

    # -- orders of others ---------------------------------------------------------------------

    def _hear(self) -> None:
        if not self._is_paused:
            self._in_background(self._follow)

    async def _follow(self) -> None:
        """Reconcile when somebody else has ordered it since."""
        async with self._one_at_a_time:
            ordered = await self._database.read(listener_states.generation)
            if ordered != self._generation and self._is_running and not self._is_paused:
                await self._reconcile()

    def _in_background(self, work: Callable[[], Any]) -> None:
        if self._is_running:
            Deferred.fromCoroutine(work()).addErrback(self._failed)

    def _failed(self, failure: Any) -> None:
        if failure.check(MailError):
            log.error("listeners stay as they are: {error}", error=failure.value)
        else:
            log.failure("listeners stay as they are", failure)

    # -- the steps ----------------------------------------------------------------------------

    async def _reconcile(self, number: Number | None = None) -> tuple[Step, ...]:
        """Carry out the last order, whose ``number`` is given in the end. Raises: Refused."""
        ordered, found = await self._look()
        problems: Sequence[Problem] = found.conflicts
        if not problems:
            try:
                await self._expect(found.wanted)
                await self._listeners.reconcile(found.wanted)
            except Unbindable as error:
                problems = error.problems
            except ConfigError as error:
                # Of no one listener: the data folder cannot be written, or the like.
                problems = (Problem((), error.text),)
        if problems:
            await self._record(ordered, problems, found.wanted)
            raise Refused(problems, found.refused(problems))
        await self._record(ordered, number=number)
        return found.done()

    async def _one_by_one(
        self, wanted: Sequence[Listener], problems: Sequence[Problem]
    ) -> tuple[Problem, ...]:
        """Open the file's listeners, then each of the others that can be; why others can't."""
        given = self._values.settings.listeners
        running = [each for each in wanted if each in given]
        await self._listeners.reconcile(running)
        found = list(problems)
        at_fault = {name for each in problems for name in each.names}
        for each in wanted:
            if each in given:
                continue
            try:
                await self._listeners.reconcile([*running, each])
                running.append(each)
            except MailError as error:
                if each.name not in at_fault:
                    found.append(Problem((each.name,), error.text))
        # Of two on one address the first runs.
        running_now = {each.name for each in running}
        return tuple(each for each in found if not running_now.issuperset(each.names))

    async def _record(
        self,
        ordered: int,
        problems: Sequence[Problem] = (),
        wanted: Sequence[Listener] = (),
        *,
        number: Number | None = None,
    ) -> None:
        """Tell the other nodes what is bound here now, and what came of the order."""
        node_id = self._database.ids.node_id
        self.broken = tuple(_failed(self._running, wanted, problems))
        states = [*_states(self._listeners.running), *self.broken]
        error = "; ".join(each.text for each in problems)

        def write(connection: Connection) -> int:
            done = ordered if number is None else number(connection, ordered)
            listener_states.record(
                connection, node_id, states, generation=done, now=now_us(), error=error
            )
            return done

        self._generation = await self._database.write(write)


def _states(running: Iterable[Running]) -> Iterator[ListenerState]:
    for each in running:
        for place in each.sockets:
            yield ListenerState(each.listener.name, each.listener.protocol, place.host, place.port)


def _failed(
    running: Iterable[Listener], wanted: Iterable[Listener], problems: Iterable[Problem]
) -> Iterator[ListenerState]:
    """The listeners at fault, on the addresses that they want."""
    good = set(running)
    known = {each.name: each for each in wanted}
    for name, error in reasons(problems).items():
        each = known.get(name)
        if each is None:
            yield ListenerState(name, "", "", 0, FAILED, error)
        elif each not in good:
            yield ListenerState(name, each.protocol, each.host, each.port, FAILED, error)
