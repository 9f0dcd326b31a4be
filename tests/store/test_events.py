"""Events: written with what they tell of, read in order and none twice, swept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, text

from mailtwist.store import changes, event_feed, events
from mailtwist.store.deliver import Acceptance, Entry, deliver
from mailtwist.store.engine import Engine, open_engine
from mailtwist.store.entities.ids import Kind, unpack
from mailtwist.store.event_feed import MAX_READ, Cursor, Event, read_after
from mailtwist.store.ids import now_us
from tests.store.making import NOW, account, spooled
from tests.store.people import seeded, user
from tests.store.queued import conclude, deferred, delivered, enqueue, failed, queued

RECEIVED: dict[str, Any] = {"return_path": "bob@example.net", "recipient": "anna@example.com"}


@pytest.fixture
def kept(engine: Engine) -> Engine:
    """A store whose events are kept."""
    events.keep(engine, is_wanted=True)
    return engine


def accepted(account_id: int, *, received_as: int | None = 7, **entry: Any) -> Acceptance:
    return Acceptance(spooled(), (Entry(account_id, "INBOX", **entry),), received_as, NOW)


def everything(connection: Connection) -> list[Event]:
    return list(read_after(connection, 0).events)


def tell(connection: Connection, *numbers: int) -> None:
    events.write(connection, [(number, events.RECEIVED, {}) for number in numbers])


# -- what is written ------------------------------------------------------------------------


def test_what_is_received_is_told(kept: Engine) -> None:
    with kept.write() as connection:
        anna = account(connection)
        ((place,),) = deliver(connection, [accepted(anna, **RECEIVED)])  # type: ignore[misc]
        assert changes.pending(connection).kinds >= {events.KIND}
        (only,) = everything(connection)
    assert (only.account_id, only.kind, only.owner) == (anna, "received", 0)
    assert abs(only.at - now_us()) < 60_000_000
    data = only.document["data"]
    assert unpack(Kind.MAIL_BOX, data.pop("mail_box_id")) == (anna, place.mailbox_id)
    assert unpack(Kind.MAIL, data.pop("mail_id"))
    assert data == {
        "sender": "bob@example.net",
        "recipient": "anna@example.com",
        "subject": "hello",
        "message_id": "<a@b>",
        "queue_id": "7",
        "octets": 25,
    }


def test_one_event_for_each_mailbox(kept: Engine) -> None:
    with kept.write() as connection:
        anna, bert = account(connection), account(connection, "bert@example.com")
        entries = tuple(Entry(each, "INBOX", return_path="") for each in (anna, bert))
        deliver(connection, [Acceptance(spooled(), entries, 8, NOW), accepted(anna, **RECEIVED)])
        assert [each.account_id for each in everything(connection)] == [anna, bert, anna]


@pytest.mark.parametrize(
    "values",
    [
        {"received_as": None, **RECEIVED},  # appended
        {"received_as": 7},  # the sender's own copy
    ],
    ids=["appended", "sent copy"],
)
def test_what_nobody_received_is_not_told(kept: Engine, values: dict[str, Any]) -> None:
    with kept.write() as connection:
        deliver(connection, [accepted(account(connection), **values)])
        assert everything(connection) == []


def test_what_was_refused_is_not_told(kept: Engine) -> None:
    with kept.write() as connection:
        anna = account(connection, quota_messages=1)
        answers = deliver(connection, [accepted(anna, **RECEIVED) for _ in range(2)])
        assert isinstance(answers[0], tuple)
        assert not isinstance(answers[1], tuple)
        assert len(everything(connection)) == 1


def test_each_attempt_is_told(kept: Engine) -> None:
    with kept.write() as connection:
        anna = account(connection)
        for made in (deferred(), delivered(), failed()):
            enqueue(connection, queued("x@example.net", account_id=anna))
            conclude(connection, made)
        found = everything(connection)
    assert [(each.kind, each.account_id) for each in found] == [
        ("deferred", anna),
        ("delivered", anna),
        ("bounced", anna),
    ]
    first, _, last = (each.document["data"] for each in found)
    assert first["next_attempt_at"].startswith("2027-01-15T")
    assert (first["code"], first["status"], first["reply"]) == (451, "4.7.1", "try later")
    assert (last["sender"], last["recipient"]) == ("anna@example.com", "x@example.net")
    assert (last["code"], last["host"]) == (550, "mx.example.net")
    assert unpack(Kind.OUTBOX, last["outbox_id"]) == (int(last["queue_id"]), 0)
    assert "next_attempt_at" not in last


def test_what_was_not_tried_is_not_told(kept: Engine) -> None:
    with kept.write() as connection:
        enqueue(connection, queued("x@example.net"))
        conclude(connection, deferred(is_counted=False))
        assert everything(connection) == []


def test_nothing_is_written_where_nothing_is_kept(engine: Engine) -> None:
    with engine.write() as connection:
        deliver(connection, [accepted(account(connection), **RECEIVED)])
        enqueue(connection, queued("x@example.net"))
        conclude(connection, delivered())
        assert everything(connection) == []
        assert events.KIND not in changes.pending(connection).kinds


def test_odd_characters_are_told_as_they_are(kept: Engine) -> None:
    with kept.write() as connection:
        events.write(connection, [(0, "received", {"subject": 'a "b"\0\x1f\n\u2028é💌'})])
        (only,) = everything(connection)
    assert only.document["data"] == {"subject": 'a "b"\0\x1f\n\u2028é💌'}


@pytest.mark.parametrize("count", [1, 60])
def test_sixty_cost_as_many_statements_as_one(sqlite_url: str, count: int) -> None:
    kept = open_engine(sqlite_url)
    events.keep(kept, is_wanted=True)
    # The driver of SQLite is spoken to directly.
    with kept.write() as connection:
        anna = account(connection)
        seen: list[str] = []
        driver: Any = connection.connection.driver_connection
        driver.set_trace_callback(lambda sql: seen.append(sql.split("(")[0]))
        deliver(connection, [accepted(anna, **RECEIVED) for _ in range(count)])
        driver.set_trace_callback(None)
    # executemany runs one statement, which is traced for each of its rows.
    assert len({sql for sql in seen if "INTO event" in sql}) == 1
    kept.dispose()


# -- reading --------------------------------------------------------------------------------


def test_the_owner_of_the_account_is_known(kept: Engine) -> None:
    with kept.write() as connection:
        seeded(connection)
        anna = user(connection, "anna@people.example")
        box = account(connection)
        connection.execute(
            text("UPDATE account SET owner_user_id = :owner WHERE account_id = :box"),
            {"owner": anna.user_id, "box": box},
        )
        tell(connection, box, 0, 999)
        found = everything(connection)
    assert [each.owner for each in found] == [anna.user_id, 0, 0]
    assert found[0].document["mail_account_id"]
    assert found[1].document["mail_account_id"] == ""


def test_events_are_read_from_a_place_on(kept: Engine) -> None:
    with kept.write() as connection:
        tell(connection, *range(5))
        numbers = [each.event_id for each in everything(connection)]
        assert numbers == sorted(numbers)
        found = read_after(connection, numbers[1], 2).events
        assert [each.event_id for each in found] == numbers[2:4]
        assert events.latest(connection) == numbers[-1]


def test_a_cursor_tells_each_event_once(kept: Engine) -> None:
    cursor, told = Cursor(0), list[Event]()
    for round_ in range(4):
        with kept.write() as connection:
            tell(connection, round_, round_)
        with kept.read() as connection:
            told += cursor.new(read_after(connection, cursor.settled, cursor.limit))
            assert cursor.new(read_after(connection, cursor.settled, cursor.limit)) == []
    assert [each.account_id for each in told] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert cursor.settled == told[-1].event_id


def test_a_cursor_gets_through_many(kept: Engine) -> None:
    count = 2 * MAX_READ + 3
    with kept.write() as connection:
        tell(connection, *range(count))
    cursor, told = Cursor(0), list[Event]()
    for _ in range(4):
        with kept.read() as connection:
            told += cursor.new(read_after(connection, cursor.settled, cursor.limit))
    assert [each.account_id for each in told] == list(range(count))


@pytest.fixture
def two_writers(postgresql_url: str) -> Iterator[Engine]:
    engine = open_engine(postgresql_url)
    yield engine
    engine.dispose()


def test_an_event_that_shows_late_is_told_all_the_same(two_writers: Engine) -> None:
    """A transaction that took its number first may be the last to end."""
    cursor, told = Cursor(0), list[int]()

    def look() -> None:
        with two_writers.read() as connection:
            reading = read_after(connection, cursor.settled, cursor.limit)
            told.extend(each.account_id for each in cursor.new(reading))

    with two_writers.write() as slow:
        slow.execute(text("INSERT INTO lease VALUES ('x', 0, 0)"))
        tell(slow, 1)
        for number in (2, 3):
            with two_writers.write() as quick:
                tell(quick, number)
            look()
        assert told == [2, 3]
        assert cursor.settled == 0
    look()
    look()
    assert told == [2, 3, 1]
    assert cursor.settled == 3


def test_a_transaction_without_end_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_feed, "MAX_UNSETTLED", 3)
    cursor = Cursor(0)
    made = [Event(number, 0, "received", 0, "{}", 0, "") for number in range(1, 6)]
    for number in range(1, 6):
        cursor.new(event_feed.Reading(made[:number], oldest=5, next=100))
    assert cursor.settled >= 4


# -- sweeping -------------------------------------------------------------------------------


def age(connection: Connection, by: int) -> None:
    connection.execute(text(f"UPDATE event SET at = at - {by}"))


def test_old_events_go_and_young_ones_stay(kept: Engine) -> None:
    with kept.write() as connection:
        tell(connection, 1, 2, 3)
        age(connection, 3600 * 1_000_000)
        tell(connection, 4)
        assert events.sweep(connection, now_us(), 1800 * 1_000_000)
        assert [each.account_id for each in everything(connection)] == [4]
        assert events.sweep(connection, now_us(), 1800 * 1_000_000)
        assert len(everything(connection)) == 1


def test_many_go_in_steps(kept: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "SWEPT_AT_ONCE", 10)
    with kept.write() as connection:
        tell(connection, *range(25))
        age(connection, 10_000_000)
        steps = [events.sweep(connection, now_us(), 1_000_000) for _ in range(3)]
        assert steps == [False, False, True]
        assert everything(connection) == []


def test_the_number_of_a_swept_event_never_comes_back(kept: Engine) -> None:
    with kept.write() as connection:
        tell(connection, 1, 2)
        before = events.latest(connection)
        age(connection, 10_000_000)
        events.sweep(connection, now_us(), 0)
        tell(connection, 3)
        assert events.latest(connection) > before


def test_no_secret_and_no_text_of_the_mail_is_kept(kept: Engine) -> None:
    with kept.write() as connection:
        deliver(connection, [accepted(account(connection), **RECEIVED)])
        (row,) = connection.execute(text("SELECT data FROM event")).all()
    assert "Subject: hello" not in row.data
    assert set(json.loads(row.data)) == {
        "sender", "recipient", "subject", "message_id", "queue_id", "octets", "mailbox", "entry",
    }  # fmt: skip
