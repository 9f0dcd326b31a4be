"""Streams of events: what they begin with, what they leave out, and when they end."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from mailtwist.actions.feed import Feed
from mailtwist.errors import MailError, ProtocolViolation, Refusal
from mailtwist.http import events as streams_of
from mailtwist.http.bodies import read_parameters
from mailtwist.http.events import HEARTBEAT_S, MAX_OF_USER, MAX_WAITING, STUCK_S, Streams
from mailtwist.http.exchange import Exchange
from mailtwist.http.limits import TooMany
from mailtwist.mail.permissions import NOBODY, Scope, Viewer
from mailtwist.policy.identities import Unauthorized
from mailtwist.store import events
from mailtwist.store.database import Inline
from mailtwist.store.entities.ids import Kind, pack
from tests.store.making import account
from tests.store.people import seeded, user
from tests.support.now import now

ADMIN = Viewer(user_id=1, is_admin=True)
ANNA = Viewer(user_id=2)
BERT = Viewer(user_id=3)


class Sink:
    """What a client would read."""

    def __init__(self) -> None:
        self.octets = b""
        self.is_full = False
        self._drained: Any = None

    def write(self, data: bytes) -> None:
        self.octets += data

    def on_drain(self, callback: Any) -> None:
        self._drained = callback

    def drain(self) -> None:
        self.is_full = False
        self._drained()

    @property
    def events(self) -> list[tuple[int, str, dict[str, Any]]]:
        """(number, kind, document) of each."""
        found = []
        for block in self.octets.decode().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line[1:])
            if "data" in fields:
                found.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
        return found

    @property
    def subjects(self) -> list[str]:
        return [document["data"]["subject"] for _, _, document in self.events]


class Client:
    """One that follows; ``viewer`` may change while it does."""

    def __init__(self, desk: Desk, viewer: Viewer, query: str = "", last: str = "") -> None:
        self.viewer: Viewer | MailError = viewer
        self.sink = Sink()

        async def identify() -> Viewer:
            if isinstance(self.viewer, MailError):
                raise self.viewer
            return self.viewer

        exchange = Exchange(
            method="GET",
            path="/events",
            parameters=read_parameters(query.encode()),
            header=lambda name: last if name == "last-event-id" else "",
            body=b"",
            identify=identify,
            identify_again=identify,
        )
        answer = now(desk.streams.open(exchange))
        assert answer.content_type == "text/event-stream"
        assert answer.stream is not None
        self.running: Deferred[None] = Deferred.fromCoroutine(answer.stream(self.sink))  # type: ignore[arg-type]

    @property
    def has_ended(self) -> bool:
        return bool(self.running.called)


class Desk:
    """A store with accounts 2 (Anna's) and 3 (Bert's), and the streams of its events."""

    def __init__(self, database: Inline) -> None:
        self.database = database
        self.clock = Clock()
        self.feed = Feed(database, clock=self.clock)
        self.feed.start()
        self.streams = Streams(self.feed, clock=self.clock)
        events.keep(database.engine, is_wanted=True)

    def follow(self, viewer: Viewer = ADMIN, query: str = "", last: str = "") -> Client:
        client = Client(self, viewer, query, last)
        self.pass_time(0.1)
        return client

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([0.05] * max(1, int(seconds * 20)))

    def tell(self, *subjects: str, account: int = 0, kind: str = "received", **data: Any) -> None:
        told = [(account, kind, {"subject": subject, **data}) for subject in subjects]
        now(self.database.write(lambda connection: events.write(connection, told)))
        self.pass_time(0.2)


@pytest.fixture
def desk(database: Inline) -> Desk:
    made = Desk(database)
    with database.engine.write() as connection:
        seeded(connection)
        for number, name in enumerate(("root", "anna", "bert"), start=1):
            person = user(connection, f"{name}@people.example")
            box = account(connection, f"{name}@example.com")
            assert (person.user_id, box) == (number, number)
            connection.exec_driver_sql(
                f"UPDATE account SET owner_user_id = {number} WHERE account_id = {number}"
            )
    return made


def test_a_stream_tells_what_happens_from_now_on(desk: Desk) -> None:
    desk.tell("before")
    client = desk.follow()
    assert client.sink.octets == b"retry: 3000\n\n"
    desk.tell("one", "two")
    desk.tell("three", kind="bounced")
    assert client.sink.subjects == ["one", "two", "three"]
    numbers = [number for number, _, _ in client.sink.events]
    assert numbers == sorted(set(numbers))
    number, kind, document = client.sink.events[-1]
    assert (kind, document["kind"], document["id"]) == ("bounced", "bounced", str(number))
    assert not client.has_ended


def test_it_goes_on_where_it_stopped(desk: Desk) -> None:
    first = desk.follow()
    desk.tell("one", "two", "three")
    number = first.sink.events[0][0]
    assert desk.follow(last=str(number)).sink.subjects == ["two", "three"]
    assert desk.follow(query=f"after={number}").sink.subjects == ["two", "three"]
    # What the browser saw last is newer than the address it began with.
    last = str(first.sink.events[1][0])
    assert desk.follow(query=f"after={number}", last=last).sink.subjects == ["three"]
    assert desk.follow(query="after=0").sink.subjects == ["one", "two", "three"]


def test_what_happens_during_the_catching_up_is_told_once(desk: Desk) -> None:
    desk.follow()
    desk.tell("old")
    client = Client(desk, ADMIN, "after=0")
    desk.tell("new")
    assert client.sink.subjects == ["old", "new"]


def test_a_long_past_is_read_in_pages(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    subjects = [str(n) for n in range(1200)]
    desk.tell(*subjects)
    assert desk.follow(query="after=0").sink.subjects == subjects


def test_only_the_kinds_that_were_asked_for_are_told(desk: Desk) -> None:
    client = desk.follow(query="kind=bounced,deferred&kind=delivered")
    for kind in events.KINDS:
        desk.tell(kind, kind=kind)
    assert client.sink.subjects == ["delivered", "deferred", "bounced"]


def test_everybody_is_told_of_his_own_accounts(desk: Desk) -> None:
    clients = [desk.follow(viewer) for viewer in (ADMIN, ANNA, BERT)]
    desk.tell("anna", account=2)
    desk.tell("bert", account=3)
    desk.tell("nobody")
    assert [client.sink.subjects for client in clients] == [
        ["anna", "bert", "nobody"],
        ["anna"],
        ["bert"],
    ]
    later = [desk.follow(viewer, "after=0").sink.subjects for viewer in (ADMIN, ANNA, BERT)]
    assert later == [["anna", "bert", "nobody"], ["anna"], ["bert"]]


def test_a_key_is_held_to_its_mailboxes(desk: Desk) -> None:
    box = pack(Kind.MAIL_BOX, 2, 1)
    key = Viewer(user_id=2, scopes=(Scope("mail:read", box), Scope("send", "*")))
    client = desk.follow(key)
    desk.tell("mine", account=2, mailbox=1, entry=1)
    desk.tell("other box", account=2, mailbox=2, entry=2)
    desk.tell("sent", account=2, kind="delivered")
    desk.tell("other account", account=3, mailbox=1, entry=1)
    assert client.sink.subjects == ["mine"]


@pytest.mark.parametrize(
    ("viewer", "query", "last", "error"),
    [
        (NOBODY, "", "", Unauthorized),
        (Viewer(user_id=2, scopes=(Scope("send", "*"),)), "", "", Refusal),
        (ADMIN, "kind=opened", "", ProtocolViolation),
        (ADMIN, "after=x", "", ProtocolViolation),
        (ADMIN, "after=-1", "", ProtocolViolation),
        (ADMIN, "after=9999999999999999999", "", ProtocolViolation),
        (ADMIN, "", "١", ProtocolViolation),
    ],
    ids=["guest", "key", "kind", "word", "negative", "large", "digit"],
)
def test_who_may_not_or_asks_badly_is_refused(
    desk: Desk, viewer: Viewer, query: str, last: str, error: type[MailError]
) -> None:
    with pytest.raises(error):
        desk.follow(viewer, query, last)


def test_there_are_only_so_many_of_a_user_and_in_all(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = [desk.follow(ANNA) for _ in range(MAX_OF_USER)]
    with pytest.raises(TooMany):
        desk.follow(ANNA)
    clients[0].running.addErrback(lambda failure: None)
    clients[0].running.cancel()
    desk.follow(ANNA)
    monkeypatch.setattr(streams_of, "MAX_STREAMS", MAX_OF_USER)
    with pytest.raises(TooMany):
        desk.follow(BERT)


def test_a_comment_comes_now_and_then(desk: Desk) -> None:
    client = desk.follow()
    desk.pass_time(HEARTBEAT_S)
    assert client.sink.octets.count(b": still here\n\n") == 1
    # Also while much happens.
    for _ in range(int(HEARTBEAT_S)):
        desk.tell("x")
        desk.pass_time(1)
    assert client.sink.octets.count(b": still here\n\n") >= 2


@pytest.mark.parametrize("is_told", [True, False], ids=["at once", "at the next heartbeat"])
def test_it_ends_with_the_token(desk: Desk, is_told: bool) -> None:
    client = desk.follow(ANNA)
    client.viewer = Unauthorized("The token is no longer valid")
    if is_told:
        desk.streams.recheck()
        desk.pass_time(0.1)
    else:
        desk.pass_time(HEARTBEAT_S + 0.1)
    assert client.has_ended
    desk.tell("later", account=2)
    assert client.sink.subjects == []


def test_rights_that_are_lost_count_at_once(desk: Desk) -> None:
    client = desk.follow(ADMIN)
    desk.tell("one", account=3)
    client.viewer = ANNA
    desk.streams.recheck()
    desk.pass_time(0.1)
    desk.tell("two", account=3)
    desk.tell("three", account=2)
    assert client.sink.subjects == ["one", "three"]
    assert not client.has_ended


def test_a_slow_client_is_waited_for_within_bounds(desk: Desk) -> None:
    client = desk.follow()
    client.sink.is_full = True
    desk.tell("one", "two")
    assert client.sink.subjects == []
    client.sink.drain()
    assert client.sink.subjects == ["one", "two"]
    client.sink.is_full = True
    desk.tell(*["x"] * (MAX_WAITING + 1))
    desk.pass_time(0.5)
    assert client.has_ended
    assert client.sink.subjects == ["one", "two"]


@pytest.mark.parametrize("query", ["", "after=0"], ids=["live", "catching up"])
def test_a_client_that_takes_nothing_is_given_up(desk: Desk, query: str) -> None:
    desk.tell("before")
    client = Client(desk, ADMIN, query)
    client.sink.is_full = True
    desk.tell("x")
    desk.pass_time(STUCK_S - 1)
    assert not client.has_ended
    desk.pass_time(HEARTBEAT_S + 2)
    assert client.has_ended


def test_all_end_when_the_server_stops(desk: Desk) -> None:
    clients = [desk.follow(ANNA), desk.follow(ADMIN)]
    desk.streams.close()
    assert all(client.has_ended for client in clients)
    now(desk.feed.stop())
    assert desk.clock.getDelayedCalls() == []


def test_nothing_is_read_while_nobody_follows(desk: Desk) -> None:
    count = 0
    read = desk.database.read

    async def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        return await read(*arguments, **options)

    desk.database.read = counted  # type: ignore[method-assign]
    desk.tell("x")
    desk.pass_time(30)
    assert count == 0
    client = desk.follow()
    client.running.addErrback(lambda failure: None)
    client.running.cancel()
    count = 0
    desk.tell("y")
    desk.pass_time(30)
    assert count == 0
