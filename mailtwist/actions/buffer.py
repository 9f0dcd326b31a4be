"""What one call of an action will write: collected, tried out, then written at once.

Outcomes add units; what reads later sees what was added before, for it runs behind the units in
a transaction that is rolled back. At the end one transaction writes all of it, mail included;
then the queue gets its mail, and then run the effects that are no rows.

A unit runs several times: the ids that it makes are the same each time, as far as chance makes
them. Numbers that the store counts may be taken by others meanwhile: then a unit comes to
something else than what outcomes saw of it, nothing is written, and :class:`Stale` says so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeVar

from twisted.logger import Logger

from mailtwist.errors import MailError, ProtocolViolation, TemporaryFailure
from mailtwist.queue.handing_over import HandingOver
from mailtwist.store.deliver import Acceptance, deliver
from mailtwist.store.engine import Connection
from mailtwist.store.reference import Repetition, repeatable

log = Logger()

T = TypeVar("T")

MAX_UNITS: Final = 200
MAX_OCTETS: Final = 64 << 20
TOO_MUCH: Final = "The action writes too much at once"
# Each look at what was not written yet runs all units before it, in the writer's thread.
MAX_RUNS: Final = 1_000

Work = Callable[[Connection], Any]
Effect = Callable[[], Awaitable[None]]


class Stale(TemporaryFailure):
    """Others wrote meanwhile: the whole call is to be run again."""

    http_status = 409
    default_text = "Others changed the same rows meanwhile, try again"


@dataclass(slots=True, eq=False)
class Added:
    """A unit in the buffer; ``result`` is what it came to. ``mails``: those that it delivers."""

    work: Work
    accounts: frozenset[int]
    octets: int
    mails: tuple[Acceptance, ...] = ()
    repetition: Repetition = field(default_factory=Repetition)
    has_run: bool = False
    _result: Any = None

    def __call__(self, connection: Connection) -> Any:
        with repeatable(self.repetition):
            return self.work(connection)

    @property
    def result(self) -> Any:
        assert self.has_run, "settled or committed first"
        return self._result

    def check(self, result: Any) -> None:
        """Raises: Stale, when it came to something else before."""
        if self.has_run and self._result != result:
            raise Stale

    def came_to(self, result: Any) -> None:
        self._result, self.has_run = result, True


class Mark(NamedTuple):
    """How far a buffer was filled."""

    units: int
    effects: int


class Buffer:
    """Of one call; ``intake`` is :class:`mailtwist.queue.intake.Intake`."""

    def __init__(self, database: Any, intake: Any) -> None:
        self._database = database
        self._intake = intake
        self._units: list[Added] = []
        self._effects: list[Effect] = []
        self._runs = 0

    # -- what outcomes add ------------------------------------------------------------------

    def add(self, unit: Work, *, accounts: Collection[int] = (), octets: int = 0) -> Added:
        """Write this too. ``accounts``: whose rows it changes. ``octets``: about how much.

        What it comes to is known when it was settled or committed. Raises: ProtocolViolation,
        when it is too much for one call.
        """
        return self._append(Added(unit, frozenset(accounts), octets))

    async def perform(
        self, unit: Callable[[Connection], T], *, accounts: Collection[int] = (), octets: int = 0
    ) -> T:
        """Add a unit and tell what it comes to. Raises what it raises; it is not added then."""
        added = self.add(unit, accounts=accounts, octets=octets)
        try:
            await self.settle()
        except BaseException:
            self._units.remove(added)
            raise
        result: T = added.result
        return result

    def mail(self, acceptance: Acceptance, reports: Sequence[Acceptance] = ()) -> None:
        """Deliver and queue this too, as ``Intake.prepare`` made it."""
        mails = (acceptance, *reports)
        accounts = frozenset(entry.account_id for each in mails for entry in each.entries)
        octets = acceptance.content.octets
        self._append(Added(_delivering(mails), accounts, octets, mails))

    def after(self, effect: Effect) -> None:
        """Run this when all is committed, one behind the other."""
        self._effects.append(effect)

    def _append(self, unit: Added) -> Added:
        octets = unit.octets + sum(each.octets for each in self._units)
        if len(self._units) >= MAX_UNITS or octets > MAX_OCTETS:
            raise ProtocolViolation(TOO_MUCH)
        self._units.append(unit)
        return unit

    # -- outcomes that fail and may ---------------------------------------------------------

    def mark(self) -> Mark:
        return Mark(len(self._units), len(self._effects))

    def drop(self, mark: Mark) -> None:
        """Take back all that was added since."""
        del self._units[mark.units :]
        del self._effects[mark.effects :]

    def forgive(self, mark: Mark) -> None:
        """Let effects that were added since fail without harm to the others."""
        self._effects[mark.effects :] = [_forgiven(each) for each in self._effects[mark.effects :]]

    # -- what outcomes see ------------------------------------------------------------------

    async def preview(self, work: Callable[[Connection], T]) -> T:
        """Read as if all were written already. Raises what units raise, and Stale."""
        if not self._units:
            result: T = await self._database.read(work)
            return result
        found: T = await self._tried(work)
        return found

    async def settle(self, *, with_mail: bool = False) -> None:
        """Find out what the units come to that did not run yet. Raises what they raise, Stale.

        Mail comes to nothing that is not known; ``with_mail``: it is to be found out if it can
        be delivered.
        """
        if not all(unit.has_run or (unit.mails and not with_mail) for unit in self._units):
            await self._tried(lambda connection: None)

    async def _tried(self, last: Callable[[Connection], T]) -> T:
        """Run the units, then ``last``; all of it is undone."""
        units = tuple(self._units)
        self._runs += len(units)
        if self._runs > MAX_RUNS:
            raise ProtocolViolation(TOO_MUCH)

        def work(connection: Connection) -> tuple[list[Any], T]:
            return _run(connection, units), last(connection)

        outcome: tuple[list[Any], T] = await self._database.preview(work, accounts=self._accounts())
        _note(units, outcome[0])
        return outcome[1]

    # -- the end ----------------------------------------------------------------------------

    async def commit(self) -> None:
        """Write all of it in one transaction, hand the mail over, run the effects.

        Raises: Stale, and what units and the store raise; nothing is written then. An effect that
        raises ends the others.
        """
        if len(self._units) == 1 and self._units[0].mails:
            # The way of all mail: it shares the statements of others.
            acceptance, *reports = self._units[0].mails
            await self._intake.commit(acceptance, reports)
        elif self._units:
            await self._write()
        for effect in self._effects:
            await effect()

    async def _write(self) -> None:
        handing_over = HandingOver(self._intake.outbound)
        try:
            handed_over = [_handed_over(unit, handing_over) for unit in self._units]

            def work(connection: Connection) -> list[Any]:
                return _run(connection, handed_over)

            octets = sum(unit.octets for unit in handed_over)
            results = await self._database.write(work, accounts=self._accounts(), octets=octets)
        except BaseException:
            handing_over.give_back()
            raise
        handing_over.take()
        _note(self._units, results)

    def _accounts(self) -> tuple[int, ...]:
        return tuple(sorted({account for unit in self._units for account in unit.accounts}))


def _run(connection: Connection, units: Sequence[Added]) -> list[Any]:
    """What each comes to. Raises: Stale, and what they raise."""
    results = []
    for unit in units:
        result = unit(connection)
        unit.check(result)
        results.append(result)
    return results


def _note(units: Sequence[Added], results: Sequence[Any]) -> None:
    for unit, result in zip(units, results, strict=True):
        unit.came_to(result)


def _handed_over(unit: Added, handing_over: HandingOver) -> Added:
    """The unit with room at the runner for its mail."""
    if not unit.mails:
        return unit
    acceptance, *reports = unit.mails
    mails = (handing_over.reserve(acceptance), *reports)
    for report in reports:
        handing_over.leave(report)
    return Added(_delivering(mails), unit.accounts, unit.octets, mails)


def _delivering(mails: Iterable[Acceptance]) -> Work:
    listed = list(mails)

    def work(connection: Connection) -> None:
        for answer in deliver(connection, listed):
            if isinstance(answer, MailError):
                raise answer

    return work


def _forgiven(effect: Effect) -> Effect:
    async def run() -> None:
        try:
            await effect()
        except MailError as error:
            log.info("an effect failed and may: {text}", text=error.text)

    return run
