"""The queue as an operator sees it first."""

from __future__ import annotations

from mailtwist.store.engine import Engine
from mailtwist.store.queue import control, destinations
from mailtwist.store.queue.condition import MAX_DESTINATIONS, Condition, condition
from mailtwist.store.queue.destinations import DestinationState
from tests.store.making import NOW
from tests.store.queued import (
    HOUR,
    LEASE,
    MINUTE,
    claim,
    conclude,
    deferred,
    delivered,
    enqueue,
    queued,
)

LATE = 5 * MINUTE


def test_an_empty_queue_has_nothing_to_tell(engine: Engine) -> None:
    with engine.write() as connection:
        assert condition(connection, NOW, LATE) == Condition(0, 0, False, ())
        enqueue(connection, queued("bob@one.net"))
        conclude(connection, delivered())
        assert condition(connection, NOW + HOUR, LATE) == Condition(0, 0, False, ())


def test_who_is_due_and_not_taken_up_is_late(engine: Engine) -> None:
    with engine.write() as connection:
        enqueue(connection, queued("bob@one.net", "carol@one.net", "dave@two.net"))
        assert condition(connection, NOW + LATE, LATE) == Condition(NOW, 0, False, ())
        assert condition(connection, NOW + LATE + 1, LATE) == Condition(NOW, 3, False, ())
        claim(connection, now=NOW + 1)
        assert condition(connection, NOW + 2, LATE) == Condition(NOW, 0, True, ())
        # Whoever had taken them is gone.
        assert not condition(connection, LEASE.until + 1, LATE).is_worked_on


def test_who_waits_for_another_attempt_or_an_operator_is_not_late(engine: Engine) -> None:
    with engine.write() as connection:
        enqueue(connection, queued("bob@one.net"))
        conclude(connection, deferred(NOW + HOUR))
        (held,) = enqueue(connection, queued("carol@two.net"))
        control.hold(connection, held)
        assert condition(connection, NOW + HOUR, LATE).overdue == 0
        assert condition(connection, NOW + HOUR + LATE + 1, LATE).overdue == 1


def test_hosts_that_are_left_alone_are_named_the_worst_first(engine: Engine) -> None:
    with engine.write() as connection:
        enqueue(connection, queued("bob@one.net"))
        away = [
            DestinationState(f"d{n}.net", NOW + HOUR, failures=n, reply=f"421 {n}")
            for n in range(1, MAX_DESTINATIONS + 3)
        ]
        away.append(DestinationState("one.net", NOW + HOUR, failures=99, reply="421 busy"))
        destinations.note(connection, away, NOW)
        found = condition(connection, NOW + 2 * LATE, LATE)
        assert len(found.suspended) == MAX_DESTINATIONS
        assert found.suspended[0] == away[-1]
        assert [each.failures for each in found.suspended[1:3]] == [12, 11]
        # Its mail has a reason to wait.
        assert found.overdue == 0
        later = condition(connection, NOW + 2 * HOUR, LATE)
        assert (later.overdue, later.suspended) == (1, ())
