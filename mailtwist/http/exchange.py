"""One request and its answer as plain values: what a route is made of.

A module of this package that has something to serve exports ``routes(parts)``, which gives
:class:`Route` values. The front (:mod:`mailtwist.http.front`) turns what Twisted received into
an :class:`Exchange`, runs the route and writes its :class:`Answer`. Errors of the tree of
:mod:`mailtwist.errors` are turned into an answer by the route's ``refuse``.

Nothing here imports Twisted.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Final, Protocol

from mailtwist.errors import MailError
from mailtwist.http import cors
from mailtwist.http.bodies import is_json, read_form, read_json
from mailtwist.mail.permissions import NOBODY, Viewer

JSON_TYPE: Final = "application/json"
JSONAPI_TYPE: Final = "application/vnd.api+json"
TEXT_TYPE: Final = "text/plain; charset=utf-8"

Parameters = Mapping[str, tuple[str, ...]]


async def no_pause() -> None:
    """Go on at once."""


async def nobody() -> Viewer:
    """A guest."""
    return NOBODY


@dataclass(slots=True)
class Exchange:
    """A request that has come in whole and passed the limits."""

    method: str
    path: str
    """As sent, without the query string."""
    parameters: Parameters
    """Of the query string, decoded, in their order; at most 100."""
    header: Callable[[str], str]
    """The first value of a header field, "" without one. 8-bit octets are decoded as UTF-8, what
    is none is replaced."""
    body: bytes
    """At most 1 MiB."""
    identify: Callable[[], Awaitable[Viewer]]
    """Who asks; a guest without a token. Asked once, whoever calls. Raises: Unauthorized for a
    token that is no good."""
    client: str = ""
    """The address of the client, as far as trusted proxies tell it."""
    origin: str = ""
    """``http://host:port`` as the client wrote it; "" when it did not say."""
    request_id: str = ""
    by_cookie: bool = False
    """Whether the token came by cookie: then a browser sends it whoever wrote the page."""
    identify_again: Callable[[], Awaitable[Viewer]] = nobody
    """As ``identify``, for an answer that takes long: asked anew each time."""
    pause: Callable[[], Awaitable[None]] = no_pause
    """Lets the reactor do what waits, in the midst of work that is longer than a few ms."""
    stand_aside: Callable[[], None] = lambda: None
    """Says that the answer may take minutes and that such requests are bounded elsewhere: this
    one no longer counts among those that one client may have at once."""

    def first(self, name: str, default: str = "") -> str:
        """The first value of a parameter."""
        values = self.parameters.get(name)
        return values[0] if values else default

    def json(self) -> Any:
        """The body as JSON; ``{}`` when there is none.

        Raises: ProtocolViolation (400), UnsupportedType (415).
        """
        return read_json(self.body, self.header("content-type"), is_strict=self.by_cookie)

    def form(self) -> Parameters:
        """The body as an HTML form, when its type says so; else nothing."""
        if is_json(self.header("content-type")):
            return {}
        return read_form(self.body, self.header("content-type"))


class Sink(Protocol):
    """Where a body goes that is made while it is read."""

    @property
    def is_full(self) -> bool:
        """Whether the client should take something first."""
        ...

    def write(self, data: bytes) -> None: ...

    def on_drain(self, callback: Callable[[], object]) -> None:
        """What to call when it is no longer full."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """``stream``: writes the body, in place of ``body``; cancelled when the client goes away."""

    status: int = 200
    body: bytes = b""
    content_type: str = JSON_TYPE
    headers: tuple[tuple[str, str], ...] = ()
    stream: Callable[[Sink], Awaitable[None]] | None = None

    def with_header(self, name: str, value: str) -> Answer:
        return replace(self, headers=(*self.headers, (name, value)))


_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def encoded(value: object) -> bytes:
    """JSON in its short form; half a surrogate pair that a mail brought is a question mark."""
    return _encode(value).encode("utf-8", "replace")


def json_answer(
    value: object,
    status: int = 200,
    *,
    content_type: str = JSON_TYPE,
    headers: tuple[tuple[str, str], ...] = (),
) -> Answer:
    return Answer(status, encoded(value), content_type, headers)


def text_answer(text: str, status: int = 200, *, content_type: str = TEXT_TYPE) -> Answer:
    return Answer(status, text.encode("utf-8"), content_type)


def refusal(error: MailError) -> Answer:
    """The error of a route that has no shape of its own: it is read in several ways."""
    status = error.http_status
    return json_answer(
        {
            "success": False,
            "message": error.text,
            "error": error.text,
            "errors": [{"status": str(status), "title": phrase(status), "detail": error.text}],
        },
        status,
    )


def phrase(status: int) -> str:
    """The words that stand beside a status code."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


Run = Callable[..., Awaitable[Answer]]
Refuse = Callable[[MailError], Answer]


@dataclass(frozen=True, slots=True)
class Route:
    """``run(exchange, **path)`` gets the ``<names>`` of the rule as keywords, decoded."""

    rule: str
    """``/api/<entity>/<id>``; a name takes one segment, ``<path:name>`` the rest."""
    methods: tuple[str, ...]
    run: Run
    refuse: Refuse = refusal
    """How an error looks here; a bug comes as MailError("Internal error")."""


class WrongMethod(MailError):
    """RFC 9110 §15.5.6. ``allowed``: the methods that there are."""

    http_status = 405
    default_text = phrase(405)
    allowed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Family:
    """Routes below one prefix that answer alike, also where no route is found."""

    prefix: str
    """``/send``: that path and all below it."""
    refuse: Refuse
    """How an error of no route looks there (404, 405, 413, 429; a preflight's 403)."""
    policy: Callable[[], cors.Policy] | None = None
    """Which pages may ask; None: those that ``cors.config`` lists."""

    def covers(self, path: str) -> bool:
        return path.startswith(self.prefix) and path[len(self.prefix) :][:1] in ("", "/")
