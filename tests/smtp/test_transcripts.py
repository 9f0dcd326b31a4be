"""Every dialogue of tests/transcripts/*.smtp, each in three ways of arriving."""

from __future__ import annotations

from typing import Any

import pytest

from mailtwist.store.database import Inline
from tests.support.smtp_server import Server
from tests.support.transcript import Mode, Player, Transcript, cases


class WriteCount:
    """@writes N: the server wrote N times since the last @writes, where a segment was whole."""

    def __init__(self, mode: Mode) -> None:
        self.mode = mode
        self.player: Player | None = None
        self.before = 0

    def __call__(self, count: str) -> None:
        assert self.player is not None
        writes = len(self.player.peers[1].wire.writes)
        if self.mode is Mode.WHOLE:
            assert writes - self.before == int(count)
        self.before = writes


@pytest.mark.parametrize("transcript, mode", cases("*.smtp"))
def test_the_dialogue_goes_as_written(transcript: Transcript, mode: Mode, store: Inline) -> None:
    server = Server(store, transcript.given)
    writes = WriteCount(mode)
    hooks: dict[str, Any] = server.hooks() | {"writes": writes}
    player = Player(transcript, mode, server.connect, advance=server.advance, hooks=hooks)
    writes.player = player
    player.play()
    for peer in player.peers.values():
        peer.hang_up()
    assert not server.factory.sessions
    assert server.clock.getDelayedCalls() == []
