"""Singleton jobs: one holder at a time."""

from __future__ import annotations

from mailtwist.store import lease
from mailtwist.store.engine import Engine

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
