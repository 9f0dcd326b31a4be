"""How many connections are open, in all and by address.

One object serves all listeners of a process, so an address cannot multiply
its share by using several ports.
"""

from __future__ import annotations

from ipaddress import ip_address


class Connections:
    """Open connections by client network; an entry exists only while it is above zero."""

    __slots__ = ("_by_network", "per_address", "total")

    def __init__(self, per_address: int = 0) -> None:
        self.per_address = per_address  # 0: no limit
        self.total = 0
        self._by_network: dict[str, int] = {}

    def enter(self, address: str) -> bool:
        """Count one connection in, unless its address has its share already."""
        network = network_of(address)
        count = self._by_network.get(network, 0)
        if self.per_address and count >= self.per_address:
            return False
        self._by_network[network] = count + 1
        self.total += 1
        return True

    def leave(self, address: str) -> None:
        """Count out a connection that `enter` let in."""
        network = network_of(address)
        count = self._by_network.get(network, 0)
        assert count > 0, f"{address} leaves more often than it came"
        self.total -= 1
        if count == 1:
            del self._by_network[network]
        else:
            self._by_network[network] = count - 1

    def of(self, address: str) -> int:
        return self._by_network.get(network_of(address), 0)


def network_of(address: str) -> str:
    """What counts as one client: an IPv4 address, an IPv6 /64 (one customer's usual share)."""
    if ":" not in address:
        return address
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 6 and parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return parsed.packed[:8].hex(":", 2)
