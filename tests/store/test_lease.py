"""Singleton jobs: one holder at a time."""

from __future__ import annotations

from mailtwist.store import lease
from mailtwist.store.engine import Engine
from tests.store.making import another_node

SECOND = 1_000_000


def test_a_lease_has_one_holder_until_it_runs_out(engine: Engine) -> None:
    def take(node_id: int, now: int) -> bool:
        with engine.write() as connection:
            return lease.take(connection, "sweep", node_id, now=now, seconds=10)

    assert take(1, 0)
    assert take(1, 5 * SECOND), "the holder renews it"
    assert not take(2, 14 * SECOND)
    assert take(2, 15 * SECOND)
    assert not take(1, 16 * SECOND)


def test_a_lease_given_back_is_free_at_once(engine: Engine) -> None:
    with engine.write() as connection:
        assert lease.take(connection, "sweep", 1, now=0, seconds=100)
        lease.release(connection, "sweep", 2)
        assert not lease.take(connection, "sweep", 2, now=1, seconds=100), "not theirs to give"
        lease.release(connection, "sweep", 1)
        assert lease.take(connection, "sweep", 2, now=1, seconds=100)


def test_the_lease_of_a_process_that_is_gone_is_free_at_once(engine: Engine) -> None:
    with engine.write() as connection:
        another_node(connection, 1)
        for holder, is_free in ((1, False), (2, True)):
            assert lease.take(connection, "sweep", holder, now=0, seconds=100)
            assert lease.take_over(connection, "sweep", 3, now=1, seconds=100) is is_free
            lease.release(connection, "sweep", holder)
        assert lease.take_over(connection, "sweep", 3, now=2, seconds=100), "the holder renews it"
