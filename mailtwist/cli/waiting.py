"""Waits for what becomes of a message in the queue: by a running server, or by ourselves."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from mailtwist.cli.filing import run_now

if TYPE_CHECKING:
    from mailtwist.queue.assembly import Mail
    from mailtwist.store.database import Inline
    from mailtwist.store.queue.listing import Viewed

# For the whole of it.
PATIENCE_S: Final = 30.0
# A running server begins within 2 s.
PICKED_UP_S: Final = 4.0
LOOK_S: Final = 0.1


def outcome(database: Inline, mail: Mail, queue_id: int) -> Viewed:
    """The message after its first attempt, or as it is after half a minute."""
    deadline = time.monotonic() + PATIENCE_S
    if not (_has_others(database) and _is_picked_up(database, queue_id)):
        _try_here(mail, queue_id, deadline - time.monotonic())
    while (found := _view(database, queue_id)).listed.state == "active":
        if time.monotonic() > deadline:
            break
        time.sleep(LOOK_S)
    return found


def _has_others(database: Inline) -> bool:
    """Whether another process works on this store."""
    from mailtwist.store import ids

    own = database.ids.node_id
    with database.engine.read() as connection:
        return bool(ids.running(connection, ids.now_us()) - {own})


def _is_picked_up(database: Inline, queue_id: int) -> bool:
    """Wait until a server has taken it; False: none did, so none delivers."""
    deadline = time.monotonic() + PICKED_UP_S
    while time.monotonic() < deadline:
        found = _view(database, queue_id)
        if found.listed.state != "active" or any(each.lease_until for each in found.recipients):
            return True
        time.sleep(LOOK_S)
    return False


def _view(database: Inline, queue_id: int) -> Viewed:
    from mailtwist.store.queue import listing

    return run_now(database.read(lambda connection: listing.view(connection, queue_id)))


def _try_here(mail: Mail, queue_id: int, seconds: float) -> None:
    """Deliver it in this process, once, in a reactor that runs for this alone."""
    from twisted.internet import reactor as installed
    from twisted.internet.defer import Deferred
    from twisted.internet.defer import TimeoutError as TimedOut

    reactor: Any = installed
    runner = mail.runner
    assert runner is not None  # dev_mode keeps mail here
    failures: list[Any] = []

    async def work() -> None:
        try:
            trying = Deferred.fromCoroutine(runner.run_once(queue_id))
            await trying.addTimeout(max(seconds, 1.0), reactor)
        except TimedOut:
            pass  # its rows go back into the queue, untried
        finally:
            await mail.stop(1.0)

    def begin() -> None:
        working = Deferred.fromCoroutine(work())
        working.addErrback(failures.append)
        working.addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(begin)
    reactor.run()
    if failures:
        failures[0].raiseException()
