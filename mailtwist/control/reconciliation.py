"""Brings the listeners in line with file, rows and ``_config`` keys, one order at a time.

Rows and keys only say what is wanted: listeners move at the start, when
:meth:`Reconciliation.apply` is called (``sync_mail_servers``, ``restart_daptin``), and when
another node or the command line has ordered it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from mailtwist.config import Listener
from mailtwist.control.desired import checked, desired
from mailtwist.control.listeners import Listeners, Running
from mailtwist.errors import ConfigError, Conflict, MailError
from mailtwist.store import listener_states, mail_servers
from mailtwist.store.config_values import ConfigValues
from mailtwist.store.database import Database
from mailtwist.store.engine import Connection
from mailtwist.store.listener_states import FAILED, ListenerState
from mailtwist.store.mail_servers import MailServer

log = Logger()

# The answer to who asks for a restart is out by then.
RESTART_S: Final = 0.1

Expect = Callable[[Sequence[Listener]], Awaitable[None]]


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
        database.changes.watch(listener_states.KIND, self._hear)

    # -- orders -------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open what the file names, and as many of the other listeners as can be opened.

        Raises: MailError when one of the file's cannot: with a row that is wrong the server
        runs, so that somebody can mend it.
        """
        async with self._one_at_a_time:
            rows = await self._database.read(mail_servers.every)
            wanted, problems = desired(self._values.settings, rows, self._values.get)
            await self._expect(wanted)
            failed: list[ListenerState] = []
            try:
                if problems:
                    raise Conflict("; ".join(problems))
                await self._listeners.reconcile(wanted)
            except MailError as error:
                failed = await self._one_by_one(wanted, error)
            await self._record(listener_states.generation, failed)
            self._is_running = True

    async def apply(self) -> None:
        """Open, close and change what differs, all or nothing; every other node follows.

        Raises: Conflict that names the host names and addresses concerned; nothing has
        changed then.
        """
        async with self._one_at_a_time:
            await self._values.load()
            await self._reconcile(await self._database.read(mail_servers.every))
            await self._record(listener_states.order)

    def restart(self) -> None:
        """The same soon, after the answer to who asks is out; what fails goes to the log."""
        self._reactor.callLater(RESTART_S, self._in_background, self.apply)

    async def stop(self) -> None:
        """Take no more orders, let the one at hand end, and tell that nothing is bound here."""
        was_running, self._is_running = self._is_running, False
        async with self._one_at_a_time:
            if not was_running:
                return
            node_id, now = self._database.ids.node_id, int(self._reactor.seconds() * 1_000_000)
            clear = partial(
                listener_states.record, node_id=node_id, states=(), generation=0, now=now
            )
            with contextlib.suppress(MailError):
                await self._database.write(clear)

    # -- orders of others ---------------------------------------------------------------------

    def _hear(self) -> None:
        self._in_background(self._follow)

    async def _follow(self) -> None:
        """Reconcile when somebody else has ordered it since."""
        async with self._one_at_a_time:
            ordered = await self._database.read(listener_states.generation)
            if ordered == self._generation:
                return
            await self._values.load()
            await self._reconcile(await self._database.read(mail_servers.every))
            await self._record(listener_states.generation)

    def _in_background(self, work: Callable[[], Any]) -> None:
        if self._is_running:
            Deferred.fromCoroutine(work()).addErrback(self._failed)

    def _failed(self, failure: Any) -> None:
        if failure.check(MailError):
            log.error("listeners stay as they are: {error}", error=failure.value)
        else:
            log.failure("listeners stay as they are", failure)

    # -- the steps ----------------------------------------------------------------------------

    async def _reconcile(self, rows: Sequence[MailServer]) -> None:
        wanted = checked(self._values.settings, rows, self._values.get)
        await self._expect(wanted)
        try:
            await self._listeners.reconcile(wanted)
        except ConfigError as error:
            raise Conflict(error.text, detail=error.detail) from error

    async def _one_by_one(self, wanted: Sequence[Listener], why: MailError) -> list[ListenerState]:
        """Open the file's listeners, then each of the others that can be; tell which cannot."""
        log.error("not every listener can be opened: {error}", error=why)
        given = self._values.settings.listeners
        running = [each for each in wanted if each in given]
        await self._listeners.reconcile(running)
        failed = []
        for each in wanted:
            if each in given:
                continue
            try:
                await self._listeners.reconcile([*running, each])
                running.append(each)
            except MailError as error:
                failed.append(_state_of(each, error))
        return failed

    async def _record(
        self, count: Callable[[Connection], int], failed: Sequence[ListenerState] = ()
    ) -> None:
        """Tell the other nodes what is bound here now; ``count`` gives the order's number."""
        node_id = self._database.ids.node_id
        states = [*_states(self._listeners.running), *failed]
        now = int(self._reactor.seconds() * 1_000_000)

        def write(connection: Connection) -> int:
            generation = count(connection)
            listener_states.record(connection, node_id, states, generation=generation, now=now)
            return generation

        self._generation = await self._database.write(write)


def _states(running: Iterable[Running]) -> Iterator[ListenerState]:
    for each in running:
        for place in each.sockets:
            yield ListenerState(each.listener.name, each.listener.protocol, place.host, place.port)


def _state_of(listener: Listener, error: MailError) -> ListenerState:
    return ListenerState(
        listener.name, listener.protocol, listener.host, listener.port, FAILED, error.text
    )
