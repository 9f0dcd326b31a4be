"""Stock twisted.mail classes deliver into our store."""

from __future__ import annotations

import base64

import pytest
from twisted.internet.testing import StringTransport
from twisted.mail.smtp import ESMTP, IMessageDelivery

from mailtwist.policy.realm import make_portal
from mailtwist.smtp.adapter import StoreDelivery
from mailtwist.store import inbox, projects
from mailtwist.store.database import Inline
from tests.support.smtp_server import FakeLogin, FakeLogins, Server


class Stock:
    """Twisted's own ESMTP, with our delivery."""

    def __init__(self, store: Inline, max_size: int = 100_000) -> None:
        self.server = Server(store)
        intake = self.server.parts.intake
        self.delivery = StoreDelivery(intake, hostname="mail.example.com", max_size=max_size)
        self.protocol = ESMTP()
        self.protocol.noisy = False
        self.protocol.delivery = self.delivery
        self.wire = StringTransport()
        self.protocol.makeConnection(self.wire)

    def say(self, octets: bytes) -> list[bytes]:
        self.wire.clear()
        self.protocol.dataReceived(octets)
        return [line[:3] for line in self.wire.value().splitlines()]

    def end(self) -> None:
        self.protocol.setTimeout(None)


def test_the_stock_server_delivers_through_our_adapter(store: Inline) -> None:
    stock = Stock(store)
    codes = stock.say(b"HELO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<alice@example.com>\r\n")
    assert codes == [b"250", b"250", b"250"]
    assert stock.say(b"RCPT TO:<nobody@example.com>\r\n") == [b"550"]
    assert stock.say(b"RCPT TO:<x@gmail.test>\r\n") == [b"554"]
    assert stock.say(b"DATA\r\n") == [b"354"]
    assert stock.say(b"Subject: x\r\n\r\nbody\r\n.\r\n") == [b"250"]
    (message,) = stock.server.stored("alice@example.com")
    assert message.startswith(b"Return-Path: <a@example.org>\r\nReceived: ")
    assert message.endswith(b"\r\nDelivered-To: alice@example.com\r\nSubject: x\r\n\r\nbody\r\n")
    stock.end()


def test_a_project_sends_nothing_through_our_adapter(store: Inline) -> None:
    stock = Stock(store)
    with store.engine.write() as connection:
        project = projects.add(connection, "shop", [])
    stock.delivery.login = FakeLogin(
        project.account_id, project.username, frozenset({project.username})
    )
    stock.say(b"HELO x\r\nMAIL FROM:<shop@projects.invalid>\r\nRCPT TO:<x@gmail.test>\r\n")
    stock.say(b"DATA\r\n")
    assert stock.say(b"Subject: x\r\n\r\nbody\r\n.\r\n") == [b"250"]
    assert stock.server.queued() == []
    with store.engine.read() as connection:
        assert len(inbox.list(connection, project.account_id, "x", since=0, limit=9)) == 1
    stock.end()


def test_the_stock_server_stores_nothing_of_a_lost_connection(store: Inline) -> None:
    stock = Stock(store)
    stock.say(b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<alice@example.com>\r\nDATA\r\nhalf\r\n")
    stock.protocol.connectionLost(None)
    assert stock.server.stored("alice@example.com") == []


def test_a_portal_of_twisted_cred_may_check_the_logins_of_our_protocol(store: Inline) -> None:
    server = Server(store, ["tls", "submissions"])
    portal = make_portal(
        FakeLogins(),  # type: ignore[arg-type]
        {
            IMessageDelivery: lambda login: StoreDelivery(
                server.parts.intake, hostname="mail.example.com", max_size=1000, login=login
            )
        },
        service="submissions",
    )
    peer = server.connect()
    peer.protocol.portal = portal
    peer.ask(b"EHLO x")
    wrong = base64.b64encode(b"\0alice@example.com\0wrong")
    assert peer.ask(b"AUTH PLAIN " + wrong).startswith(b"535 5.7.8 Authentication credentials")
    right = base64.b64encode(b"\0alice@example.com\0secret")
    assert peer.ask(b"AUTH PLAIN " + right).startswith(b"235 2.7.0")
    assert peer.ask(b"MAIL FROM:<bob@example.com>").startswith(b"553 5.7.1")
    assert peer.ask(b"MAIL FROM:<alice@example.com>").startswith(b"250 2.1.0")
    peer.hang_up()
    assert server.logins.asked == []


@pytest.mark.parametrize("size", [100, 5_000_000])
def test_a_large_message_passes_the_adapter_too(store: Inline, size: int) -> None:
    stock = Stock(store, max_size=10_000_000)
    stock.say(b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<alice@example.com>\r\nDATA\r\n\r\n")
    line = b"x" * 998 + b"\r\n"
    for _ in range(size // len(line)):
        stock.protocol.dataReceived(line)
    assert stock.say(b".\r\n") == [b"250"]
    (message,) = stock.server.stored("alice@example.com")
    assert message.count(line) == size // len(line)
    stock.end()
