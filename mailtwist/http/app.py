"""The routes of the HTTP front-end, one klein application.

``GET /ping`` answers ``pong`` as long as the reactor turns, ``GET /health`` tells whether mail
can be taken: 200 when the store was written within the last second or so, else 503. Errors are
JSON, those of unknown routes too.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from klein import Klein
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from werkzeug.exceptions import HTTPException

from mailtwist.errors import MailError

log = Logger()


class Health(Protocol):
    """What the server knows of itself."""

    @property
    def is_good(self) -> bool: ...
    @property
    def detail(self) -> str: ...


class Application:
    """The routes; what they need is handed in."""

    app = Klein()

    def __init__(self, health: Callable[[], Awaitable[Health]]) -> None:
        self._health = health

    @app.route("/ping", methods=["GET"])
    def ping(self, request: IRequest) -> bytes:
        return send(request, 200, b"text/plain; charset=utf-8", b"pong")

    @app.route("/health", methods=["GET"])
    async def health(self, request: IRequest) -> bytes:
        found = await self._health()
        if found.is_good:
            # The text is what monitors of Dinky Server look for.
            return answer(request, 200, success=True, message="Mail API service is running")
        return answer(request, 503, success=False, message=f"Store: {found.detail}")

    @app.handle_errors(HTTPException)
    def refuse_route(self, request: IRequest, failure: Failure) -> bytes:
        error = failure.value
        assert isinstance(error, HTTPException)
        for name, value in error.get_headers():
            if name.lower() == "allow":
                request.setHeader(b"allow", value.encode("ascii"))
        return refuse(request, error.code or 500, error.name)

    @app.handle_errors(MailError)
    def refuse(self, request: IRequest, failure: Failure) -> bytes:
        error = failure.value
        assert isinstance(error, MailError)
        return refuse(request, error.http_status, error.text)

    @app.handle_errors(Exception)
    def fail(self, request: IRequest, failure: Failure) -> bytes:
        log.failure("http request failed", failure)
        return refuse(request, 500, "Internal error")


def answer(request: IRequest, status: int, **members: Any) -> bytes:
    """Answer with a JSON object."""
    return send(request, status, b"application/json", json.dumps(members).encode("utf-8"))


def refuse(request: IRequest, status: int, text: str) -> bytes:
    return answer(request, status, success=False, message=text, error=text)


def send(request: IRequest, status: int, content_type: bytes, body: bytes) -> bytes:
    """Set what goes before a body that is complete, and return it."""
    request.setResponseCode(status)
    request.setHeader(b"content-type", content_type)
    request.setHeader(b"content-length", b"%d" % len(body))
    request.setHeader(b"cache-control", b"no-store")
    return body
