"""``/_config``: the values that administrators store, as text.

``GET /_config`` answers all of them, ``/_config/backend/KEY`` is one: GET reads it, POST, PUT
and PATCH make the body its value, DELETE forgets it. ``/_config/web/KEY`` keeps values of
dashboards, which mean nothing here. Whoever is no administrator gets an empty 403.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from mailtwist.errors import MailError, NotFound, ProtocolViolation, Refusal
from mailtwist.http import cors, limits
from mailtwist.http.bodies import UnsupportedType, is_json
from mailtwist.http.exchange import (
    TEXT_TYPE,
    Answer,
    Exchange,
    Route,
    json_answer,
    refusal,
    text_answer,
)

# What stands before a key's name in the store.
ENDS: Final[Mapping[str, str]] = {"backend": "", "web": "web/"}
# Of what acts on them, for keys whose values are more than one word. Raise: ProtocolViolation.
CHECKS: Final[Mapping[str, Callable[[str], object]]] = {
    "limit.rate": limits.read_rates,
    "cors.config": cors.read_policy,
}
DONE: Final = Answer(200, b"", TEXT_TYPE)
FORBIDDEN: Final = Answer(403, b"", TEXT_TYPE)


class Values(Protocol):
    """What is needed of :class:`mailtwist.store.config_values.ConfigValues`."""

    def shown(self, name: str) -> str:
        """Raises: NotFound."""

    def all_shown(self) -> dict[str, str]: ...

    async def put(self, name: str, value: str) -> None:
        """Raises: Conflict, ProtocolViolation."""

    async def remove(self, name: str) -> None:
        """Raises: Conflict, NotFound."""


class NoAdministrator(Refusal):
    """Whoever asks may not know what is set."""


def routes(values: Values) -> tuple[Route, ...]:
    config = Config(values)
    one = "/_config/<end>/<path:name>"
    return (
        Route("/_config", ("GET",), config.list, _refuse),
        Route("/_config/<end>", ("GET",), config.list, _refuse),
        Route(one, ("GET",), config.get, _refuse),
        Route(one, ("POST", "PUT", "PATCH"), config.put, _refuse),
        Route(one, ("DELETE",), config.remove, _refuse),
    )


class Config:
    """The routes' functions over one set of values."""

    def __init__(self, values: Values) -> None:
        self._values = values

    async def list(self, exchange: Exchange, end: str = "backend") -> Answer:
        await _check(exchange)
        prefix = _prefix(end)
        shown = self._values.all_shown()
        return json_answer({key: value for key, value in shown.items() if key.startswith(prefix)})

    async def get(self, exchange: Exchange, end: str, name: str) -> Answer:
        await _check(exchange)
        return text_answer(self._values.shown(_prefix(end) + name))

    async def put(self, exchange: Exchange, end: str, name: str) -> Answer:
        await _check(exchange)
        # A page of anybody's may make a browser send text, with its cookies.
        if exchange.by_cookie and not is_json(exchange.header("content-type")):
            raise UnsupportedType
        key, value = _prefix(end) + name, value_of(exchange.body)
        CHECKS.get(key, str)(value)
        await self._values.put(key, value)
        return DONE

    async def remove(self, exchange: Exchange, end: str, name: str) -> Answer:
        await _check(exchange)
        await self._values.remove(_prefix(end) + name)
        return DONE


async def _check(exchange: Exchange) -> None:
    viewer = await exchange.identify()
    if not viewer.is_admin:
        raise NoAdministrator


def _prefix(end: str) -> str:
    prefix = ENDS.get(end)
    if prefix is None:
        raise NotFound(f"There is no /_config/{end[:100]}")
    return prefix


def _refuse(error: MailError) -> Answer:
    return FORBIDDEN if isinstance(error, NoAdministrator) else refusal(error)


def value_of(body: bytes) -> str:
    """The text that a body means; clients that think in JSON put it in quotes.

    Raises: ProtocolViolation.
    """
    try:
        text = body.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise ProtocolViolation("The value is not UTF-8") from None
    if text.startswith('"'):
        try:
            return str(json.loads(text))
        except ValueError:
            return text
    return text
