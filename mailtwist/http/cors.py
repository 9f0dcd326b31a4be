"""Which pages of other sites may read answers: those that ``cors.config`` lists, else none.

The value is JSON: ``{"allowed_origins": [], "allowed_methods": [], "allowed_headers": [],
"exposed_headers": [], "allow_credentials": false, "max_age": 0}``. An origin is exact
(``https://app.example.com``), holds one ``*`` (``https://*.example.com``), or is ``*`` for any;
any never comes with credentials, for that would open the API to every page there is.

Standards: Fetch §3.2 (CORS protocol).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from mailtwist.errors import ProtocolViolation
from mailtwist.http.bodies import parse_json

Headers = tuple[tuple[str, str], ...]

ANY: Final = "*"
DEFAULT_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
DEFAULT_HEADERS: Final = (
    "accept", "authorization", "content-type", "x-api-key", "x-requested-with", "x-request-id",
)  # fmt: skip
EXPOSED: Final = (
    "Location, Retry-After, X-Request-Id, X-RateLimit-Limit, X-RateLimit-Remaining, "
    "X-RateLimit-Reset"
)
MAX_ITEMS: Final = 100
MAX_AGE_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class Policy:
    """Empty: closed."""

    origins: tuple[str, ...] = ()
    methods: tuple[str, ...] = DEFAULT_METHODS
    headers: tuple[str, ...] = DEFAULT_HEADERS  # lower case
    exposed: str = EXPOSED
    allows_credentials: bool = False
    max_age_s: int = 0

    def allows(self, origin: str) -> bool:
        return ANY in self.origins or self.names(origin)

    def names(self, origin: str) -> bool:
        """Whether an origin is meant by more than "any"."""
        return any(each != ANY and _matches(each, origin) for each in self.origins)

    def answer_headers(self, origin: str) -> Headers:
        """What an answer bears so that a page of ``origin`` may read it."""
        if not self.origins:
            return ()
        if not origin or not self.allows(origin):
            # Caches must not give this answer to a page that is allowed.
            return (("Vary", "Origin"),)
        return (*self._allowed(origin), ("Access-Control-Expose-Headers", self.exposed))

    def preflight_headers(self, origin: str, method: str, headers: str) -> Headers | None:
        """The answer to a question before the request; None: refused."""
        wanted = [name.strip().lower() for name in headers.split(",") if name.strip()]
        takes_any = ANY in self.headers and not self.allows_credentials
        if (
            not self.allows(origin)
            or (method not in self.methods and ANY not in self.methods)
            or not (takes_any or all(name in self.headers for name in wanted))
        ):
            return None
        return (
            *self._allowed(origin),
            ("Access-Control-Allow-Methods", ", ".join(self.methods)),
            ("Access-Control-Allow-Headers", ", ".join(wanted if takes_any else self.headers)),
            ("Access-Control-Max-Age", str(self.max_age_s)),
        )

    def _allowed(self, origin: str) -> Iterator[tuple[str, str]]:
        is_named = self.names(origin)
        yield "Access-Control-Allow-Origin", origin if is_named else ANY
        yield "Vary", "Origin"
        if is_named and self.allows_credentials:
            yield "Access-Control-Allow-Credentials", "true"


CLOSED: Final = Policy()


def is_preflight(method: str, origin: str, wanted_method: str) -> bool:
    return method == "OPTIONS" and bool(origin) and bool(wanted_method)


@lru_cache(maxsize=8)
def policy(text: str) -> Policy:
    """Read ``cors.config``; what cannot be read allows nothing."""
    try:
        return read_policy(text)
    except ProtocolViolation:
        return CLOSED


def read_policy(text: str) -> Policy:
    """Raises: ProtocolViolation, which names the member."""
    if not text.strip():
        return CLOSED
    found = parse_json(text.encode("utf-8"))
    if not isinstance(found, dict):
        raise ProtocolViolation("cors.config: must be an object")
    methods = tuple(name.upper() for name in _texts(found, "allowed_methods"))
    headers = tuple(name.lower() for name in _texts(found, "allowed_headers"))
    max_age = found.get("max_age") or 0
    if isinstance(max_age, bool) or not isinstance(max_age, int | float):
        raise ProtocolViolation("cors.config: max_age must be a number of seconds")
    return Policy(
        origins=tuple(_texts(found, "allowed_origins")),
        methods=methods or DEFAULT_METHODS,
        headers=headers or DEFAULT_HEADERS,
        exposed=", ".join(_texts(found, "exposed_headers")) or EXPOSED,
        allows_credentials=found.get("allow_credentials") is True,
        max_age_s=min(max(int(max_age), 0), MAX_AGE_S),
    )


def _texts(found: dict[str, Any], name: str) -> list[str]:
    value = found.get(name)
    if value is None:
        return []
    is_list = isinstance(value, list) and len(value) <= MAX_ITEMS
    if not is_list or not all(isinstance(each, str) and each.isprintable() for each in value):
        raise ProtocolViolation(f"cors.config: {name} must be a list of texts")
    return [each.strip() for each in value if each.strip()]


def _matches(pattern: str, origin: str) -> bool:
    pattern, origin = pattern.lower().rstrip("/"), origin.lower()
    before, star, after = pattern.partition("*")
    if not star:
        return pattern == origin
    middle = origin[len(before) : len(origin) - len(after)]
    # The star stands for labels of a name, never for a part of the address around it.
    return (
        len(origin) > len(before) + len(after)
        and origin.startswith(before)
        and origin.endswith(after)
        and all(character.isalnum() or character in "-." for character in middle)
    )
