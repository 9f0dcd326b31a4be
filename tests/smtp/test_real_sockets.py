"""A real client over real sockets and real TLS."""

from __future__ import annotations

import shutil
import smtplib
import socket
import ssl
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import TestCase

from mailtwist.store.database import Inline
from mailtwist.store.engine import open_engine
from mailtwist.store.upgrade import upgrade
from mailtwist.tls.contexts import Certificates
from mailtwist.tls.selfsigned import make
from tests.support.smtp_server import Server


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class RealSockets(TestCase):
    """The Inline store works in the reactor's thread; the client has one of its own."""

    timeout = 30

    def setUp(self) -> None:
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        url = f"sqlite:///{Path(folder) / 'mailtwist.db'}"
        upgrade(url)
        self.database = Inline(open_engine(url))
        self.addCleanup(self.database.release)
        chain, key = make(["mail.example.com"], datetime.now(UTC))
        self.certificates = Certificates(chain, key)

    def serve(self, *given: str) -> tuple[Server, int]:
        server = Server(self.database, given, tls=self.certificates, clock=reactor)
        factory: Any = server.factory
        if "submissions" in given:
            factory = TLSMemoryBIOFactory(self.certificates.creator, False, factory)
        port: Any = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.addCleanup(lambda: Deferred.fromCoroutine(server.factory.drain(5)))
        return server, port.getHost().port

    @pytest.mark.mission("ELE-10", "DAP-092", "ELE-31")
    async def test_a_client_upgrades_logs_in_and_sends(self) -> None:
        server, port = self.serve("tls", "submission")

        def talk() -> None:
            with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
                client.starttls(context=trusting())
                client.login("alice@example.com", "secret")
                assert not client.has_extn("starttls")
                client.sendmail(
                    "alice@example.com", ["bob@example.com"], b"Subject: x\r\n\r\n.dot\r\n"
                )

        await deferToThread(talk)
        (message,) = server.stored("bob@example.com")
        assert b"with ESMTPSA" in message
        assert message.endswith(b"Subject: x\r\n\r\n.dot\r\n")

    @pytest.mark.mission("DAP-091")
    async def test_tls_may_begin_with_the_connection(self) -> None:
        server, port = self.serve("tls", "submissions")

        def talk() -> None:
            with smtplib.SMTP_SSL("127.0.0.1", port, timeout=20, context=trusting()) as client:
                client.login("alice@example.com", "secret")
                body = b"Subject: large\r\n\r\n" + b"x" * 78 + b"\r\n"
                client.sendmail("alice@example.com", ["bob@example.com"], body * 20_000)

        await deferToThread(talk)
        assert len(server.stored("bob@example.com")[0]) > 1_500_000

    @pytest.mark.mission("ELE-11")
    async def test_octets_behind_starttls_are_discarded(self) -> None:
        server, port = self.serve("tls")
        talk = injected(port)
        said = await deferToThread(talk)
        assert said == [b"250 mail.example.com Hello client", b"503 5.5.1 MAIL first"]
        assert server.stored("alice@example.com") == []


def injected(port: int) -> Callable[[], list[bytes]]:
    """A man in the middle adds a transaction behind STARTTLS; what is answered inside TLS."""

    def talk() -> list[bytes]:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:
            stream = plain.makefile("rb", buffering=0)
            assert stream.readline().startswith(b"220 ")
            plain.sendall(
                b"HELO x\r\nSTARTTLS\r\nMAIL FROM:<inj@ect.ed>\r\nRCPT TO:<alice@example.com>\r\n"
            )
            assert stream.readline().startswith(b"250 ")
            assert stream.readline().startswith(b"220 ")
            with trusting().wrap_socket(plain, server_hostname="mail.example.com") as secure:
                replies = secure.makefile("rb")
                secure.sendall(b"HELO client\r\nRCPT TO:<alice@example.com>\r\n")
                return [replies.readline().rstrip() for _ in range(2)]

    return talk
