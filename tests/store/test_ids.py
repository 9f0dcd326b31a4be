"""Numbers that a node makes alone, and the node numbers they are made of."""

from __future__ import annotations

import pytest

from mailtwist.errors import StoreUnavailable
from mailtwist.store import ids
from mailtwist.store.engine import Engine
from mailtwist.store.tables import node

SECOND = 1_000_000


def at(ms: int) -> int:
    return ids.EPOCH_MS + ms


def test_numbers_rise_and_carry_time_and_node() -> None:
    source = ids.IdSource(5, lambda: at(7))
    first, second = source.next(), source.next()
    assert first == 7 << 22 | 5 << 12
    assert second == first + 1
    assert ids.made_at_us(first) == at(7) * 1000


@pytest.mark.parametrize(
    "times",
    [[1, 2, 3], [5, 5, 5], [9, 2, 9, 1, 10], [3] * 5000],
    ids=["rising", "standing", "stepping back", "used up"],
)
def test_numbers_rise_whatever_the_clock_does(times: list[int]) -> None:
    clock = iter(times)
    source = ids.IdSource(1023, lambda: at(next(clock)))
    numbers = [source.next() for _ in times]
    assert numbers == sorted(set(numbers))
    assert all(number >> 12 & 1023 == 1023 for number in numbers)


def test_numbers_stay_positive_in_64_bits_for_decades() -> None:
    in_2090 = 3_786_912_000_000
    assert ids.IdSource(1023, lambda: in_2090).next() < 1 << 63


def test_processes_claim_different_numbers(engine: Engine) -> None:
    with engine.write() as connection:
        claimed = [ids.claim(connection, f"p{n}", SECOND) for n in range(3)]
        assert len(set(claimed)) == 3
        assert ids.living(connection, SECOND) == set(claimed)


def test_a_number_is_claimed_again_when_its_process_fell_silent(engine: Engine) -> None:
    with engine.write() as connection:
        rows = [
            {"node_id": n, "name": f"p{n}", "version": "0", "seen_at": SECOND * (1000 + n)}
            for n in range(ids.NODES)
        ]
        connection.execute(node.insert(), rows)
        with pytest.raises(StoreUnavailable):
            ids.claim(connection, "late", SECOND * 1000)
        now = SECOND * 1010 + ids.STALE_US
        assert ids.claim(connection, "late", now) == 0, "the one unseen for longest"
        assert not ids.renew(connection, 0, "p0", now), "its former owner finds out"
        assert ids.renew(connection, 0, "late", now)
        ids.release(connection, 700, "p700", now)
        assert ids.claim(connection, "later", now) == 1


def test_a_number_given_back_lives_no_more(engine: Engine) -> None:
    with engine.write() as connection:
        mine, theirs = (ids.claim(connection, name, SECOND) for name in ("mine", "theirs"))
        ids.release(connection, mine, "not mine", SECOND)
        assert ids.living(connection, SECOND) == {mine, theirs}
        ids.release(connection, mine, "mine", SECOND)
        assert ids.living(connection, SECOND) == {theirs}
        assert ids.living(connection, SECOND + ids.STALE_US + 1) == set()
