"""Checks of strangers at each stage of a session: asked in order, never of who may relay."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mailtwist.errors import Refusal, TemporaryFailure
from mailtwist.policy.checks import PASS, Check, Checks, Facts, Stage, Verdict
from mailtwist.store.database import Inline
from tests.support.smtp_server import Server
from tests.support.transcript import Peer


class Table:
    """A check at every stage; `answers` say what each gives, `asked` what it knew."""

    def __init__(self, **answers: Verdict) -> None:
        self.answers = answers
        self.asked: list[tuple[Stage, Facts]] = []

    def rows(self) -> list[Check]:
        return [Check(stage.value, stage, self._at(stage)) for stage in Stage]

    def _at(self, stage: Stage) -> Any:
        async def run(facts: Facts) -> Verdict:
            self.asked.append((stage, facts))
            return self.answers.get(stage.value, PASS)

        return run


def served(store: Inline, table: Table, *given: str) -> tuple[Server, Peer]:
    server = Server(store, given, intake={"checks": Checks(table.rows(), clock=_CLOCK)})
    return server, server.connect()


class _Clock:
    def callLater(self, _delay: float, _function: Any, *_: Any) -> Any:
        return self

    def active(self) -> bool:
        return False

    def cancel(self) -> None: ...


_CLOCK = _Clock()


def transact(peer: Peer) -> bytes:
    for line in (b"EHLO c", b"MAIL FROM:<a@example.org>", b"RCPT TO:<alice@example.com>", b"DATA"):
        peer.ask(line)
    peer.send(b"Subject: x\r\n\r\nhello\r\n.\r\n")
    return peer.received()


def test_each_stage_is_asked_with_what_is_known_by_then(store: Inline) -> None:
    table = Table()
    _, peer = served(store, table)
    assert transact(peer).startswith(b"250 ")
    stages = [stage for stage, _ in table.asked]
    assert stages == [Stage.CONNECT, Stage.HELO, Stage.MAIL, Stage.RCPT, Stage.DATA]
    connect, helo, mail, rcpt, data = (facts for _, facts in table.asked)
    assert (connect.client_address, connect.hostname) == ("192.0.2.7", "mail.example.com")
    assert helo.helo == "c"
    assert str(mail.reverse_path) == "a@example.org"
    assert (str(rcpt.reverse_path), str(rcpt.forward_path)) == (
        "a@example.org",
        "alice@example.com",
    )
    assert data.header == b"Subject: x\r\n"
    # The client is met once, whatever follows.
    peer.ask(b"HELO again")
    assert [stage for stage, _ in table.asked][5:] == [Stage.HELO]


def test_what_every_stage_says_counts_for_the_message(store: Inline) -> None:
    table = Table(
        connect=Verdict(score=10, results=("a=x",)),
        mail=Verdict(score=20, results=("b=x",)),
        rcpt=Verdict(score=15),
        data=Verdict(score=10.5, results=("c=x",)),
    )
    server, peer = served(store, table)
    assert transact(peer).startswith(b"250 ")
    (stored,) = server.stored("alice@example.com")
    told = b"Authentication-Results: mail.example.com;\r\n\ta=x;\r\n\tb=x;\r\n\tc=x\r\n"
    assert told in stored
    # The next transaction begins anew, the client is the same.
    table.answers = {"connect": Verdict(score=99)}
    peer.ask(b"MAIL FROM:<b@example.org>")
    peer.ask(b"RCPT TO:<alice@example.com>")
    peer.ask(b"DATA")
    peer.send(b"\r\n.\r\n")
    assert b"\ta=x\r\n" in server.stored("alice@example.com")[1]


@pytest.mark.parametrize("stage", ["connect", "helo"])
def test_a_refusal_is_the_answer_of_its_stage(store: Inline, stage: str) -> None:
    table = Table(**{stage: Verdict(Refusal("Go away", code=554, status="5.7.1"))})
    _, peer = served(store, table)
    assert peer.ask(b"NOOP").endswith(b"250 2.0.0 OK\r\n")
    assert peer.ask(b"EHLO c") == b"554 5.7.1 Go away\r\n"
    assert peer.ask(b"MAIL FROM:<a@example.org>").startswith(b"503 ")


def test_one_recipient_may_be_deferred_and_others_not(store: Inline) -> None:
    table = Table(rcpt=Verdict(TemporaryFailure("Come again", code=450, status="4.7.1")))
    _, peer = served(store, table)
    peer.ask(b"EHLO c")
    peer.ask(b"MAIL FROM:<a@example.org>")
    assert peer.ask(b"RCPT TO:<alice@example.com>") == b"450 4.7.1 Come again\r\n"
    table.answers = {}
    assert peer.ask(b"RCPT TO:<bob@example.com>") == b"250 2.1.5 OK\r\n"
    assert peer.ask(b"DATA").startswith(b"354 ")


def test_a_message_may_be_refused_at_its_end(store: Inline) -> None:
    table = Table(data=Verdict(Refusal("Not this", code=550, status="5.7.1")))
    server, peer = served(store, table)
    assert transact(peer) == b"550 5.7.1 Not this\r\n"
    assert server.stored("alice@example.com") == []
    assert peer.ask(b"NOOP") == b"250 2.0.0 OK\r\n"


def test_who_may_relay_is_asked_by_those_alone_that_spare_nobody(store: Inline) -> None:
    table = Table(connect=Verdict(Refusal("Go away")), data=Verdict(score=60))
    spared, *_, data = table.rows()
    rows = [spared, replace(data, spares_relays=False)]
    server = Server(store, ("loopback",), intake={"checks": Checks(rows, clock=_CLOCK)})
    assert transact(server.connect()).startswith(b"250 ")
    assert [stage for stage, _ in table.asked] == [Stage.DATA]
    assert server.placed("alice@example.com") == [("INBOX", True, 60)]


def test_who_logs_in_is_not_asked(store: Inline) -> None:
    table = Table(mail=Verdict(Refusal("Go away")), data=Verdict(Refusal("Go away")))
    _, peer = served(store, table, "tls", "submissions")
    peer.ask(b"EHLO c")
    assert peer.ask(b"AUTH PLAIN AGFsaWNlQGV4YW1wbGUuY29tAHNlY3JldA==").startswith(b"235 ")
    peer.ask(b"MAIL FROM:<alice@example.com>")
    assert peer.ask(b"RCPT TO:<alice@example.com>") == b"250 2.1.5 OK\r\n"
    peer.ask(b"DATA")
    peer.send(b"\r\n.\r\n")
    assert peer.received().startswith(b"250 ")
    assert {stage for stage, _ in table.asked} <= {Stage.CONNECT, Stage.HELO}


@pytest.mark.parametrize(
    ("score", "mailbox", "is_marked"),
    [(50, "INBOX", False), (51, "INBOX", True), (299, "INBOX", True), (300, "Spam", True)],
)
def test_the_scores_mark_and_put_away(
    store: Inline, score: int, mailbox: str, is_marked: bool
) -> None:
    server, peer = served(store, Table(data=Verdict(score=score)))
    assert transact(peer).startswith(b"250 ")
    assert server.placed("alice@example.com") == [(mailbox, is_marked, score)]
