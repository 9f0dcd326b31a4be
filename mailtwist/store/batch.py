"""Units, and the transactions that commit many of them together.

A unit has no effect outside its connection and may run twice. When one raises,
the batch is rolled back and the rest run again without it; then that unit runs
alone. There are no savepoints: they cost every batch what only a broken one needs.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.engine import RootTransaction
from twisted.logger import Logger

from mailtwist.errors import MailError, StoreUnavailable
from mailtwist.store import changes
from mailtwist.store.engine import Engine, failure_of, is_contention, is_fatal, lock_accounts

_logger = Logger()

CONTENTION_ATTEMPTS = 4
# A unit that met other transactions for so long is answered.
CONTENTION_S = 30.0

SetWriter = Callable[[Connection, list[Any]], Sequence[Any]]


class Unit:
    """What one caller wants written, and how it ended.

    Either ``work`` is called, or ``value`` goes to ``writer`` together with the batch's other
    values for it. Exactly one of ``result`` and ``error`` counts once ``done`` is set.
    """

    __slots__ = (
        "accounts",
        "answer",
        "answered",
        "attempts",
        "born",
        "done",
        "error",
        "is_preview",
        "octets",
        "result",
        "value",
        "work",
        "writer",
    )

    def __init__(
        self,
        *,
        work: Callable[[Connection], Any] | None = None,
        writer: SetWriter | None = None,
        value: Any = None,
        accounts: Collection[int] = (),
        octets: int = 0,
        is_preview: bool = False,
    ) -> None:
        self.work = work
        self.writer = writer
        self.value = value
        self.accounts = accounts
        self.octets = octets
        # Runs alone and is rolled back: nobody but its caller sees what it did.
        self.is_preview = is_preview
        self.born = time.monotonic()
        self.attempts = 0
        self.done = False
        self.answered = False
        self.result: Any = None
        self.error: BaseException | None = None
        # The waiting caller's Deferred; the reactor's alone.
        self.answer: Any = None

    def succeed(self, result: Any) -> None:
        self.result, self.error, self.done = result, None, True

    def fail(self, error: BaseException) -> None:
        self.error, self.done = error, True


class Broken(Exception):
    """A group of units ended a batch that must be rolled back."""

    def __init__(self, group: list[Unit], error: BaseException) -> None:
        super().__init__(error)
        self.group = group
        self.error = error


class Batch:
    """Runs units on one connection and commits them; the same for threads and for Inline."""

    def __init__(self, engine: Engine, *, on_commit: Callable[[changes.Report], None]) -> None:
        self._engine = engine
        self._on_commit = on_commit
        self._connection: Connection | None = None
        # Called on each new connection, outside of transactions.
        self.prepare: Callable[[Connection], None] = lambda connection: None

    @property
    def connection(self) -> Connection:
        """The open connection, opened when there is none."""
        if self._connection is None:
            connection = self._engine.writing.connect()
            try:
                self.prepare(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def close(self, *, discard: bool = False) -> None:
        """Give up the connection; ``discard``: nothing may be trusted to it any more."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        for end in (connection.invalidate, connection.close) if discard else (connection.close,):
            try:
                end()
            except Exception:  # an unwell connection may fail in every way
                _logger.debug("closing the connection failed")

    def run(self, units: list[Unit]) -> list[Unit]:
        """Run the units and commit; all but the returned ones are done then.

        Those met another transaction and belong into a later batch. Raises only what says that
        the database is unwell: the units that are not done share that fate.
        """
        pending, apart, waiting = units, list[Unit](), list[Unit]()
        blocked: set[int] = set()
        breaks = 0
        while pending or apart:
            if pending and breaks < 2:
                now, pending = pending, []
            else:
                # After a second break: look for no more company. Who broke a batch runs last,
                # for the rest came unharmed.
                now = [pending.pop(0) if pending else apart.pop(0)]
                if blocked.intersection(now[0].accounts):
                    waiting += now
                    continue
            try:
                self._attempt(now)
            except Broken as broken:
                breaks += 1
                group, error = broken.group, broken.error
                pending = [unit for unit in now if unit not in group] + pending
                if len(now) > 1 and not (len(group) == 1 and isinstance(error, MailError)):
                    apart += group
                elif is_contention(error):
                    waiting += _postpone(group[0], error)
                    blocked.update(group[0].accounts)
                else:
                    group[0].fail(failure_of(error) or error)
        return waiting

    def preview(self, unit: Unit) -> list[Unit]:
        """Run one unit and roll it back. Like :meth:`run` otherwise."""
        assert unit.work is not None
        connection = self.connection
        changes.forget(connection)
        transaction = connection.begin()
        try:
            self._lock(connection, [unit])
            unit.succeed(unit.work(connection))
        except Exception as error:
            if is_fatal(error):
                raise
            if is_contention(error):
                return _postpone(unit, error)
            unit.fail(failure_of(error) or error)
        finally:
            _roll_back(transaction)
            changes.forget(connection)
        return []

    def _attempt(self, units: list[Unit]) -> None:
        """One transaction. Raises: Broken, or what makes the connection unusable."""
        connection = self.connection
        changes.forget(connection)
        transaction = connection.begin()
        outcomes: list[Any] = []
        try:
            self._lock(connection, units)
            groups = _groups(units)
            for group in groups:
                outcomes += self._run_group(connection, group)
        except Broken:
            _roll_back(transaction)
            raise
        except BaseException as error:
            _roll_back(transaction)
            if is_contention(error):
                raise Broken(units, error) from error
            raise
        report = changes.pending(connection)
        transaction.commit()
        # Only now may anybody believe what the units answered.
        for unit, outcome in zip(itertools.chain(*groups), outcomes, strict=True):
            if isinstance(outcome, MailError):
                unit.fail(outcome)
            else:
                unit.succeed(outcome)
        self._on_commit(report)

    def _lock(self, connection: Connection, units: list[Unit]) -> None:
        lock_accounts(connection, {account for unit in units for account in unit.accounts})

    def _run_group(self, connection: Connection, group: list[Unit]) -> Sequence[Any]:
        """The outcomes of units that run together, MailErrors among them. Raises: Broken."""
        first = group[0]
        before = self._written(connection)
        try:
            if first.writer is None:
                assert first.work is not None
                return [first.work(connection)]
            outcomes = first.writer(connection, [unit.value for unit in group])
            assert len(outcomes) == len(group), "a set writer answers each value"
            return outcomes
        except MailError as error:
            # Refused before anything was written: an answer like others, not a break.
            if before is not None and before == self._written(connection):
                return [error] * len(group)
            raise Broken(group, error) from error
        except Exception as error:
            if is_fatal(error):
                raise
            raise Broken(group, error) from error

    def _written(self, connection: Connection) -> int | None:
        """A number that every written row raises, where the driver has one."""
        if not self._engine.is_sqlite:
            return None
        driver = connection.connection.driver_connection
        return int(driver.total_changes)  # type: ignore[union-attr]


def _postpone(unit: Unit, error: BaseException) -> list[Unit]:
    """The unit, to be tried again, unless it was often enough."""
    unit.attempts += 1
    if unit.attempts < CONTENTION_ATTEMPTS and time.monotonic() - unit.born < CONTENTION_S:
        return [unit]
    unit.fail(StoreUnavailable(detail=f"gave way {unit.attempts} times: {error}"[:500]))
    return []


def _roll_back(transaction: RootTransaction) -> None:
    try:
        transaction.rollback()
    except Exception:
        # Lost connections cannot roll back; the server does. Not to be used again.
        transaction.connection.invalidate()


def _groups(units: list[Unit]) -> list[list[Unit]]:
    """Units in order of arrival; those of one set writer where the first of them stands."""
    groups: list[list[Unit]] = []
    sets: dict[SetWriter, list[Unit]] = {}
    for unit in units:
        if unit.writer is None:
            groups.append([unit])
        elif unit.writer in sets:
            sets[unit.writer].append(unit)
        else:
            sets[unit.writer] = [unit]
            groups.append(sets[unit.writer])
    return groups
