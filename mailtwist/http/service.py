"""HTTP/1.1 under bounds: of a request's size, of the time it may take, of connections.

The stock channel bounds the header's size but restarts its idle timer at each octet, and takes
a body of any size; both are mended here. A client that does not read its answers is asked
nothing more, for the transport is full, and is cut off when the idle timer ends. No answer
names the software.

Standards: RFC 9112; RFC 9110 §15.5.9 (408), §15.5.14 (413).
"""

# mypy: disable-error-code="no-untyped-call"
# (the methods of twisted.web that are overridden here have no annotations)

from __future__ import annotations

from io import BytesIO
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.server import Request, Site
from typing_extensions import override

from mailtwist.errors import MailError, ProtocolViolation
from mailtwist.http.exchange import Answer, phrase, refusal
from mailtwist.http.front import ALWAYS, Facts, Front
from mailtwist.http.redirect import Redirect
from mailtwist.net.counters import Connections

HEADER_S: Final = 20.0
BODY_S: Final = 60.0
KEEP_ALIVE_S: Final = 60.0
MAX_BODY: Final = 1 << 20
# What is still on its way behind a body that is too large.
LINGER_S: Final = 3.0
LINGER_OCTETS: Final = 16 << 20


class TooLarge(MailError):
    http_status = 413
    default_text = f"The body has more than {MAX_BODY} octets"


class AddressTooLong(MailError):
    http_status = 414
    default_text = "The address of the request is too long"


class HeaderTooLarge(MailError):
    http_status = 431
    default_text = "A field of the header is too long"


class TooSlow(MailError):
    http_status = 408
    default_text = "The request took too long to come in"


class TooFull(MailError):
    http_status = 503
    default_text = "Too many connections"


class BoundedRequest(Request):
    """A request whose body stays octets until a route reads it."""

    facts: Facts | None = None

    def __init__(self, channel: Any, *arguments: Any) -> None:
        # The stock parser of forms reads a body of any type by what it says that it is.
        super().__init__(channel, *arguments, parsePOSTFormSubmission=False)

    @override
    def gotLength(self, length: int | None) -> None:
        # The stock class opens a file for a larger body. Ours fits into memory.
        self.content = BytesIO()

    @override
    def setHeader(self, name: bytes, value: bytes) -> None:
        if name.lower() != b"server":
            super().setHeader(name, value)


class BoundedChannel(HTTPChannel):
    """A connection whose requests must arrive whole within a deadline and a size."""

    requestFactory: Any = BoundedRequest  # noqa: N815
    transport: Any
    factory: BoundedSite

    def __init__(self) -> None:
        super().__init__()
        self._deadline: IDelayedCall | None = None
        self._in_body = False
        self._body_octets = 0
        self._refused = False
        self._lingers = 0  # octets that are read for nothing
        self._host = ""

    @override
    def connectionMade(self) -> None:
        self._host = str(getattr(self.transport.getPeer(), "host", ""))
        if not self.factory.enter(self):
            self._answer_and_close(TooFull())
            return
        super().connectionMade()

    @override
    def dataReceived(self, data: bytes) -> None:
        if self._refused:
            self._pass_over(len(data))
            return
        if self._deadline is None and not self._handlingRequest:
            self._set_deadline(HEADER_S)
        super().dataReceived(data)

    @override
    def allHeadersReceived(self) -> None:
        self._set_deadline(BODY_S)
        self._in_body, self._body_octets = True, 0
        if not self._names_host():
            error = ProtocolViolation("The request needs one Host field")
            self._answer_and_close(error, lingers=self.length != 0)
            return
        if self.length is not None and self.length > MAX_BODY:
            self._answer_and_close(TooLarge(), lingers=True)
            return
        super().allHeadersReceived()

    def _names_host(self) -> bool:
        """Whether there is one Host field: of two a proxy may take the other. RFC 9112 §3.2"""
        fields = self.requests[-1].requestHeaders.getRawHeaders(b"host", [])
        return len(fields) == 1 or (not fields and self._version == b"HTTP/1.0")

    @override
    def rawDataReceived(self, data: bytes) -> None:
        if self._refused:
            return
        if self._in_body:
            self._body_octets += len(data)
            # Chunked framing counts too: chunks of one octet are no reason to take more.
            if self.length is None and self._body_octets > MAX_BODY:
                self._answer_and_close(TooLarge(), lingers=True)
                return
        super().rawDataReceived(data)

    @override
    def allContentReceived(self) -> None:
        self._in_body = False
        self._set_deadline(None)
        if not self._refused:
            super().allContentReceived()

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._set_deadline(None)
        self.factory.leave(self)
        super().connectionLost(reason)

    @override
    def checkPersistence(self, request: Any, version: bytes) -> bool:
        if self.factory.retiring:
            # RFC 9112 §9.6: the client then knows that it must come anew.
            request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
            return False
        return bool(super().checkPersistence(request, version))

    def close_when_idle(self) -> None:
        """End now, or after the answer to the request that is at hand or on its way."""
        self.close_behind_answer()
        if self._in_body:
            self.persistent = 0
        elif not self._handlingRequest and self._deadline is None:
            self.transport.loseConnection()

    def close_behind_answer(self) -> None:
        """End after the answer to the request at hand, which says so unless it has begun."""
        if self._handlingRequest:
            self.persistent = 0
            request = self.requests[0]
            if not request.startedWriting:
                request.responseHeaders.setRawHeaders(b"Connection", [b"close"])

    def _set_deadline(self, seconds: float | None) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.callLater(seconds, self._too_late)

    def _too_late(self) -> None:
        self._deadline = None
        self._answer_and_close(TooSlow())

    @override
    def lineLengthExceeded(self, line: bytes) -> None:
        # The stock channel hangs up without a word. RFC 9110 §15.5.15; RFC 6585 §5
        self._answer_and_close(HeaderTooLarge() if self.requests else AddressTooLong())

    def _respondToBadRequestAndDisconnect(self) -> None:  # noqa: N802
        # The stock channel's answer to what is no HTTP has no body.
        self._answer_and_close(ProtocolViolation("This is no HTTP request"))

    def _answer_and_close(self, error: MailError, *, lingers: bool = False) -> None:
        """Answer what is no request yet, and take no more.

        ``lingers``: the client is sending still, and reads only then.
        """
        self._refused = True
        self._set_deadline(None)
        # There is no path before the first line was read.
        target: bytes = getattr(self, "_path", b"")
        answer = self.factory.refused(target, error)
        always = "".join(f"{name}: {value}\r\n" for name, value in ALWAYS)
        head = (
            f"HTTP/1.1 {answer.status} {phrase(answer.status)}\r\nConnection: close\r\n{always}"
            f"Content-Type: {answer.content_type}\r\nContent-Length: {len(answer.body)}\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + answer.body)
        if lingers:
            # RFC 9112 §9.6: a close at once resets the connection, and with it our answer is lost.
            self._lingers = LINGER_OCTETS
            self._deadline = self.callLater(LINGER_S, self._end)
        else:
            self.transport.loseConnection()

    def _pass_over(self, octets: int) -> None:
        if self._lingers:
            self._lingers = max(0, self._lingers - octets)
            if not self._lingers:
                self._set_deadline(None)
                self._end()

    def _end(self) -> None:
        self._deadline = None
        self.transport.loseConnection()


class BoundedSite(Site):
    """The factory of an HTTP listener; it knows its connections and can end them."""

    protocol = BoundedChannel  # type: ignore[assignment]
    noisy = False

    def __init__(
        self, front: Front | Redirect, *, reactor: Any, counters: Connections, clients: int
    ) -> None:
        super().__init__(
            front, requestFactory=BoundedRequest, timeout=KEEP_ALIVE_S, reactor=reactor
        )
        self.displayTracebacks = False
        self._front = front
        self.max_clients = clients
        self._counters = counters
        self._channels: dict[BoundedChannel, str] = {}
        self._stopping = False
        self.retiring = False  # whether connections end with their next answer
        self._empty: list[Deferred[None]] = []

    @property
    def is_busy(self) -> bool:
        """Whether a connection lives."""
        return bool(self._channels)

    def enter(self, channel: BoundedChannel) -> bool:
        """Count a connection in, unless there are too many."""
        host = channel._host
        full = self.max_clients and len(self._channels) >= self.max_clients
        if self._stopping or full or not self._counters.enter(host):
            return False
        self._channels[channel] = host
        return True

    def leave(self, channel: BoundedChannel) -> None:
        host = self._channels.pop(channel, None)
        if host is not None:
            self._counters.leave(host)
        if not self._channels:
            waiting, self._empty = self._empty, []
            for each in waiting:
                each.callback(None)

    def refused(self, target: bytes, error: MailError) -> Answer:
        """How an error looks at what a request line names."""
        if not isinstance(self._front, Front):
            return refusal(error)
        return self._front.refused(target.partition(b"?")[0].decode("utf-8", "replace"), error)

    def retire(self) -> None:
        """No connection comes any more: end each with its next answer, silent ones in time."""
        self.retiring = True
        for channel in self._channels:
            channel.close_behind_answer()

    async def drain(self, seconds: float) -> None:
        """Let requests at hand be answered, then end the connections; cut them off at last."""
        self._stopping = self.retiring = True
        for channel in list(self._channels):
            channel.close_when_idle()
        if not self._channels:
            return
        empty: Deferred[None] = Deferred()
        self._empty.append(empty)
        cut = self.reactor.callLater(seconds, self._cut_off)
        await empty
        if cut.active():
            cut.cancel()

    def _cut_off(self) -> None:
        for channel in list(self._channels):
            channel.transport.abortConnection()

    @override
    def log(self, request: Request) -> None:  # type: ignore[override]
        self._front.log(request)


def make_factory(
    front: Front | Redirect, *, reactor: Any, counters: Connections, max_clients: int = 0
) -> BoundedSite:
    """Make the factory of one HTTP listener. Those of a kind share one front."""
    return BoundedSite(front, reactor=reactor, counters=counters, clients=max_clients)
