"""The engine between a transport and a session: one unit of input at a time.

A *machine* cuts the octets that arrive into units (a command, a block of a
message, a violation of a bound). The pump runs a coroutine for each unit,
strictly one after the other, and

- writes what a chunk of input caused in one go (RFC 2920 §3.2; no small
  packets that wait for each other);
- stops reading while more than 64 KiB wait behind a running command, and
  stops running commands while the peer does not read our answers;
- makes no Deferred and no reactor call for a command that ends at once.

Replies are held until the units at hand are done, or 64 KiB are collected.
A command that waits for an outside event (IDLE) calls `flush` first; one
that writes much awaits `drained` between its blocks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

T = TypeVar("T")

# Octets that may wait behind a running command; one read of the reactor.
HIGH_WATER = 64 * 1024
# Collected replies beyond this leave before the group is complete.
WRITE_SIZE = 64 * 1024
# Units of one session in one turn of the reactor; then the other sessions have theirs.
TURN = 500


class Machine(Protocol):
    """Cuts octets into units, under bounds of its own."""

    @property
    def buffered(self) -> int:
        """Octets fed and not yet handed out."""

    def feed(self, data: bytes) -> None: ...

    def next(self) -> Any | None:
        """The next whole unit; None: more octets are needed. Violations are units too."""

    def clear(self) -> None:
        """Forget all octets not yet handed out (STARTTLS)."""


@implementer(IPushProducer)
class Pump:
    """Feeds a machine from a transport and runs its units one at a time.

    `run` makes the coroutine of one unit. What a coroutine raises goes to
    `on_error`, which answers the peer; the session then goes on. After a lost
    connection the waiting coroutine sees `CancelledError`. `later` calls a
    function in a later turn of the reactor; without it a turn has no bound.
    """

    def __init__(
        self,
        machine: Machine,
        run: Callable[[Any], Coroutine[Any, Any, Any]],
        *,
        on_error: Callable[[Failure], None],
        later: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        self.closing = False  # nothing more is read; the transport ends when it is empty
        self.clogged = False  # the transport's buffer is full: the peer reads slowly
        self.lost = False
        self.transport: Any = None
        self.context: Context = copy_context()
        self._machine = machine
        self._run = run
        self._on_error = on_error
        self._later = later
        self._yielding = False
        self._coroutine: Coroutine[Any, Any, Any] | None = None
        self._waiting: Deferred[Any] | None = None
        self._failure: Failure | None = None  # what the coroutine waited for came to
        self._advancing = False
        self._cancelled = False
        self._held = False  # what runs goes on to its end, whatever becomes of the peer
        self._reading = True
        self._registered = False
        self._out: list[bytes] = []
        self._out_octets = 0
        self._drained: list[Deferred[None]] = []

    def connect(self, transport: Any) -> None:
        """Take over a connected transport."""
        self.transport = transport
        # The replies of a group leave in one write: to wait for more gains nothing and costs 40 ms.
        with contextlib.suppress(AttributeError, OSError):
            transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)
        self._registered = True

    @property
    def busy(self) -> bool:
        """Whether a unit is running."""
        return self._coroutine is not None

    # -- input ------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self.closing or self.lost:
            return
        self._machine.feed(data)
        self._advance()

    def kick(self) -> None:
        """Look again for units and let the replies out, after an event that was no input."""
        self._advance()

    def _advance(self) -> None:
        """Run units until one has to wait, the input is used up, or the peer does not read."""
        if self._advancing:
            return
        self._advancing = True
        units = 0
        try:
            while self._waiting is None:
                if self._coroutine is None:
                    if self.clogged or self.closing or self._yielding:
                        break
                    unit = self._machine.next()
                    if unit is None:
                        break
                    units += 1
                    if units == TURN and self._later is not None:
                        self._yielding = True
                        self._later(self._next_turn)
                    self._coroutine = self._run(unit)
                self._resume(self._coroutine)
        finally:
            self._advancing = False
        self._settle()

    def _next_turn(self) -> None:
        self._yielding = False
        self._advance()

    def _resume(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run the coroutine to its next wait, or to its end."""
        failure, self._failure = self._failure, None
        try:
            if failure is None:
                waiting = self.context.run(coroutine.send, None)
            else:
                waiting = self.context.run(failure.throwExceptionIntoGenerator, coroutine)
        except StopIteration:
            self._coroutine = None
        except Exception as error:
            self._coroutine = None
            if not (self.lost and isinstance(error, CancelledError)):
                self.context.run(self._on_error, Failure())
        else:
            self._waiting = waiting
            waiting.addBoth(self._fired)
            if self.lost:
                self._cancel()

    def _fired(self, result: Any) -> Any:
        """What the coroutine waits for has come.

        It reads a result from the Deferred itself; a failure is thrown into it.
        """
        self._waiting = None
        if isinstance(result, Failure):
            self._failure = result
            result = None
        if self._advancing:
            return result  # the loop that called us goes on with the coroutine
        self._advance()
        return None

    def _settle(self) -> None:
        """After a round: let the replies out, stop or start reading, close when told to."""
        if self._coroutine is None:
            self.flush()
            if self.closing:
                self._end()
                return
        self._balance()

    def _balance(self) -> None:
        """Read only while there is room.

        A clogged transport alone is no reason to stop: TLS may be unable to write
        because its handshake has to read first.
        """
        if self.lost or self.closing:
            return
        stuck = self.clogged or self._yielding or self._coroutine is not None
        wanted = not (stuck and self._machine.buffered > HIGH_WATER)
        if wanted != self._reading:
            self._reading = wanted
            if wanted:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    # -- output -----------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Collect octets for the peer."""
        self._out.append(data)
        self._out_octets += len(data)
        if self._out_octets >= WRITE_SIZE:
            self.flush()

    def flush(self) -> None:
        """Hand what is collected to the transport now."""
        if not self._out:
            return
        data = b"".join(self._out)
        self._out.clear()
        self._out_octets = 0
        if not self.lost:
            self.transport.write(data)

    async def drained(self) -> None:
        """Let the replies out and wait until the transport takes more.

        Raises: ConnectionDone (or what ended it) when the connection is lost meanwhile.
        """
        self.flush()
        if self.lost:
            raise ConnectionDone()
        if self.clogged:
            waiting: Deferred[None] = Deferred()
            self._drained.append(waiting)
            await waiting

    # -- IPushProducer: the transport tells how fast the peer reads ----------------------------

    def pauseProducing(self) -> None:  # noqa: N802
        self.clogged = True
        if not self._advancing:
            self._balance()

    def resumeProducing(self) -> None:  # noqa: N802
        self.clogged = False
        waiting, self._drained = self._drained, []
        for deferred in waiting:
            deferred.callback(None)
        self._advance()

    def stopProducing(self) -> None:  # noqa: N802
        """The transport ends; `connection_lost` follows."""

    # -- the end ----------------------------------------------------------------------------

    def close(self) -> None:
        """Read nothing more; let the replies out, then end the connection."""
        if self.closing:
            return
        self.closing = True
        if not self._advancing:
            self.flush()
            self._end()

    def abort(self) -> None:
        """End the connection at once, whatever has not left yet."""
        self.closing = True
        if not self.lost:
            self.transport.abortConnection()

    def _end(self) -> None:
        if self.lost or not self._registered:
            return
        # A TLS transport ends only when no producer is registered with it.
        self._registered = False
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def connection_lost(self, reason: Failure) -> None:
        """Forget all that waits; the running coroutine sees `CancelledError`."""
        self.lost = self.closing = True
        self._registered = False
        self._out.clear()
        self._machine.clear()
        running = self._waiting
        waiting, self._drained = self._drained, []
        for deferred in waiting:
            deferred.errback(reason)
        if self._waiting is running:
            self._cancel()

    def _cancel(self) -> None:
        """Tell the coroutine, once, that there is no peer left; its clean-up may wait in peace."""
        if self._waiting is not None and not self._cancelled and not self._held:
            self._cancelled = True
            self._waiting.cancel()

    async def to_its_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Await, in a unit, work that goes on to its end even when the connection is lost.

        What `shielded` does, for what comes too often to make Deferreds for it.
        Raises: CancelledError for whatever came of it when the connection was lost meanwhile.
        """
        self._held = True
        try:
            result = await work
        except Exception:
            self._let_go()
            raise
        self._let_go()
        return result

    def _let_go(self) -> None:
        self._held = False
        if self.lost and not self._cancelled:
            self._cancelled = True
            raise CancelledError()


async def shielded(work: Coroutine[Any, Any, T]) -> T:
    """Await work that goes on to its end even when the connection that awaits it is lost.

    For what must not stop half-way (counting a bad login, logging an accepted message).
    """
    running: Deferred[T] = Deferred.fromCoroutine(work)
    if running.called and not running.paused:
        return await running
    outcome: Deferred[T] = Deferred()

    def pass_on(result: T | Failure) -> None:
        # Nobody hears it after a cancellation: the Deferred then drops its late result.
        outcome.callback(result)

    running.addBoth(pass_on)
    return await outcome
