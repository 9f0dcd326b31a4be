"""What happens while a check or the store takes its time, and when peers are slow or gone."""

from __future__ import annotations

from typing import Any

import pytest

from mailtwist.net.pump import HIGH_WATER, TURN
from mailtwist.smtp.protocol import MailESMTP
from mailtwist.store.database import Inline
from tests.support.delayed import Delayed
from tests.support.smtp_server import Server
from tests.support.transcript import Mode, Peer, Player, Transcript, cases


@pytest.fixture
def delayed(store: Inline) -> Delayed:
    return Delayed(store)


GROUP = (
    b"HELO client\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<alice@example.com>\r\n"
    b"RCPT TO:<nobody@example.com>\r\nDATA\r\nSubject: x\r\n\r\nbody\r\n.\r\nNOOP\r\n"
)


@pytest.mark.parametrize(
    "transcript, mode", [case for case in cases("*.smtp") if case.values[1] is Mode.WHOLE]
)
def test_dialogues_are_the_same_over_a_slow_store(
    transcript: Transcript, mode: Mode, delayed: Delayed
) -> None:
    server = Server(delayed, transcript.given)
    hooks = server.hooks() | {"writes": lambda count: None}

    def settle() -> None:
        delayed.release_all()

    player = Player(
        transcript, mode, server.connect, advance=server.advance, settle=settle, hooks=hooks
    )
    player.play()
    for peer in player.peers.values():
        peer.hang_up()
    settle()


@pytest.mark.mission("ELE-29")
def test_pipelined_commands_wait_for_each_other(delayed: Delayed) -> None:
    server = Server(delayed)
    peer = server.connect()
    peer.received()
    peer.send(GROUP)
    assert peer.received() == b""
    delayed.release_all()
    codes = [line[:3] for line in peer.received().splitlines()]
    assert codes == [b"250", b"250", b"250", b"550", b"354", b"250", b"250"]
    assert len(peer.wire.writes) == 2  # the greeting, and one for the whole group
    peer.hang_up()


def let_it_run(server: Server, peer: Peer) -> None:
    for _ in range(200):
        server.advance(0)
        peer.run()


def test_a_long_group_leaves_turns_for_others(store: Inline) -> None:
    server = Server(store)
    peer = server.connect()
    peer.received()
    peer.send(b"NOOP\r\n" * (3 * TURN))
    assert peer.received().count(b"250 ") == TURN
    let_it_run(server, peer)
    assert peer.received().count(b"250 ") == 2 * TURN
    assert len(peer.wire.writes) == 4  # the greeting, and one for each turn
    peer.hang_up()


def test_nothing_is_read_while_too_much_waits(delayed: Delayed) -> None:
    server = Server(delayed)
    peer = server.connect()
    peer.send(b"HELO client\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<alice@example.com>\r\n")
    for _ in range(10):
        peer.send(b"NOOP\r\n" * 5000)
    assert peer.wire.producerState == "paused"
    assert peer.protocol.input.buffered <= HIGH_WATER + 30_000
    assert peer.waiting >= 200_000
    peer.received()
    delayed.release_all()
    let_it_run(server, peer)
    assert peer.wire.producerState == "producing"
    assert peer.waiting == 0
    assert peer.received().count(b"250 2.0.0 OK") == 50_000
    peer.hang_up()


def test_nothing_runs_while_the_client_does_not_read(store: Inline) -> None:
    server = Server(store)
    peer = server.connect()
    peer.received()
    peer.protocol.pump.pauseProducing()
    for _ in range(10):
        peer.send(b"NOOP\r\n" * 5000)
    assert peer.wire.producerState == "paused"
    assert peer.waiting >= 200_000
    assert peer.received() == b""
    peer.protocol.pump.resumeProducing()
    let_it_run(server, peer)
    assert peer.received().count(b"250 2.0.0 OK") == 50_000
    peer.hang_up()


@pytest.mark.mission("ELE-58")
def test_a_client_that_never_reads_is_cut_off(store: Inline) -> None:
    server = Server(store)
    peer = server.connect()
    peer.protocol.pump.pauseProducing()
    server.advance(302)
    assert peer.closed
    assert not peer.wire.aborted
    server.advance(20)
    assert peer.wire.aborted
    peer.run()
    assert not server.factory.sessions


def test_our_own_slowness_is_no_idleness_of_the_client(delayed: Delayed) -> None:
    server = Server(delayed)
    peer = server.connect()
    peer.send(b"HELO client\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<alice@example.com>\r\n")
    for _ in range(5):
        server.advance(200)
    assert not peer.closed
    delayed.release_all()
    assert peer.received().endswith(b"250 2.1.5 OK\r\n")
    peer.hang_up()


@pytest.mark.parametrize("answers", range(8))
def test_a_client_may_vanish_at_any_moment(answers: int, delayed: Delayed, logged: Any) -> None:
    server = Server(delayed)
    peer = server.connect()
    peer.send(GROUP)
    for _ in range(answers):
        delayed.release()
    peer.hang_up()
    delayed.release_all()
    assert logged.failures == []
    assert not server.factory.sessions
    assert server.clock.getDelayedCalls() == []


def test_what_is_committed_stays_when_the_client_vanishes(delayed: Delayed, logged: Any) -> None:
    server = Server(delayed)
    delayed.holding = False
    peer = server.connect()
    peer.send(GROUP.partition(b"Subject")[0])
    delayed.holding = True
    peer.send(b"Subject: x\r\n\r\n.\r\n")
    assert len(delayed.waiting) == 1
    peer.hang_up()
    delayed.release_all()
    assert len(server.stored("alice@example.com")) == 1
    assert "message accepted" in [event.get("log_format") for event in logged]


def test_a_large_message_pauses_its_client_while_a_chunk_is_stored(delayed: Delayed) -> None:
    server = Server(delayed)
    delayed.holding = False
    peer = server.connect()
    peer.send(GROUP.partition(b"Subject")[0])
    delayed.holding = True
    block = (b"x" * 78 + b"\r\n") * 800
    for _ in range(80):
        peer.send(block)
    assert peer.waiting > 0
    assert peer.wire.producerState == "paused"
    assert peer.protocol.input.buffered <= HIGH_WATER + len(block)
    for _ in range(1000):
        if not peer.waiting:
            break
        delayed.release()
        peer.run()
    peer.send(b".\r\n")
    delayed.release_all()
    assert b"queued as" in peer.received()
    assert server.stored("alice@example.com")[0].endswith(block * 80)
    peer.hang_up()


def test_the_session_of_a_protocol_is_freed(store: Inline) -> None:
    server = Server(store)
    peer = server.connect()
    protocol = peer.protocol
    assert isinstance(protocol, MailESMTP)
    assert list(server.factory.sessions) == [protocol]
    peer.hang_up()
    assert not server.factory.sessions
    assert server.parts.counters.total == 0
