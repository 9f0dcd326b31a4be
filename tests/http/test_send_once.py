"""One key, one mail: within a process, and where another process has the key."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from mailtwist.errors import Refusal
from mailtwist.http.send import answers
from mailtwist.http.send.answers import Failed, Invalid
from mailtwist.http.send.once import REPLAYED, Once, OtherBody, key_of
from mailtwist.store.send_requests import Kept, KeyTaken
from tests.support.now import now as done

KEY = key_of("order-1", "service", b"{}")
OTHER = key_of("order-1", "service", b"[]")


class Rows:
    """What the row of a key says, each time it is asked for."""

    def __init__(self, *found):
        self.found = list(found)

    async def read(self, _work):
        return self.found.pop(0)


class Work:
    """What sends: gives the outcomes in turn, and counts."""

    def __init__(self, *outcomes: Any) -> None:
        self.left = list(outcomes)
        self.count = 0

    async def __call__(self, key):
        self.count += 1
        outcome = self.left.pop(0)
        if isinstance(outcome, Deferred):
            outcome = await outcome
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def running(once, key, send):
    outcome: list[Any] = []
    Deferred.fromCoroutine(once.run(key, send)).addBoth(outcome.append)
    return outcome


def test_without_a_key_each_is_sent():
    send = Work(answers.sent(1), answers.sent(2))
    once = Once(Rows())
    assert done(once.run(None, send)) == answers.sent(1)
    assert done(once.run(None, send)) == answers.sent(2)


def test_who_comes_meanwhile_gets_the_same_answer():
    held: Deferred[Any] = Deferred()
    once, send = Once(Rows(None)), Work(held)
    first, second = running(once, KEY, send), running(once, KEY, send)
    with pytest.raises(OtherBody):
        done(once.run(OTHER, send))
    assert first == second == []
    held.callback(answers.sent(1))
    assert first == [answers.sent(1)]
    assert second == [answers.sent(1).with_header(*REPLAYED)]
    assert send.count == 1


def test_who_comes_meanwhile_is_refused_alike_and_nothing_is_kept():
    held: Deferred[Any] = Deferred()
    once, send = Once(Rows(None, None)), Work(held, answers.sent(2))
    first, second = running(once, KEY, send), running(once, KEY, send)
    held.callback(Refusal("no"))
    assert [failure.type for failure in first + second] == [Refusal, Refusal]
    assert done(once.run(KEY, send)) == answers.sent(2)


@pytest.mark.parametrize("is_late", [False, True])
def test_the_row_of_another_process_decides(is_late):
    """Late: it came between our look and our write."""
    kept = Kept(KEY.digest, 7, 200, "")
    once = Once(Rows(None, kept) if is_late else Rows(kept))
    answer = done(once.run(KEY, Work(KeyTaken())))
    assert answer == answers.sent(7).with_header(*REPLAYED)
    once = Once(Rows(None, kept) if is_late else Rows(kept))
    with pytest.raises(OtherBody):
        done(once.run(OTHER, Work(KeyTaken())))


def test_a_failure_is_given_again_as_it_was():
    failed = Failed("550 no")
    failed.queue_id = 7
    once = Once(Rows(Kept(KEY.digest, 7, 500, "550 no")))
    answer = done(once.run(KEY, Work()))
    assert answer == answers.refuse(failed).with_header(*REPLAYED)


def test_keys_of_two_askers_are_two():
    assert key_of("order-1", "user:1", b"{}").name != KEY.name
    assert key_of("", "service", b"{}") is None


@pytest.mark.parametrize("text", ["x" * 256, "a\tb", "ü", "\x7f"])
def test_a_key_is_printable_and_short(text):
    with pytest.raises(Invalid, match="Idempotency-Key"):
        key_of(text, "service", b"{}")
