"""A session with a host that the client process holds, as the queue sees it.

A number names it on the channel. Who is here has the last word on it: the process forgets a
number when it has told that the session ended in answer to something, or when it is told to.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mailtwist.errors import TemporaryFailure
from mailtwist.queue.client_content import SMALL
from mailtwist.queue.client_process import values
from mailtwist.queue.client_process.values import Words
from mailtwist.queue.values import Host, Outgoing, RemoteReply, Undeliverable

GIVEN_UP: Final = RemoteReply(451, "4.4.2", "given up while waiting", "mail", is_ours=True)


class ProcessEnded(TemporaryFailure):
    """The client process ended with a question open: what the host heard is not known."""


class Wire(Protocol):
    """The way to the process."""

    def send(self, words: Words, data: bytes = b"") -> None: ...
    def forget(self, number: int) -> None: ...


class ProxySession:
    """As ports.Session; `connect` it once, before anything else."""

    def __init__(self, wire: Wire, number: int, host: Host) -> None:
        self.host = host
        self.tls = ""
        self.is_verified = False
        self.capabilities: Mapping[str, str] = {}
        self.is_open = False
        self._wire = wire
        self._number = number
        self._waiting: Deferred[Any] | None = None
        self._lost = GIVEN_UP  # what a message is told once the session has ended
        self._mail: Outgoing | None = None
        self._blocks: AsyncIterator[bytes] | None = None

    # -- what the queue asks --------------------------------------------------------------------

    async def connect(self, wishes: Words) -> None:
        """Raises: Undeliverable, ProcessEnded."""
        await self._ask(["connect", self._number, *wishes])

    async def deliver(self, mail: Outgoing) -> tuple[RemoteReply, ...]:
        """As ClientSession; raises ProcessEnded too."""
        if not self.is_open:
            return (self._lost,) * len(mail.recipients)
        is_whole = mail.octets <= SMALL
        whole = b"".join([block async for block in mail.blocks()]) if is_whole else b""
        self._mail = mail
        try:
            words = ["mail", self._number, is_whole, *values.of_mail(mail)]
            replies: tuple[RemoteReply, ...] = await self._ask(words, whole)
        finally:
            self._mail = self._blocks = None
        return replies

    async def quit(self) -> None:
        if self.is_open:
            self.is_open = False
            # Where the process ends first, so does the session.
            with suppress(TemporaryFailure):
                await self._ask(["quit", self._number])

    def abort(self) -> None:
        if not self.is_open:
            return
        self.is_open = False
        if self._waiting is None:
            self._end()
        else:
            # Whoever waits is told what the host said up to here.
            self._wire.send(["abort", self._number])

    def _ask(self, words: Words, data: bytes = b"") -> Deferred[Any]:
        waiting: Deferred[Any] = Deferred(lambda _: self._end())
        self._waiting = waiting
        self._wire.send(words, data)
        return waiting

    def _end(self) -> None:
        """Nobody here wants it any more."""
        self._waiting = None
        self._wire.send(["end", self._number])
        self._over()

    def _over(self) -> None:
        self.is_open = False
        self._wire.forget(self._number)

    # -- what the process tells --------------------------------------------------------------------

    def received(self, verb: str, *words: Any) -> None:
        """Take a frame; ``words``: what follows the number."""
        _VERBS[verb](self, *words)

    def lost(self) -> None:
        """The process is gone."""
        self.is_open = False
        self._fail(ProcessEnded(detail="the client process ended"))

    def _connected(self, tls: str, is_verified: bool, capabilities: dict[str, str]) -> None:
        self.tls, self.is_verified, self.capabilities = tls, is_verified, capabilities
        self.is_open = True
        self._answer(None)

    def _failed(self, reply: Words, tls: str) -> None:
        self._over()
        self._fail(Undeliverable(values.to_reply(reply), host=self.host, tls=tls))

    def _replied(self, is_open: bool, replies: list[Words]) -> None:
        # After `abort` it is over, though the process may not have heard of that yet.
        if not is_open:
            self._over()
        self._answer(tuple(map(values.to_reply, replies)))

    def _closed(self, reply: Words) -> None:
        """It ended between two messages."""
        self._lost = values.to_reply(reply)
        if self._waiting is None:
            self._end()

    def _ended(self) -> None:
        self._over()
        self._answer(None)

    def _stumbled(self, text: str) -> None:
        self._over()
        self._fail(TemporaryFailure(detail=text))

    def _wanted(self, is_first: bool) -> None:
        """The next block of a content that did not fit into a frame; the first one, once more."""
        if self._mail is not None:
            if is_first or self._blocks is None:
                self._blocks = self._mail.blocks()
            Deferred.fromCoroutine(self._feed(self._blocks)).addErrback(self._unreadable)

    async def _feed(self, blocks: AsyncIterator[bytes]) -> None:
        try:
            block = await anext(blocks)
        except StopAsyncIteration:
            self._wire.send(["block", self._number, True])
        else:
            self._wire.send(["block", self._number, False], block)

    def _unreadable(self, failure: Failure) -> None:
        """The host must not take for an end what is none: the process breaks it off."""
        waiting = self._waiting
        self._end()
        if waiting is not None:
            waiting.errback(failure)

    def _answer(self, result: object) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(result)

    def _fail(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.errback(error)


_VERBS: Final[Mapping[str, Callable[..., None]]] = {
    "connected": ProxySession._connected,
    "failed": ProxySession._failed,
    "replies": ProxySession._replied,
    "more": ProxySession._wanted,
    "closed": ProxySession._closed,
    "ended": ProxySession._ended,
    "stumbled": ProxySession._stumbled,
}
