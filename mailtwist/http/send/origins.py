"""Which web pages may call ``/send``: those that ``send.allowed_hosts`` lists.

===========================  ============================================================
item                         origins that it stands for
===========================  ============================================================
``example.com``              that host, by any scheme and at any port
``example.com:8080``         that host and port
``https://example.com``      exactly that origin
``*.example.com``            every name below; with a scheme or port too
``*``                        any
===========================  ============================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from typing_extensions import override

from mailtwist.errors import ProtocolViolation
from mailtwist.http.cors import ANY, Headers, Policy
from mailtwist.mail.address import fold_domain

METHODS: Final = ("POST", "GET")
HEADERS: Final = (
    "Content-Type", "X-API-Key", "Idempotency-Key", "Authorization", "Accept", "X-Requested-With",
)  # fmt: skip
EXPOSED: Final = "Location, Retry-After, Idempotent-Replayed, X-Request-Id"
MAX_AGE_S: Final = 600
MAX_ORIGIN: Final = 300

_ORIGIN: Final = re.compile(
    r"(?:(?P<scheme>[a-z][a-z0-9+.-]*)://)?(?P<host>\[[0-9a-f:.]+\]|[^\s/:@\[\]?#]+)"
    r"(?::(?P<port>[0-9]{1,5}))?"
)
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}


@dataclass(frozen=True, slots=True)
class Origin:
    """``scheme`` and ``port`` are empty in an item that leaves them open."""

    scheme: str
    host: str
    port: str

    def covers(self, other: Origin) -> bool:
        """Whether this item stands for an origin."""
        if self.scheme and (self.scheme, self.port) != (other.scheme, other.port):
            return False
        if self.port and self.port != other.port:
            return False
        if self.host.startswith("*."):
            return other.host.endswith(self.host[1:]) and len(other.host) > len(self.host) - 1
        return self.host == other.host


@dataclass(frozen=True, slots=True)
class HostPolicy(Policy):
    """A policy whose origins are named by their hosts."""

    items: frozenset[Origin] = field(default_factory=frozenset)

    @override
    def names(self, origin: str) -> bool:
        found = read_origin(origin)
        return found is not None and any(item.covers(found) for item in self.items)

    @override
    def preflight_headers(self, origin: str, method: str, headers: str) -> Headers | None:
        # Two arguments: a dataclass with slots is another class than the one that super() knows.
        found = Policy.preflight_headers(self, origin, method, headers)
        if found is None:
            return None
        shown = ("Access-Control-Allow-Headers", ", ".join(HEADERS))
        return tuple(shown if pair[0] == shown[0] else pair for pair in found)


@lru_cache(maxsize=8)
def policy_of(hosts: tuple[str, ...]) -> HostPolicy:
    """The policy of ``send.allowed_hosts``."""
    listed = [each for item in hosts for each in re.split(r"[,\s]+", item) if each]
    return HostPolicy(
        origins=tuple(listed),
        methods=METHODS,
        headers=tuple(name.lower() for name in HEADERS),
        exposed=EXPOSED,
        max_age_s=MAX_AGE_S,
        items=frozenset(_items(listed)),
    )


def _items(listed: Iterable[str]) -> Iterable[Origin]:
    for item in listed:
        scheme, separator, rest = item.rpartition("://")
        # What stands behind the host is no part of an origin.
        found = _read(f"{scheme}{separator}{rest.partition('/')[0]}")
        if item != ANY and found is not None:
            yield found


@lru_cache(maxsize=64)
def read_origin(text: str) -> Origin | None:
    """The origin that a browser names; None for ``null`` and what is none."""
    found = _read(text)
    return found if found is not None and found.scheme else None


def _read(text: str) -> Origin | None:
    matched = _ORIGIN.fullmatch(text.lower()) if len(text) <= MAX_ORIGIN else None
    if matched is None:
        return None
    scheme, host, port = matched["scheme"] or "", matched["host"], matched["port"] or ""
    # RFC 6454 §6.1: the port of the scheme is not written.
    return Origin(scheme, _folded(host), "" if port == _DEFAULT_PORTS.get(scheme) else port)


def _folded(host: str) -> str:
    """The name as browsers write it, in A-labels."""
    star, name = ("*.", host[2:]) if host.startswith("*.") else ("", host)
    try:
        return host if name.startswith("[") else star + fold_domain(name.rstrip("."))
    except ProtocolViolation:
        return host
