"""The SMTP client against sinks: what the tests of it have in common."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import Any, TypeVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mailtwist.queue.smtp_client import ClientSession, Connector
from mailtwist.queue.values import (
    Host,
    Login,
    Outgoing,
    OutgoingRecipient,
    Tls,
    TlsPolicy,
    Undeliverable,
)
from tests.support.sink import PATIENCE_S, Sink

T = TypeVar("T")

LETTER = b"Subject: greetings\r\n\r\nHello.\r\n.dot\r\n"


def mail(
    *recipients: str | OutgoingRecipient,
    data: bytes = LETTER,
    blocks: Iterable[bytes] | None = None,
    octets: int | None = None,
    reverse_path: str = "alice@example.com",
    **given: Any,
) -> Outgoing:
    """A message; ``blocks`` are the pieces of its content where that matters."""
    pieces = [data] if blocks is None else list(blocks)

    async def read() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    return Outgoing(
        reverse_path,
        tuple(
            OutgoingRecipient(found) if isinstance(found, str) else found
            for found in recipients or ("bob@example.net",)
        ),
        sum(map(len, pieces)) if octets is None else octets,
        read,
        **given,
    )


class ClientCase(TestCase):
    """Connections and TLS are real; the client's time is a Clock's, and stands still."""

    timeout = 60

    def setUp(self) -> Any:
        self.clock = Clock()
        self.connector: Any = Connector(reactor, clock=self.clock)
        self.sessions: list[ClientSession] = []
        # Cleaned up last: the transports are gone by then.
        self.addCleanup(self.turns)

    def sink(self, **given: Any) -> Sink:
        sink = Sink(**given)
        self.addCleanup(deferToThread, sink.stop)
        return sink

    async def turns(self, count: int = 5) -> None:
        """Let the reactor do what it has at hand."""
        for _ in range(count):
            await deferLater(reactor, 0)

    async def connect(
        self,
        sink: Sink | Host,
        level: Tls = Tls.OPPORTUNISTIC,
        *,
        name: str = "mx.example.net",
        login: Login | None = None,
        hostname: str = "mail.example.com",
        **policy: Any,
    ) -> ClientSession:
        session: ClientSession = await self.connector.connect(
            sink if isinstance(sink, Host) else Host(name, sink.host, sink.port),
            hostname=hostname,
            policy=TlsPolicy(level, **policy),
            login=login,
            is_lmtp=isinstance(sink, Sink) and sink.is_lmtp,
        )
        self.sessions.append(session)
        self.addCleanup(session.abort)
        return session

    def held(self, session: Any) -> ClientSession:
        """The session itself, where another one stands for it."""
        return session

    async def refused(self, sink: Sink, *args: Any, **given: Any) -> Undeliverable:
        """Why no session could be had."""
        try:
            await self.connect(sink, *args, **given)
        except Undeliverable as error:
            return error
        raise AssertionError("a session was made")

    async def until(self, condition: Callable[[], object]) -> None:
        """Let real time pass until this holds."""
        for _ in range(int(PATIENCE_S / 0.002)):
            if condition():
                break
            await deferLater(reactor, 0.002)
        else:
            raise AssertionError("it never came to that")
        await self.turns()

    async def gone(self, sink: Sink) -> None:
        """Until the sink, too, has seen the end of all connections."""
        await self.until(lambda: not any(visit.is_open for visit in sink.visits))

    async def hanging(self, sink: Sink) -> None:
        await self.until(lambda: sink.is_hanging)

    async def after(self, seconds: float, sink: Sink, work: Coroutine[Any, Any, T]) -> T:
        """What this comes to when the sink hangs and so much time passes, not a second less."""
        result: Deferred[T] = Deferred.fromCoroutine(work)
        await self.hanging(sink)
        self.clock.advance(seconds - 1)
        await self.turns()
        assert not result.called, "it gave up too early"
        self.clock.advance(1)
        return await result
