"""This server as others see it, so that mail is never sent back to it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from mailtwist.config.listeners import MAIL_IN, Listener


def is_local(address: str) -> bool:
    """Whether an interface of this machine has the address: then a socket can be bound to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Ourselves:
    """What this server is called and where it takes mail.

    ``listening``: host ("" for every interface) and port of each SMTP listener.
    """

    names: Collection[str] = ()
    listening: Collection[tuple[str, int]] = ()
    is_local: Callable[[str], bool] = is_local

    def has_name(self, name: str) -> bool:
        return name in self.names

    def has(self, address: str, port: int) -> bool:
        """Whether who calls this address and port gets us."""
        hosts = {host for host, bound in self.listening if bound == port}
        if not hosts:
            return False
        # A call to 0.0.0.0 or :: reaches this machine.
        if ip_address(address).is_unspecified:
            return True
        return address in hosts or ("" in hosts and self.is_local(address))


def of(hostname: str, listeners: Iterable[Listener]) -> Ourselves:
    """As the listeners say; one on a free port (0) is left out."""
    incoming = [each for each in listeners if each.protocol in MAIL_IN]
    names = {hostname, *(each.hostname for each in incoming)} - {"", "localhost"}
    bound = [(_host(each.host), each.port) for each in incoming if each.port]
    return Ourselves(frozenset(names), tuple(bound))


def _host(bound: str) -> str:
    try:
        return "" if not bound or ip_address(bound).is_unspecified else bound
    except ValueError:
        # A name, which may have any of this machine's addresses.
        return ""
