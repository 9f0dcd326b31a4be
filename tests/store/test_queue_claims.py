"""Leases: who gets what, in which order, and that nothing is forgotten or given twice."""

from __future__ import annotations

import threading
import time

import pytest

from mailtwist.store.engine import Engine, open_engine
from mailtwist.store.queue import claims, control, destinations
from mailtwist.store.queue.destinations import DestinationState
from mailtwist.store.queue.outcomes import record
from mailtwist.store.queue.values import Lease, Priority, State
from tests.store.making import NOW
from tests.store.queued import (
    DAY,
    HOUR,
    LEASE,
    MINUTE,
    NODE,
    claim,
    conclude,
    deferred,
    delivered,
    enqueue,
    keys,
    outcome,
    queued,
    states,
    value,
)

UNTIL = NOW + 10 * MINUTE


def test_a_claim_gives_each_destination_of_a_message_by_itself(engine: Engine) -> None:
    accepted = queued("a@one.net", "b@two.net", "c@one.net", envid="e", ret="HDRS", smtputf8=True)
    with engine.write() as connection:
        (queue_id,) = enqueue(connection, accepted)
        one, two = sorted(claim(connection), key=lambda message: message.recipients[0].n)
    assert [recipient.address for recipient in one.recipients] == ["a@one.net", "c@one.net"]
    assert [recipient.address for recipient in two.recipients] == ["b@two.net"]
    assert one.queue_id == two.queue_id == queue_id
    assert (one.envid, one.ret, one.smtputf8, one.prefix) == ("e", "HDRS", True, b"Received: x\r\n")
    assert one.content_id == accepted.content.content_id
    assert (one.octets, one.header_octets) == (accepted.content.octets, 14)


def test_what_is_claimed_is_not_claimed_again(engine: Engine) -> None:
    with engine.write() as connection:
        enqueue(connection, queued("a@one.net"), queued("b@one.net"))
        assert len(claim(connection)) == 2
        assert claim(connection, node_id=8) == []
        assert claims.next_due(connection) is None


def test_rows_that_are_written_leased_are_nobody_elses(engine: Engine) -> None:
    with engine.write() as connection:
        (queue_id,) = enqueue(connection, queued("a@one.net", lease=LEASE))
        assert states(connection) == {(queue_id, 0): State.LEASED}
        assert claim(connection) == []
        assert destinations.find(connection, "one.net") is None


def test_urgent_mail_goes_first_and_old_mail_before_new(engine: Engine) -> None:
    with engine.write() as connection:
        ids = enqueue(
            connection,
            queued("a@one.net", priority=Priority.LOW, received_at=NOW - HOUR),
            queued("b@one.net", received_at=NOW - 1),
            queued("c@one.net", received_at=NOW - 2),
            queued("d@one.net", priority=Priority.HIGH),
        )
        order = [message.queue_id for _ in ids for message in claim(connection, per_destination=1)]
    assert order == [ids[3], ids[2], ids[1], ids[0]]


def test_a_claim_takes_no_more_than_asked_for_and_leaves_the_rest_due(engine: Engine) -> None:
    with engine.write() as connection:
        enqueue(connection, *(queued(f"a@{name}.net", f"b@{name}.net") for name in "xyz"))
        first = claim(connection, destinations=2, per_destination=1)
        assert len(keys(first)) == 2
        assert claims.next_due(connection) == NOW
        rest = claim(connection)
        assert len(keys(rest)) == 4
        assert claims.next_due(connection) is None


def test_a_claim_passes_over_destinations_that_have_no_room(engine: Engine) -> None:
    with engine.write() as connection:
        enqueue(connection, queued("a@one.net"), queued("b@two.net"))
        (message,) = claim(connection, skip=["one.net"])
        assert message.recipients[0].destination == "two.net"
        assert claims.next_due(connection) == NOW


def test_nothing_is_claimed_before_it_is_due(engine: Engine) -> None:
    with engine.write() as connection:
        enqueue(connection, queued("a@one.net"))
        assert conclude(connection, deferred(NOW + MINUTE)) == 1
        assert claims.next_due(connection) == NOW + MINUTE
        assert claim(connection, now=NOW + MINUTE - 1) == []
        (message,) = claim(connection, now=NOW + MINUTE)
        assert message.recipients[0].attempts == 1


def test_an_empty_queue_is_never_due(engine: Engine) -> None:
    with engine.write() as connection:
        assert claims.next_due(connection) is None
        assert claim(connection) == []
        assert claims.reclaim(connection, NOW, []) == 0
        claims.give_back(connection, NODE, [], NOW)


# -- destinations that fail -----------------------------------------------------------------


def suspend(connection, until: int, failures: int = 1) -> None:
    state = DestinationState("one.net", until, failures, "no answer")
    messages = claim(connection)
    found = [outcome(message, deferred(NOW), destination=state) for message in messages]
    assert record(connection, found)


def test_a_suspended_destination_is_left_alone_until_then(engine: Engine) -> None:
    with engine.write() as connection:
        enqueue(connection, queued("a@one.net"))
        suspend(connection, NOW + HOUR)
        enqueue(connection, queued("b@one.net"), queued("c@two.net"))
        assert [message.recipients[0].address for message in claim(connection)] == ["c@two.net"]
        assert claims.next_due(connection) == NOW + HOUR


def test_a_destination_that_failed_gets_one_message_until_its_outcome_is_known(
    engine: Engine,
) -> None:
    with engine.write() as connection:
        enqueue(
            connection,
            queued("a@one.net", "x@two.net", "b@one.net"),
            queued("c@one.net"),
            queued("d@one.net"),
        )
        suspend(connection, NOW + HOUR, failures=3)
        later = NOW + HOUR
        (probe,) = claim(connection, now=later, skip=["two.net"])
        assert [recipient.address for recipient in probe.recipients] == ["a@one.net", "b@one.net"]
        assert claim(connection, now=later, skip=["two.net"]) == []
        assert record(connection, [outcome(probe, delivered(), now=later)]) == [True]
        assert destinations.find(connection, "one.net") == DestinationState("one.net", 0, 0, "")
        assert len(claim(connection, now=later, skip=["two.net"])) == 2


def test_a_probe_whose_outcome_never_comes_is_followed_by_another(engine: Engine) -> None:
    with engine.write() as connection:
        enqueue(connection, queued("a@one.net"), queued("b@one.net"))
        suspend(connection, NOW + HOUR)
        later = NOW + HOUR
        assert len(claim(connection, now=later)) == 1
        assert claims.next_due(connection) == later + claims.PROBE_US
        assert len(claim(connection, now=later + claims.PROBE_US)) == 1


# -- leases that end otherwise ----------------------------------------------------------------


def test_leases_that_are_given_back_are_due_at_once(engine: Engine) -> None:
    with engine.write() as connection:
        enqueue(connection, queued("a@one.net", lease=LEASE), queued("b@one.net", lease=LEASE))
        mine = list(states(connection))
        claims.give_back(connection, NODE, mine[:1], NOW + 5)
        assert claims.next_due(connection) == NOW + 5
        claims.give_back(connection, 8, mine[1:], NOW)  # not its own
        claims.give_back(connection, NODE, None, NOW + 6)
        found = claim(connection, now=NOW + 6)
    assert [message.recipients[0].attempts for message in found] == [0, 0]


def test_leases_end_when_they_ran_out_or_their_node_is_gone(engine: Engine) -> None:
    with engine.write() as connection:
        gone, out, held, ours = enqueue(
            connection,
            queued("a@one.net", lease=Lease(9, UNTIL)),
            queued("b@one.net", lease=Lease(NODE, NOW - 1)),
            queued("c@one.net", lease=Lease(9, UNTIL)),
            queued("d@one.net", lease=LEASE),
        )
        control.hold(connection, held)
        assert claims.reclaim(connection, NOW, [NODE]) == 3
        assert states(connection) == {
            (gone, 0): State.WAITING,
            (out, 0): State.WAITING,
            (held, 0): State.HELD,
            (ours, 0): State.LEASED,
        }
        assert claims.reclaim(connection, NOW, [NODE]) == 0
        assert len(claim(connection)) == 2


def test_a_node_that_starts_ends_its_number_s_old_leases(engine: Engine) -> None:
    with engine.write() as connection:
        enqueue(
            connection, queued("a@one.net", lease=LEASE), queued("b@one.net", lease=Lease(8, 1))
        )
        claims.disown(connection, NODE)
        assert [message.recipients[0].address for message in claim(connection)] == ["a@one.net"]


def test_a_renewed_lease_holds_longer_but_a_lost_one_stays_lost(engine: Engine) -> None:
    with engine.write() as connection:
        enqueue(connection, queued("a@one.net", "b@one.net", lease=LEASE))
        mine = list(states(connection))
        claims.renew(connection, mine, UNTIL + HOUR, NODE)
        assert claims.reclaim(connection, UNTIL, [NODE]) == 0
        assert claims.reclaim(connection, UNTIL + HOUR, [NODE]) == 2
        claims.renew(connection, mine, UNTIL + DAY, NODE)
        assert set(states(connection).values()) == {State.WAITING}


def test_a_node_learns_what_it_must_not_start(engine: Engine) -> None:
    with engine.write() as connection:
        ids = enqueue(
            connection,
            *(queued("a@one.net", lease=LEASE) for _ in range(3)),
            queued("a@one.net", lease=Lease(8, UNTIL)),
        )
        control.hold(connection, ids[0])
        control.delete(connection, ids[1], NOW)
        mine = [(queue_id, 0) for queue_id in ids]
        assert claims.withdrawn(connection, NODE, mine) == {mine[0], mine[1], mine[3]}


def test_one_message_can_be_claimed_whether_due_or_not(engine: Engine) -> None:
    with engine.write() as connection:
        (queue_id, _) = enqueue(connection, queued("a@one.net", "b@two.net"), queued("c@one.net"))
        conclude(connection, deferred(NOW + HOUR))
        found = claims.claim_message(connection, queue_id, node_id=NODE, now=NOW, lease_until=UNTIL)
        assert [message.queue_id for message in found] == [queue_id, queue_id]
        assert {recipient.attempts for item in found for recipient in item.recipients} == {1}


def test_messages_that_need_attention_come_whole_but_for_what_is_busy_or_held(
    engine: Engine,
) -> None:
    with engine.write() as connection:
        late, held, busy, new = enqueue(
            connection,
            queued("a@one.net", "b@two.net", attend_at=NOW),
            queued("c@one.net", attend_at=NOW),
            queued("d@one.net", attend_at=NOW, lease=LEASE),
            queued("e@one.net", attend_at=NOW + 1),
        )
        control.hold(connection, held)
        claims.claim_message(connection, busy, node_id=NODE, now=NOW, lease_until=UNTIL)

        def attend() -> list:
            return claims.attend(connection, node_id=NODE, now=NOW, lease_until=UNTIL, limit=10)

        (message,) = attend()
        assert message.queue_id == late
        assert [recipient.n for recipient in message.recipients] == [0, 1]
        assert attend() == []
        later = NOW + DAY
        put_back = deferred(NOW, is_counted=False, is_warned=True)
        assert record(connection, [outcome(message, put_back, attend_at=later)]) == [True]
        assert (
            value(connection, "SELECT attend_at FROM queue_message WHERE queue_id = ?", late)
            == later
        )
        assert attend() == []
        again = claim(connection, skip=["two.net"])
        assert [item.queue_id for item in again] == [late, new]
        assert [item.recipients[0].was_warned for item in again] == [True, False]
        assert again[0].recipients[0].attempts == 0


# -- many ---------------------------------------------------------------------------------------


@pytest.mark.mission("DAP-147")
def test_two_claimers_never_get_the_same_row(postgresql_url: str) -> None:
    engine = open_engine(postgresql_url)
    with engine.write() as connection:
        enqueue(connection, *(queued(f"u{n}@d{n % 7}.net") for n in range(600)))
    claimed: dict[int, list[tuple[int, int]]] = {}
    start = threading.Barrier(4)

    def run(node_id: int) -> None:
        mine = claimed.setdefault(node_id, [])
        start.wait(10)
        for _ in range(1000):
            with engine.write() as connection:
                found = claim(connection, node_id=node_id, destinations=3, per_destination=4)
                mine += keys(found)
                if not found and claims.next_due(connection) is None:
                    return

    threads = [threading.Thread(target=run, args=(node_id,)) for node_id in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    everything = [key for mine in claimed.values() for key in mine]
    assert len(everything) == len(set(everything)) == 600
    assert sum(bool(mine) for mine in claimed.values()) > 1
    engine.dispose()


def test_a_recipient_that_comes_while_its_destination_is_emptied_is_not_forgotten(
    postgresql_url: str,
) -> None:
    """The order of locks: one of the two transactions sees the other's row."""
    engine = open_engine(postgresql_url)
    stop = threading.Event()
    accepted: list[int] = []

    def accept() -> None:
        while not stop.is_set():
            with engine.write() as connection:
                accepted.extend(enqueue(connection, queued("a@one.net")))

    threads = [threading.Thread(target=accept) for _ in range(3)]
    for thread in threads:
        thread.start()
    claimed: list[int] = []
    try:
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            with engine.write() as connection:
                claimed += [message.queue_id for message in claim(connection)]
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    with engine.write() as connection:
        while found := claim(connection):
            claimed += [message.queue_id for message in found]
        assert claims.next_due(connection) is None
    assert len(claimed) > 10
    assert sorted(claimed) == sorted(accepted)
    engine.dispose()


def quickest_claim(connection, **options) -> float:
    """How long a claim takes that finds one fresh message, in seconds."""
    quickest = 1.0
    for _ in range(10):
        (queue_id,) = enqueue(connection, queued("a@live.net"))
        began = time.perf_counter()
        found = claim(connection, **options)
        quickest = min(quickest, time.perf_counter() - began)
        assert [message.queue_id for message in found] == [queue_id]
    return quickest


@pytest.mark.slow
def test_a_hundred_thousand_rows_of_a_dead_host_cost_a_live_one_nothing(engine: Engine) -> None:
    addresses = [f"u{n}@dead.net" for n in range(1000)]
    with engine.write() as connection:
        for _ in range(50):
            enqueue(connection, queued(*addresses), queued(*addresses))
        if not engine.is_sqlite:
            connection.exec_driver_sql("ANALYZE")
    with engine.write() as connection:
        enqueue(connection, queued("a@live.net"))
        dead, live = claim(connection)
        assert (len(dead.recipients), len(live.recipients)) == (100, 1)
        # Due, but without room for more; then backing off.
        assert quickest_claim(connection, skip=["dead.net"]) < 0.005
        state = DestinationState("dead.net", NOW + HOUR, 1, "no answer")
        assert record(connection, [outcome(dead, deferred(NOW), destination=state)]) == [True]
        assert quickest_claim(connection) < 0.005
