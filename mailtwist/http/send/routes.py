"""``POST /send`` and ``GET /send/<id>``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from mailtwist.actions.mailing import Mailing
from mailtwist.errors import NotFound
from mailtwist.http.exchange import Answer, Exchange, Family, Route, json_answer
from mailtwist.http.send import answers, bodies, fates, once
from mailtwist.http.send.access import Access, Asker, TooManyRequests
from mailtwist.http.send.once import Once
from mailtwist.http.send.sending import Sending
from mailtwist.net.pump import shielded
from mailtwist.store import send_requests
from mailtwist.store.send_requests import Fate, Key, SendRequest

if TYPE_CHECKING:
    from mailtwist.config import Settings
    from mailtwist.store.engine import Connection

MAX_ID: Final = 2**63 - 1


class Send:
    """``settings``: as they are now."""

    def __init__(
        self,
        database: Any,
        sending: Sending,
        access: Access,
        mailing: Mailing,
        *,
        settings: Callable[[], Settings],
    ) -> None:
        self._database = database
        self._sending = sending
        self._access = access
        self._mailing = mailing
        self._settings = settings
        self._once = Once(database)

    def routes(self) -> list[Route]:
        return [
            Route(answers.PATH, ("POST",), self.send, answers.refuse),
            Route(f"{answers.PATH}/<number>", ("GET",), self.look, answers.refuse_look),
        ]

    def family(self) -> Family:
        return Family(answers.PATH, answers.refuse, self._access.policy)

    async def send(self, exchange: Exchange) -> Answer:
        try:
            asker = await self._access.asker(exchange, is_counted=True)
        except TooManyRequests as error:
            return answers.refuse(error).with_header("Retry-After", str(error.retry_after_s))
        key = once.key_of(exchange.header("idempotency-key"), asker.key_scope, exchange.body)
        # A client that goes away leaves no mail half-way.
        return await shielded(self._once.run(key, partial(self._send, exchange, asker)))

    async def _send(self, exchange: Exchange, asker: Asker, key: Key | None) -> Answer:
        given = bodies.read(
            exchange.body, exchange.header("content-type"), is_strict=exchange.by_cookie
        )
        if not given.get("from"):
            given["from"] = str(await self._mailing.default_sender())
        letter = bodies.letter(given, limit=self._settings().max_message_size)
        return answers.sent(
            await self._sending.send(letter, asker, client=exchange.client, key=key)
        )

    async def look(self, exchange: Exchange, number: str) -> Answer:
        asker = await self._access.asker(exchange, is_counted=False)
        is_number = number.isascii() and number.isdigit() and len(number) <= len(str(MAX_ID))
        if not is_number or int(number) > MAX_ID:
            raise NotFound
        found: tuple[SendRequest, list[Fate]] | None = await self._database.read(
            partial(_found, queue_id=int(number))
        )
        # That there is one of somebody else is nobody's business.
        if found is None or not asker.sees(found[0].scope):
            raise NotFound
        return json_answer(fates.document(*found))


def _found(connection: Connection, *, queue_id: int) -> tuple[SendRequest, list[Fate]] | None:
    request = send_requests.find(connection, queue_id)
    return None if request is None else (request, send_requests.fates(connection, request))
