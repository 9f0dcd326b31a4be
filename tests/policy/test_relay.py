from __future__ import annotations

import pytest

from mailtwist.config import load
from mailtwist.errors import ConfigError
from mailtwist.policy.relay import AllowedRelays


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
def test_only_named_networks_may_relay(networks, client, outcome):
    assert (client in AllowedRelays(networks)) is outcome


@pytest.mark.mission("ELE-40")
def test_by_default_this_machine_alone_may_relay():
    relays = AllowedRelays(load(None, {}).allowed_relays)
    assert "127.0.0.1" in relays
    assert "::1" in relays
    assert "127.0.0.2" not in relays
    assert "192.168.0.1" not in relays


def test_nonsense_is_refused_by_the_name_of_the_key():
    with pytest.raises(ConfigError, match="allowed_relays"):
        AllowedRelays(["10.0.0.0/99"])
