"""Errors on purpose: each rule does what it says, to whom it says, as often as it says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mailtwist.config import load
from mailtwist.config.chaos import ChaosItem
from mailtwist.errors import ConfigError
from mailtwist.mail.reply import Reply
from mailtwist.smtp.chaos import Chaos, Mishap
from mailtwist.smtp.service import terms_of
from mailtwist.store.database import Inline
from tests.support.smtp_server import Server, listener_for, settings_for
from tests.support.transcript import Peer


class Luck:
    def __init__(self, *values: float) -> None:
        self.values = list(values)

    def random(self) -> float:
        return self.values.pop(0)


def session(store: Inline, *rules: ChaosItem, dev: bool = True) -> tuple[Server, Peer]:
    """A session with two recipients to choose from, behind EHLO and MAIL."""
    server = Server(store, ("dev",) if dev else ())
    settings = replace(server.settings, chaos_given=rules)
    server.factory.configure(listener_for(server.given), replace(server.parts, settings=settings))
    peer = server.connect()
    peer.ask(b"HELO c")
    peer.ask(b"MAIL FROM:<a@example.org>")
    return server, peer


def test_the_first_rule_that_fits_and_has_luck_acts() -> None:
    rules = [
        ChaosItem(recipient="bob@*", percent=50, reply="451 4.3.0 half"),
        ChaosItem(recipient="*@EXAMPLE.com", reply="550 all"),
        ChaosItem(recipient="*", at="data", drop=True),
    ]
    half, every = Reply(451, "4.3.0", "half"), Reply(550, "5.0.0", "all")
    chaos = Chaos(rules, Luck(0.49, 0.5, 0.0, 0.0, 0.999))
    assert chaos.at("rcpt", "Bob@example.com") == Mishap(reply=half)
    assert chaos.at("rcpt", "bob@example.com") == Mishap(reply=every)
    assert chaos.at("rcpt", "alice@example.com") == Mishap(reply=every)
    assert chaos.at("rcpt", "alice@example.org") is None
    assert chaos.at("data", "bob@example.com") == Mishap(is_drop=True)


def test_never_is_never_and_always_is_always() -> None:
    never, always = ChaosItem(percent=0, drop=True), ChaosItem(percent=100, drop=True)
    assert Chaos([never], Luck(0.0)).at("rcpt", "x@y") is None
    assert Chaos([always], Luck(0.999_999)).at("rcpt", "x@y") == Mishap(is_drop=True)


def test_a_recipient_is_refused(store: Inline) -> None:
    _, peer = session(store, ChaosItem(recipient="bob@*", reply="452 4.2.2 Mailbox full"))
    assert peer.ask(b"RCPT TO:<bob@example.com>") == b"452 4.2.2 Mailbox full\r\n"
    assert peer.ask(b"RCPT TO:<alice@example.com>") == b"250 2.1.5 OK\r\n"


def test_an_answer_is_kept_back(store: Inline) -> None:
    server, peer = session(store, ChaosItem(delay=5.0))
    assert peer.ask(b"RCPT TO:<alice@example.com>") == b""
    server.advance(4.9)
    assert peer.received() == b""
    server.advance(0.2)
    assert peer.received() == b"250 2.1.5 OK\r\n"


def test_the_connection_is_cut_at_rcpt(store: Inline) -> None:
    _, peer = session(store, ChaosItem(drop=True))
    assert peer.ask(b"RCPT TO:<alice@example.com>") == b""

    assert peer.wire.aborted


@pytest.mark.parametrize(
    ("opening", "content"), [(b"DATA", b"one\r\n.\r\n"), (b"BDAT 5 LAST", b"one\r\n")]
)
def test_a_message_is_refused_at_its_end(store: Inline, opening: bytes, content: bytes) -> None:
    rule = ChaosItem(recipient="bob@*", at="data", reply="451 4.3.0 Not now", delay=1.0)
    server, peer = session(store, rule)
    peer.ask(b"RCPT TO:<alice@example.com>")
    peer.ask(b"RCPT TO:<bob@example.com>")
    peer.ask(opening)
    peer.send(content)
    assert peer.received() == b""
    server.advance(1.0)
    assert peer.received() == b"451 4.3.0 Not now\r\n"
    assert server.stored("alice@example.com") == []
    assert peer.ask(b"NOOP") == b"250 2.0.0 OK\r\n"


@pytest.mark.parametrize("opening", [b"DATA", b"BDAT 100"])
def test_a_message_is_cut_off_in_its_middle(store: Inline, opening: bytes) -> None:
    server, peer = session(store, ChaosItem(at="data", drop=True))
    peer.ask(b"RCPT TO:<alice@example.com>")
    peer.ask(opening)
    peer.send(b"one\r\ntwo\r\n")
    assert peer.wire.aborted
    peer.run()
    assert server.stored("alice@example.com") == []
    assert not server.factory.sessions


def test_outside_a_sandbox_there_is_no_chaos() -> None:
    rules = (ChaosItem(drop=True),)
    settings = replace(settings_for(()), chaos_given=rules)
    assert terms_of(listener_for(()), settings, has_tls=False).chaos is None


@pytest.mark.parametrize(
    "item",
    [
        {"reply": "250 2.0.0 fine"},
        {"reply": "451"},
        {"reply": "451 4.3.0 a\r\nb"},
        {"percent": 101},
        {"at": "helo"},
        {"delay": "1d"},
        {"recipients": "*"},
    ],
    ids=str,
)
def test_nonsense_is_refused(tmp_path: Any, item: dict[str, Any]) -> None:
    import yaml

    path = tmp_path / "mailtwist.yaml"
    path.write_text(yaml.safe_dump({"chaos": [item]}))
    with pytest.raises(ConfigError, match=r"chaos\[0\]"):
        load(path, {})
