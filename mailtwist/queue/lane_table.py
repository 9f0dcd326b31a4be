"""The lanes that there are, and which of them a message goes into."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from twisted.logger import Logger

from mailtwist.queue.delivery import NO_ROUTE
from mailtwist.queue.lanes import Job, Lane, LaneKey
from mailtwist.queue.ports import Router
from mailtwist.queue.values import Route
from mailtwist.store.queue.values import Message, Recipient

log = Logger()

MAX_ROUTES: Final = 10_000
# Lanes whose hop is down are kept to be spared; beyond so many they are forgotten.
MAX_LANES: Final = 20_000


class LaneTable:
    """Lanes by route key, name to greet with, and whether REQUIRETLS is asked for."""

    def __init__(self, router: Router, *, per_domain: int) -> None:
        self._router = router
        self._per_domain = per_domain
        self._routes: dict[str, Route] = {}
        self._lanes: dict[LaneKey, Lane] = {}

    def __iter__(self) -> Iterator[Lane]:
        return iter(tuple(self._lanes.values()))

    def has_room(self, message: Message) -> bool:
        """Whether every next hop of a message is up, and its lane not full."""
        for recipient in message.recipients:
            route = self._route(recipient.destination)
            lane = self._lanes.get(_key(route, message))
            if lane is not None and (lane.failures or lane.is_full):
                return False
        return True

    def is_down(self, message: Message, now: int) -> bool:
        """Whether a next hop of a message is known not to answer just now."""
        keys = {_key(self._route(each.destination), message) for each in message.recipients}
        lanes = (self._lanes.get(key) for key in keys)
        return any(lane is not None and lane.suspended_until > now for lane in lanes)

    def parts(self, message: Message) -> list[tuple[Lane, Message]]:
        """The message for each of its lanes, with the recipients that it has there."""
        return [(self._lane(route, message), part) for route, part in self._by_route(message)]

    def waiting(self) -> Iterator[Job]:
        """The jobs that have not begun."""
        for lane in self._lanes.values():
            if lane.pending:
                yield from lane.jobs()

    def full_destinations(self) -> set[str]:
        """Those that need no more from the table now."""
        names: set[str] = set()
        for lane in self._lanes.values():
            if lane.is_full:
                lane.was_skipped = True
                names |= lane.destinations()
        return names

    def _by_route(self, message: Message) -> list[tuple[Route, Message]]:
        recipients = message.recipients
        route = self._route(recipients[0].destination)
        if len(recipients) == 1:
            return [(route, message)]
        parts: dict[str, tuple[Route, list[Recipient]]] = {}
        for recipient in recipients:
            route = self._route(recipient.destination)
            parts.setdefault(route.key, (route, []))[1].append(recipient)
        if len(parts) == 1:
            return [(route, message)]
        return [(way, replace(message, recipients=tuple(part))) for way, part in parts.values()]

    def _route(self, destination: str) -> Route:
        route = self._routes.get(destination)
        if route is None:
            if len(self._routes) >= MAX_ROUTES:
                self._routes.clear()
            route = self._routes[destination] = self._known_route(destination)
        return route

    def _known_route(self, destination: str) -> Route:
        try:
            return self._router.route(destination)
        except LookupError as error:
            # The configuration has changed under rows that wait; they wait for its mending.
            log.error("{destination}: {detail}", destination=destination, detail=str(error))
            return Route(NO_ROUTE)

    def _lane(self, route: Route, message: Message) -> Lane:
        key = _key(route, message)
        lane = self._lanes.get(key)
        if lane is None:
            if len(self._lanes) >= MAX_LANES:
                self._forget_lanes()
            lane = self._lanes[key] = Lane(key, route, self._per_domain)
        return lane

    def _forget_lanes(self) -> None:
        for key, lane in tuple(self._lanes.items()):
            if not (lane.pending or lane.at_work or lane.idle):
                del self._lanes[key]


def _key(route: Route, message: Message) -> LaneKey:
    return LaneKey(route.key, message.hostname, message.requiretls)
