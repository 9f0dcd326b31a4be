"""Nothing of `twisted.mail.smtp.ESMTP` runs in our sessions but what is listed as kept."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.mail.smtp import ESMTP

from mailtwist.smtp.protocol import KEPT, MailESMTP
from mailtwist.store.database import Inline
from tests.support.smtp_server import Server
from tests.support.transcript import Mode, Player, Transcript, cases


def base_methods() -> dict[str, type]:
    """Every method that the base classes bring, with the class that has it."""
    found: dict[str, type] = {}
    for base in reversed(ESMTP.__mro__[:-1]):
        for name, value in vars(base).items():
            dunder = name.startswith("__") and name != "__init__"
            if callable(value) and not dunder and not isinstance(value, type):
                found[name] = base
    return found


@pytest.fixture
def _only_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, base in base_methods().items():
        ours = any(name in vars(each) for each in MailESMTP.__mro__ if each not in ESMTP.__mro__)
        if name in KEPT or ours:
            continue

        def forbidden(*args: Any, name: str = name, **rest: Any) -> None:
            raise AssertionError(f"{name} of the base class ran")

        monkeypatch.setattr(base, name, forbidden)


def test_the_list_of_what_is_replaced_is_long() -> None:
    replaced = set(base_methods()) - KEPT
    assert {"lineReceived", "do_MAIL", "ext_AUTH", "state_AUTH", "dataLineReceived"} <= replaced


def test_what_is_kept_exists() -> None:
    assert {name for name in KEPT if not hasattr(ESMTP, name)} == set()


@pytest.mark.parametrize(
    "transcript, mode", [case for case in cases("*.smtp") if case.values[1] is not Mode.OCTETS]
)
@pytest.mark.usefixtures("_only_what_is_kept")
def test_no_other_method_of_the_base_class_runs(
    transcript: Transcript, mode: Mode, store: Inline
) -> None:
    server = Server(store, transcript.given)
    hooks: dict[str, Any] = server.hooks() | {"writes": lambda count: None}
    player = Player(transcript, mode, server.connect, advance=server.advance, hooks=hooks)
    player.play()
    for peer in player.peers.values():
        peer.hang_up()
