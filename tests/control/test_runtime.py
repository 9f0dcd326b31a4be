"""The order in which a server ends, where two ends meet."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from mailtwist.config import load
from mailtwist.control.runtime import DRAIN_S, HANDOVER_S, Runtime


class Part:
    """Something that ends when the test says so."""

    def __init__(self) -> None:
        self.ended = 0
        self.drain_s: float | None = None
        self.may_end: Deferred[None] = Deferred()

    async def stop(self, *_: Any) -> None:
        self.ended += 1

    retire = stop

    def close_streams(self) -> None: ...

    async def end_deliveries(self, seconds: float) -> None:
        self.drain_s = seconds
        await self.may_end
        self.ended += 1


def working(folder: Path) -> tuple[Runtime, list[Any]]:
    """A runtime whose jobs are such parts."""
    runtime = Runtime(load(None, {"MAILTWIST_DATA_DIR": str(folder)}), Clock())
    parts = runtime.mail, *_ = [cast("Any", Part()) for _ in range(4)]
    runtime._renewal, runtime._housekeeping, runtime._background = parts[1:]
    runtime._has_jobs = True
    return runtime, parts


def test_a_stop_in_the_midst_of_an_upgrade_waits_for_the_deliveries(tmp_path):
    """Else the store is closed before the outcome of a delivery is written."""
    runtime, parts = working(tmp_path)
    upgrade = Deferred.fromCoroutine(runtime._end_jobs(1.0))
    stop = Deferred.fromCoroutine(runtime._end_jobs(1.0))
    assert not upgrade.called
    assert not stop.called
    parts[0].may_end.callback(None)
    assert upgrade.called
    assert stop.called
    assert [each.ended for each in parts] == [1, 1, 1, 1]


def test_an_upgrade_cuts_deliveries_off_later_than_a_stop_does(tmp_path):
    """What is cut off is sent twice; an upgrade has the time to wait."""
    runtime, parts = working(tmp_path)
    runtime.rest, runtime.listeners, runtime.reconciliation = (
        cast("Any", Part()) for _ in range(3)
    )
    freed: list[None] = []
    retiring = Deferred.fromCoroutine(runtime.retire(lambda: freed.append(None)))
    assert parts[0].drain_s == HANDOVER_S > 2 * DRAIN_S
    assert freed == []
    parts[0].may_end.callback(None)
    assert retiring.called
    assert freed == [None]
