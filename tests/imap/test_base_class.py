"""Nothing of twisted's IMAP engine runs behind our own."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.protocol import BaseProtocol, Protocol
from twisted.mail.imap4 import IMAP4Server
from twisted.protocols.basic import LineReceiver, _PauseableMixin
from twisted.protocols.policies import TimeoutMixin

from mailtwist.imap.protocol import KEPT, MailIMAP4
from tests.imap.test_transcripts import PATTERN, connector, server_for
from tests.support.transcript import Mode, cases, play

BASES = (IMAP4Server, LineReceiver, _PauseableMixin, TimeoutMixin, Protocol, BaseProtocol)


def forbid(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace every method outside KEPT by one that raises; tells their names."""
    forbidden = []
    for base in BASES:
        for name, value in list(vars(base).items()):
            is_special = name.startswith("__") and name != "__init__"
            if not callable(value) or isinstance(value, type) or is_special or name in KEPT:
                continue

            def refuse(*args: Any, _name: str = f"{base.__name__}.{name}", **options: Any) -> None:
                raise AssertionError(f"{_name} ran")

            monkeypatch.setattr(base, name, refuse)
            forbidden.append(name)
    return forbidden


def test_our_class_is_a_twisted_imap4server() -> None:
    assert issubclass(MailIMAP4, IMAP4Server)


def test_every_dialogue_runs_without_the_base_class(
    monkeypatch: pytest.MonkeyPatch, sqlite_stores: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    forbidden = forbid(monkeypatch)
    assert {"lineReceived", "do_LOGIN", "dispatchCommand", "dataReceived"} <= set(forbidden)
    assert len(forbidden) > 150
    for case in cases(PATTERN):
        transcript, mode = case.values
        if mode is not Mode.WHOLE:
            continue
        server = server_for(sqlite_stores.fresh(tmp_path_factory.mktemp("s")), transcript.given)
        connect = connector(server, transcript.given)
        play(transcript, mode, connect, advance=server.advance, hooks=server.hooks)
