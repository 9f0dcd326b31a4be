from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from mailtwist.config.outgoing import Dkim
from mailtwist.errors import Conflict, NotFound
from mailtwist.net.dns import LookupFailed, NoSuchName
from mailtwist.policy import dkim_rotation, keyring
from mailtwist.policy.dkim_rotation import (
    EVERY_S,
    Rotation,
    activate,
    activate_published,
    is_published,
    next_selector,
    prepare,
    record_name,
    record_value,
)
from mailtwist.policy.hashing import Inline as InlineThreads
from mailtwist.policy.keyring import Keyring
from mailtwist.store import dkim_keys
from mailtwist.store.database import Inline
from mailtwist.store.dkim_keys import ACTIVE, ED25519, NEXT, RETIRED, RSA, Key
from mailtwist.store.secrets import Secrets
from tests.support.now import now

SECRETS = Secrets(b"k" * 32)
KEY = Key("example.com", "d1", RSA, "d1", "sealed", "MIIB+/=")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring, "RSA_BITS", 1024)


class Zone:
    """A resolver that knows what the test publishes."""

    def __init__(self) -> None:
        self.records: dict[str, list[bytes]] = {}
        self.asked: list[str] = []

    async def txt(self, name: str) -> list[bytes]:
        self.asked.append(name)
        if name not in self.records:
            raise NoSuchName(name)
        return self.records[name]

    def publish(self, key: Key) -> None:
        self.records[record_name(key)] = [b"v=spf1 -all", record_value(key).encode("ascii")]


def ring(database: Inline) -> Keyring:
    return Keyring(database, SECRETS, InlineThreads(), Dkim())


def establish(database: Inline, algorithm: str = RSA) -> Key:
    return now(ring(database).active("example.com", algorithm))


def prepared(database: Inline, algorithm: str = RSA, selector: str = "") -> Key:
    return now(prepare(ring(database), "example.com", algorithm, selector))


def states(database: Inline) -> dict[str, str]:
    keys: list[Key] = now(database.read(dkim_keys.list))
    return {key.selector: key.state for key in keys}


def test_the_record_of_a_key() -> None:
    assert record_name(KEY) == "d1._domainkey.example.com"
    assert record_value(KEY) == "v=DKIM1; k=rsa; p=MIIB+/="
    assert record_value(replace(KEY, algorithm=ED25519)) == "v=DKIM1; k=ed25519; p=MIIB+/="


@pytest.mark.parametrize(
    "records, expected",
    [
        ([b"v=DKIM1; k=rsa; p=MIIB+/="], True),
        ([b"v=DKIM1;k=rsa;p=MI IB+\t/=;"], True),
        ([b"p=MIIB+/="], True),
        ([b"v=spf1 -all", b"v=DKIM1; p=MIIB+/="], True),
        ([b"v=DKIM1; k=rsa; p="], False),
        ([b"v=DKIM1; k=rsa; p=MIIB"], False),
        ([b"\xff\0;;=;p"], False),
        ([], False),
    ],
)
def test_a_record_is_recognised(records: list[bytes], expected: bool) -> None:
    zone = Zone()
    zone.records[record_name(KEY)] = records
    assert now(is_published(zone, KEY)) is expected


def test_dns_that_fails_publishes_nothing() -> None:
    class Away:
        async def txt(self, name: str) -> list[bytes]:
            raise LookupFailed(name)

    assert now(is_published(Away(), KEY)) is False


@pytest.mark.parametrize(
    "selector, algorithm, taken, expected",
    [
        ("d1", RSA, {"d1"}, "d2"),
        ("d1", RSA, {"d1", "d2", "d3"}, "d4"),
        ("d9", RSA, {"d9"}, "d10"),
        ("mail", RSA, {"mail"}, "mail2"),
        ("20270101", RSA, {"20270101"}, "20270102"),
        ("1" * 30, RSA, set(), "1" * 21 + "111111112"),
        ("d1-ed25519", ED25519, {"d1-ed25519"}, "d2-ed25519"),
    ],
)
def test_the_next_selector(selector: str, algorithm: str, taken: set[str], expected: str) -> None:
    key = replace(KEY, selector=selector, algorithm=algorithm)
    assert next_selector(key, taken) == expected


def test_the_next_key_signs_once_it_is_published(database: Inline) -> None:
    zone = Zone()
    establish(database)
    key = prepared(database)
    assert (key.selector, key.state) == ("d2", NEXT)
    assert prepared(database) == key  # asking again makes no other
    assert now(activate_published(database, zone)) == []
    assert states(database) == {"d1": ACTIVE, "d2": NEXT}
    zone.publish(key)
    assert now(activate_published(database, zone)) == [key]
    assert states(database) == {"d1": RETIRED, "d2": ACTIVE}
    assert now(activate_published(database, zone)) == []
    assert prepared(database).selector == "d3"


def test_a_selector_of_ones_own(database: Inline) -> None:
    establish(database)
    assert prepared(database, selector="mine").selector == "mine"
    assert prepared(database).selector == "mine"
    assert prepared(database, selector="other").selector == "other"
    assert states(database) == {"d1": ACTIVE, "other": NEXT}
    with pytest.raises(Conflict):
        prepared(database, selector="d1")


def test_each_algorithm_rotates_by_itself(database: Inline) -> None:
    for algorithm in (RSA, ED25519):
        establish(database, algorithm)
    now(activate(database, prepared(database, ED25519)))
    assert states(database) == {"d1": ACTIVE, "d1-ed25519": RETIRED, "d2-ed25519": ACTIVE}
    assert prepared(database, RSA).selector == "d2"


def test_nothing_follows_a_key_that_is_not_there(database: Inline) -> None:
    with pytest.raises(NotFound, match=r"example\.com"):
        prepared(database)


def test_the_server_looks_by_itself(database: Inline) -> None:
    zone, clock = Zone(), Clock()
    establish(database)
    zone.publish(prepared(database))
    rotation = Rotation(database, zone, clock)
    rotation.start()
    assert zone.asked == []
    clock.advance(EVERY_S)
    assert states(database)["d2"] == ACTIVE
    rotation.stop()
    assert clock.getDelayedCalls() == []


def test_a_look_that_hangs_is_not_begun_twice_and_ends_with_the_server(database: Inline) -> None:
    class Silent:
        def __init__(self) -> None:
            self.asked: list[Deferred[list[bytes]]] = []

        async def txt(self, name: str) -> list[bytes]:
            self.asked.append(Deferred())
            return await self.asked[-1]

    zone, clock = Silent(), Clock()
    establish(database)
    prepared(database)
    rotation = Rotation(database, zone, clock)
    rotation.start()
    clock.pump([EVERY_S] * 3)
    assert len(zone.asked) == 1
    rotation.stop()
    assert zone.asked[0].called
    assert states(database)["d2"] == NEXT


def test_two_nodes_that_see_it_at_once_do_no_harm(database: Inline, monkeypatch: Any) -> None:
    zone = Zone()
    establish(database)
    key = prepared(database)
    zone.publish(key)
    real = dkim_rotation.is_published

    async def quicker(resolver: Any, key: Key) -> bool:
        await activate(database, key)
        return await real(resolver, key)

    monkeypatch.setattr(dkim_rotation, "is_published", quicker)
    assert now(activate_published(database, zone)) == []
    assert states(database) == {"d1": RETIRED, "d2": ACTIVE}
