from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from mailtwist.control.health import ANSWER_S, KEPT_S, Health, ServerHealth, StoreHealth
from mailtwist.errors import StoreFull
from mailtwist.store.listener_states import FAILED, ListenerState
from tests.support.now import now


class Store:
    def __init__(self):
        self.asked = 0
        self.answer = None

    async def write(self, work):
        self.asked += 1
        if isinstance(self.answer, Deferred):
            await self.answer
        elif self.answer is not None:
            raise self.answer


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def health(store, clock):
    return StoreHealth(store, clock)


def test_a_store_that_takes_a_write_is_healthy(health):
    assert now(health.check()).is_good


def test_a_real_store_is_asked_too(database, clock):
    assert now(StoreHealth(database, clock).check()).is_good


def test_a_store_that_takes_none_is_not_and_says_why(health, store):
    store.answer = StoreFull(detail="/var/lib/secret")
    found = now(health.check())
    assert not found.is_good
    assert found.detail == "Insufficient system storage"


def test_a_store_that_is_silent_is_not_healthy_either(health, store, clock):
    store.answer = Deferred()
    asking = Deferred.fromCoroutine(health.check())
    clock.advance(ANSWER_S)
    found: list[Health] = []
    asking.addCallbacks(found.append)
    assert found[0].detail == "no answer in time"


def test_many_questions_within_a_second_are_one_probe(health, store, clock):
    for _ in range(100):
        now(health.check())
    assert store.asked == 1
    store.answer = StoreFull()
    clock.advance(KEPT_S)
    assert not now(health.check()).is_good
    assert store.asked == 2


def test_questions_at_once_share_the_answer(health, store):
    store.answer = Deferred()
    found: list[Health] = []
    for _ in range(10):
        Deferred.fromCoroutine(health.check()).addCallbacks(found.append)
    assert store.asked == 1
    store.answer.callback(None)
    assert [each.is_good for each in found] == [True] * 10


@pytest.mark.mission("DIN-11")
@pytest.mark.parametrize(
    ("broken", "detail"),
    [
        ([], ""),
        ([ListenerState("imap", "imap", "127.0.0.1", 143, FAILED, "in use")], ""),
        (
            [ListenerState("mx.example.com", "smtp", "127.0.0.1", 25, FAILED, "in use")],
            "Listener mx.example.com: in use",
        ),
    ],
)
def test_a_server_whose_listener_for_mail_does_not_run_is_not_healthy(health, broken, detail):
    found = now(ServerHealth(health, lambda: broken).check())
    assert found == Health(is_good=not detail, detail=detail)


@pytest.mark.mission("DIN-11")
def test_a_server_whose_store_takes_none_is_not_healthy(health, store):
    store.answer = StoreFull()
    found = now(ServerHealth(health, list).check())
    assert found == Health(is_good=False, detail="Store: Insufficient system storage")
