"""What a proxy in front of us says of the client, believed only from addresses we trust.

``X-Forwarded-For`` grows to the right: the last address that is none of our proxies is the
client. What stands left of it the client may have written himself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from mailtwist.net.networks import Networks

Header = Callable[[str], str]

MAX_HOPS: Final = 20
MAX_REQUEST_ID: Final = 64
_HOST: Final = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_REQUEST_ID: Final = re.compile(rf"[A-Za-z0-9._:-]{{1,{MAX_REQUEST_ID}}}")


@dataclass(frozen=True, slots=True)
class Client:
    """``host`` is as it came, "" without one; ``request_id`` "" when nobody we trust gave one."""

    address: str
    scheme: str
    host: str
    request_id: str = ""

    @property
    def origin(self) -> str:
        """``http://host:port``; "" when the host is not known."""
        return f"{self.scheme}://{self.host}" if is_host(self.host) else ""


class Proxies:
    def __init__(self, trusted: Iterable[str] = ()) -> None:
        self._trusted = Networks(trusted)

    def client(self, peer: str, header: Header, *, is_secure: bool) -> Client:
        """Whose request this is. ``peer``: the address of the connection."""
        scheme = "https" if is_secure else "http"
        if peer not in self._trusted:
            return Client(peer, scheme, header("host"))
        said = header("x-forwarded-proto").strip().lower()
        request_id = header("x-request-id").strip()
        return Client(
            self._behind(peer, header("x-forwarded-for")),
            said if said in ("http", "https") else scheme,
            header("x-forwarded-host").strip() or header("host"),
            request_id if _REQUEST_ID.fullmatch(request_id) else "",
        )

    def _behind(self, peer: str, forwarded: str) -> str:
        address = peer
        for hop in reversed(forwarded.rsplit(",", MAX_HOPS)[-MAX_HOPS:]):
            found = _address(hop.strip())
            if not found:
                return address
            address = found
            if address not in self._trusted:
                return address
        return address


def is_host(text: str) -> bool:
    """Whether a Host field can be one. RFC 9110 §7.2."""
    return _HOST.fullmatch(text) is not None


def _address(text: str) -> str:
    """An address as proxies write it: with a port at times, IPv6 in brackets; "" for none."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ip_address(text))
    except ValueError:
        return ""
