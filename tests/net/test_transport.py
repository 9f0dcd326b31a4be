"""The prompt transport, over real sockets: every octet arrives, in order."""

from __future__ import annotations

import hashlib
import socket
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from mailtwist.net.transport import PromptServer, make_prompt

WHOLE = hashlib.sha256(b"seed").digest() * 200_000


class Sender(Protocol):
    """Sends 6 MB in writes of many sizes, a small one first, then closes."""

    lost: Deferred[None]
    kind: type = object

    def connectionMade(self) -> None:
        transport: Any = self.transport
        type(self).kind = type(transport)
        at, size = 0, 1
        while at < len(WHOLE):
            transport.write(WHOLE[at : at + size])
            at += size
            size = min(size * 2, 1 << 20)
        transport.loseConnection()

    def connectionLost(self, reason: Failure = Failure(ValueError())) -> None:  # noqa: B008
        self.lost.callback(None)


class PromptTransport(TestCase):
    timeout = 30

    def serve(self) -> int:
        Sender.lost = Deferred()
        factory: Any = Factory.forProtocol(Sender)
        port: Any = reactor.listenTCP(0, factory, interface="127.0.0.1")
        port.factory.noisy = False
        make_prompt(port)
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    async def test_every_octet_arrives_in_order(self) -> None:
        number = self.serve()

        def read() -> bytes:
            with socket.create_connection(("127.0.0.1", number), timeout=20) as client:
                return b"".join(iter(lambda: client.recv(1 << 16), b""))

        received = await deferToThread(read)
        await Sender.lost
        assert Sender.kind is PromptServer
        assert received == WHOLE

    async def test_a_peer_that_is_gone_ends_the_connection(self) -> None:
        number = self.serve()

        def vanish() -> None:
            with socket.create_connection(("127.0.0.1", number), timeout=20) as client:
                client.recv(1)

        await deferToThread(vanish)
        await Sender.lost
