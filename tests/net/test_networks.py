from __future__ import annotations

import pytest

from mailtwist.config import load
from mailtwist.net.networks import Networks


@pytest.mark.parametrize(
    ("networks", "client", "outcome"),
    [
        (["127.0.0.1", "::1"], "127.0.0.1", True),
        (["127.0.0.1", "::1"], "127.0.0.2", False),
        (["127.0.0.1", "::1"], "::1", True),
        (["127.0.0.1"], "::ffff:127.0.0.1", True),
        (["10.0.0.0/8"], "10.255.0.1", True),
        (["10.0.0.7/8"], "10.1.1.1", True),
        (["10.0.0.0/8"], "11.0.0.1", False),
        (["fe80::/10"], "fe80::1%eth0", True),
        (["0.0.0.0/0"], "::1", False),
        (["10.0.0.0/8"], "", False),
        (["10.0.0.0/8"], "10.example", False),
        ([], "127.0.0.1", False),
    ],
)
def test_an_address_is_looked_for_in_all_networks(networks, client, outcome):
    assert (client in Networks(networks)) is outcome


@pytest.mark.mission("ELE-40")
def test_by_default_this_machine_alone_may_relay():
    relays = Networks(load(None, {}).allowed_relays)
    assert "127.0.0.1" in relays
    assert "::1" in relays
    assert "127.0.0.2" not in relays
    assert "192.168.0.1" not in relays


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match=r"10\.0\.0\.0/99"):
        Networks(["10.0.0.0/99"])
