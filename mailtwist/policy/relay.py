"""Which clients may send mail to foreign domains without a login: networks that are named.

Nobody else: a server that relays for strangers is closed down by the rest of the net.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from mailtwist.errors import ConfigError


class AllowedRelays:
    """The addresses and networks of the setting ``allowed_relays``."""

    def __init__(self, networks: Iterable[str]) -> None:
        """Read addresses and CIDR networks. Raises: ConfigError that names the setting."""
        self._networks = tuple(_network(text) for text in networks)

    def __contains__(self, address: str) -> bool:
        try:
            client = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        # A dual-stack socket shows IPv4 clients as ::ffff:a.b.c.d.
        client = getattr(client, "ipv4_mapped", None) or client
        return any(client in network for network in self._networks)


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text, strict=False)
    except ValueError as error:
        raise ConfigError(f"allowed_relays: {error}") from error
