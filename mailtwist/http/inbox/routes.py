"""``/emails``: captured mail read, waited for, cleared and let go over HTTP.

===================================================  =======================================
path                                                 answers
===================================================  =======================================
``GET /emails``                                      the newest mail of all inboxes
``GET /emails/{name}``                               the newest mail of one
``DELETE /emails/{name}``                            clears it
``GET /emails/{name}/wait``                          one message, there already or to come
``GET /emails/{name}/{id}``                          one message
``DELETE /emails/{name}/{id}``                       deletes it
``GET /emails/{name}/{id}/raw``                      its octets
``GET /emails/{name}/{id}/attachments/{number}``     one of its attachments
``POST /emails/{name}/{id}/release``                 sends it to whom it was for
===================================================  =======================================

Paths are taken apart here and not by klein, which would part a name at ``%2F``. Errors are
``{"error": "..."}``; what the store cannot do is 500.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias
from urllib.parse import urlencode

from mailtwist.config import Settings
from mailtwist.errors import MailError, NotFound, StoreFull, StoreUnavailable
from mailtwist.http.exchange import Answer, Exchange, Family, Route, Sink, WrongMethod, json_answer
from mailtwist.http.inbox import names
from mailtwist.http.inbox.access import Access, Place, RateExceeded, Rates
from mailtwist.http.inbox.content import Contents
from mailtwist.http.inbox.documents import Documents, Redis, joined, path_of
from mailtwist.http.inbox.finding import Finding, Wanted
from mailtwist.http.inbox.names import Name
from mailtwist.http.inbox.waiting import Waiting
from mailtwist.mail.permissions import Viewer
from mailtwist.store import inbox
from mailtwist.store.engine import Connection
from mailtwist.store.ids import now_us
from mailtwist.store.inbox import Captured

PREFIX: Final = "/emails"
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

# What lets a message go to its real recipients; who may, it asks itself.
Release: TypeAlias = "Callable[[Exchange, Viewer, Captured], Awaitable[Answer]]"


def refuse(error: MailError) -> Answer:
    """The error shape of this family."""
    is_store = isinstance(error, StoreUnavailable | StoreFull)
    answer = json_answer({"error": error.text}, 500 if is_store else error.http_status)
    if isinstance(error, RateExceeded):
        return answer.with_header("Retry-After", str(max(1, math.ceil(error.retry_after_s))))
    if isinstance(error, WrongMethod) and error.allowed:
        return answer.with_header("Allow", ", ".join(error.allowed))
    return answer


FAMILY: Final = Family(PREFIX, refuse)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that may: what it sees, and what it names."""

    exchange: Exchange
    place: Place
    segments: tuple[str, ...]

    @property
    def name(self) -> Name:
        """Raises: ProtocolViolation."""
        return names.read_name(self.segments[0])

    @property
    def wanted(self) -> Wanted:
        name = self.name
        return Wanted(self.place.account_id, name.local_part, name.domain)


Run: TypeAlias = "Callable[[Asked], Awaitable[Answer]]"


class Inboxes:
    """One in a process. ``settings``: as they are now. ``clock``: IReactorTime."""

    def __init__(
        self,
        database: Any,
        *,
        settings: Callable[[], Settings],
        rates: Rates,
        clock: Any,
        redis: Redis | None = None,
        release: Release | None = None,
        now: Callable[[], int] = now_us,
    ) -> None:
        self._database = database
        self._release = release
        self._access = Access(database, rates, settings=settings)
        self.finding = Finding(database, retention_s=lambda: settings().inbox.retention, now=now)
        self.waiting = Waiting(database, self.finding, clock=clock)
        self._documents = Documents(database, since=self.finding.since, redis=redis)
        self._contents = Contents(database, clock=clock)

    def routes(self) -> tuple[Route, ...]:
        return tuple(
            Route(rule, METHODS, self._run, refuse) for rule in (PREFIX, f"{PREFIX}/<path:rest>")
        )

    def close(self) -> None:
        """Tell everybody who waits that the server stops."""
        self.waiting.close()

    async def _run(self, exchange: Exchange, rest: str = "") -> Answer:
        place = await self._access.place_of(exchange)
        segments = names.segments(exchange.path)
        run = _allowed(self._found(segments), exchange.method)
        is_head = exchange.method == "HEAD"
        waiting = run(Asked(exchange, place, segments))
        del exchange, place, segments  # who waits for mail keeps little of the request
        answer = await waiting
        if is_head and answer.stream is not None:
            return replace(answer, stream=_nothing)
        return answer

    def _found(self, segments: tuple[str, ...]) -> Mapping[str, Run]:
        """What may be done at a path. Raises: NotFound."""
        match segments:
            case ():
                return {"GET": self._list_all}
            case (name,) if name:
                return {"GET": self._list, "DELETE": self._clear}
            case (name, "wait") if name:
                return {"GET": self._wait}
            case (name, _) if name:
                return {"GET": self._get, "DELETE": self._delete}
            case (name, _, "raw") if name:
                return {"GET": self._raw}
            case (name, _, "release") if name and self._release is not None:
                return {"POST": self._let_go}
            case (name, _, "attachments", attachment) if name and attachment:
                return {"GET": self._attachment}
        raise NotFound()

    # -- lists --------------------------------------------------------------------------------

    async def _list_all(self, asked: Asked) -> Answer:
        wanted = names.read_wanted(asked.exchange, asked.place.account_id, None)
        return await self._listed(asked, wanted)

    async def _list(self, asked: Asked) -> Answer:
        wanted = names.read_wanted(asked.exchange, asked.place.account_id, asked.name)
        return await self._listed(asked, wanted)

    async def _listed(self, asked: Asked, wanted: Wanted) -> Answer:
        limit, before = names.read_limit(asked.exchange), names.read_before(asked.exchange)
        found = await self.finding.newest(wanted, limit=limit, before=before)
        items = await self._documents.items(found.messages)
        answer = Answer(body=joined(items))
        more = found.before
        if len(items) < len(found.messages):
            more = found.messages[len(items) - 1].queue_id
        return answer if more is None else answer.with_header("Link", _next(asked.exchange, more))

    # -- one message --------------------------------------------------------------------------

    async def _message(self, asked: Asked) -> Captured:
        """Raises: NotFound."""
        queue_id = names.read_id(asked.segments[1])
        captured = await self.finding.find(asked.wanted, queue_id)
        if captured is None:
            raise NotFound("No such message")
        return captured

    async def _get(self, asked: Asked) -> Answer:
        return await self._single(asked.name.spelled, await self._message(asked))

    async def _single(self, name: str, captured: Captured) -> Answer:
        path = path_of(name, captured.queue_id)
        return Answer(body=await self._documents.single(captured, path))

    async def _raw(self, asked: Asked) -> Answer:
        return self._contents.raw(await self._message(asked))

    async def _attachment(self, asked: Asked) -> Answer:
        return await self._contents.attachment(await self._message(asked), asked.segments[3])

    async def _let_go(self, asked: Asked) -> Answer:
        assert self._release is not None
        captured = await self._message(asked)
        return await self._release(asked.exchange, asked.place.viewer, captured)

    async def _wait(self, asked: Asked) -> Answer:
        timeout_s = names.read_timeout(asked.exchange)
        wanted = names.read_awaited(asked.exchange, asked.place.account_id, asked.name)
        name = asked.name.spelled
        check = self._access.still(asked.exchange, asked.place)
        asked.exchange.stand_aside()
        del asked
        captured = await self.waiting.wait(await self.finding.behind(wanted), timeout_s=timeout_s)
        if captured is None:
            raise NotFound(
                f"No such message came within {timeout_s:g} s" if timeout_s else "No such message"
            )
        await check()
        return await self._single(name, captured)

    # -- taking away --------------------------------------------------------------------------

    async def _clear(self, asked: Asked) -> Answer:
        # Not until it is empty: mail may come in as fast as it goes.
        while await self._remove(asked, None) >= inbox.STEP:
            pass
        return _told(f"All messages for {asked.name.spelled} have been cleared")

    async def _delete(self, asked: Asked) -> Answer:
        captured = await self._message(asked)
        if not await self._remove(asked, captured.queue_id):
            raise NotFound("No such message")
        return _told(f"Message {captured.queue_id} has been deleted")

    async def _remove(self, asked: Asked, queue_id: int | None) -> int:
        wanted = asked.wanted

        def work(connection: Connection) -> int:
            return inbox.delete(
                connection,
                wanted.account_id,
                wanted.local_part,
                queue_id,
                domain=wanted.domain,
            )

        removed: int = await self._database.write(work, accounts=(wanted.account_id,))
        return removed


def _allowed(methods: Mapping[str, Run], method: str) -> Run:
    """What answers this method. Raises: WrongMethod."""
    run = methods.get("GET" if method == "HEAD" else method)
    if run is None:
        error = WrongMethod()
        error.allowed = (*methods, "HEAD") if "GET" in methods else tuple(methods)
        raise error
    return run


def _next(exchange: Exchange, before: int) -> str:
    """Where a list goes on. RFC 8288 §3."""
    given = [
        (name, value)
        for name, values in exchange.parameters.items()
        if name not in {"before", "token"}
        for value in values
    ]
    return f'<{exchange.path}?{urlencode([*given, ("before", before)])}>; rel="next"'


def _told(message: str) -> Answer:
    return json_answer({"message": message})


async def _nothing(sink: Sink) -> None:
    """The body of an answer to HEAD."""
