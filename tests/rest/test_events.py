"""``/events`` of a running server: what happens to mail is told to those whose mail it is."""

from __future__ import annotations

import itertools
import time

import pytest

from tests.e2e.relaying import submit
from tests.support.event_stream import EventStream
from tests.support.rest import Rest

pytestmark = [pytest.mark.real]

_numbers = itertools.count(1)
PATIENCE_S = 30.0


def letter(subject: str) -> bytes:
    return f"From: a@b.example\r\nSubject: {subject}\r\n\r\nhello\r\n".encode()


@pytest.fixture
def anna(admin):
    return admin.user()


@pytest.fixture
def bert(admin):
    return admin.user()


def test_who_receives_is_told_at_once(server, anna, bert):
    account, address = anna.account()
    _, other = bert.account()
    with EventStream(anna) as stream:
        assert stream.headers["Content-Type"] == "text/event-stream"
        server.send(other, letter("not for anna"))
        began = time.monotonic()
        queue_id = server.send(address, letter("for anna"))
        number, kind, document = stream.next()
        assert time.monotonic() - began < 2
    assert kind == "received"
    assert (document["id"], document["kind"]) == (number, kind)
    assert document["mail_account_id"] == account
    data = document["data"]
    assert (data["subject"], data["recipient"], data["queue_id"]) == ("for anna", address, queue_id)
    assert data["sender"] == "sender@elsewhere.example"
    (mail,) = anna.inbox(account).data
    assert data["mail_id"] == mail["id"]
    assert data["mail_box_id"] == anna.boxes(account)["INBOX"]


def test_who_sends_is_told_what_came_of_it(server, sink, anna):
    _, address = anna.account()
    n = next(_numbers)
    sink.script(
        {
            f"RCPT bad{n}@far.example": "550 5.1.1 no such user",
            f"RCPT slow{n}@far.example": "451 4.7.1 try later",
        }
    )
    with EventStream(anna, kind="delivered,deferred,bounced") as stream:
        found = {}
        for name in (f"good{n}", f"slow{n}", f"bad{n}"):
            submit(server, address, f"{name}@far.example", letter("out"))
            _, kind, document = stream.next()
            found[kind] = document["data"]
    assert list(found) == ["delivered", "deferred", "bounced"]
    assert [data["code"] for data in found.values()] == [250, 451, 550]
    for data, name in zip(found.values(), ("good", "slow", "bad"), strict=True):
        assert (data["sender"], data["recipient"]) == (address, f"{name}{n}@far.example")
    assert found["deferred"]["next_attempt_at"]
    assert found["bounced"]["reply"] == "no such user"
    row = anna.row("outbox", found["deferred"]["outbox_id"])
    assert row["attributes"]["to_address"] == f"slow{n}@far.example"


def test_a_stream_goes_on_where_it_was_broken_off(server, anna):
    _, address = anna.account()
    with EventStream(anna) as stream:
        server.send(address, letter("one"))
        first, _, _ = stream.next()
    for subject in ("two", "three"):
        server.send(address, letter(subject))
    for options in ({"last": first}, {"after": first}):
        with EventStream(anna, **options) as stream:
            server.send(address, letter("four"))
            subjects = [document["data"]["subject"] for _, _, document in stream.take(3)]
            assert subjects[:2] == ["two", "three"]
            assert subjects[2] == "four"


def test_administrators_are_told_of_all_and_others_of_nothing(server, admin, anna, bert):
    _, address = anna.account()
    _, own = bert.account()
    with EventStream(admin, kind="received") as every, EventStream(bert) as his:
        server.send(address, letter("for anna"))
        server.send(own, letter("for bert"))
        told = [document["data"]["subject"] for _, _, document in every.take(2)]
        assert told == ["for anna", "for bert"]
        assert his.next()[2]["data"]["subject"] == "for bert"


def test_a_key_tells_of_its_mailbox(server, admin, anna):
    account, address = anna.account()
    _, other = anna.account()
    box = anna.boxes(account)["INBOX"]
    key = anna.make("api_key", {"name": "reader", "scopes": [f"mail:read:{box}"]})
    reader = Rest(anna.port, key["attributes"]["key"])
    with EventStream(reader) as stream:
        server.send(other, letter("elsewhere"))
        server.send(address, letter("here"))
        assert stream.next()[2]["data"]["subject"] == "here"
    sender = anna.make("api_key", {"name": "sender", "scopes": ["send:example.com"]})
    refused = EventStream(Rest(anna.port, sender["attributes"]["key"]))
    assert refused.status == 403


def test_guests_and_odd_questions_are_refused(nobody, admin):
    assert EventStream(nobody).status == 401
    assert EventStream(admin, kind="opened").status == 400
    assert EventStream(admin, after="yesterday").status == 400
    assert EventStream(nobody.with_token("x.y.z")).status == 401
    assert admin.ask("POST", "/events").status == 405


def test_a_stream_ends_with_the_password(admin, anna):
    with EventStream(anna) as stream:
        answer = anna.patch("user_account", anna.id, {"password": "another one"})
        assert answer.status == 200
        began = time.monotonic()
        stream.end()
        assert time.monotonic() - began < 5


def test_one_user_has_only_so_many_streams(admin, anna):
    streams = [EventStream(anna) for _ in range(5)]
    assert [stream.status for stream in streams] == [200] * 5
    assert EventStream(anna).status == 429
    streams.pop().close()
    deadline = time.monotonic() + PATIENCE_S
    while (again := EventStream(anna)).status != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for stream in (*streams, again):
        stream.close()


def test_streams_do_not_keep_a_server_from_stopping(make_fresh):
    server = make_fresh().start()
    admin = Rest(server.ports["http"]).become_administrator()
    with EventStream(admin) as stream:
        began = time.monotonic()
        server.terminate()
        stream.end()
        server.wait()
        assert time.monotonic() - began < 8


def test_nothing_is_told_where_nothing_is_kept(make_server):
    server = make_server(events={"retention": 0}).start()
    admin = Rest(server.ports["http"]).become_administrator()
    _, address = admin.user().account()
    with EventStream(admin) as stream:
        server.send(address, letter("x"))
        server.terminate()
        stream.end()
        server.wait()
