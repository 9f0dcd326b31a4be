from __future__ import annotations

from dataclasses import replace

import pytest

from mailtwist.errors import Conflict, NotFound
from mailtwist.store import changes, dkim_keys
from mailtwist.store.dkim_keys import ACTIVE, ED25519, NEXT, RETIRED, RSA, Key
from mailtwist.store.engine import Connection, Engine

NOW = 1_700_000_000_000_000
FIRST = Key("example.com", "d1", RSA, "d1", "sealed 1", "public 1", created_at=NOW)
SECOND = replace(
    FIRST,
    selector="d2",
    private_key="sealed 2",
    public_key="public 2",
    state=NEXT,
    created_at=NOW + 1,
)


def states(connection: Connection) -> dict[str, str]:
    return {key.selector: key.state for key in dkim_keys.list(connection, "example.com")}


def test_the_first_key_stays(engine: Engine) -> None:
    with engine.write() as connection:
        assert dkim_keys.establish(connection, FIRST) == FIRST
        assert dkim_keys.establish(connection, replace(FIRST, public_key="other")) == FIRST
        assert dkim_keys.list(connection) == [FIRST]
        assert dkim_keys.list(connection, "example.net") == []


def test_keys_of_other_domains_algorithms_and_settings_are_their_own(engine: Engine) -> None:
    others = [
        replace(FIRST, domain="example.net"),
        replace(FIRST, selector="d1-ed25519", algorithm=ED25519),
        replace(FIRST, selector="k2", configured="k2"),
    ]
    with engine.write() as connection:
        for key in (FIRST, *others):
            assert dkim_keys.establish(connection, key) == key
        assert len(dkim_keys.list(connection)) == 4
        found = dkim_keys.find(connection, "example.com", algorithm=RSA, configured="k2")
        assert found == others[2]


def test_a_rotation_retires_the_old_key_and_forgets_its_private_half(engine: Engine) -> None:
    with engine.write() as connection:
        dkim_keys.establish(connection, FIRST)
        dkim_keys.add_next(connection, SECOND)
        assert dkim_keys.pending(connection) == [SECOND]
        assert states(connection) == {"d1": ACTIVE, "d2": NEXT}
        changes.forget(connection)
        dkim_keys.activate(connection, SECOND, NOW + 5)
        assert changes.pending(connection).kinds == {"dkim"}
        assert dkim_keys.list(connection) == [
            replace(FIRST, state=RETIRED, private_key="", retired_at=NOW + 5),
            replace(SECOND, state=ACTIVE),
        ]
        assert dkim_keys.pending(connection) == []


def test_a_key_is_activated_once(engine: Engine) -> None:
    with engine.write() as connection:
        dkim_keys.establish(connection, FIRST)
        dkim_keys.add_next(connection, SECOND)
        dkim_keys.activate(connection, SECOND, NOW + 5)
    with pytest.raises(NotFound), engine.write() as connection:
        dkim_keys.activate(connection, SECOND, NOW + 6)
    with engine.read() as connection:
        assert states(connection) == {"d1": RETIRED, "d2": ACTIVE}


def test_one_key_waits_and_no_selector_is_used_twice(engine: Engine) -> None:
    third = replace(SECOND, selector="d3")
    with engine.write() as connection:
        dkim_keys.establish(connection, FIRST)
        dkim_keys.add_next(connection, SECOND)
        dkim_keys.add_next(connection, third)
        assert states(connection) == {"d1": ACTIVE, "d3": NEXT}
        dkim_keys.activate(connection, third, NOW + 5)
        for taken in ("d1", "d3"):
            with pytest.raises(Conflict):
                dkim_keys.add_next(connection, replace(SECOND, selector=taken))


def test_a_selector_set_by_hand_takes_over_the_key_that_a_rotation_made(engine: Engine) -> None:
    with engine.write() as connection:
        dkim_keys.establish(connection, FIRST)
        dkim_keys.add_next(connection, SECOND)
        wanted = replace(FIRST, selector="d2", configured="d2", public_key="never used")
        taken = dkim_keys.establish(connection, wanted)
    assert taken == replace(SECOND, state=ACTIVE, configured="d2")


def test_a_retired_selector_set_by_hand_gets_a_new_key(engine: Engine) -> None:
    wanted = replace(FIRST, public_key="public 3", private_key="sealed 3", configured="x")
    with engine.write() as connection:
        dkim_keys.establish(connection, FIRST)
        dkim_keys.add_next(connection, SECOND)
        dkim_keys.activate(connection, SECOND, NOW + 5)
        assert dkim_keys.establish(connection, wanted) == wanted


def test_a_selector_of_another_algorithm_is_refused(engine: Engine) -> None:
    with engine.write() as connection:
        dkim_keys.establish(connection, FIRST)
        with pytest.raises(Conflict, match="d1"):
            dkim_keys.establish(connection, replace(FIRST, algorithm=ED25519))
