"""The order in which a server ends, where two ends meet."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from mailtwist.config import load
from mailtwist.control.runtime import Runtime


class Part:
    """Something that ends when the test says so."""

    def __init__(self) -> None:
        self.ended = 0
        self.may_end: Deferred[None] = Deferred()

    async def stop(self, *_: Any) -> None:
        self.ended += 1

    async def end_deliveries(self, seconds: float) -> None:
        await self.may_end
        self.ended += 1


def test_a_stop_in_the_midst_of_an_upgrade_waits_for_the_deliveries(tmp_path):
    """Else the store is closed before the outcome of a delivery is written."""
    runtime = Runtime(load(None, {"MAILTWIST_DATA_DIR": str(tmp_path)}), Clock())
    parts = runtime.mail, *_ = [cast("Any", Part()) for _ in range(4)]
    runtime._renewal, runtime._housekeeping, runtime._background = parts[1:]
    runtime._has_jobs = True
    upgrade = Deferred.fromCoroutine(runtime._end_jobs())
    stop = Deferred.fromCoroutine(runtime._end_jobs())
    assert not upgrade.called
    assert not stop.called
    parts[0].may_end.callback(None)
    assert upgrade.called
    assert stop.called
    assert [each.ended for each in parts] == [1, 1, 1, 1]
