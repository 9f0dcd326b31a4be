"""What a session and a listener say to clients that do too much in a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from twisted.internet.task import Clock

from mailtwist.config import Settings
from mailtwist.config.outgoing import Inbox
from mailtwist.config.rates import Rate
from mailtwist.config.settings import Limits
from mailtwist.policy.rates import Rates
from mailtwist.store.database import Inline
from tests.support.smtp_server import Server
from tests.support.transcript import Peer

EXCEEDED = b"450 4.7.1 rate limit exceeded\r\n"
LOGIN = b"AUTH PLAIN AGFsaWNlQGV4YW1wbGUuY29tAHNlY3JldA=="
MESSAGE = b"Subject: x\r\n\r\nbody\r\n.\r\n"

Served = Callable[..., Server]


@pytest.fixture
def served(store: Inline) -> Served:
    """A listener with rates; its clock is that of the server."""

    def make(*given: str, inbox: str = "", **limits: Any) -> Server:
        clock = Clock()
        settings = replace(Settings(), limits=Limits(**limits), inbox=Inbox(domain=inbox))
        rates = Rates(store, settings=settings, clock=clock)
        server = Server(store, given, clock=clock, rates=rates)
        server.clock = clock
        return server

    return make


def greeted(server: Server, host: str = "192.0.2.7") -> Peer:
    peer = server.connect(host=host)
    peer.ask(b"EHLO c")
    return peer


def send(peer: Peer, sender: bytes = b"a@example.org") -> bytes:
    """One message; the answer that ended it."""
    said = peer.ask(b"MAIL FROM:<%b>" % sender)
    if not said.startswith(b"250 "):
        return said
    peer.ask(b"RCPT TO:<alice@example.com>")
    peer.ask(b"DATA")
    peer.send(MESSAGE)
    return peer.received()


@pytest.mark.mission("ADG-11")
def test_the_fifty_first_message_of_a_sender_waits(served: Served) -> None:
    server = served(inbox="inbox.example")
    peer = greeted(server)
    assert all(send(peer).startswith(b"250 ") for _ in range(50))
    assert peer.ask(b"MAIL FROM:<a@example.org>") == EXCEEDED
    assert peer.ask(b"MAIL FROM:<A@Example.ORG> SIZE=10") == EXCEEDED
    # From elsewhere too, and for nobody else.
    assert send(greeted(server, "198.51.100.9")) == EXCEEDED
    assert send(peer, b"b@example.org").startswith(b"250 ")
    assert peer.ask(b"MAIL FROM:<>") == b"250 2.1.0 OK\r\n"
    assert peer.ask(b"RSET").startswith(b"250 ")
    server.clock.advance(59)
    assert send(peer) == EXCEEDED
    server.clock.advance(1)
    assert send(peer).startswith(b"250 ")
    assert len(server.stored("alice@example.com")) == 52


def test_a_mail_that_is_refused_for_more_is_not_counted(served: Served) -> None:
    peer = greeted(served("size=5000", message_rate=Rate(1)))
    assert peer.ask(b"MAIL FROM:<a@example.org> SIZE=6000").startswith(b"552 ")
    assert peer.ask(b"MAIL FROM:<a@example.org> REQUIRETLS").startswith(b"530 ")
    assert peer.ask(b"MAIL FROM:<a@example.org>").startswith(b"250 ")
    peer.ask(b"RSET")
    assert peer.ask(b"MAIL FROM:<a@example.org>") == EXCEEDED


def test_recipients_of_all_messages_count(served: Served) -> None:
    server = served(recipient_rate=Rate(3))
    peer = greeted(server)
    peer.ask(b"MAIL FROM:<a@example.org>")
    assert peer.ask(b"RCPT TO:<alice@example.com>").startswith(b"250 ")
    # Nobody by this name: neither counted nor told as a rate.
    assert peer.ask(b"RCPT TO:<nobody@example.com>").startswith(b"550 5.1.1")
    assert peer.ask(b"RCPT TO:<bob@example.com>").startswith(b"250 ")
    peer.ask(b"RSET")
    peer.ask(b"MAIL FROM:<b@example.org>")
    assert peer.ask(b"RCPT TO:<alice@example.com>").startswith(b"250 ")
    assert peer.ask(b"RCPT TO:<bob@example.com>") == EXCEEDED
    # What was accepted before goes on.
    assert peer.ask(b"DATA").startswith(b"354 ")
    peer.send(MESSAGE)
    assert peer.received().startswith(b"250 ")
    assert len(server.stored("alice@example.com")) == 1
    assert server.stored("bob@example.com") == []


@pytest.mark.mission("ELE-58")
@pytest.mark.parametrize("given", [(), ("tls", "submissions")], ids=["smtp", "submissions"])
def test_one_address_connects_so_often(served: Served, given: tuple[str, ...]) -> None:
    server = served(*given, connection_rate=Rate(3, 600))
    for _ in range(3):
        peer = server.connect(host="192.0.2.1")
        assert peer.received().startswith(b"220 ")
        peer.hang_up()
    for _ in range(20):
        refused = server.connect(host="192.0.2.1")
        assert refused.received() == b"421 4.7.0 Too many connections, try again later\r\n"
        assert refused.closed
        server.clock.advance(29)
    other = server.connect(host="192.0.2.2")
    assert other.received().startswith(b"220 ")
    server.clock.advance(20)
    again = server.connect(host="192.0.2.1")
    assert again.received().startswith(b"220 ")
    for peer in (other, again):
        peer.hang_up()
    assert server.parts.counters.total == 0


def test_a_login_is_counted_by_its_name(served: Served) -> None:
    server = served("tls", "submissions", account_message_rate=Rate(2), message_rate=Rate(1))
    for host in ("192.0.2.1", "192.0.2.2"):
        peer = greeted(server, host)
        assert peer.ask(LOGIN).startswith(b"235 ")
        assert peer.ask(b"MAIL FROM:<alice@example.com>").startswith(b"250 ")
        peer.hang_up()
    peer = greeted(server)
    peer.ask(LOGIN)
    assert peer.ask(b"MAIL FROM:<alice@example.com>") == EXCEEDED


def test_a_login_opens_so_many_sessions(served: Served) -> None:
    server = served("tls", "submissions", account_connection_rate=Rate(2))
    for host in ("192.0.2.1", "192.0.2.2"):
        peer = greeted(server, host)
        assert peer.ask(LOGIN).startswith(b"235 ")
        peer.hang_up()
    peer = greeted(server, "192.0.2.3")
    # A wrong password is no connection of this account.
    assert peer.ask(b"AUTH PLAIN AGFsaWNlQGV4YW1wbGUuY29tAHdyb25n").startswith(b"535 ")
    assert peer.ask(LOGIN) == b"421 4.7.0 Too many connections, try again later\r\n"
    assert peer.closed
    server.clock.advance(60)
    again = greeted(server, "192.0.2.3")
    assert again.ask(b"AUTH LOGIN").startswith(b"334 ")
    assert again.ask(b"YWxpY2VAZXhhbXBsZS5jb20=").startswith(b"334 ")
    assert again.ask(b"c2VjcmV0").startswith(b"235 ")
    again.hang_up()


def test_who_may_relay_is_counted_as_anybody(served: Served) -> None:
    server = served("loopback", inbox="inbox.example", message_rate=Rate(2))
    peer = greeted(server, "127.0.0.1")
    said = [send(peer) for _ in range(3)]
    assert [each[:3] for each in said] == [b"250", b"250", b"450"]


def test_a_neighbour_who_speaks_lmtp_is_not_counted(served: Served) -> None:
    one = Rate(1)
    server = served(
        "lmtp", connection_rate=one, message_rate=one, recipient_rate=one, inbox="inbox.example"
    )
    for _ in range(3):
        peer = server.connect()
        assert peer.received().startswith(b"220 ")
        peer.ask(b"LHLO c")
        assert peer.ask(b"MAIL FROM:<a@example.org>").startswith(b"250 ")
        for name in (b"alice", b"bob"):
            assert peer.ask(b"RCPT TO:<%b@example.com>" % name).startswith(b"250 ")
        peer.hang_up()


def test_a_client_of_a_neighbour_counts_for_himself(served: Served) -> None:
    server = served("loopback", "xclient", message_rate=Rate(1))
    for address in (b"192.0.2.1", b"192.0.2.2"):
        peer = greeted(server, "127.0.0.1")
        assert peer.ask(b"XCLIENT ADDR=" + address).startswith(b"250 ")
        assert peer.ask(b"MAIL FROM:<a@example.org>").startswith(b"250 ")
        peer.ask(b"RSET")
        assert peer.ask(b"MAIL FROM:<a@example.org>") == EXCEEDED
        peer.hang_up()
