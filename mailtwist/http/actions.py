"""``/action/{entity}/{name}`` and ``/actions``: one shape of answer, good or bad.

What an operation gets is merged from every place where a client may put it; of two the later
here wins: the query string, a form, the top level of a JSON object, its ``attributes``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, Protocol

from mailtwist.actions.performers.responses import HEADER, read_headers
from mailtwist.actions.registry import Response, failed
from mailtwist.errors import MailError, ProtocolViolation, Refusal
from mailtwist.http.exchange import Answer, Exchange, Parameters, Route, json_answer
from mailtwist.mail.permissions import NOBODY, Viewer
from mailtwist.policy.identities import Unauthorized

# Any of these calls an operation.
METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
# Says who asks, and is nothing that an operation gets.
_TOKEN: Final = "token"  # noqa: S105
# A page of somebody else can make a browser send these, with the cookie.
_UNSAFE_WITH_COOKIE: Final = frozenset({"GET", "HEAD"})
# RFC 9110 §15.3.5, §15.3.6, §15.4.5.
_WITHOUT_BODY: Final = frozenset({204, 205, 304})


class Operations(Protocol):
    """:class:`mailtwist.actions.execution.Operations`."""

    def execute(
        self,
        viewer: Viewer,
        entity: str,
        name: str,
        attributes: Mapping[str, Any],
        *,
        peer: str = "",
    ) -> Awaitable[Sequence[Response]]: ...
    def listed(self, viewer: Viewer) -> Awaitable[dict[str, Any]]: ...


def routes(operations: Operations) -> tuple[Route, ...]:
    """What :class:`mailtwist.http.ports.Parts` takes."""
    return (
        Route("/action/<entity>/<name>", METHODS, partial(_execute, operations=operations), refuse),
        Route("/actions", ("GET",), partial(_list, operations=operations)),
    )


def refuse(error: MailError) -> Answer:
    """Any failure is an answer of one line for the person."""
    return json_answer([failed(error.text).document()], error.http_status)


async def _execute(exchange: Exchange, *, entity: str, name: str, operations: Operations) -> Answer:
    # Who comes with a token that is no longer good may do what guests may: sign in again.
    viewer, bad_token = await _identified(exchange)
    is_foreign = exchange.by_cookie and exchange.method in _UNSAFE_WITH_COOKIE
    if is_foreign and bad_token is None:
        raise Refusal("With a cookie, use POST")
    attributes = merged(_single(exchange.parameters), _body(exchange))
    try:
        responses = await operations.execute(viewer, entity, name, attributes, peer=exchange.client)
    except Refusal as error:
        if bad_token is not None and error.http_status == 403:
            raise bad_token from error
        raise
    status, fields = 200, dict[str, str]()
    for each in responses:
        if each.type == HEADER and isinstance(each.attributes, Mapping):
            said, more = read_headers(each.attributes)
            status, fields = said or status, fields | more
    answer = json_answer(
        [each.document() for each in responses], status, headers=tuple(fields.items())
    )
    return replace(answer, body=b"") if status in _WITHOUT_BODY else answer


async def _list(exchange: Exchange, *, operations: Operations) -> Answer:
    viewer, _ = await _identified(exchange)
    return json_answer(await operations.listed(viewer))


async def _identified(exchange: Exchange) -> tuple[Viewer, Unauthorized | None]:
    try:
        return await exchange.identify(), None
    except Unauthorized as error:
        return NOBODY, error


# -- what came -------------------------------------------------------------------------------


def merged(*sources: Mapping[str, Any]) -> dict[str, Any]:
    """Put together what came; ``attributes`` of a source win over its top level.

    Raises: ProtocolViolation.
    """
    found: dict[str, Any] = {}
    for source in sources:
        inner = source.get("attributes") or {}
        if not isinstance(inner, Mapping):
            raise ProtocolViolation("attributes is no object")
        found.update((key, value) for key, value in source.items() if key != "attributes")
        found.update(inner)
    return found


def _single(parameters: Parameters) -> dict[str, str]:
    return {name: values[-1] for name, values in parameters.items() if name != _TOKEN}


def _body(exchange: Exchange) -> Mapping[str, Any]:
    """A form, or a JSON object (JSON:API's envelope too). Raises: ProtocolViolation."""
    # A form is what a foreign page can send: then it must be JSON, which json() requires.
    form = {} if exchange.by_cookie else exchange.form()
    if form:
        return _single(form)
    document = exchange.json()
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ProtocolViolation("The body is no JSON object")
    data = document.get("data")
    return data if isinstance(data, dict) and "attributes" in data else document
