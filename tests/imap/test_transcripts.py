"""Every dialogue of tests/transcripts/imap, in one segment, line by line, octet by octet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.imap import Server
from tests.support.transcript import Mode, Peer, Transcript, cases, play

PATTERN = "imap/*.imap"
WHOLE = [case for case in cases(PATTERN) if case.values[1] is Mode.WHOLE]


def server_for(url: str, given: tuple[str, ...], **options: Any) -> Server:
    """``@given tls``: an imaps listener; ``plaintext``: passwords in the clear are allowed."""
    is_open = bool({"login", "selected"} & set(given))
    return Server(
        url,
        protocol="imaps" if "tls" in given else "imap",
        allow_plaintext="plaintext" in given or is_open,
        methods=("plain", "scram-sha-256", "scram-sha-256-plus")
        if "scram" in given
        else ("plain", "login"),
        **options,
    )


def connector(server: Server, given: tuple[str, ...]) -> Callable[[int], Peer]:
    """``@given login``: connections begin behind a LOGIN; ``selected``: and SELECT INBOX."""

    def connect(number: int) -> Peer:
        if "selected" in given:
            return server.login(b"0 SELECT INBOX")
        if "login" in given:
            return server.login()
        return server.connect()

    return connect


@pytest.mark.parametrize(("transcript", "mode"), cases(PATTERN))
def test_dialogue(transcript: Transcript, mode: Mode, sqlite_url: str) -> None:
    server = server_for(sqlite_url, transcript.given)
    connect = connector(server, transcript.given)
    play(transcript, mode, connect, advance=server.advance, hooks=server.hooks)
    server.close()


@pytest.mark.parametrize(("transcript", "mode"), WHOLE)
def test_dialogue_over_a_slow_store(transcript: Transcript, mode: Mode, sqlite_url: str) -> None:
    """The same answers in the same order when every answer of the store is waited for."""
    server = server_for(sqlite_url, transcript.given, delayed=True)
    connect = connector(server, transcript.given)
    play(
        transcript,
        mode,
        connect,
        advance=server.advance,
        settle=server.settle,
        hooks=server.hooks,
    )
    server.close()


@pytest.mark.parametrize(("transcript", "mode"), WHOLE)
def test_dialogue_on_postgresql(transcript: Transcript, mode: Mode, postgresql_url: str) -> None:
    server = server_for(postgresql_url, transcript.given)
    connect = connector(server, transcript.given)
    play(transcript, mode, connect, advance=server.advance, hooks=server.hooks)
    server.close()
