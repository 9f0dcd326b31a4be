"""The store as the reactor sees it: ``await read(work)``, ``await write(work)``.

:class:`Database` runs the work in its own threads; :class:`Inline` runs it at
once in the calling thread and serves the command line and the tests with the
same methods. ``work`` is a plain function of a connection, has no effect beside
it, and may run twice. What it raises, the caller sees.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from mailtwist.errors import MailError, StoreUnavailable
from mailtwist.store import changes, content, ids, lease, shrink
from mailtwist.store.batch import Unit
from mailtwist.store.checkpoint import Checkpointer
from mailtwist.store.engine import Engine, lock_accounts, mapped
from mailtwist.store.foreign import DataVersion, Listener
from mailtwist.store.ids import IdSource
from mailtwist.store.readers import Readers
from mailtwist.store.writer import PATIENCE_S, Writer

log = Logger()

T = TypeVar("T")
V = TypeVar("V")
R = TypeVar("R")

# Writes the values of one batch in one call; a MailError in the answer fails only its value.
SetWriter = Callable[[Connection, list[V]], Sequence[R | MailError]]

# What may wait for the writer; beyond, callers are told to come again.
WAITING_UNITS = 5_000
WAITING_OCTETS = 128 << 20
POSTGRESQL_WRITERS = 4
TEND_S = 30.0
SWEEP_LEASE_S = 120.0


class Database:
    """One database inside one reactor. Nothing works before :meth:`start`."""

    def __init__(self, engine: Engine, *, reactor: Any, name: str = "") -> None:
        self.engine = engine
        self.changes = changes.Changes()
        self._ids: IdSource | None = None
        self.healthy = False
        self.failure = "not started"
        self._name = name or ids.process_name()
        self._reactor = reactor
        self._outstanding: dict[Unit, None] = {}
        self._octets = 0
        self._gathered: list[Unit] = []  # in this turn; the writers don't know them yet
        self._turn = itertools.count()
        self._closed = False
        self._readers = Readers(engine, call_from_thread=reactor.callFromThread)
        self._checkpointer = Checkpointer(engine.path) if engine.is_sqlite else None
        self._listener = None if engine.is_sqlite else Listener(engine, self)
        self._writers = self._make_writers()
        self._loops = [(LoopingCall(self._watch), 1.0), (LoopingCall(self._tend), TEND_S)]

    def _make_writers(self) -> list[Writer]:
        if self._checkpointer is not None:
            foreign = DataVersion(self.engine, self)
            return [Writer(self.engine, self, look=foreign.look, log=self._checkpointer)]
        return [Writer(self.engine, self) for _ in range(POSTGRESQL_WRITERS)]

    @property
    def ids(self) -> IdSource:
        """Makes the numbers of contents and of "queued as"."""
        assert self._ids is not None, "the database is not started"
        return self._ids

    # -- life -------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the threads and claim a node number. Raises: StoreUnavailable, StoreFull."""
        self._readers.start()
        for thread in self._helpers():
            thread.start()
        for writer in self._writers:
            writer.start()
        # Without this the first look would call everything changed.
        await self.read(self.changes.recheck)
        self._ids = IdSource(await self.write(self._claim))
        self.well()
        for loop, interval in self._loops:
            loop.clock = self._reactor
            loop.start(interval, now=False).addErrback(
                lambda failure: log.failure("a loop ended", failure)
            )

    async def close(self) -> None:
        """Write what waits, give the node number back, end the threads and connections."""
        for loop, _ in self._loops:
            if loop.running:
                loop.stop()
        if self.healthy:
            try:
                await self.write(self._release)
            except MailError:
                log.warn("the node number could not be given back")
        self._closed = True
        self._hand_over()
        self._readers.stop()
        for writer in self._writers:
            writer.stop()
        pool = self._reactor.getThreadPool()
        await deferToThreadPool(self._reactor, pool, self._join)
        self.healthy, self.failure = False, "closed"

    def _join(self) -> None:
        for writer in self._writers:
            writer.join()
        self._readers.join()
        for thread in self._helpers():
            thread.stop()
        self.engine.dispose()

    def _helpers(self) -> list[Checkpointer | Listener]:
        return [thread for thread in (self._checkpointer, self._listener) if thread is not None]

    # -- work -------------------------------------------------------------------------------

    async def read(self, work: Callable[[Connection], T], *, account_id: int = 0) -> T:
        """Run ``work`` on one snapshot of the database, in a reading thread.

        ``account_id`` counts the read against that account's share of the threads.
        """
        result: T = await self._readers.read(work, account_id)
        return result

    async def write(
        self, work: Callable[[Connection], T], *, accounts: Collection[int] = (), octets: int = 0
    ) -> T:
        """Run ``work`` as one unit; its changes are committed and synced on return.

        ``accounts``: those whose rows it changes, locked beforehand. ``octets``: about how much.
        """
        result: T = await self._submit(Unit(work=work, accounts=accounts, octets=octets))
        return result

    async def write_set(
        self,
        writer: SetWriter[V, R],
        value: V,
        *,
        accounts: Collection[int] = (),
        octets: int = 0,
    ) -> R:
        """Give ``value`` to ``writer``, together with the batch's other values for it."""
        unit = Unit(writer=writer, value=value, accounts=accounts, octets=octets)
        result: R = await self._submit(unit)
        return result

    async def preview(
        self, work: Callable[[Connection], T], *, accounts: Collection[int] = ()
    ) -> T:
        """Run ``work`` as a unit that may write, give what it gives, and roll it back.

        It keeps the writer from other work meanwhile: to be short.
        """
        result: T = await self._submit(Unit(work=work, accounts=accounts, is_preview=True))
        return result

    def _submit(self, unit: Unit) -> Deferred[Any]:
        if self._closed:
            raise StoreUnavailable(detail="the store is closed")
        if len(self._outstanding) >= WAITING_UNITS or self._octets > WAITING_OCTETS:
            raise StoreUnavailable(detail="too many units wait for the writer")
        unit.answer = Deferred(lambda _: self._forget(unit))
        self._outstanding[unit] = None
        self._octets += unit.octets
        self._gathered.append(unit)
        if len(self._gathered) == 1:
            self._reactor.callLater(0, self._hand_over)
        answer: Deferred[Any] = unit.answer
        return answer

    def _hand_over(self) -> None:
        """Give the writers what came in this turn of the reactor.

        A writer that woke with the first unit of a turn would wait for the interpreter until
        the turn is over, and be woken in vain each time that a system call lets go of it.
        """
        gathered, self._gathered = self._gathered, []
        for unit in gathered:
            self._writer_of(unit).submit(unit)

    def _writer_of(self, unit: Unit) -> Writer:
        number = min(unit.accounts) if unit.accounts else next(self._turn)
        return self._writers[number % len(self._writers)]

    def _forget(self, unit: Unit) -> None:
        """Nobody waits for the unit any more; the writer passes it over if it is not too late."""
        if not unit.answered:
            unit.answered = True
            self._outstanding.pop(unit, None)
            self._octets -= unit.octets

    def _answer(self, unit: Unit, error: BaseException | None) -> None:
        if unit.answered:
            return
        self._forget(unit)
        if error is None:
            unit.answer.callback(unit.result)
        else:
            unit.answer.errback(error)

    # -- what the writers tell, in their threads ----------------------------------------------

    def settle(self, units: Sequence[Unit], report: changes.Report) -> None:
        """A batch ended: one call into the reactor for all its units."""
        self._reactor.callFromThread(self._settled, units, report)
        if self._listener is not None and report:
            self._listener.send(report)

    def _settled(self, units: Sequence[Unit], report: changes.Report) -> None:
        # Caches are cleared before whoever caused it goes on.
        self.changes.publish(report)
        for unit in units:
            self._answer(unit, unit.error)

    def heard(self, report: changes.Report) -> None:
        """Another process committed."""
        if report:
            self._reactor.callFromThread(self.changes.publish, report)

    def well(self) -> None:
        """A commit succeeded."""
        if not self.healthy:
            log.info("the store takes writes")
        self.healthy, self.failure = True, ""

    def unwell(self, error: MailError) -> None:
        """A commit failed."""
        if self.healthy:
            log.error("the store takes no writes: {detail}", detail=error.detail or error.text)
        self.healthy, self.failure = False, error.detail or error.text

    # -- now and then -------------------------------------------------------------------------

    def _watch(self) -> None:
        """Answer units that waited too long, wherever they are stuck, and end endless reads."""
        limit = time.monotonic() - PATIENCE_S
        while self._outstanding:
            oldest = next(iter(self._outstanding))
            if oldest.born > limit:
                break
            self._answer(oldest, StoreUnavailable(detail="the writer did not get to it in time"))
        self._readers.interrupt_overdue()

    async def _tend(self) -> None:
        """Say that the node lives, and sweep when it is our turn."""
        try:
            if not await self.write(self._renew):
                log.warn("the node number was taken by another process")
                self._ids = IdSource(await self.write(self._claim))
            if await self.write(self._take_sweep):
                while not await self.write(lambda c: content.sweep(c, ids.now_us())):
                    pass
                while not await self.write(shrink.step):
                    pass
        except MailError as error:
            log.warn("tending the store failed: {detail}", detail=error.detail or error.text)

    def _claim(self, connection: Connection) -> int:
        node_id = ids.claim(connection, self._name, ids.now_us())
        content.disown(connection, node_id)
        return node_id

    def _renew(self, connection: Connection) -> bool:
        return ids.renew(connection, self.ids.node_id, self._name, ids.now_us())

    def _release(self, connection: Connection) -> None:
        lease.release(connection, "sweep", self.ids.node_id)
        ids.release(connection, self.ids.node_id, self._name, ids.now_us())

    def _take_sweep(self, connection: Connection) -> bool:
        node_id = self.ids.node_id
        return lease.take(connection, "sweep", node_id, now=ids.now_us(), seconds=SWEEP_LEASE_S)


class Inline(Database):
    """Runs all work at once in the calling thread; its coroutines never suspend."""

    def __init__(self, engine: Engine, *, name: str = "") -> None:
        self.engine = engine
        self.changes = changes.Changes()
        self.healthy = True
        self.failure = ""
        self._open: Connection | None = None
        self._name = name or ids.process_name()
        self._ids: IdSource | None = None

    @property
    def ids(self) -> IdSource:
        """Claims a node number when it is first asked for, in the open unit if there is one."""
        if self._ids is None and self._open is not None:
            self._ids = IdSource(self._claim(self._open))
        elif self._ids is None:
            with self.engine.write() as connection:
                self._ids = IdSource(self._claim(connection))
        return self._ids

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        self.release()

    def release(self) -> None:
        """Give the node number back and close the connections."""
        if self._ids is not None:
            with self.engine.write() as connection:
                ids.release(connection, self._ids.node_id, self._name, ids.now_us())
            self._ids = None
        self.engine.dispose()

    async def read(self, work: Callable[[Connection], T], *, account_id: int = 0) -> T:
        with self.engine.read() as connection:
            return work(connection)

    async def write(
        self, work: Callable[[Connection], T], *, accounts: Collection[int] = (), octets: int = 0
    ) -> T:
        claimed = self._ids
        try:
            with self.engine.write() as connection:
                self._open = connection
                lock_accounts(connection, accounts)
                result = work(connection)
                report = changes.pending(connection)
        except BaseException:
            self._ids = claimed
            raise
        finally:
            self._open = None
        self.changes.publish(report)
        return result

    async def preview(
        self, work: Callable[[Connection], T], *, accounts: Collection[int] = ()
    ) -> T:
        _ = self.ids  # claimed for good, not in what is rolled back
        with mapped(), self.engine.writing.connect() as connection:
            changes.forget(connection)
            transaction = connection.begin()
            self._open = connection
            try:
                lock_accounts(connection, accounts)
                return work(connection)
            finally:
                self._open = None
                transaction.rollback()
                changes.forget(connection)

    async def write_set(
        self,
        writer: SetWriter[V, R],
        value: V,
        *,
        accounts: Collection[int] = (),
        octets: int = 0,
    ) -> R:
        def work(connection: Connection) -> R:
            (outcome,) = writer(connection, [value])
            if isinstance(outcome, MailError):
                raise outcome
            return outcome

        return await self.write(work, accounts=accounts, octets=octets)
