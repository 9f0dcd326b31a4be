"""How often somebody may: windows that end, names that do not touch each other."""

from __future__ import annotations

from twisted.internet.task import Clock

from mailtwist.actions import allowances
from mailtwist.actions.allowances import Allowance


def test_a_name_may_so_often_and_again_when_its_window_is_over():
    clock = Clock()
    allowance = Allowance(2, 60, clock)
    assert [allowance.take("a") for _ in range(3)] == [True, True, False]
    assert allowance.take("b")
    clock.advance(59)
    assert not allowance.take("a")
    clock.advance(1)
    assert [allowance.take("a") for _ in range(3)] == [True, True, False]


def test_tries_that_are_refused_do_not_lengthen_the_window():
    clock = Clock()
    allowance = Allowance(1, 60, clock)
    assert allowance.take("a")
    for _ in range(59):
        clock.advance(1)
        assert not allowance.take("a")
    clock.advance(1)
    assert allowance.take("a")


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(allowances, "MAX_KNOWN", 3)
    allowance = Allowance(1, 60, Clock())
    assert [allowance.take(name) for name in "abcd"] == [True] * 4
    assert allowance.take("a"), "forgotten, as the one that had been there longest"
    assert not allowance.take("d")
