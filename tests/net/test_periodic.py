"""A job that is done again and again."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from mailtwist.errors import StoreUnavailable
from mailtwist.net.periodic import Periodic


class Job:
    """Waits until it is released; ``error``: what it raises at once instead."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.begun = 0
        self.error: Exception | None = None
        self.waiting: Deferred[None] | None = None
        self.periodic = Periodic("the job", self.run, every_s=10.0, clock=self.clock)
        self.periodic.start()

    async def run(self) -> None:
        self.begun += 1
        if self.error is not None:
            raise self.error
        self.waiting = Deferred()
        await self.waiting


def test_it_is_done_every_so_often_and_never_twice_at_once() -> None:
    job = Job()
    assert job.begun == 0
    job.clock.pump([10, 10, 10])
    assert job.begun == 1
    job.waiting.callback(None)
    job.clock.advance(10)
    assert job.begun == 2
    job.waiting.callback(None)
    job.periodic.cancel()
    assert job.clock.getDelayedCalls() == []


def test_what_it_raises_is_logged_and_it_is_tried_again() -> None:
    job = Job()
    for error, text in (
        (StoreUnavailable(detail="locked"), "{name} put off"),
        (ValueError("a bug"), "{name} failed"),
    ):
        job.error = error
        with capturedLogs() as events:
            job.clock.advance(10)
        assert [event["log_format"] for event in events] == [text]
    job.error = None
    job.clock.advance(10)
    assert job.begun == 3
    job.waiting.callback(None)
    job.periodic.cancel()


def test_cancel_cuts_off_and_finish_waits() -> None:
    job = Job()
    job.clock.advance(10)
    cut = job.waiting
    job.periodic.cancel()
    assert cut.called

    job = Job()
    job.clock.advance(10)
    finishing = Deferred.fromCoroutine(job.periodic.finish())
    assert not finishing.called
    job.waiting.callback(None)
    assert finishing.called
    assert job.clock.getDelayedCalls() == []
