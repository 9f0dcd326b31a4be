"""One process that evaluates expressions: asked by frames, killed when it is late."""

from __future__ import annotations

import json
import signal
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

log = Logger()

PROGRAM: Final = Path(__file__).with_name("child.py")
# Dates are in UTC; nothing else of our environment is a process's business.
ENVIRONMENT: Final = {"TZ": "UTC0", "LC_ALL": "C.UTF-8"}
# The interpreter and the engine are there in 0.05 s on an idle machine.
START_S: Final = 20.0
# The signals of the timers by which a process ends itself.
TIMERS: Final = (signal.SIGALRM, signal.SIGPROF)
# After so many requests a new process takes over, whatever the old one has gathered.
MAX_REQUESTS: Final = 10_000
MAX_ANSWER: Final = 4 << 20
MAX_COMPLAINT: Final = 2048


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may use. ``time_s`` is processor time, ``wall_s`` by the clock."""

    time_s: float = 0.5
    wall_s: float = 0.8
    memory: int = 16 << 20
    stack: int = 256 << 10
    result: int = 256 << 10


class Ended(Exception):
    """The process ended before its answer; ``is_late``: because its time was over."""

    def __init__(self, is_late: bool) -> None:
        super().__init__("late" if is_late else "ended")
        self.is_late = is_late


class Worker(ProcessProtocol):
    """``ready(worker)`` is called when it can be asked, ``ended(worker)`` when it is gone.

    After ``Ended`` of a request the worker is of no use, though its process may still be
    there for a moment.
    """

    def __init__(
        self,
        reactor: Any,
        limits: Limits,
        ready: Callable[[Worker], None],
        ended: Callable[[Worker], None],
    ) -> None:
        self._reactor, self._limits = reactor, limits
        self._ready, self._ended = ready, ended
        self._buffer = bytearray()
        self._complaint = b""
        self._asked: Deferred[bytes] | None = None
        self._timer: IDelayedCall | None = None
        self._requests = 0
        self.is_started = False
        self.gone: Deferred[None] = Deferred()

    @property
    def is_worn(self) -> bool:
        """Whether it has answered so often that it ends now."""
        return self._requests >= MAX_REQUESTS

    def start(self) -> None:
        """Start the process. Raises: OSError."""
        limits = self._limits
        numbers = [limits.time_s, limits.wall_s, limits.memory, limits.stack, limits.result]
        arguments = [sys.executable, "-I", "-S", str(PROGRAM), _engine(), json.dumps(numbers)]
        self._timer = self._reactor.callLater(START_S, self._late)
        try:
            self._reactor.spawnProcess(self, sys.executable, arguments, env=ENVIRONMENT)
        except BaseException:
            self._rest()
            raise

    def ask(self, scope: bytes, expressions: bytes) -> Deferred[bytes]:
        """Send one request to a worker that is ready and idle. Fails with: Ended."""
        assert self._asked is None
        asked: Deferred[bytes] = Deferred()
        self._asked = asked
        self._requests += 1
        # A process beyond its bounds ends itself; this is for one that can't even do that.
        self._timer = self._reactor.callLater(self._limits.wall_s, self._late)
        assert self.transport is not None
        for part in (scope, expressions):
            self.transport.writeSequence([struct.pack("!I", len(part)), part])
        return asked

    def kill(self) -> None:
        """End the process at once."""
        assert self.transport is not None
        try:
            self.transport.signalProcess("KILL")
        except ProcessExitedAlready:
            pass

    def outReceived(self, data: bytes) -> None:  # noqa: N802
        """Take octets of an answer."""
        self._buffer += data
        if len(self._buffer) > MAX_ANSWER:
            self.kill()
            return
        end = 4 + struct.unpack("!I", self._buffer[:4])[0] if len(self._buffer) >= 4 else 4
        if len(self._buffer) < 4 or len(self._buffer) < end:
            return
        answer = bytes(self._buffer[4:end])
        self._buffer.clear()
        self._answered(answer)

    def _answered(self, answer: bytes) -> None:
        self._rest()
        asked, self._asked = self._asked, None
        self.is_started = True
        if self.is_worn:
            self.kill()
        else:
            self._ready(self)
        if asked is not None:
            asked.callback(answer)

    def errReceived(self, data: bytes) -> None:  # noqa: N802
        """Keep the beginning of what the process complains about, for the log."""
        self._complaint = (self._complaint + data)[:MAX_COMPLAINT]

    def processEnded(self, reason: Failure) -> None:  # noqa: N802
        """Tell who waits."""
        self._rest()
        if self._complaint:
            text = self._complaint.decode("utf-8", "replace")
            log.warn("a JavaScript process ended: {text}", text=text)
        self._give_up(is_late=getattr(reason.value, "signal", None) in TIMERS)
        self._ended(self)
        self.gone.callback(None)

    def _late(self) -> None:
        self.kill()
        self._give_up(is_late=True)

    def _give_up(self, *, is_late: bool) -> None:
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.errback(Ended(is_late))

    def _rest(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None


def _engine() -> str:
    """The folder that the engine's package lies in, found without importing it."""
    found = find_spec("quickjs")
    if found is None or found.origin is None:
        raise FileNotFoundError("quickjs is not installed")
    return str(Path(found.origin).parent.parent)
