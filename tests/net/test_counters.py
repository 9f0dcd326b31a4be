"""Connections are counted by client network."""

from __future__ import annotations

import pytest

from mailtwist.net.counters import Connections, network_of


@pytest.mark.parametrize(
    "address, network",
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:0db8:0001:0002"),
        ("2001:db8:1:2::9", "2001:0db8:0001:0002"),
        ("fe80::1%eth0", "fe80:0000:0000:0000"),
        ("no:address", "no:address"),
        ("", ""),
    ],
)
def test_a_client_is_an_address_or_a_64(address: str, network: str) -> None:
    assert network_of(address) == network


def test_nothing_is_kept_of_who_left() -> None:
    counts = Connections(per_address=2)
    assert counts.enter("192.0.2.1")
    assert counts.enter("192.0.2.1")
    assert not counts.enter("192.0.2.1")
    assert counts.enter("192.0.2.2")
    assert (counts.total, counts.of("192.0.2.1")) == (3, 2)
    for address in ("192.0.2.1", "192.0.2.1", "192.0.2.2"):
        counts.leave(address)
    assert (counts.total, counts._by_network) == (0, {})
    with pytest.raises(AssertionError):
        counts.leave("192.0.2.1")
