"""How much TLS a destination gets: the first source that has an opinion decides."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from mailtwist.config.settings import Settings
from mailtwist.queue.routes import OUTBOUND
from mailtwist.queue.values import Route, Tls, TlsPolicy

# May ask DNS or a web server; answers None where it has nothing to say.
Source = Callable[[str, Route], Awaitable[TlsPolicy | None]]


class TlsPolicies:
    """The table. MTA-STS and DANE will be rows between the two that there are."""

    def __init__(self, sources: Sequence[Source], default: TlsPolicy) -> None:
        self._sources = tuple(sources)
        self._default = default

    async def of(self, destination: str, route: Route) -> TlsPolicy:
        for source in self._sources:
            found = await source(destination, route)
            if found is not None:
                return found
        return self._default


def from_settings(settings: Settings) -> TlsPolicies:
    """The route's own policy (relay, transports, delivery), then ``outbound.tls``."""
    default = TlsPolicy(Tls(settings.outbound.tls), source=OUTBOUND)
    return TlsPolicies((of_route,), default)


async def of_route(destination: str, route: Route) -> TlsPolicy | None:
    return route.tls if route.tls.source != OUTBOUND else None
