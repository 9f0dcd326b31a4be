"""Requests that bear one ``Idempotency-Key`` send one mail and get one answer, for a day.

Within a process the second joins the first; over processes the row decides, which is written
with the mail. What was refused is not kept: it may be tried again under the same key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mailtwist.errors import Conflict
from mailtwist.http.exchange import Answer
from mailtwist.http.send import answers
from mailtwist.http.send.answers import Failed, Invalid
from mailtwist.store import send_requests
from mailtwist.store.ids import now_us
from mailtwist.store.send_requests import Kept, Key, KeyTaken

MAX_KEY: Final = 255
REPLAYED: Final = ("Idempotent-Replayed", "true")

Work = Callable[[Key | None], Coroutine[Any, Any, Answer]]


class OtherBody(Conflict):
    default_text = "The Idempotency-Key was used for another request"


@dataclass(slots=True)
class _Running:
    digest: str
    waiting: list[Deferred[Answer]] = field(default_factory=list)


def key_of(header: str, scope: str, body: bytes) -> Key | None:
    """The key of a request; None: it has none. Raises: Invalid."""
    if not header:
        return None
    if len(header) > MAX_KEY or not (header.isascii() and header.isprintable()):
        raise Invalid(f"Idempotency-Key: 1 to {MAX_KEY} printable ASCII characters are expected")
    name = hashlib.sha256(f"{scope}\0{header}".encode("utf-8", "replace")).hexdigest()
    return Key(name, hashlib.sha256(body).hexdigest())


class Once:
    """One in a process."""

    def __init__(self, database: Any, now: Callable[[], int] = now_us) -> None:
        self._database = database
        self._now = now
        self._running: dict[str, _Running] = {}

    async def run(self, key: Key | None, work: Work) -> Answer:
        """The answer that ``work`` gives, or gave for this key.

        Raises: OtherBody (409), what the work raises, and what the store does.
        """
        if key is None:
            return await work(None)
        running = self._running.get(key.name)
        if running is not None:
            _check(key, running.digest)
            joined: Deferred[Answer] = Deferred()
            running.waiting.append(joined)
            return (await joined).with_header(*REPLAYED)
        running = self._running[key.name] = _Running(key.digest)
        try:
            answer = await self._first(key, work)
        except BaseException:
            self._end(key, Failure())
            raise
        self._end(key, answer)
        return answer

    async def _first(self, key: Key, work: Work) -> Answer:
        kept = await self._kept(key)
        if kept is not None:
            return _replayed(key, kept)
        try:
            return await work(key)
        except KeyTaken:
            # Another process had the same request.
            kept = await self._kept(key)
            if kept is None:
                raise
            return _replayed(key, kept)

    async def _kept(self, key: Key) -> Kept | None:
        found: Kept | None = await self._database.read(
            partial(send_requests.kept, name=key.name, now=self._now())
        )
        return found

    def _end(self, key: Key, outcome: Answer | Failure) -> None:
        for each in self._running.pop(key.name).waiting:
            # One that went away drops it.
            each.callback(outcome)


def _check(key: Key, digest: str) -> None:
    if key.digest != digest:
        raise OtherBody


def _replayed(key: Key, kept: Kept) -> Answer:
    _check(key, kept.digest)
    answer = answers.sent(kept.queue_id)
    if kept.status != answer.status:
        error = Failed(kept.details)
        error.queue_id = kept.queue_id
        answer = answers.refuse(error)
    return answer.with_header(*REPLAYED)
