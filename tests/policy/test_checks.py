"""The table of checks: order, sums, deadlines, and what a broken check means."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher

from mailtwist.errors import MailError, Refusal, TemporaryFailure
from mailtwist.policy.checks import PASS, Check, Checks, Facts, Stage, Verdict
from mailtwist.policy.dkim_check import dkim_check
from mailtwist.policy.dkim_verification import DkimVerifier
from mailtwist.policy.hashing import Inline
from tests.support.now import now

FACTS = Facts("192.0.2.7")


def saying(name: str, verdict: Verdict, asked: list[str], stage: Stage = Stage.MAIL) -> Check:
    async def run(facts: Facts) -> Verdict:
        assert facts is FACTS
        asked.append(name)
        return verdict

    return Check(name, stage, run)


def ask(*rows: Check, stage: Stage = Stage.MAIL, facts: Facts = FACTS) -> Verdict:
    return now(Checks(rows, clock=Clock()).at(stage, facts))


class Unasked:
    async def txt(self, name: str) -> list[bytes]:
        raise AssertionError(name)


def test_verdicts_add_up_in_the_order_of_the_rows() -> None:
    asked: list[str] = []
    total = ask(
        saying("one", Verdict(score=2.5, results=("a=pass",)), asked),
        saying("later", Verdict(score=1000), asked, Stage.DATA),
        saying("two", PASS, asked),
        saying("three", Verdict(score=-1, results=("b=fail", "b=pass")), asked),
    )
    assert total == Verdict(None, 1.5, ("a=pass", "b=fail", "b=pass"))
    assert asked == ["one", "two", "three"]


@pytest.mark.parametrize("refusal", [Refusal("no"), TemporaryFailure("later")], ids=["5xx", "4xx"])
def test_the_first_refusal_ends_the_asking(refusal: MailError) -> None:
    asked: list[str] = []
    total = ask(
        saying("one", PASS, asked),
        saying("two", Verdict(refusal), asked),
        saying("three", PASS, asked),
    )
    assert total.refusal is refusal
    assert asked == ["one", "two"]


def test_nobody_asks_where_there_is_no_row() -> None:
    checks = Checks([saying("one", PASS, [], Stage.DATA)], clock=Clock())
    assert [stage for stage in Stage if checks.has(stage)] == [Stage.DATA]
    assert ask() == PASS


def test_a_check_that_fails_gives_its_other_verdict_and_is_logged() -> None:
    async def broken(facts: Facts) -> Verdict:
        raise ZeroDivisionError

    logged: list[Any] = []
    observe: Any = logged.append
    globalLogPublisher.addObserver(observe)
    try:
        assert ask(Check("broken", Stage.MAIL, broken)) == PASS
        assert ask(Check("broken", Stage.MAIL, broken, otherwise=Verdict(score=7))).score == 7
    finally:
        globalLogPublisher.removeObserver(observe)
    failures = [event for event in logged if event["log_level"] is LogLevel.critical]
    assert [event["check"] for event in failures] == ["broken", "broken"]


def test_a_check_that_is_late_gives_its_other_verdict() -> None:
    clock, waiting = Clock(), Deferred[Verdict]()
    cancelled: list[Any] = []
    waiting.addErrback(cancelled.append)

    async def slow(facts: Facts) -> Verdict:
        return await waiting

    late = Verdict(score=3)
    checks = Checks(
        [Check("slow", Stage.MAIL, slow, 2.0, late), saying("next", Verdict(score=1), [])],
        clock=clock,
    )
    found: list[Verdict] = []
    Deferred.fromCoroutine(checks.at(Stage.MAIL, FACTS)).addCallback(found.append)
    clock.advance(1.9)
    assert found == []
    clock.advance(0.2)
    assert found == [Verdict(score=4)]
    assert len(cancelled) == 1
    assert clock.getDelayedCalls() == []


def test_a_check_that_has_nothing_to_ask_is_not_run() -> None:
    asked: list[str] = []
    one = saying("one", Verdict(score=1), asked)
    other = saying("other", Verdict(score=2), asked)
    never = replace(other, concerns=lambda facts: bool(facts.signatures))
    assert ask(one, never).score == 1
    assert asked == ["one"]


def test_a_header_too_long_to_be_looked_through_counts_against_a_message() -> None:
    row = dkim_check(DkimVerifier(Unasked(), threads=Inline(), clock=Clock(), now=lambda: 0.0))
    verdict = ask(row, stage=Stage.DATA, facts=replace(FACTS, is_too_long=True))
    assert verdict == Verdict(None, 50, ('dkim=permerror reason="header too long"',))
    assert ask(row, stage=Stage.DATA) == PASS
