"""Limits, faults of the store, the clean stop, trace fields and the log."""

from __future__ import annotations

import re
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from sqlalchemy import select
from twisted.internet.defer import Deferred

from mailtwist.errors import StoreFull, StoreUnavailable
from mailtwist.store.database import Inline
from mailtwist.store.queue import suppression
from mailtwist.store.tables import message
from tests.support.delayed import Failing
from tests.support.smtp_server import Server
from tests.support.transcript import Peer

Serve = Callable[..., Server]

OPENING = b"EHLO client.example\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<alice@example.com>\r\n"
MESSAGE = b"Subject: x\r\n\r\nbody\r\n.\r\n"


def deliver(peer: Peer) -> bytes:
    """Send one message; the reply to its end."""
    peer.send(OPENING + b"DATA\r\n")
    assert b"354 " in peer.received()
    peer.send(MESSAGE)
    return peer.received()


def test_a_list_with_many_suppressed_members_is_not_cut_off(serve: Serve) -> None:
    server = serve("loopback")
    with server.database.engine.write() as connection:
        for n in range(30):
            bounce = (f"u{n}@far.test", "550 5.1.1 gone", 1, 1)
            suppression.count(connection, [bounce] * 3)
    peer = server.connect()
    peer.send(b"EHLO client\r\nMAIL FROM:<a@example.org>\r\n")
    peer.received()
    peer.send(b"".join(b"RCPT TO:<u%d@far.test>\r\n" % n for n in range(30)))
    refusal = b"550 5.1.1 Address suppressed after 3 hard bounces\r\n"
    assert peer.received() == refusal * 30
    assert peer.ask(b"RCPT TO:<other@far.test>") == b"250 2.1.5 OK\r\n"
    peer.hang_up()


# -- limits -----------------------------------------------------------------------------------


@pytest.mark.mission("DAP-107")
def test_one_client_more_than_allowed_is_told_so(serve: Serve) -> None:
    server = serve("clients=2")
    first, second = server.connect(), server.connect()
    third = server.connect()
    assert third.received() == b"421 4.7.0 Too many connections, try again later\r\n"
    assert third.closed
    first.hang_up()
    fourth = server.connect()
    assert fourth.received().startswith(b"220 ")
    second.hang_up()
    fourth.hang_up()


@pytest.mark.mission("ELE-58")
def test_one_address_has_its_share_of_connections(serve: Serve) -> None:
    server = serve("per-address=2")
    peers = [server.connect(host="192.0.2.1") for _ in range(2)]
    assert server.connect(host="192.0.2.1").received().startswith(b"421 4.7.0")
    assert server.connect(host="::ffff:192.0.2.1").received().startswith(b"421 4.7.0")
    other = server.connect(host="192.0.2.2")
    assert other.received().startswith(b"220 ")
    for peer in [*peers, other]:
        peer.hang_up()
    assert server.parts.counters.total == 0


@pytest.mark.mission("DAP-116")
def test_parallel_messages_to_one_mailbox_have_each_their_uid(serve: Serve) -> None:
    server = serve()
    peers = [server.connect() for _ in range(50)]
    for octets in (OPENING, b"DATA\r\nSubject: x\r\n", b"\r\nbody\r\n.\r\n"):
        for peer in peers:
            peer.send(octets)
    assert all(b"queued as" in peer.received() for peer in peers)
    with server.database.engine.read() as connection:
        uids = connection.execute(select(message.c.uid).order_by(message.c.uid)).scalars().all()
    assert uids == list(range(1, 51))
    for peer in peers:
        peer.hang_up()


# -- faults -----------------------------------------------------------------------------------


@pytest.mark.mission("DAP-115")
@pytest.mark.parametrize(
    "error, reply",
    [
        (StoreUnavailable(detail="locked"), b"451 4.3.0 Store unavailable, try again later\r\n"),
        (StoreFull(), b"452 4.3.1 Insufficient system storage\r\n"),
        (ValueError("a bug"), b"451 4.3.0 Local error in processing, try again later\r\n"),
    ],
)
def test_a_message_that_cannot_be_stored_is_not_accepted(
    error: Exception, reply: bytes, store: Inline, logged: Any
) -> None:
    failing = Failing(store)
    server = Server(failing)
    peer = server.connect()
    failing.error = error
    assert deliver(peer) == reply
    assert server.stored("alice@example.com") == []
    refused = [each for each in logged if each["log_format"] == "message refused"]
    assert refused[0]["session"] == peer.protocol.session_id
    failing.error = None
    assert b"queued as" in deliver(peer)
    assert len(server.stored("alice@example.com")) == 1
    peer.hang_up()


def test_a_directory_that_cannot_be_read_is_a_temporary_failure(store: Inline) -> None:
    failing = Failing(store, "read")
    server = Server(failing)
    peer = server.connect()
    failing.error = StoreUnavailable()
    peer.send(OPENING)
    assert peer.received().endswith(b"451 4.3.0 Store unavailable, try again later\r\n")
    failing.error = RuntimeError("a bug")
    assert peer.ask(b"RCPT TO:<bob@example.com>").startswith(b"451 4.3.0 Local error")
    failing.error = None
    assert peer.ask(b"RCPT TO:<bob@example.com>") == b"250 2.1.5 OK\r\n"
    peer.hang_up()


def test_a_bug_inside_a_message_never_runs_its_lines(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: Any, block: bytes) -> None:
        raise RuntimeError("a bug")

    server = serve()
    peer = server.connect()
    monkeypatch.setattr("mailtwist.store.content.Spool.write", broken)
    peer.send(OPENING + b"DATA\r\n")
    peer.received()
    peer.send(b"Subject: x\r\n" + b"QUIT\r\n" * 1000)
    assert peer.received() == b""
    peer.send(b".\r\nNOOP\r\n")
    assert peer.received().splitlines() == [
        b"451 4.3.0 Local error in processing, try again later",
        b"250 2.0.0 OK",
    ]
    peer.hang_up()


# -- the clean stop -----------------------------------------------------------------------------


@pytest.mark.mission("ELE-63")
def test_a_stop_tells_idle_clients_and_finishes_messages(serve: Serve) -> None:
    server = serve()
    idle, inside, outside = server.connect(), server.connect(), server.connect()
    inside.send(OPENING + b"DATA\r\nSubject: half\r\n")
    outside.send(b"HELO x\r\n")
    for peer in (idle, inside, outside):
        peer.received()
    stopped = Deferred.fromCoroutine(server.factory.drain(30))
    goodbye = b"421 4.3.2 Server is shutting down, try again later\r\n"
    assert idle.received() == goodbye
    assert outside.received() == goodbye
    assert inside.received() == b""
    late = server.connect()
    assert late.received() == goodbye
    for peer in (idle, outside):
        peer.run()
    assert not stopped.called
    inside.send(b"\r\nthe rest\r\n.\r\n")
    accepted, said = inside.received().splitlines(keepends=True)
    assert b"queued as" in accepted
    assert said == goodbye
    assert stopped.called
    assert len(server.stored("alice@example.com")) == 1
    assert server.clock.getDelayedCalls() == []


def test_a_stop_waits_for_nobody_for_ever(serve: Serve) -> None:
    server = serve()
    peer = server.connect()
    peer.send(OPENING + b"DATA\r\nSubject: half\r\n")
    stopped = Deferred.fromCoroutine(server.factory.drain(30))
    for _ in range(31):
        server.advance(1)
    assert peer.wire.aborted
    peer.run()
    assert stopped.called
    assert server.stored("alice@example.com") == []


def test_a_message_may_not_take_for_ever(serve: Serve) -> None:
    server = serve()
    peer = server.connect()
    peer.send(OPENING + b"DATA\r\n")
    peer.received()
    for _ in range(40):
        server.advance(100)
        peer.send(b"x\r\n")
    assert peer.received() == b"421 4.4.2 Timeout, closing connection\r\n"
    peer.run()
    assert not server.factory.sessions


# -- trace fields ---------------------------------------------------------------------------------


@pytest.mark.mission("DAP-108", "ELE-56", "DAP-104")
def test_a_stored_message_begins_with_its_trace_fields(serve: Serve) -> None:
    server = serve()
    peer = server.connect()
    reply = deliver(peer)
    queue_id = re.search(rb"queued as (\d+)\r\n", reply)
    assert queue_id is not None
    (message,) = server.stored("alice@example.com")
    first, received, third, *_ = re.sub(rb"\r\n[ \t]+", b" ", message).split(b"\r\n")
    assert first == b"Return-Path: <a@example.org>"
    assert third == b"Delivered-To: alice@example.com"
    found = re.fullmatch(
        rb"Received: from client\.example \(\[192\.0\.2\.7\]\) by mail\.example\.com"
        rb" with ESMTP id (\d+) for <alice@example\.com>; (.*)",
        received,
    )
    assert found is not None
    assert found[1] == queue_id[1]
    assert parsedate_to_datetime(found[2].decode()).utcoffset() is not None
    assert message.endswith(b"example.com\r\nSubject: x\r\n\r\nbody\r\n")
    peer.hang_up()


# -- the log --------------------------------------------------------------------------------------


@pytest.mark.mission("ELE-61", "GEN-05")
def test_the_log_has_one_line_for_a_message_and_never_a_password(serve: Serve, logged: Any) -> None:
    server = serve("tls", "submissions")
    peer = server.connect()
    peer.send(b"EHLO client\r\nAUTH PLAIN AGFsaWNlQGV4YW1wbGUuY29tAHdyb25n\r\n")
    peer.send(b"AUTH PLAIN AGFsaWNlQGV4YW1wbGUuY29tAHNlY3JldA==\r\n")
    peer.send(b"MAIL FROM:<alice@example.com>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n")
    message = b"Date: Fri, 1 Jan 2027 00:00:00 +0000\r\nMessage-ID: <a@b>\r\n" + MESSAGE
    peer.send(message)
    assert b"queued as" in peer.received()
    events = [each for each in logged if each["log_format"] == "message accepted"]
    assert len(events) == 1
    assert events[0]["session"] == peer.protocol.session_id
    assert events[0]["reverse_path"] == "alice@example.com"
    assert (events[0]["recipients"], events[0]["octets"]) == (1, len(message) - 3)
    for event in logged:
        said = repr({k: v for k, v in event.items() if not k.startswith("log_")})
        assert "secret" not in said
        assert "wrong" not in said
        assert "AGFsaWNl" not in said
    peer.hang_up()


@pytest.mark.mission("ELE-61")
def test_the_log_has_one_line_for_each_refused_recipient(serve: Serve, logged: Any) -> None:
    peer = serve().connect()
    peer.send(b"HELO client\r\nMAIL FROM:<>\r\nRCPT TO:<nobody@example.com>\r\n")
    peer.send(b"RCPT TO:<x@foreign.test>\r\nRCPT TO:<alice@example.com>\r\n")
    refused = [each for each in logged if each["log_format"] == "recipient refused"]
    assert [(each["forward_path"], each["code"]) for each in refused] == [
        ("nobody@example.com", 550),
        ("x@foreign.test", 554),
    ]
    assert {each["session"] for each in refused} == {peer.protocol.session_id}
    assert {each["reverse_path"] for each in refused} == {"<>"}
    peer.hang_up()


@pytest.mark.parametrize(
    ("given", "forward_paths", "subject"),
    [((), None, None), (("dev",), ["alice@example.com"], "x")],
)
def test_only_a_sandbox_logs_envelope_and_subject(
    serve: Serve, logged: Any, given: tuple[str, ...], forward_paths: object, subject: object
) -> None:
    peer = serve(*given).connect()
    deliver(peer)
    (event,) = [each for each in logged if each["log_format"] == "message accepted"]
    assert (event.get("forward_paths"), event.get("subject")) == (forward_paths, subject)
    peer.hang_up()


def test_the_login_is_asked_with_peer_and_service(serve: Serve) -> None:
    server = serve("tls", "submissions")
    peer = server.connect()
    peer.send(b"EHLO client\r\nAUTH PLAIN AGFsaWNlQGV4YW1wbGUuY29tAHNlY3JldA==\r\n")
    assert server.logins.asked == [("alice@example.com", "192.0.2.7", "submissions")]
    assert peer.protocol.authenticated
    peer.hang_up()


def test_small_packets_are_never_held_back(serve: Serve) -> None:
    peer = serve().connect()
    assert peer.wire.no_delay
    peer.hang_up()


def test_settings_are_swapped_under_living_sessions(serve: Serve) -> None:
    server, other = serve(), ("size=5000",)
    old = server.connect()
    from tests.support.smtp_server import listener_for, settings_for

    parts = server.parts.__class__(**(vars(server.parts) | {"settings": settings_for(other)}))
    server.factory.configure(listener_for(other), parts)
    new = server.connect()
    assert b"SIZE 5000\r\n" in new.ask(b"EHLO x")
    assert b"SIZE 26214400\r\n" in old.ask(b"EHLO x")
    for peer in (old, new):
        peer.hang_up()
