"""``mailtwist queue`` on a store that tests have filled."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from mailtwist.store.engine import Engine
from mailtwist.store.queue.values import Message
from tests.cli.conftest import Mailtwist
from tests.store.making import NOW
from tests.store.queued import (
    DAY,
    HOUR,
    LEASE,
    claim,
    conclude,
    deferred,
    delivered,
    enqueue,
    failed,
    queued,
)

ESCAPES = "\x1b[31mred\x07\u202e"


@pytest.fixture
def fill(ready: None, mailtwist: Mailtwist, store: Engine) -> Callable[..., str]:
    """Puts a message into the queue and records what came of it; its id."""
    mailtwist("init")

    def fill(*addresses: str, came_to: Any = None, **message: Any) -> str:
        with store.write() as connection:
            (queue_id,) = enqueue(connection, queued(*addresses or ("bob@far.example",), **message))
            if came_to is not None:
                assert conclude(connection, came_to)
        return str(queue_id)

    return fill


def state(mailtwist: Mailtwist, queue_id: str) -> str:
    found: str = mailtwist("queue", "view", queue_id, "--json").json["state"]
    return found


# -- looking ----------------------------------------------------------------------------------


@pytest.mark.mission("ELE-53")
def test_a_list_has_all_that_is_not_delivered_with_the_last_error(
    mailtwist: Mailtwist, fill: Callable[..., str]
) -> None:
    gone = fill(came_to=delivered())
    refused = fill("nobody@far.example", came_to=failed())
    waiting = fill("bob@far.example", "carol@far.example", came_to=deferred())
    held = fill()
    mailtwist("queue", "hold", held)
    fresh = fill("dave@late.example")
    rows = {row["id"]: row for row in mailtwist("queue", "list", "--json").json}
    assert list(rows) == [fresh, held, waiting, refused]
    assert {row_id: row["state"] for row_id, row in rows.items()} == {
        refused: "failed",
        waiting: "deferred",
        held: "held",
        fresh: "active",
    }
    assert rows[waiting]["sender"] == "anna@example.com"
    assert rows[waiting]["recipients"] == ["bob@far.example", "carol@far.example"]
    assert rows[waiting]["last_error"] == "451 4.7.1 try later"
    assert rows[refused]["last_error"] == "550 5.1.1 no such user"
    assert rows[fresh]["last_error"] == ""
    assert gone not in rows
    (row,) = mailtwist("queue", "list", "--state", "delivered", "--json").json
    assert row["id"] == gone


def test_a_list_is_narrowed(mailtwist: Mailtwist, fill: Callable[..., str]) -> None:
    one = fill("bob@far.example", reverse_path="")
    two = fill("carol@late.example")
    three = fill("dave@late.example")

    def ids(*options: str) -> list[str]:
        return [row["id"] for row in mailtwist("queue", "list", "--json", *options).json]

    assert ids("--recipient", "LATE") == [three, two]
    assert ids("--sender", "anna") == [three, two]
    assert ids("--limit", "2") == [three, two]
    assert ids("--state", "deferred") == []
    assert ids() == [three, two, one]


def test_a_long_list_is_read_in_pages_and_printed_whole(
    mailtwist: Mailtwist, store: Engine, fill: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailtwist.cli.commands.queue.PAGE", 3)
    made = [fill() for _ in range(7)]
    found = mailtwist("queue", "list", "--json").json
    assert [row["id"] for row in found] == made[::-1]
    found = mailtwist("queue", "list", "--json", "--limit", "5").json
    assert [row["id"] for row in found] == made[:1:-1]


def test_the_table_for_people_has_a_line_a_message(
    mailtwist: Mailtwist, fill: Callable[..., str]
) -> None:
    queue_id = fill("bob@far.example", "carol@far.example", came_to=deferred())
    head, line = mailtwist("queue", "list").out.splitlines()
    assert head.split() == [
        *("id", "state", "age", "next", "sender", "recipients", "last_error"),
    ]
    assert line.startswith(f"{queue_id}  deferred  ")
    assert "bob@far.example +1" in line
    assert line.endswith("451 4.7.1 try later")


@pytest.mark.mission("ELE-53")
def test_a_view_tells_every_attempt_of_every_recipient(
    mailtwist: Mailtwist, store: Engine, fill: Callable[..., str]
) -> None:
    queue_id = fill("bob@far.example", "carol@far.example", came_to=deferred())
    with store.write() as connection:
        conclude(connection, delivered(), now=NOW + HOUR)
    found = mailtwist("queue", "view", queue_id, "--json").json
    assert found["id"] == queue_id
    assert found["recipients"] == ["bob@far.example", "carol@far.example"]
    told = [(each["recipient"], each["number"], each["code"]) for each in found["attempts"]]
    assert told == [
        ("bob@far.example", 1, 451),
        ("bob@far.example", 2, 250),
        ("carol@far.example", 1, 451),
        ("carol@far.example", 2, 250),
    ]
    first = found["attempts"][0]
    assert first["outcome"] == "deferred"
    assert (first["status"], first["reply"]) == ("4.7.1", "try later")
    assert (first["host"], first["address"]) == ("mx.example.net", "192.0.2.1:25")
    assert first["tls"] == "TLSv1.3"
    assert first["started_at"].endswith("+00:00")
    assert [each["state"] for each in found["details"]] == ["delivered", "delivered"]
    text = mailtwist("queue", "view", queue_id).out
    assert "mx.example.net 192.0.2.1:25 TLSv1.3" in text
    assert "deferred: 451 4.7.1 try later [end]" in text


def test_nothing_that_a_peer_said_reaches_the_terminal_as_a_command(
    mailtwist: Mailtwist, fill: Callable[..., str]
) -> None:
    came_to = deferred(text=ESCAPES)
    queue_id = fill("bob@far.example", came_to=came_to, reverse_path=f"a{ESCAPES}@x.example")
    for words in (("list",), ("view", queue_id)):
        text = mailtwist("queue", *words).out
        assert "?[31mred" in text
        assert not {"\x1b", "\x07", "\u202e"} & set(text)


@pytest.mark.mission("ELE-53")
@pytest.mark.parametrize("octets", [0, 4096, 70_000])
def test_the_content_is_what_leaves(
    mailtwist: Mailtwist, fill: Callable[..., str], octets: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailtwist.cli.commands.queue.BLOCK", 4096)
    data = b"Subject: whole\r\n\r\n" + b"0123456789abcdef" * (octets // 16) + b"\r\n"
    queue_id = fill(data=data)
    assert mailtwist("queue", "content", queue_id).out.encode() == b"Received: x\r\n" + data


def test_stats_count_messages_by_state(mailtwist: Mailtwist, fill: Callable[..., str]) -> None:
    assert mailtwist("queue", "stats", "--json").json == {
        "active": 0,
        "deferred": 0,
        "held": 0,
        "failed": 0,
    }
    fill("a@far.example", "b@far.example", came_to=deferred())
    fill("nobody@far.example", came_to=failed())
    fill()
    found = mailtwist("queue", "stats", "--json").json
    assert found == {"active": 1, "deferred": 1, "held": 0, "failed": 1}
    assert mailtwist("queue", "stats").out.split() == [
        *("active", "deferred", "held", "failed"),
        *("1", "1", "0", "1"),
    ]


# -- acting -----------------------------------------------------------------------------------


@pytest.mark.mission("ELE-53")
def test_flush_makes_all_due_and_deletes_nothing(
    mailtwist: Mailtwist, store: Engine, fill: Callable[..., str]
) -> None:
    far = NOW + 1000 * DAY
    ids = [fill(f"bob@d{n}.example", came_to=deferred(due_at=far)) for n in range(3)]
    mailtwist("queue", "hold", ids[2])
    assert mailtwist("queue", "flush", "--json").json == {"due": 2}
    assert len(mailtwist("queue", "list", "--json").json) == 3
    assert state(mailtwist, ids[2]) == "held"
    assert {str(message.queue_id) for message in due(store)} == set(ids[:2])


def due(store: Engine) -> list[Message]:
    with store.write() as connection:
        found = claim(connection, now=NOW + 900 * DAY)
        connection.rollback()
    return found


@pytest.mark.mission("ELE-53")
def test_retry_makes_one_due_and_starts_a_failed_one_over(
    mailtwist: Mailtwist, store: Engine, fill: Callable[..., str]
) -> None:
    far = NOW + 1000 * DAY
    one, _other = (fill(f"bob@d{n}.example", came_to=deferred(due_at=far)) for n in range(2))
    refused = fill("nobody@far.example", came_to=failed())
    assert mailtwist("queue", "retry", one).out == f"due now: {one}\n"
    mailtwist("queue", "retry", refused)
    assert state(mailtwist, refused) == "active"
    assert {str(message.queue_id) for message in due(store)} == {one, refused}


@pytest.mark.mission("ELE-53")
def test_a_held_message_waits_until_it_is_released(
    mailtwist: Mailtwist, store: Engine, fill: Callable[..., str]
) -> None:
    one, two = fill(), fill()
    assert mailtwist("queue", "hold", one, two, "--json").json["ids"] == [one, two]
    assert due(store) == []
    assert mailtwist("queue", "release", one).out == f"released {one}\n"
    assert [str(message.queue_id) for message in due(store)] == [one]
    assert state(mailtwist, two) == "held"


@pytest.mark.mission("ELE-53")
def test_a_deleted_message_is_gone(mailtwist: Mailtwist, fill: Callable[..., str]) -> None:
    queue_id = fill(came_to=deferred())
    assert mailtwist("queue", "delete", queue_id).out == f"deleted {queue_id}\n"
    assert mailtwist("queue", "list", "--json").json == []
    assert mailtwist("queue", "view", queue_id).status == 1


@pytest.mark.parametrize("word", ["view", "content", "retry", "hold", "release", "delete"])
@pytest.mark.parametrize("queue_id", ["12345", "bob", "9" * 19, "9" * 400, "²"])
def test_an_unknown_id_is_status_1_and_one_line(
    mailtwist: Mailtwist, fill: Callable[..., str], word: str, queue_id: str
) -> None:
    ended = mailtwist("queue", word, queue_id)
    assert (ended.status, ended.out) == (1, "")
    assert ended.err.startswith("mailtwist: No such message in the queue")
    assert ended.err.count("\n") == 1


def test_of_several_ids_all_or_none_are_treated(
    mailtwist: Mailtwist, fill: Callable[..., str]
) -> None:
    queue_id = fill()
    assert mailtwist("queue", "delete", queue_id, "12345").status == 1
    assert state(mailtwist, queue_id) == "active"


def test_a_message_on_its_way_is_left_to_its_node(
    mailtwist: Mailtwist, fill: Callable[..., str]
) -> None:
    queue_id = fill(lease=LEASE)
    assert state(mailtwist, queue_id) == "active"
    assert mailtwist("queue", "retry", queue_id).status == 0


# -- suppressed addresses ---------------------------------------------------------------------


def test_suppressed_addresses_are_seen_and_forgotten(
    mailtwist: Mailtwist, fill: Callable[..., str]
) -> None:
    for _ in range(3):
        fill("Nobody@far.example", came_to=failed())
    fill("once@far.example", came_to=failed())
    rows = mailtwist("queue", "suppressed", "list", "--json").json
    told = {row["address"]: (row["bounces"], row["refused"]) for row in rows}
    assert told == {"nobody@far.example": (3, True), "once@far.example": (1, False)}
    assert "no such user" in rows[0]["reply"]
    text = mailtwist("queue", "suppressed", "list").out
    assert "*        nobody@far.example" in text
    removed = mailtwist("queue", "suppressed", "remove", "NOBODY@far.example", "--json")
    assert json.loads(removed.out) == {"address": "NOBODY@far.example"}
    rows = mailtwist("queue", "suppressed", "list", "--json").json
    assert [row["address"] for row in rows] == ["once@far.example"]
    assert mailtwist("queue", "suppressed", "remove", "nobody@far.example").status == 1
