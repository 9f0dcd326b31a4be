"""The client's side of a connection: octets out, replies in, one wait at a time.

A wait ends with what was asked for or with `broken`, which says in words what went wrong; it
never raises for what the peer does. All time comes from one timer that is moved, not made,
for each wait: a message over a reused connection costs no timer of its own.

RFC 5321 §4.5.3.2; RFC 3207 §4.2.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.interfaces import IHandshakeListener, IPushProducer
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from mailtwist.queue.client_replies import Reply, ReplyParser, one_line
from mailtwist.queue.values import RemoteReply

# How long the last octets may take to leave.
LINGER_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. Those of the peer are the least that RFC 5321 §4.5.3.2 allows."""

    connect: float = 30.0
    greeting: float = 300.0
    command: float = 300.0  # EHLO, AUTH, MAIL, RCPT; 120 would do for DATA
    tls: float = 60.0  # a handshake
    block: float = 180.0  # the peer takes nothing of the content
    end: float = 600.0  # after the content
    quit: float = 5.0
    # All in all, however often the peer says an octet: up to the end of AUTH, and a message
    # besides its content, which is given more by its size.
    opening: float = 900.0
    message: float = 1800.0
    slowest: float = 2048.0  # octets of content a second


@implementer(IHandshakeListener, IPushProducer)
class Link(Protocol):
    """One connection, from the moment it is tried. ``clock``: seconds() and callLater."""

    transport: Any

    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self.broken: RemoteReply | None = None  # why it ended; the stage is the caller's
        self.is_tls = False
        self.limit = 0.0  # seconds() of the clock; no wait goes on after it
        self._parser = ReplyParser()
        self._received: list[Reply] = []
        self._owed = 0  # replies that the peer has yet to give
        self._wanted = 1  # replies that end the wait
        self._waiting: Deferred[None] | None = None
        self._timer: Any = None
        self._timeout_s = 0.0  # of the wait
        self._clogged = False
        self._ending = False
        self.when_broken: Callable[[], None] | None = None

    # -- waits -------------------------------------------------------------------------------

    def send(self, data: bytes, owed: int) -> None:
        """Write octets that earn so many replies."""
        if self.broken is None:
            self._owed += owed
            self.transport.write(data)

    def stream(self, block: bytes, owed: int) -> None:
        """Write a block of content; `drained` before the next, so that others have their turn."""
        if self.broken is None:
            self._owed += owed
            # Never sent at once, as `send` may: a fast peer would keep us in one turn to the end.
            self.transport.writeSequence((block,))

    async def replies(self, count: int, timeout_s: float) -> list[Reply]:
        """The next replies, each within the time-out; fewer when the connection broke."""
        self._wanted = count
        received = self._received
        while len(received) < count and self.broken is None:
            await self._wait(timeout_s)
        replies = received[:count]
        del received[:count]
        return replies

    async def ask(self, command: bytes, timeout_s: float) -> Reply | None:
        """Send one command; its reply, None when the connection broke."""
        self.send(command, 1)
        replies = await self.replies(1, timeout_s)
        return replies[0] if replies else None

    async def drained(self, timeout_s: float) -> bool:
        """Wait until the peer took what was written; False: it broke or replied meanwhile."""
        self._wanted = 1
        while self._clogged and self.broken is None and not self._received:
            await self._wait(timeout_s)
        return self.broken is None and not self._received

    async def established(self, timeout_s: float) -> bool:
        while self.transport is None and self.broken is None:
            await self._wait(timeout_s)
        return self.broken is None

    async def gone(self, timeout_s: float) -> None:
        """Wait for the peer to end the connection; after the time-out it is broken off."""
        while self.broken is None:
            await self._wait(timeout_s)

    async def start_tls(self, creator: object, timeout_s: float) -> bool:
        """Whether the handshake succeeded; nothing that came in the clear is left."""
        # RFC 3207 §4.2: a reply put behind the 220 would count as said under TLS.
        if self._received or not self._parser.is_empty:
            self.end("octets behind the reply to STARTTLS", status="4.5.0")
        if self.broken is not None:
            return False
        self.transport.startTLS(creator)
        while not self.is_tls and self.broken is None:
            await self._wait(timeout_s)
        return self.broken is None

    async def _wait(self, timeout_s: float) -> None:
        self._arm(timeout_s)
        waiting: Deferred[None] = Deferred(self._cancelled)
        self._waiting = waiting
        await waiting

    def _arm(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        if self.limit:
            timeout_s = max(0.0, min(timeout_s, self.limit - self.clock.seconds()))
        if self._timer is None:
            self._timer = self.clock.callLater(timeout_s, self._timed_out)
        else:
            self._timer.reset(timeout_s)

    def _timed_out(self) -> None:
        self._timer = None
        if self._ending:
            self.transport.abortConnection()
        # Else a timer that was left behind by a wait that is over; it means nothing.
        elif self._waiting is not None:
            self.end("timed out")

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def _cancelled(self, _waiting: Deferred[None]) -> None:
        """Whoever waited is told to stop: what the peer does from here on is unknown."""
        self._waiting = None
        self.end("given up")

    # -- the end -----------------------------------------------------------------------------

    def end(self, text: str, *, code: int = 451, status: str = "4.4.2") -> None:
        """Break the connection for a reason of ours."""
        self._break(RemoteReply(code, status, text, "", is_ours=True))

    def _break(self, reason: RemoteReply) -> None:
        is_news = self.broken is None
        if is_news:
            self.broken = reason
        if self.transport is not None and not self._ending:
            self._ending = True
            self.transport.abortConnection()
        self._wake()
        if is_news and self.when_broken is not None:
            self.when_broken()

    def leave(self) -> None:
        """Say QUIT and wait for nothing."""
        self.send(b"QUIT\r\n", 1)
        self.close()

    def close(self) -> None:
        """End the connection when all is written."""
        if self._ending:
            return
        self._ending = True
        self.broken = RemoteReply(451, "4.4.2", "closed", "", is_ours=True)
        # A TLS peer may never say goodbye.
        self.limit = 0.0
        self._arm(LINGER_S)
        # A TLS transport ends only when no producer is registered with it.
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    # -- twisted.internet --------------------------------------------------------------------

    @override
    def connectionMade(self) -> None:
        transport = self.transport
        if self.broken is not None:
            self.end("")
            return
        with contextlib.suppress(AttributeError, OSError):
            transport.setTcpNoDelay(True)
            transport.setTcpKeepAlive(True)
        transport.registerProducer(self, True)
        # The greeting is owed without a word from us.
        self._owed = 1
        self._wake()

    @override
    def dataReceived(self, data: bytes) -> None:
        if self._ending:
            return
        parser, received = self._parser, self._received
        for reply in parser.feed(data):
            if not self._owed:
                self._unasked(reply)
                return
            self._owed -= 1
            received.append(reply)
            # RFC 5321 §3.8: with 421 the connection ends, whatever else is owed.
            if reply.code == 421:
                self._leave(reply)
                return
        if parser.problem:
            self.end(f"protocol error: {parser.problem}", status="4.5.0")
        elif self._waiting is not None and received:
            if len(received) >= self._wanted:
                self._wake()
            else:
                # Each reply of a group has its own time.
                self._arm(self._timeout_s)

    def _unasked(self, reply: Reply) -> None:
        # RFC 5321 §3.8: 421 may come at any time.
        if reply.code == 421:
            self._leave(reply)
        else:
            self.end("protocol error: a reply that nothing asked for", status="4.5.0")

    def _leave(self, reply: Reply) -> None:
        self._break(reply.said(""))

    def handshakeCompleted(self) -> None:  # noqa: N802
        self.is_tls = True
        self._wake()

    @override
    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._ending = True
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        if self.broken is None:
            self.end(f"connection lost: {in_words(reason)}")
        else:
            self._wake()

    def failed(self, reason: Failure) -> None:
        """The connection could not be made."""
        if self.broken is None:
            self.end(in_words(reason), status="4.4.1")
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def pauseProducing(self) -> None:  # noqa: N802
        self._clogged = True

    def resumeProducing(self) -> None:  # noqa: N802
        self._clogged = False
        # Whoever waits for something else looks and waits on.
        self._wake()

    def stopProducing(self) -> None:  # noqa: N802
        """The transport ends; `connectionLost` follows."""


def in_words(reason: Failure) -> str:
    """What ended a connection, or kept it from being."""
    error: Any = reason.value
    if isinstance(error, ConnectionDone):
        return "the other side closed it"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ConnectionLost):
        return "it was broken off"
    number = getattr(error, "osError", None)
    if isinstance(number, int):
        return os.strerror(number).lower()
    if error.args and isinstance(error.args[0], list) and error.args[0]:
        # OpenSSL's: (library, function, reason), the cause last.
        return one_line(str(error.args[0][-1][-1]))
    return one_line(str(error) or type(error).__name__)
