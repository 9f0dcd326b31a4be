"""Whether the server is alive and well.

``GET /ping`` answers ``pong`` as long as the reactor turns, ``GET /health`` tells whether mail
can be taken: 200 when the store was written within the last second or so and the listeners
for mail run, else 503.
``GET /statistics`` counts requests, ``GET /`` names the addresses to begin with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from mailtwist.http.exchange import Answer, Exchange, Route, json_answer, text_answer
from mailtwist.http.ports import Health


class Statistics:
    """Requests that were answered since the start."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._began = seconds()
        self._by_status: Counter[int] = Counter()

    def count(self, status: int) -> None:
        self._by_status[status] += 1

    def document(self) -> dict[str, Any]:
        counts = {str(status): count for status, count in sorted(self._by_status.items())}
        return {
            "uptime_s": round(self._seconds() - self._began, 1),
            "requests": {"total": self._by_status.total(), "by_status": counts},
        }


class Status:
    def __init__(self, health: Callable[[], Awaitable[Health]], statistics: Statistics) -> None:
        self._health = health
        self._statistics = statistics

    def routes(self) -> list[Route]:
        return [
            Route("/", ("GET",), self.root),
            Route("/ping", ("GET",), self.ping),
            Route("/health", ("GET",), self.health),
            Route("/statistics", ("GET",), self.statistics),
        ]

    async def root(self, exchange: Exchange) -> Answer:
        names = ("ping", "health", "openapi.yaml", "meta", "actions", "statistics")
        return json_answer({"links": {name: f"/{name}" for name in names}})

    async def ping(self, exchange: Exchange) -> Answer:
        return text_answer("pong")

    async def health(self, exchange: Exchange) -> Answer:
        found = await self._health()
        if found.is_good:
            # The text is what monitors of Dinky Server look for.
            return json_answer({"success": True, "message": "Mail API service is running"})
        return json_answer({"success": False, "message": found.detail}, 503)

    async def statistics(self, exchange: Exchange) -> Answer:
        return json_answer(self._statistics.document())
