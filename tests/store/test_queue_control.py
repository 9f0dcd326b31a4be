"""Operators: lists, and what they do to messages; and what the sweep gives up."""

from __future__ import annotations

import pytest

from mailtwist.errors import Conflict, MailError, NotFound
from mailtwist.store import content
from mailtwist.store.database import Inline
from mailtwist.store.engine import Engine
from mailtwist.store.queue import claims, control, destinations, listing, sweep
from mailtwist.store.queue.destinations import DestinationState
from mailtwist.store.queue.outcomes import record
from mailtwist.store.queue.values import State
from tests.store.making import NOW
from tests.store.queued import (
    DAY,
    HOUR,
    LEASE,
    MINUTE,
    claim,
    conclude,
    deferred,
    delivered,
    enqueue,
    failed,
    outcome,
    queued,
    states,
    value,
)
from tests.support.now import now as at_once


def in_every_state(connection) -> dict[str, int]:
    """A message in each state; tells their ids."""
    ids = {}
    for state, made in [
        ("deferred", deferred(NOW + HOUR)),
        ("failed", failed()),
        ("delivered", delivered()),
    ]:
        (ids[state],) = enqueue(connection, queued(f"{state}@one.net"))
        conclude(connection, made)
    (ids["held"],) = enqueue(connection, queued("held@one.net"))
    control.hold(connection, ids["held"])
    (ids["active"],) = enqueue(connection, queued("active@one.net"))
    return ids


@pytest.mark.mission("ELE-53")
def test_a_message_is_listed_with_its_state(engine: Engine) -> None:
    with engine.write() as connection:
        ids = in_every_state(connection)
        shown = {listed.state: listed for listed in listing.list(connection)}
        assert {state: listed.queue_id for state, listed in shown.items()} == {
            state: queue_id for state, queue_id in ids.items() if state != "delivered"
        }
        for state, queue_id in ids.items():
            (listed,) = listing.list(connection, state=state)
            assert (listed.queue_id, listed.state) == (queue_id, state)
            assert listed.recipients == (f"{state}@one.net",)
        assert listing.stats(connection) == {"active": 1, "deferred": 1, "held": 1, "failed": 1}
    assert shown["deferred"].last_error == "451 4.7.1 try later"
    assert (shown["deferred"].due_at, shown["deferred"].attempts) == (NOW + HOUR, 1)
    assert shown["failed"].last_error == "550 5.1.1 no such user"
    assert shown["failed"].sender == "anna@example.com"
    assert shown["active"].last_error == ""


def test_a_message_that_is_tried_is_active(engine: Engine) -> None:
    with engine.write() as connection:
        enqueue(connection, queued("a@one.net", lease=LEASE))
        enqueue(connection, queued("b@one.net", "c@one.net"))
        (message,) = claim(connection)
        record(connection, [outcome(message, delivered(), deferred())])
        assert listing.stats(connection) == {"active": 1, "deferred": 1, "held": 0, "failed": 0}
        claim(connection, now=NOW + HOUR)
        assert [listed.state for listed in listing.list(connection)] == ["active", "active"]


def test_a_list_is_paged_and_narrowed(engine: Engine) -> None:
    with engine.write() as connection:
        ids = enqueue(
            connection,
            queued("a@one.net", reverse_path="Anna@example.com"),
            queued("a_b@two.net", "b@one.net", reverse_path="bert@example.com"),
            queued("c@two.net", reverse_path=""),
        )

        def found(**options) -> list[int]:
            return [listed.queue_id for listed in listing.list(connection, **options)]

        assert found(limit=2) == [ids[2], ids[1]]
        assert found(limit=2, before=ids[1]) == [ids[0]]
        assert found(sender="anna@") == [ids[0]]
        assert found(sender="") == [ids[2]]
        assert found(recipient="@ONE.net") == [ids[1], ids[0]]
        assert found(recipient="a_b") == [ids[1]]
        assert found(recipient="%") == []
        assert found(sender="bert", recipient="a@one") == []
        with pytest.raises(MailError, match="No such state"):
            found(state="odd")


def test_a_whole_queue_is_chosen_in_one_look_and_read_bit_by_bit(engine: Engine) -> None:
    with engine.write() as connection:
        ids = enqueue(connection, *(queued(f"u{n}@one.net") for n in range(150)))
        newest = ids[::-1]
        assert listing.ids(connection) == newest
        assert listing.ids(connection, recipient="u149@") == newest[:1]
        control.delete(connection, newest[1], NOW)
        # What vanished since is left out.
        lines = listing.lines(connection, newest[:3])
    assert [line.queue_id for line in lines] == [newest[0], newest[2]]


def test_a_list_shows_some_of_many_recipients(engine: Engine) -> None:
    with engine.write() as connection:
        enqueue(connection, queued(*(f"u{n}@one.net" for n in range(150))))
        (listed,) = listing.list(connection)
    assert (len(listed.recipients), listed.recipient_count) == (100, 150)


def test_a_view_tells_what_backs_off(engine: Engine) -> None:
    with engine.write() as connection:
        (queue_id,) = enqueue(connection, queued("a@one.net", "b@two.net", envid="e"))
        state = DestinationState("one.net", NOW + HOUR, 4, "no answer")
        (one, _) = claim(connection)
        record(connection, [outcome(one, deferred(), destination=state)])
        viewed = listing.view(connection, queue_id)
        assert viewed.destinations == (state,)
        assert [recipient.state for recipient in viewed.recipients] == ["deferred", "active"]
        assert (viewed.envid, viewed.prefix) == ("e", b"Received: x\r\n")
        assert content.read(connection, viewed.content_id, 0, 7) == b"Subject"
        with pytest.raises(NotFound):
            listing.view(connection, 1)


@pytest.mark.parametrize("verb", ["retry", "hold", "release", "delete"])
def test_an_unknown_id_is_told(engine: Engine, verb: str) -> None:
    late = () if verb == "hold" else (NOW,)
    with engine.write() as connection, pytest.raises(NotFound):
        getattr(control, verb)(connection, 1, *late)


@pytest.mark.mission("ELE-53")
def test_a_retry_makes_one_message_due_and_forgives_its_destination(database: Inline) -> None:
    woken: list[int] = []

    def prepare(connection) -> int:
        queue_id, _ = enqueue(connection, queued("a@one.net"), queued("b@one.net"))
        state = DestinationState("one.net", NOW + HOUR, 4, "no answer")
        for message in claim(connection):
            late = deferred(NOW + HOUR)
            record(connection, [outcome(message, late, destination=state)])
        return queue_id

    queue_id = at_once(database.write(prepare))
    database.changes.watch("queue", lambda: woken.append(1))
    at_once(database.write(lambda c: control.retry(c, queue_id, NOW)))
    assert woken == [1]
    assert at_once(database.read(claims.next_due)) == NOW
    (message,) = at_once(database.write(claim))
    assert message.queue_id == queue_id


@pytest.mark.mission("ELE-53")
def test_a_flush_makes_everything_due_that_waits(engine: Engine) -> None:
    with engine.write() as connection:
        ids = in_every_state(connection)
        control.retry(connection, None, NOW + 1)
        found = claim(connection, now=NOW + 1)
        assert {message.queue_id for message in found} == {ids["deferred"], ids["active"]}


@pytest.mark.parametrize("is_held", [False, True])
def test_a_failed_message_starts_over(engine: Engine, is_held: bool) -> None:
    later = NOW + 6 * DAY
    with engine.write() as connection:
        (queue_id,) = enqueue(connection, queued("a@one.net", "b@one.net"))
        (message,) = claim(connection)
        if is_held:
            control.hold(connection, queue_id)
        record(connection, [outcome(message, delivered(), failed())])
        control.retry(connection, queue_id, later)
        if is_held:
            assert claim(connection, now=later) == []
            control.release(connection, queue_id, later)
        (again,) = claim(connection, now=later)
        assert [recipient.address for recipient in again.recipients] == ["b@one.net"]
        assert again.recipients[0].attempts == 0
        assert again.expires_at == later + 5 * DAY
        record(connection, [outcome(again, delivered(), now=later)])
        viewed = listing.view(connection, queue_id)
        assert viewed.listed.state == "delivered"
        assert [tried.number for tried in viewed.recipients[1].tried] == [1, 2]
        with pytest.raises(Conflict):
            control.retry(connection, queue_id, later)


@pytest.mark.mission("ELE-53")
def test_a_held_message_waits_until_it_is_released(engine: Engine) -> None:
    with engine.write() as connection:
        (queue_id,) = enqueue(connection, queued("a@one.net"))
        control.hold(connection, queue_id)
        control.hold(connection, queue_id)
        control.retry(connection, queue_id, NOW)
        control.retry(connection, None, NOW)
        assert claim(connection, now=NOW + DAY) == []
        control.release(connection, queue_id, NOW + DAY)
        assert len(claim(connection, now=NOW + DAY)) == 1


def test_a_finished_message_cannot_be_held(engine: Engine) -> None:
    with engine.write() as connection:
        ids = in_every_state(connection)
        with pytest.raises(Conflict):
            control.hold(connection, ids["delivered"])


@pytest.mark.mission("ELE-53")
@pytest.mark.parametrize("state", ["active", "deferred", "held", "failed", "delivered"])
def test_a_deleted_message_is_gone_with_its_content(engine: Engine, state: str) -> None:
    with engine.write() as connection:
        queue_id = in_every_state(connection)[state]
        control.delete(connection, queue_id, NOW)
        with pytest.raises(NotFound):
            listing.view(connection, queue_id)
        assert content.sweep(connection, NOW + 2 * DAY)
        assert value(connection, "SELECT count(*) FROM content") == 4
        assert value(connection, "SELECT count(*) FROM queue_recipient") == 4


# -- sweep ----------------------------------------------------------------------------------


def swept(connection, now: int, *, keep: bool = False, limit: int = 10) -> None:
    for _ in range(100):
        if sweep.step(connection, now, keep, limit):
            break
    else:
        pytest.fail("the sweep has no end")
    assert content.sweep(connection, now + 2 * DAY, limit=1000)


@pytest.mark.parametrize("keep, kept", [(False, 4), (True, 5)])
def test_the_content_of_delivered_mail_is_given_up_after_an_hour(
    engine: Engine, keep: bool, kept: int
) -> None:
    with engine.write() as connection:
        ids = in_every_state(connection)
        swept(connection, NOW + HOUR - 1, keep=keep)
        assert value(connection, "SELECT count(*) FROM content") == 5
        swept(connection, NOW + HOUR, keep=keep)
        assert value(connection, "SELECT count(*) FROM content") == kept
        viewed = listing.view(connection, ids["delivered"])
        assert bool(viewed.content_id) is keep
        assert len(viewed.recipients[0].tried) == 1


def test_finished_messages_vanish_after_a_week_and_no_others(engine: Engine) -> None:
    with engine.write() as connection:
        ids = in_every_state(connection)
        swept(connection, NOW + 7 * DAY)
        assert {queue_id for queue_id, _ in states(connection)} == {
            ids["active"],
            ids["deferred"],
            ids["held"],
        }
        assert value(connection, "SELECT count(*) FROM content") == 3
        assert value(connection, "SELECT count(*) FROM queue_attempt") == 1


def test_a_sweep_goes_step_by_step(engine: Engine) -> None:
    with engine.write() as connection:
        enqueue(connection, *(queued(f"a@{n}.net") for n in range(25)))
        assert conclude(connection, delivered()) == 25
        assert not sweep.step(connection, NOW + HOUR, False, 10)
        assert value(connection, "SELECT count(*) FROM queue_message WHERE content_id = 0") == 10
        swept(connection, NOW + HOUR)
        assert value(connection, "SELECT count(*) FROM queue_message WHERE content_id = 0") == 25


def test_a_destination_is_forgotten_when_nobody_waits_for_it(engine: Engine) -> None:
    with engine.write() as connection:
        enqueue(connection, queued("a@one.net"), queued("b@two.net"), queued("c@three.net"))
        one, two, _ = claim(connection)
        state = DestinationState("one.net", NOW + HOUR, 1, "no answer")
        record(connection, [outcome(one, failed(), destination=state)])
        record(connection, [outcome(two, deferred())])
        swept(connection, NOW + HOUR)
        names = ["one.net", "two.net", "three.net"]
        known = [destinations.find(connection, name) is not None for name in names]
        assert known == [True, True, False]
        swept(connection, NOW + 2 * HOUR)
        assert destinations.find(connection, "one.net") is None


def test_all_that_was_forgotten_can_come_again(engine: Engine) -> None:
    with engine.write() as connection:
        enqueue(connection, queued("a@one.net"))
        conclude(connection, delivered())
        swept(connection, NOW + 8 * DAY)
        assert value(connection, "SELECT count(*) FROM queue_destination") == 0
        enqueue(connection, queued("a@one.net"))
        assert conclude(connection, deferred(NOW + MINUTE)) == 1
        assert list(states(connection).values()) == [State.WAITING]
