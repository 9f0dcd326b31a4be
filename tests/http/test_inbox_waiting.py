"""Waiting for mail: what answers a client, when, and that none is missed whatever comes between."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher

from mailtwist.errors import MailError, StoreUnavailable
from mailtwist.http.inbox import waiting as waiting_of
from mailtwist.http.inbox.finding import Finding, Wanted
from mailtwist.http.inbox.waiting import RETRY_S, Waiting
from mailtwist.mail.inbox_query import parse
from mailtwist.store import inbox
from mailtwist.store.changes import Report
from mailtwist.store.database import Inline
from mailtwist.store.engine import open_engine
from mailtwist.store.inbox import Captured
from mailtwist.store.search import Search
from tests.http.inboxes import NOW_S, Desk
from tests.support.now import now
from tests.support.stores import SqliteStores

HELLO = "From: Ann <ann@example.net>\nSubject: Hello\n\nyour code is 482913\n"
BOB = "bob@inbox.example"


def is_idle(desk: Desk) -> bool:
    """Nobody waits, nobody listens, no timer runs."""
    waiting = desk.inboxes.waiting
    timers = [each for each in desk.clock.getDelayedCalls() if "give" in repr(each)]
    return not len(waiting) and not desk.database.changes._accounts and not timers


# -- over HTTP --------------------------------------------------------------------------------


def test_a_message_that_is_there_already_answers_at_once(desk):
    desk.capture("Subject: old\n\n", BOB)
    number = desk.capture(HELLO, BOB)
    answer = desk.get("/emails/bob/wait")
    assert answer.json == desk.json(f"/emails/bob/{number}")
    assert answer.json["codes"] == ["482913"]
    assert is_idle(desk)


def test_a_message_that_comes_answers_who_waits(desk):
    answer = desk.wait("/emails/BOB", subject="hel", **{"from": "ANN"})
    desk.capture("Subject: other\n\n", BOB)
    desk.capture(HELLO, "carl@inbox.example")
    assert answer() is None
    number = desk.capture(HELLO, BOB)
    found = answer()
    assert found is not None
    assert found.json == desk.json(f"/emails/bob/{number}")
    assert is_idle(desk)


def test_when_the_time_is_over_there_is_no_such_message(desk):
    answer = desk.wait("/emails/bob", timeout="2.5")
    desk.clock.advance(2.4)
    assert answer() is None
    desk.clock.advance(0.2)
    found = answer()
    assert found is not None
    assert (found.status, found.json) == (404, {"error": "No such message came within 2.5 s"})
    assert is_idle(desk)


def test_a_client_that_goes_away_leaves_nothing_behind(desk):
    stays, goes = desk.wait("/emails/bob"), desk.wait("/emails/bob")
    desk.hang_up(goes)
    assert len(desk.inboxes.waiting) == 1
    desk.hang_up(stays)
    assert is_idle(desk)
    desk.capture(HELLO, BOB)


def test_who_waits_is_not_among_the_requests_at_once(desk):
    class Values:
        def get(self, name: str) -> str:
            return {"limit.max_connections": "2"}.get(name, "")

    desk = Desk(desk.database, values=Values())
    clients = [desk.wait("/emails/bob") for _ in range(5)]
    assert len(desk.inboxes.waiting) == 5
    desk.capture(HELLO, BOB)
    for client in clients:
        found = client()
        assert found is not None
        assert found.status == 200
    assert [desk.get("/emails/bob").status for _ in range(4)] == [200] * 4


def test_a_server_that_stops_says_so_at_once(desk):
    clients = [desk.wait(f"/emails/bob{n}") for n in range(3)]
    desk.inboxes.close()
    late = desk.wait("/emails/bob")
    for client in (*clients, late):
        found = client()
        assert found is not None
        assert (found.status, found.json) == (503, {"error": "The server stops"})
    assert is_idle(desk)


def test_only_so_many_may_wait(desk, monkeypatch):
    monkeypatch.setattr(waiting_of, "MAX_WAITING", 2)
    for _ in range(2):
        desk.wait("/emails/bob")
    assert desk.error("GET", "/emails/bob/wait") == (503, "Too many clients wait for mail")
    assert desk.error("GET", "/emails/bob/wait?timeout=0") == (404, "No such message")


AFTER = [
    (lambda old: old["id"], 1),
    (lambda old: str(old["received_at"]), 1),
    (lambda old: f"{old['received_at']}.5", 1),
    (lambda old: str(old["received_at"] - 1), 0),
    (lambda old: "0", 0),
]


@pytest.mark.parametrize(("after", "expected"), AFTER)
def test_after_leaves_out_what_is_known(desk, after, expected):
    desk.capture("Subject: old\n\n", BOB)
    (old,) = desk.json("/emails/bob")
    answer = desk.wait("/emails/bob", after=after(old))
    assert (answer() is None) is bool(expected)
    desk.passed_s = 2
    desk.capture("Subject: new\n\n", BOB)
    found = answer()
    assert found is not None
    assert found.json["subject"] == ("new" if expected else "old")


def test_after_a_message_comes_also_what_has_a_lower_number(desk):
    """A number is given when a message begins to come in; a slower one may be stored later."""
    known = int(desk.capture("Subject: known\n\n", BOB))
    desk.capture("Subject: slow\n\n", BOB, number=known - (1 << 22))
    found = desk.get("/emails/bob/wait", after=known)
    assert found.json["subject"] == "slow"


def test_after_a_message_that_is_gone_numbers_alone_tell(desk):
    known = desk.capture("Subject: known\n\n", BOB)
    desk.ask("DELETE", f"/emails/bob/{known}")
    answer = desk.wait("/emails/bob", after=known)
    assert answer() is None
    desk.capture(HELLO, BOB)
    assert answer() is not None


def test_a_search_decides_who_is_answered(desk):
    with_code = desk.wait("/emails/bob", query="body:code")
    attached = desk.wait("/emails/bob", query="has:attachment")
    desk.capture("Subject: x\n\nnothing\n", BOB)
    assert (with_code(), attached()) == (None, None)
    desk.capture(HELLO, BOB)
    assert with_code() is not None
    assert attached() is None


# -- the hub by itself ------------------------------------------------------------------------


class Counted(Inline):
    """Counts what is read."""

    reads = 0

    async def read(self, work: Any, *, account_id: int = 0) -> Any:
        self.reads += 1
        return await super().read(work, account_id=account_id)


def test_one_look_up_serves_all_who_wait(sqlite_stores, tmp_path):
    database = Counted(open_engine(sqlite_stores.fresh(tmp_path)))
    desk = Desk(database)
    clients = [desk.wait(f"/emails/user{n % 50}") for n in range(100)]
    desk.capture(HELLO, "other@inbox.example")  # reads nothing that is not there
    before = database.reads
    desk.capture(HELLO, "user7@inbox.example")
    answered = [client() for client in clients if client() is not None]
    assert len(answered) == 2
    # One for what is new, one for the document of each: Inline gives nobody time to share it.
    assert database.reads - before == 3
    for client in clients:
        desk.hang_up(client)
    database.release()


class Held(Inline):
    """Each read waits to be done, and then to be told."""

    def __init__(self, engine: Any) -> None:
        super().__init__(engine)
        self.steps: deque[Callable[[], None]] = deque()
        self.failing = 0

    async def read(self, work: Any, *, account_id: int = 0) -> Any:
        done: Deferred[Any] = Deferred()

        def run() -> None:
            if self.failing:
                self.failing -= 1
                self.steps.append(lambda: done.errback(StoreUnavailable(detail="locked")))
                return
            with self.engine.read() as connection:
                result = work(connection)
            self.steps.append(lambda: done.callback(result))

        self.steps.append(run)
        return await done

    def step(self) -> bool:
        if self.steps:
            self.steps.popleft()()
        return bool(self.steps)


class Hub:
    """The hub on a store whose reads are done step by step."""

    def __init__(self, database: Held) -> None:
        self.database = database
        self.desk = Desk(database)
        self.account_id = self.desk.account()
        finding = Finding(database, retention_s=lambda: 86_400.0, now=self.desk.now)
        self.clock = self.desk.clock
        self.waiting = Waiting(database, finding, clock=self.clock)

    def wait(self, name: str = "bob", **wanted: Any) -> list[Any]:
        """What a waiter is given, once it is; or why not."""
        outcome: list[Any] = []
        coroutine = self.waiting.wait(Wanted(self.account_id, name, **wanted), timeout_s=30)
        waiter = Deferred.fromCoroutine(coroutine)
        waiter.addCallbacks(outcome.append, lambda failure: outcome.append(failure.value))
        return outcome

    def settle(self) -> None:
        while self.database.step():
            pass
        self.database.step()


@pytest.fixture
def hub(sqlite_stores: SqliteStores, tmp_path: Path) -> Iterator[Hub]:
    database = Held(open_engine(sqlite_stores.fresh(tmp_path)))
    yield Hub(database)
    database.release()


@pytest.mark.parametrize("name", ["bob", None])
@pytest.mark.parametrize("searched", [False, True])
@pytest.mark.parametrize("place", range(7))
def test_a_message_is_seen_wherever_it_comes_in_between(hub, place, name, searched):
    wanted = {"tree": parse("code")} if searched else {}
    first = hub.wait(name, **wanted)
    for _ in range(place):
        hub.database.step()
    second = hub.wait(name, **wanted)
    number = hub.desk.capture(HELLO, BOB)
    hub.settle()
    assert [each.queue_id for each in (*first, *second)] == [int(number)] * 2
    assert len(hub.waiting) == 0


@pytest.mark.parametrize("place", range(6))
def test_two_messages_are_both_told_wherever_the_second_comes(hub, place):
    clients = hub.wait("bob"), hub.wait("carl")
    hub.desk.capture(HELLO, BOB)
    for _ in range(place):
        hub.database.step()
    hub.desk.capture(HELLO, "carl@inbox.example")
    hub.settle()
    assert [each[0].local_part for each in clients] == ["bob", "carl"]


def test_a_look_up_that_fails_is_tried_again(hub):
    client = hub.wait("bob")
    hub.settle()
    hub.desk.capture("Subject: other\n\n", "carl@inbox.example")
    hub.database.failing = 1
    hub.settle()
    hub.desk.capture(HELLO, BOB)
    hub.database.failing = 1
    hub.settle()
    assert client == []
    hub.clock.advance(RETRY_S)
    hub.settle()
    assert [each.local_part for each in client] == ["bob"]


def test_a_search_of_news_that_fails_is_tried_again(hub):
    plain, searching = hub.wait("bob"), hub.wait("bob", tree=parse("body:code"))
    hub.settle()
    number = hub.desk.capture(HELLO, BOB)
    hub.database.step()  # reads what is new
    hub.database.failing = 1
    hub.settle()
    assert ([each.queue_id for each in plain], searching) == ([int(number)], [])
    hub.clock.advance(RETRY_S)
    hub.settle()
    assert [each.queue_id for each in searching] == [int(number)]


def test_a_search_that_always_fails_is_told_and_keeps_nothing_from_others(hub, monkeypatch):
    bad, good = parse("body:bad"), parse("body:code")
    clients = hub.wait("bob", tree=bad), hub.wait("bob", tree=good)
    hub.settle()
    matches = Search.matches

    async def fail(self: Search, node: Any) -> Any:
        if node == bad:
            raise ZeroDivisionError
        return await matches(self, node)

    monkeypatch.setattr(Search, "matches", fail)
    number = hub.desk.capture(HELLO, BOB)
    hub.settle()
    assert isinstance(clients[0][0], ZeroDivisionError)
    assert [each.queue_id for each in clients[1]] == [int(number)]


def test_a_first_look_that_fails_is_told(hub):
    hub.database.failing = 2
    client = hub.wait("bob")
    hub.settle()
    assert isinstance(client[0], StoreUnavailable)
    assert len(hub.waiting) == 0


def test_a_server_that_stops_while_somebody_looks_leaves_no_error_behind(hub):
    told: list[Any] = []
    globalLogPublisher.addObserver(told.append)  # type: ignore[arg-type]
    client = hub.wait("bob")
    hub.desk.capture(HELLO, BOB)
    hub.waiting.close()
    hub.settle()
    gc.collect()
    globalLogPublisher.removeObserver(told.append)  # type: ignore[arg-type]
    assert isinstance(client[0], Captured)
    assert [each for each in told if "log_failure" in each] == []
    assert isinstance(hub.wait("bob")[0], MailError)
    assert len(hub.waiting) == 0


def test_who_still_looks_may_be_told_of_several(hub):
    other = hub.wait("carl")
    hub.settle()
    client = hub.wait("bob")
    late = hub.database.steps.pop()
    hub.desk.capture(HELLO, BOB)
    hub.settle()
    last = hub.desk.capture(HELLO, BOB)
    hub.desk.capture(HELLO, "carl@inbox.example")
    hub.settle()
    assert [each.local_part for each in other] == ["carl"]
    hub.database.steps.append(late)
    hub.settle()
    assert [each.queue_id for each in client] == [int(last)]


def test_who_comes_later_does_not_move_what_others_were_told(hub):
    steps = hub.database.steps
    first, second = hub.wait("bob"), hub.wait("carl")
    late = steps.pop()  # where the second begins: read much later
    hub.settle()
    hub.database.changes.publish(Report({(hub.account_id, 1): 99}))
    hub.database.step()  # nothing new is found, and not yet told
    hub.desk.capture(HELLO, BOB)
    steps.appendleft(late)
    hub.database.step()
    steps.rotate(1)
    hub.settle()
    assert [each.local_part for each in first] == ["bob"]
    assert second == []


def test_more_than_a_page_of_news_is_all_told(hub, monkeypatch):
    monkeypatch.setattr(waiting_of, "PAGE", 2)
    clients = [hub.wait(f"u{n}") for n in range(7)]
    hub.settle()
    for n in range(7):
        hub.desk.capture(HELLO, f"u{n}@inbox.example")
    hub.settle()
    assert [each[0].local_part for each in clients] == [f"u{n}" for n in range(7)]


def test_what_is_not_captured_any_more_is_not_waited_for(hub):
    hub.desk.capture(HELLO, BOB)
    now(hub.database.write(lambda c: inbox.delete(c, hub.account_id, "bob", None)))
    client = hub.wait("bob")
    hub.settle()
    assert client == []
    assert hub.desk.now() == NOW_S * 1_000_000
