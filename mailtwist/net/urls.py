"""Web addresses that others give, taken apart; and which IP addresses are public."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.address import fold_domain

Address: TypeAlias = "IPv4Address | IPv6Address"

MAX_URL: Final = 2_000
_PORTS: Final = {"http": 80, "https": 443}
# RFC 6052 §2.1: the last 32 bits are an IPv4 address.
_NAT64: Final = ip_network("64:ff9b::/96")
_SITE_LOCAL: Final = ip_network("fec0::/10")
_COMPATIBLE: Final = ip_network("::/96")


@dataclass(frozen=True, slots=True)
class Url:
    scheme: str
    host: str  # A-labels, or an address without brackets
    port: int
    text: str  # as it is asked for, without a fragment


def read_url(text: str) -> Url:
    """Take a web address apart. Raises: ProtocolViolation, which says what is wrong with it."""
    if len(text) > MAX_URL or not text.isascii() or any(c <= " " or c == "\x7f" for c in text):
        raise ProtocolViolation("a web address of ASCII characters without blanks is expected")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise ProtocolViolation("no web address") from error
    if parts.scheme not in _PORTS:
        raise ProtocolViolation("a web address begins with https:// or http://")
    if parts.username is not None or "\\" in text:
        raise ProtocolViolation("a web address with a login in it is not taken")
    if not host or port == 0 or "%" in host:
        raise ProtocolViolation("the web address names no host")
    literal = read_address(host)
    name = str(literal) if literal is not None else fold_domain(host.rstrip("."))
    shown = f"[{name}]" if isinstance(literal, IPv6Address) else name
    where = shown if port is None else f"{shown}:{port}"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Url(parts.scheme, name, port or _PORTS[parts.scheme], f"{parts.scheme}://{where}{path}")


def read_address(host: str) -> Address | None:
    """An IP address; None: a name. Raises: ProtocolViolation for what only looks like one."""
    try:
        return ip_address(host)
    except ValueError:
        pass
    # 127.1, 2130706433 and 0x7f.1 are addresses to a system's resolver: none of ours.
    last = host.rstrip(".").rpartition(".")[2]
    if last.isdigit() or last.startswith("0x"):
        raise ProtocolViolation("the web address names no host")
    return None


def is_public(address: Address) -> bool:
    """Whether an address is one of the Internet's, to be called by anybody."""
    if isinstance(address, IPv6Address):
        if address in _SITE_LOCAL or address in _COMPATIBLE:
            return False
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
        inner = (address.sixtofour, *(address.teredo or ()))
        if any(each is not None and not is_public(each) for each in inner):
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved
