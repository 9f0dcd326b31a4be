"""The reactor in a thread of its own, for programs that run none.

It is started once in a process and runs until the process ends, for no reactor can be started
again. Where somebody runs it already (twistd, trial, crochet), that one is used.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

_START_S: Final = 10.0
_REAP_S: Final = 0.1
_LEVELS: Final = {"warn": "WARNING"}

_log = logging.getLogger("mailtwist")

_lock = threading.Lock()
_started_by = 0  # the process; a fork takes the variable along, and the thread not


def running() -> Any:
    """The reactor, which runs in another thread on return.

    Raises: RuntimeError in the reactor's own thread, which must not wait for itself, and in a
    child of the process that started it.
    """
    global _started_by  # noqa: PLW0603
    from twisted.internet import reactor
    from twisted.python import threadable

    found: Any = reactor
    with _lock:
        if _started_by not in {0, os.getpid()}:
            raise RuntimeError("the reactor runs in the process that this one was forked from")
        if not found.running:
            _run(found)
            _started_by = os.getpid()
    if threadable.isInIOThread():
        raise RuntimeError("the reactor runs in this thread: use AsyncMailServer")
    return found


def _run(reactor: Any) -> None:
    from twisted.internet.process import reapAllProcesses
    from twisted.internet.task import LoopingCall

    up = threading.Event()
    _take_log()
    # No signal comes to this thread, so ended processes must be looked for; ours alone are.
    reactor.callWhenRunning(LoopingCall(reapAllProcesses).start, _REAP_S)
    reactor.callWhenRunning(up.set)
    threading.Thread(
        target=reactor.run,
        kwargs={"installSignalHandlers": False},
        name="mailtwist-reactor",
        daemon=True,
    ).start()
    if not up.wait(_START_S):
        raise RuntimeError("the reactor does not start")


def _take_log() -> None:
    """Let the log of Twisted go to :mod:`logging`: what nobody takes stays in memory for ever."""
    from twisted.logger import ILogObserver, globalLogBeginner
    from zope.interface import provider

    observer = provider(ILogObserver)(_pass_on)
    globalLogBeginner.beginLoggingTo([observer], discardBuffer=True, redirectStandardIO=False)


def _pass_on(event: Any) -> None:
    from twisted.logger import LogLevel

    from mailtwist.control.logs import human_line

    name = event.get("log_level", LogLevel.info).name
    level = logging.getLevelNamesMapping()[_LEVELS.get(name, name.upper())]
    if _log.isEnabledFor(level):
        # Its time of day goes: a record has one.
        _log.log(level, "%s", human_line(event).partition(" ")[2])


def call(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run ``work()`` in the reactor and wait for it; what it raises is raised here."""
    from twisted.internet.defer import Deferred
    from twisted.internet.threads import blockingCallFromThread

    def begin() -> Any:
        return Deferred.fromCoroutine(work())

    result: T = blockingCallFromThread(running(), begin)
    return result
