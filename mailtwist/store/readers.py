"""The pool of reading threads: each with its own connection, each read one short snapshot.

An account has at most half of the threads at a time, so that one busy mailbox
keeps nobody else waiting. A statement past its deadline is interrupted.

On SQLite one thread reads as long as it gets on: short reads are mostly Python, and threads
that hand the interpreter to each other only cost time. (m: pages of 10 mails over 10
connections, 330 a second with four threads, 470 with one.) The others help when reads wait
behind a long one. On PostgreSQL all of them read, for each mostly waits for the server.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailtwist.errors import StoreUnavailable
from mailtwist.store.engine import STATEMENT_TIMEOUT_S, Engine, failure_of

log = Logger()

THREADS = 4
SHARE = 2
# A read that takes longer is no reason for others to wait.
LAG_S = 0.02
WAITING = 10_000


class Read:
    """One piece of reading work and how it ended."""

    __slots__ = ("account_id", "answer", "error", "result", "work")

    def __init__(self, work: Callable[[Connection], Any], account_id: int) -> None:
        self.work = work
        self.account_id = account_id
        self.answer: Deferred[Any] = Deferred()
        self.result: Any = None
        self.error: BaseException | None = None


class Readers:
    """Runs reads in threads; all methods belong to the reactor thread."""

    def __init__(
        self,
        engine: Engine,
        *,
        call_from_thread: Callable[..., object],
        threads: int = THREADS,
        deadline_s: float = STATEMENT_TIMEOUT_S,
    ) -> None:
        self._call_from_thread = call_from_thread
        self._queue: queue.SimpleQueue[Read | None] = queue.SimpleQueue()
        # Somebody may be waiting behind a long read: one call a time, taken by one of those
        # that are not reading.
        self._calls: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._called = False
        eager = 1 if engine.is_sqlite else threads
        self._threads = [
            Reader(engine, self, calls=None if n < eager else self._calls) for n in range(threads)
        ]
        self._has_helpers = eager < threads
        self._deadline_s = deadline_s
        self._running: dict[int, int] = {}
        self._held: dict[int, deque[Read]] = {}
        self._outstanding = 0
        self._stopped = False
        # Reads that ended, told to the reactor with as few wake-ups as possible.
        self._ended_reads: deque[Read] = deque()
        self._told = False

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    async def read(self, work: Callable[[Connection], Any], account_id: int = 0) -> Any:
        """Run the work. Raises: StoreUnavailable when too much waits; what the work raises."""
        if self._stopped or self._outstanding >= WAITING:
            raise StoreUnavailable(detail="too many reads wait, or the store is closed")
        self._outstanding += 1
        read = Read(work, account_id)
        running = self._running.get(account_id, 0)
        if account_id and running >= SHARE:
            self._held.setdefault(account_id, deque()).append(read)
        else:
            self._running[account_id] = running + 1
            self._put(read)
        return await read.answer

    def _put(self, read: Read) -> None:
        self._queue.put(read)
        # More than one: it may have to wait.
        if self._has_helpers and self._outstanding > 1:
            self.call_for_help()

    def interrupt_overdue(self) -> None:
        """End the statements past their deadline; to be called every second or so."""
        for thread in self._threads:
            thread.interrupt(time.monotonic() - self._deadline_s)

    def stop(self) -> None:
        """End the threads after what is queued; reads held back are refused."""
        self._stopped = True
        held, self._held = self._held, {}
        for read in itertools.chain(*held.values()):
            read.answer.errback(StoreUnavailable(detail="the store closes"))
        for thread in self._threads:
            if thread.calls is None:
                self._queue.put(None)
            else:
                thread.calls.put(False)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    # -- in the reading threads ---------------------------------------------------------------

    def next(self) -> Read | None:
        """The next read, awaited; None: the end."""
        return self._queue.get()

    def call_for_help(self) -> None:
        """Have one of the others see, a little later, whether reads are waiting."""
        if not self._called:
            self._called = True
            self._calls.put(True)

    @property
    def has_waiting(self) -> bool:
        return not self._queue.empty()

    def left_waiting(self) -> Read | None:
        """A read that waits while everybody who reads has been at it for long."""
        now = time.monotonic()
        running = [thread.since for thread in self._threads if thread.since is not None]
        if not running or max(running) > now - LAG_S:
            return None
        try:
            read = self._queue.get_nowait()
        except queue.Empty:
            return None
        if read is None:
            self._queue.put(None)  # the end, meant for another thread
            return None
        # The next one may be left waiting by this one.
        self.call_for_help()
        return read

    def answered(self) -> None:
        """A call was heard; the next one counts again."""
        self._called = False

    def ended(self, read: Read) -> None:
        """Tell the reactor."""
        self._ended_reads.append(read)
        if not self._told:
            self._told = True
            self._call_from_thread(self._settle)

    # -- in the reactor's ---------------------------------------------------------------------

    def _settle(self) -> None:
        self._told = False
        while self._ended_reads:
            read = self._ended_reads.popleft()
            self._outstanding -= 1
            self._next_of(read.account_id)
            if read.error is None:
                read.answer.callback(read.result)
            else:
                read.answer.errback(read.error)

    def _next_of(self, account_id: int) -> None:
        held = self._held.get(account_id)
        if held:
            self._put(held.popleft())
            if not held:
                del self._held[account_id]
            return
        self._running[account_id] -= 1
        if not self._running[account_id]:
            del self._running[account_id]


class Reader(threading.Thread):
    """One thread and its connection; ``calls``: it reads only when it is called for help."""

    def __init__(
        self, engine: Engine, pool: Readers, *, calls: queue.SimpleQueue[bool] | None
    ) -> None:
        super().__init__(name="store-reader", daemon=True)
        self.calls = calls
        self.since: float | None = None  # when the read at hand began
        self._engine = engine
        self._pool = pool
        self._connection: Connection | None = None
        self._lock = threading.Lock()

    def run(self) -> None:
        if self.calls is None:
            while (read := self._pool.next()) is not None:
                self._serve(read)
        else:
            while self.calls.get():
                time.sleep(LAG_S)
                self._pool.answered()
                while self._pool.has_waiting:
                    if (read := self._pool.left_waiting()) is not None:
                        self._serve(read)
                    else:
                        time.sleep(LAG_S)
        self._close()

    def _serve(self, read: Read) -> None:
        try:
            read.result = self._run(read.work)
        except BaseException as error:
            read.error = failure_of(error) or error
        self._pool.ended(read)

    def interrupt(self, before: float) -> None:
        """Interrupt the statement of a read that began before then; PostgreSQL does it itself."""
        with self._lock:
            connection = self._connection
            if self.since is None or self.since > before or connection is None:
                return
            driver: Any = connection.connection.driver_connection
            if hasattr(driver, "interrupt"):
                driver.interrupt()

    def _run(self, work: Callable[[Connection], Any]) -> Any:
        connection = self._open()
        try:
            with connection.begin() as transaction:
                with self._lock:
                    self.since = time.monotonic()
                try:
                    return work(connection)
                finally:
                    with self._lock:
                        self.since = None
                    transaction.rollback()
        except Exception as error:
            if isinstance(failure_of(error), StoreUnavailable):
                self._close()
            raise

    def _open(self) -> Connection:
        if self._connection is None or self._connection.invalidated:
            self._close()
            self._connection = self._engine.reading.connect()
        return self._connection

    def _close(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            connection.close()
        except Exception:
            log.debug("closing a reading connection failed")
