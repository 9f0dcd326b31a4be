"""A Writer without a reactor: what it settles is collected for the test's thread."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, text

from mailtwist.errors import MailError
from mailtwist.store.batch import Unit
from mailtwist.store.changes import Report
from mailtwist.store.engine import Engine
from mailtwist.store.writer import Writer

PATIENCE_S = 20


class Owner:
    """Collects what a writer tells."""

    def __init__(self) -> None:
        self.healthy = True
        self.settled: queue.SimpleQueue[tuple[list[Unit], Report]] = queue.SimpleQueue()
        self.health: queue.SimpleQueue[MailError | None] = queue.SimpleQueue()
        self.batches: list[list[Unit]] = []

    def settle(self, units: Sequence[Unit], report: Report) -> None:
        self.settled.put((list(units), report))

    def well(self) -> None:
        self.healthy = True
        self.health.put(None)

    def unwell(self, error: MailError) -> None:
        self.healthy = False
        self.health.put(error)

    def wait_for(self, *units: Unit) -> list[Report]:
        """Until all these have their answer; the reports of the batches meanwhile."""
        missing = set(units)
        reports = []
        while missing:
            settled, report = self.settled.get(timeout=PATIENCE_S)
            self.batches.append(settled)
            reports.append(report)
            missing -= set(settled)
        return reports


class Running:
    """A started writer and the units given to it; a context manager."""

    def __init__(self, engine: Engine, **options: Any) -> None:
        self.engine = engine
        self.owner = Owner()
        self.writer = Writer(engine, self.owner, **options)

    def __enter__(self) -> Running:
        self.writer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.stop()
        self.writer.join()

    def run(self, *units: Unit) -> list[Report]:
        for unit in units:
            self.writer.submit(unit)
        return self.owner.wait_for(*units)


_NOTE = text("INSERT INTO generation (kind, n) VALUES (:kind, 1)")


def note(kind: str) -> Unit:
    """A unit that leaves a trace."""
    return Unit(work=lambda connection: write_note(connection, kind))


def write_note(connection: Connection, kind: str) -> str:
    connection.execute(_NOTE, {"kind": kind})
    return kind


def notes(engine: Engine) -> set[str]:
    """The traces that were committed."""
    with engine.read() as connection:
        return set(connection.execute(text("SELECT kind FROM generation")).scalars())


def together(*units: Unit, engine: Engine) -> Owner:
    """Run units in one batch: they are queued before the writer starts."""
    running = Running(engine)
    for unit in units:
        running.writer.submit(unit)
    with running:
        running.owner.wait_for(*units)
    return running.owner
