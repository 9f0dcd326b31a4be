"""One connection to a Redis: commands go out at once, answers come in their order.

The library asks for the reactor when it is imported: import this where one runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory
from twisted.internet.ssl import optionsForClientTLS
from twisted.python.failure import Failure
from txredisapi import BaseRedisProtocol, ResponseError
from typing_extensions import override

from mailtwist.config.redis import RedisServer
from mailtwist.errors import ProtocolViolation
from mailtwist.net.redis_replies import ErrorReply, Replies, Reply
from mailtwist.net.redis_windows import SCRIPT, SCRIPT_NAME, Taken, Window, taken

_UNASKED = "an answer to no question"
_OTHER = "an answer to another question"


class Connection(BaseRedisProtocol):  # type: ignore[misc]
    """``lost``: called once, with why, when it was open and is no more.

    What is asked fails with a RedisError or ProtocolViolation.
    """

    def __init__(self, lost: Callable[[Connection, str], None]) -> None:
        super().__init__()
        self._lost: Callable[[Connection, str], None] | None = lost
        self._replies = Replies()
        self._breach = ""

    async def open(self, server: RedisServer, reactor: Any) -> None:
        """Connect and log in."""
        factory = Factory.forProtocol(lambda: self)
        factory.noisy = False
        await _endpoint(server, reactor).connect(factory)
        if server.password:
            name = [server.username.encode()] if server.username else []
            await self._ask(b"AUTH", *name, server.password.encode())
        if server.database:
            await self._ask(b"SELECT", server.database)

    def abort(self) -> None:
        """Close it now; whoever waits for an answer hears of it."""
        if self.connected:
            self.transport.abortConnection()

    # -- what it is asked ---------------------------------------------------------------------

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        said = await self._ask(b"MGET", *keys)
        if not isinstance(said, list) or len(said) != len(keys):
            raise ProtocolViolation(_OTHER)
        return [each if isinstance(each, bytes) else None for each in said]

    async def set(self, items: Sequence[tuple[bytes, bytes, int]]) -> None:
        asked = [self._ask(b"SET", key, value, b"PX", lasts) for key, value, lasts in items]
        if any(said != b"OK" for said in await gatherResults(asked, consumeErrors=True)):
            raise ProtocolViolation(_OTHER)

    async def take(self, keys: Sequence[bytes], windows: Sequence[Window]) -> Taken:
        given: list[bytes | int] = [len(keys), *keys]
        for each in windows:
            given += (each.limit, each.lasts_ms)
        return taken(await self._run(given), windows)

    async def _run(self, given: Sequence[bytes | int]) -> Reply:
        """Run the script by its name; a server that has started anew is given it first."""
        try:
            return await self._ask(b"EVALSHA", SCRIPT_NAME, *given)
        except ResponseError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
        return await self._ask(b"EVAL", SCRIPT, *given)

    def _ask(self, *command: bytes | int) -> Deferred[Reply]:
        asking: Deferred[Reply] = self.execute_command(*command)
        return asking

    # -- the wire -----------------------------------------------------------------------------

    @override
    def connectionMade(self) -> None:
        # A pair of sockets in one machine has no such thing.
        keep_alive = getattr(self.transport, "setTcpKeepAlive", None)
        if keep_alive is not None:
            keep_alive(True)
        super().connectionMade()

    @override
    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        if self._breach:
            return
        try:
            for reply in self._replies.feed(data):
                self._answer(reply)
        except ProtocolViolation as breach:
            self._breach = breach.text
            self.abort()

    def _answer(self, reply: Reply) -> None:
        if not self.replyQueue.waiting:
            raise ProtocolViolation(_UNASKED)
        self.replyReceived(ResponseError(reply.text) if isinstance(reply, ErrorReply) else reply)

    @override
    def connectionLost(self, why: Failure) -> None:
        super().connectionLost(why)
        lost, self._lost = self._lost, None
        if lost is not None:
            lost(self, self._breach or why.getErrorMessage())


def _endpoint(server: RedisServer, reactor: Any) -> Any:
    if server.path:
        return UNIXClientEndpoint(reactor, server.path)
    endpoint = HostnameEndpoint(reactor, server.host, server.port)
    return wrapClientTLS(optionsForClientTLS(server.host), endpoint) if server.is_tls else endpoint
