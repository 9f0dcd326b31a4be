"""The HTTP front-end as a whole: all routes behind one front, shared by all listeners."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mailtwist.http import challenges, meta, openapi, resources
from mailtwist.http.exchange import Route
from mailtwist.http.front import Front
from mailtwist.http.ports import Parts
from mailtwist.http.status import Statistics, Status


def make_front(parts: Parts, clock: Any) -> Front:
    """Put the routes together. Once in a process: its front counts what limits bound."""
    statistics = Statistics(clock.seconds)
    return Front(parts, _routes(parts, statistics), clock=clock, statistics=statistics)


def _routes(parts: Parts, statistics: Statistics) -> Iterator[Route]:
    yield from Status(parts.health, statistics).routes()
    yield from openapi.routes()
    yield from meta.routes()
    if parts.challenges is not None:
        yield from challenges.routes(parts.challenges)
    if parts.resources is not None:
        yield from resources.routes(parts.resources)
    yield from parts.routes
