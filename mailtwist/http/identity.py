"""Where a request says who asks: the first of header, ``?token=`` and cookie.

An API key comes as a bearer token or as ``X-API-Key``. A cookie is passed over when a page of
another site made the browser send it (RFC 6265bis §8.8): it says who the browser belongs to,
not what he wants.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mailtwist.http.exchange import Parameters

Header = Callable[[str], str]

COOKIE: Final = "token"
MAX_COOKIES: Final = 100


@dataclass(frozen=True, slots=True)
class Token:
    """``text`` is empty for a guest."""

    text: str = ""
    by_cookie: bool = False


def find_token(header: Header, parameters: Parameters, *, is_foreign_page: bool) -> Token:
    """The token of a request, unread."""
    text = _bearer(header("authorization")) or header("x-api-key").strip()
    if text:
        return Token(text)
    values = parameters.get("token")
    if values and values[0]:
        return Token(values[0])
    if not is_foreign_page:
        text = _cookie(header("cookie"))
    return Token(text, by_cookie=bool(text))


def is_foreign_page(header: Header, own_origin: str) -> bool:
    """Whether a browser says that the page which asks is not from here."""
    site = header("sec-fetch-site")
    if site:
        return site not in ("same-origin", "none")
    origin = header("origin")
    return bool(origin) and origin != own_origin


def _bearer(value: str) -> str:
    """RFC 6750 §2.1; the scheme in any case."""
    scheme, _, token = value.strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _cookie(value: str) -> str:
    for pair in value.split(";", MAX_COOKIES)[:MAX_COOKIES]:
        name, _, text = pair.strip().partition("=")
        if name == COOKIE:
            return text.strip().strip('"')
    return ""
