"""Whether an address is one of some networks."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from typing import Final


class Networks:
    """Addresses and CIDR networks, as the settings name them (which have checked them)."""

    __slots__ = ("_networks",)

    def __init__(self, networks: Iterable[str] = ()) -> None:
        """Raises: ValueError."""
        self._networks = tuple(ip_network(text, strict=False) for text in networks)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def __contains__(self, address: str) -> bool:
        if not self._networks:
            return False
        try:
            client = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        # A dual-stack socket shows IPv4 clients as ::ffff:a.b.c.d.
        client = getattr(client, "ipv4_mapped", None) or client
        return any(client in network for network in self._networks)


LOOPBACK: Final = Networks(("127.0.0.0/8", "::1"))
