"""How often and how many at once: requests of one client, under ``limit.rate`` and
``limit.max_connections``.

``limit.rate`` is JSON: ``{"/ping": 2, "/action/*": 20, "default": 500}``: requests a second of
one client to one path; a path that ends in ``*`` stands for all that begin so and counts them
together. The window is the second of the clock, so the count of all clients is forgotten at
once and needs no sweeping.

Standards: RFC 6585 §4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from mailtwist.errors import MailError, ProtocolViolation
from mailtwist.http.bodies import parse_json
from mailtwist.net.counters import network_of

DEFAULT_RATE: Final = 500
DEFAULT_AT_ONCE: Final = 100
DEFAULT: Final = "default"
MAX_RATE: Final = 1_000_000
MAX_PATHS: Final = 1000
# Clients and paths that are counted within one second; more are counted as one.
MAX_KEYS: Final = 100_000
MAX_PATH: Final = 256


class TooMany(MailError):
    """RFC 6585 §4."""

    http_status = 429
    title = "Rate limit exceeded"
    default_text = "Too many requests. Please retry after the current one-second window."


class TooManyAtOnce(TooMany):
    title = "Too many connections"
    default_text = "Too many requests at once from this address"


@dataclass(frozen=True, slots=True)
class Rates:
    """Requests a second; 0: no limit."""

    default: int = DEFAULT_RATE
    exact: Mapping[str, int] = field(default_factory=dict)
    prefixes: tuple[tuple[str, int], ...] = ()  # the longest first

    def of(self, path: str) -> tuple[str, int]:
        """What a request to a path is counted under, and how many of them."""
        rate = self.exact.get(path)
        if rate is not None:
            return path, rate
        for prefix, rate in self.prefixes:
            if path.startswith(prefix):
                return f"{prefix}*", rate
        return path[:MAX_PATH], self.default


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a client stands after a request. ``reset_at``: second of the epoch."""

    limit: int
    remaining: int
    reset_at: int
    is_over: bool = False

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        if not self.limit:
            return ()
        return (
            ("X-RateLimit-Limit", str(self.limit)),
            ("X-RateLimit-Remaining", str(self.remaining)),
            ("X-RateLimit-Reset", str(self.reset_at)),
        )


class Window:
    """The requests of the current second."""

    __slots__ = ("_counts", "_second")

    def __init__(self) -> None:
        self._second = 0
        self._counts: dict[tuple[str, str], int] = {}

    def count(self, client: str, path: str, rates: Rates, now: float) -> Standing:
        """Count a request in. ``now``: seconds of the epoch."""
        second = int(now)
        if second != self._second:
            self._second = second
            self._counts = {}
        name, limit = rates.of(path)
        if not limit:
            return Standing(0, 0, second + 1)
        key = (network_of(client), name)
        if key not in self._counts and len(self._counts) >= MAX_KEYS:
            key = ("", "")
        count = self._counts.get(key, 0) + 1
        self._counts[key] = count
        return Standing(limit, max(0, limit - count), second + 1, is_over=count > limit)


class AtOnce:
    """Requests that are being answered, by client."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def enter(self, client: str, limit: int) -> bool:
        """Count one in, unless there are ``limit`` of this client already; 0: no limit."""
        network = network_of(client)
        count = self._counts.get(network, 0)
        if limit and count >= limit:
            return False
        self._counts[network] = count + 1
        return True

    def leave(self, client: str) -> None:
        network = network_of(client)
        count = self._counts.pop(network) - 1
        if count:
            self._counts[network] = count


@lru_cache(maxsize=8)
def rates(text: str) -> Rates:
    """Read ``limit.rate``; what cannot be read leaves the default."""
    try:
        return read_rates(text)
    except ProtocolViolation:
        return Rates()


def read_rates(text: str) -> Rates:
    """Raises: ProtocolViolation, which names the path."""
    if not text.strip():
        return Rates()
    found = parse_json(text.encode("utf-8"))
    if not isinstance(found, dict):
        raise ProtocolViolation("limit.rate: must be an object of paths and rates")
    nested = found.get("limits")
    paths = nested if isinstance(nested, dict) else found
    if len(paths) > MAX_PATHS:
        raise ProtocolViolation(f"limit.rate: more than {MAX_PATHS} paths")
    given = {
        path: _rate(path, value)
        for path, value in (found | paths).items()
        if path.startswith("/") or path == DEFAULT
    }
    default = given.pop(DEFAULT, DEFAULT_RATE)
    prefixes = {path[:-1]: rate for path, rate in given.items() if path.endswith("*")}
    return Rates(
        default,
        {path: rate for path, rate in given.items() if not path.endswith("*")},
        tuple(sorted(prefixes.items(), key=lambda pair: -len(pair[0]))),
    )


def _rate(path: str, value: Any) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_RATE:
        raise ProtocolViolation(f"limit.rate: {path[:100]}: not a number from 0 to {MAX_RATE}")
    return int(value)


@lru_cache(maxsize=8)
def at_once(text: str) -> int:
    """Read ``limit.max_connections``; 0: no limit."""
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    return DEFAULT_AT_ONCE
