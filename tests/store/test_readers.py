"""The reading threads: one reads on SQLite, and the others help where it is stuck."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from mailtwist.store.engine import Connection, open_engine
from mailtwist.store.readers import Readers

LIMIT_S = 20.0


class Pool:
    """Readers whose calls into the reactor are made by the test."""

    def __init__(self, url: str) -> None:
        self._calls: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.readers = Readers(open_engine(url), call_from_thread=self._call)
        self.readers.start()
        self.stuck = threading.Event()
        self.names: list[str] = []

    def _call(self, function: Any, *arguments: Any) -> None:
        self._calls.put(partial(function, *arguments))

    def read(self, *, is_long: bool = False) -> Deferred[None]:
        def work(connection: Connection) -> None:
            self.names.append(threading.current_thread().name)
            if is_long:
                assert self.stuck.wait(LIMIT_S)

        return Deferred.fromCoroutine(self.readers.read(work))

    def settle(self, *reads: Deferred[None]) -> None:
        """Wait until these are answered."""
        while not all(read.called for read in reads):
            self._calls.get(timeout=LIMIT_S)()

    def close(self) -> None:
        self.stuck.set()
        self.readers.stop()
        self.readers.join()


@pytest.fixture
def pool(sqlite_url: str) -> Iterator[Pool]:
    made = Pool(sqlite_url)
    yield made
    made.close()


def test_short_reads_wait_for_no_long_one(pool: Pool) -> None:
    long = pool.read(is_long=True)
    pool.settle(*[pool.read() for _ in range(20)])
    assert not long.called
    pool.stuck.set()
    pool.settle(long)


def test_long_reads_leave_a_thread_to_the_short_ones(pool: Pool) -> None:
    long = [pool.read(is_long=True) for _ in range(3)]
    pool.settle(pool.read())
    assert not any(read.called for read in long)
    # And again, when all of them have been at it for a while.
    pool.settle(pool.read())
    pool.stuck.set()
    pool.settle(*long)


def test_whatever_waits_is_read_before_the_end(pool: Pool) -> None:
    reads = [pool.read(is_long=True) for _ in range(3)] + [pool.read() for _ in range(50)]
    pool.readers.stop()
    pool.stuck.set()
    pool.readers.join()
    pool.settle(*reads)
    assert len(pool.names) == 53
