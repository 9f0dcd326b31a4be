"""Requests and their keys: written with the mail, looked up, given up in time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mailtwist.errors import NotFound
from mailtwist.store import send_requests
from mailtwist.store.deliver import Acceptance, Entry, deliver
from mailtwist.store.queue import control
from mailtwist.store.queue.values import Message, Recipient
from mailtwist.store.send_requests import (
    DELIVERED,
    FAILED,
    KEY_US,
    QUEUED,
    REFUSED,
    REQUEST_US,
    Expected,
    Fate,
    Key,
    KeyTaken,
    SendRequest,
)
from tests.store.making import account, spooled

NOW = 1_800_000_000_000_000
KEY = Key("a" * 64, "b" * 64)


def request(queue_id=7, **changes):
    given = SendRequest(
        queue_id,
        "client:127.0.0.1",
        "anna@example.com",
        "Grüße",
        "1@example.com",
        (Expected("bob@far.example", QUEUED), Expected("eve@example.com", REFUSED, "550 5.1.1 no")),
        NOW,
        KEY,
    )
    return replace(given, **changes)


def asked(of, account_id=0, **changes):
    """A message with its request, for the queue, or for an account when one is given."""
    content = spooled()
    if account_id:
        return Acceptance(
            content, (Entry(account_id, "INBOX"),), of.queue_id, NOW, request=of, **changes
        )
    recipients = (Recipient(1, "bob@far.example", "far.example"),)
    message = Message(of.queue_id, of.sender, recipients, NOW, NOW + 9, NOW + 9)
    message = replace(message, content_id=content.content_id, octets=content.octets)
    return Acceptance(content, (), of.queue_id, NOW, queue=message, request=of, **changes)


def put(engine, *acceptances):
    with engine.write() as connection:
        return deliver(connection, list(acceptances))


def kept(engine, now=NOW, name=KEY.name):
    with engine.read() as connection:
        return send_requests.kept(connection, name, now=now)


def test_a_request_is_written_with_its_mail_and_found_again(engine):
    assert put(engine, asked(request())) == [()]
    with engine.read() as connection:
        found = send_requests.find(connection, 7)
        assert found is not None
        assert found == replace(request(), key=None)
        assert send_requests.fates(connection, found) == [
            Fate("bob@far.example", QUEUED, next_attempt_at=NOW),
            Fate("eve@example.com", REFUSED, "550 5.1.1 no"),
        ]
        assert send_requests.find(connection, 8) is None
    assert kept(engine) == send_requests.Kept(KEY.digest, 7, 200, "")


def test_of_two_with_one_key_one_is_written(engine):
    put(engine, asked(request()))
    other = Key("c" * 64, KEY.digest)
    first, second = put(
        engine, asked(request(8)), asked(request(9, key=other, scope="somebody else"))
    )
    assert isinstance(first, KeyTaken)
    assert second == ()
    with engine.read() as connection:
        assert send_requests.find(connection, 8) is None
        assert send_requests.find(connection, 9) is not None
        assert connection.exec_driver_sql("SELECT count(*) FROM queue_message").scalar() == 2
    assert kept(engine).queue_id == 7


def test_a_key_is_free_again_when_its_mail_is_not_written(engine):
    (answer,) = put(engine, asked(request(), account_id=99))
    assert isinstance(answer, NotFound)
    assert kept(engine) is None
    assert put(engine, asked(request(8))) == [()]


def test_a_key_is_free_again_after_a_day(engine):
    put(engine, asked(request()))
    later = NOW + KEY_US
    assert kept(engine, later - 1) is not None
    assert kept(engine, later) is None
    assert put(engine, asked(request(8, created_at=later))) == [()]
    assert kept(engine, later).queue_id == 8


def test_another_answer_takes_the_place_of_the_first(engine):
    put(engine, asked(request()))
    with engine.write() as connection:
        send_requests.keep(connection, request(), status=500, details="550 no")
        # Of a request whose key was taken over by another one, nothing is kept.
        send_requests.keep(connection, request(8), status=500, details="551 no")
    assert kept(engine) == send_requests.Kept(KEY.digest, 7, 500, "550 no")


@pytest.mark.parametrize(
    ("rows", "state", "attempts"),
    [
        ([(3, 1), (3, 1)], "delivered", 1),
        ([(3, 1), (4, 2)], "failed", 2),
        ([(3, 1), (0, 1)], "deferred", 1),
        ([(0, 0), (3, 1)], "queued", 0),
        ([(1, 0)], "queued", 0),
        ([(2, 1)], "deferred", 1),
    ],
)
def test_of_those_behind_an_alias_the_worst_is_told(engine, rows, state, attempts):
    """``rows``: state and attempts of each whom the address leads to."""
    with engine.write() as connection:
        for n, (number, count) in enumerate(rows):
            connection.exec_driver_sql(
                "INSERT INTO queue_recipient (queue_id, n, address, destination, original,"
                " forwarded_by, orcpt, notify, state, priority, due_at, lease_until, node_id,"
                f" attempts, was_warned) VALUES (7, {n}, 'x{n}@y.example', 'y.example',"
                f" 'bob@far.example', '', '', 0, {number}, 1, 5, 0, 0, {count}, 0)"
            )
        bob = send_requests.fates(connection, request())[0]
        assert (bob.address, bob.state, bob.attempts) == ("bob@far.example", state, attempts)
        connection.exec_driver_sql("DELETE FROM queue_recipient")


def test_who_shares_a_row_with_another_has_a_fate_too(engine):
    """Two aliases of one address elsewhere are one recipient for the queue."""
    both = (Expected("sales@example.com", QUEUED), Expected("bob@far.example", QUEUED))
    put(engine, asked(request(recipients=both)))
    with engine.read() as connection:
        assert send_requests.fates(connection, request(recipients=both)) == [
            Fate("sales@example.com", QUEUED, next_attempt_at=NOW),
            Fate("bob@far.example", QUEUED, next_attempt_at=NOW),
        ]


def test_what_was_taken_out_of_the_queue_waits_for_nothing(engine):
    put(engine, asked(request()))
    with engine.write() as connection:
        control.delete(connection, 7, NOW)
        bob = send_requests.fates(connection, request())[0]
    assert bob == Fate("bob@far.example", FAILED, "it was taken out of the queue")


def test_what_is_old_is_given_up_in_helpings(engine):
    with engine.write() as connection:
        account_id = account(connection)
    local = (Expected("anna@example.com", DELIVERED),)
    put(
        engine,
        *(
            asked(request(n, key=Key(f"{n:064}", "x"), recipients=local), account_id)
            for n in range(1, 6)
        ),
        asked(request(6, key=None)),
    )

    def count(table):
        return connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar()

    with engine.write() as connection:
        assert send_requests.sweep(connection, NOW)
        assert (count("send_key"), count("send_request")) == (5, 6)
        assert not send_requests.sweep(connection, NOW + KEY_US, limit=3)
        assert count("send_key") == 2
        assert send_requests.sweep(connection, NOW + KEY_US, limit=3)
        assert (count("send_key"), count("send_request")) == (0, 6)
        while not send_requests.sweep(connection, NOW + REQUEST_US, limit=2):
            pass
        # The last one is in the queue still.
        assert count("send_request") == 1
        assert send_requests.find(connection, 6) is not None
