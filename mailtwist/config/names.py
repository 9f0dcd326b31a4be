"""The kinds of value that name something on the network: domains, addresses, URLs."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from mailtwist.config.kinds import Kind, one_line, sort_of
from mailtwist.errors import ProtocolViolation
from mailtwist.mail import address


@dataclass(frozen=True, slots=True)
class Domain(Kind[str]):
    """A domain name, kept as lower-case A-labels."""

    name = "domain name"

    def parse(self, value: object) -> str:
        text = one_line(value).rstrip(".")
        if not text:
            return ""
        return fold_domain(text)


def fold_domain(text: str) -> str:
    """``text`` as lower-case A-labels; raises ``ValueError`` where it is no domain name."""
    try:
        return address.fold_domain(text)
    except ProtocolViolation:
        raise ValueError(f"is no domain name: {sort_of(text)}") from None


@dataclass(frozen=True, slots=True)
class Mailbox(Kind[str]):
    """A mail address, or nothing."""

    name = "mail address"

    def parse(self, value: object) -> str:
        text = one_line(value)
        try:
            return str(address.parse_address(text)) if text else ""
        except ProtocolViolation:
            raise ValueError(f"must be a mail address, not {sort_of(value)}") from None


@dataclass(frozen=True, slots=True)
class LocalPartOrMailbox(Kind[str]):
    name = "local part, mail address or *"

    def parse(self, value: object) -> str:
        text = one_line(value)
        if not text:
            raise ValueError("is empty")
        return Mailbox().parse(text) if "@" in text else text.lower()


@dataclass(frozen=True, slots=True)
class Network(Kind[str]):
    """An IP address or network, kept in its normal form."""

    name = "address or network"

    def parse(self, value: object) -> str:
        text = one_line(value)
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise ValueError(f"is no IP address or network: {sort_of(value)}") from None
        return str(network.network_address) if "/" not in text else str(network)


@dataclass(frozen=True, slots=True)
class Host(Kind[str]):
    """A host name or IP address; the address may stand in brackets, and is kept without."""

    name = "host name or address"

    def parse(self, value: object) -> str:
        text = one_line(value)
        if text.startswith("[") and text.endswith("]"):
            text = text[1:-1]
        if not text:
            return ""
        # A colon is an IPv6 address's, or the port that has a key of its own.
        if ":" in text or text.replace(".", "").isdigit():
            return str(_ip(text))
        return fold_domain(text.rstrip("."))


@dataclass(frozen=True, slots=True)
class HostPort(Kind[str]):
    """Kept as text, "host:port" or "[v6]:port"; :func:`split_host_port` takes it apart."""

    default_port: int = 0  # 0: the port must be given
    is_remote: bool = False  # whom we call: neither every interface nor a free port
    name = "host:port"

    def parse(self, value: object) -> str:
        text = str(value) if isinstance(value, int) else one_line(value)
        if not text:
            return ""
        if self.default_port and ":" not in text.rpartition("]")[2]:
            text = f"{text}:{self.default_port}"
        host, port = split_host_port(text)
        if self.is_remote and not (host and port):
            raise ValueError(f"must name a host and a port, not {sort_of(value)}")
        return join_host_port(host, port)


def split_host_port(text: str) -> tuple[str, int]:
    """The two halves of "host:port"; an empty host means every interface."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f'must be "host:port" with a port from 0 to 65535, not {sort_of(text)}')
    if host.startswith("[") and host.endswith("]"):
        host = str(_ip(host[1:-1]))
    elif ":" in host:
        raise ValueError(f"an IPv6 address is written in brackets, as [::1]:{port}")
    elif host in {"", "*"}:
        host = ""
    elif host.replace(".", "").isdigit():
        host = str(_ip(host))
    else:
        host = fold_domain(host)
    return host, int(port)


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"is no IP address: {sort_of(text)}") from None


def join_host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class Url(Kind[str]):
    schemes: tuple[str, ...]

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"URL ({', '.join(self.schemes)})"

    def parse(self, value: object) -> str:
        text = one_line(value)
        if not text:
            return ""
        scheme = urlsplit(text).scheme.lower()
        if scheme not in self.schemes:
            # The value may hold a password: it is not repeated.
            raise ValueError(f"must be a URL that starts with {' or '.join(self.schemes)}://")
        return text
