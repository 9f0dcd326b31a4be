"""Which way mail for a destination leaves: an LMTP server, a transport, a smart host, MX hosts.

Pure: nothing is asked. Where several settings speak of a destination, the nearest
counts: its own row of ``transports``, its own row of ``outbound.mx_override``,
``transports`` ``*``, ``relay``, ``mx_override`` ``*``, its MX hosts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import quote

from mailtwist.config.names import join_host_port, split_host_port
from mailtwist.config.outgoing import Delivery, Relay
from mailtwist.config.settings import Settings
from mailtwist.config.transports import MX, SUBMISSIONS_PORT, Transport
from mailtwist.queue import ses
from mailtwist.queue.values import Login, Route, Tls, TlsPolicy
from mailtwist.store.queue.values import LOCAL

OUTBOUND: Final = "outbound.tls"
ANY: Final = "*"


class Router:
    """The table of routes that the settings make."""

    def __init__(self, settings: Settings) -> None:
        self._port = settings.outbound.port
        # A route without a policy of its own: queue.tls_policy asks further sources.
        self._tls = TlsPolicy(Tls(settings.outbound.tls), source=OUTBOUND)
        self._overrides = settings.outbound.mx_override
        self._transports = {
            pattern: None if each.scheme == MX else _of_transport(pattern, each)
            for pattern, each in settings.transports.items()
        }
        self._lmtp = _of_delivery(settings.delivery)
        self._relay = _of_relay(settings.relay) if settings.relay.host else None
        self._sources: tuple[Callable[[str], Route | None], ...] = (
            self._nearest_transport,
            self._own_override,
            lambda destination: self._transport(ANY, destination),
            lambda _: self._relay,
            self._by_mx,
        )

    def route(self, destination: str) -> Route:
        """For a domain in A-labels, an address literal, a credential, or LOCAL. Raises nothing."""
        if destination == LOCAL:
            return self._lmtp
        if ses.is_destination(destination):
            return ses.route(destination)
        return next(filter(None, (source(destination) for source in self._sources)))

    def _nearest_transport(self, destination: str) -> Route | None:
        for pattern in _patterns(destination):
            if pattern in self._transports:
                return self._transport(pattern, destination)
        return None

    def _transport(self, pattern: str, destination: str) -> Route | None:
        if pattern not in self._transports:
            return None
        return self._transports[pattern] or self._by_mx(destination)

    def _own_override(self, destination: str) -> Route | None:
        text = self._overrides.get(destination)
        return self._overridden(destination, text) if text else None

    def _by_mx(self, destination: str) -> Route:
        text = self._overrides.get(destination) or self._overrides.get(ANY)
        if text:
            return self._overridden(destination, text)
        return Route(destination, port=self._port, tls=self._tls)

    def _overridden(self, destination: str, text: str) -> Route:
        host, port = split_host_port(text)
        return Route(destination, host, port, tls=self._tls)


def _patterns(destination: str) -> Iterator[str]:
    """``mx.example.net``, ``.example.net``, ``.net``: the nearest first."""
    yield destination
    if destination.startswith("["):
        return
    rest = destination
    while rest:
        _, dot, rest = rest.partition(".")
        if dot:
            yield f".{rest}"


def _policy(level: Tls, port: int, source: str, *, ca_file: str = "") -> TlsPolicy:
    is_implicit = port == SUBMISSIONS_PORT and level is not Tls.NONE
    return TlsPolicy(level, is_implicit, ca_file, source)


def _of_relay(relay: Relay) -> Route:
    level = Tls.NONE if not relay.tls else Tls.VERIFY if relay.verify else Tls.REQUIRED
    has_login = bool(relay.username and relay.password)
    return Route(
        key=f"smtp://{join_host_port(relay.host, relay.port)}",
        host=relay.host,
        port=relay.port,
        login=Login(relay.username, relay.password) if has_login else None,
        tls=_policy(level, relay.port, "relay", ca_file=relay.ca_file),
    )


def _of_delivery(delivery: Delivery) -> Route:
    # RFC 2033 §5: not over the Internet; what its server offers is taken.
    tls = TlsPolicy(Tls.OPPORTUNISTIC, source="delivery")
    if not delivery.host:
        # Rows of a time when there was a server; queue.hosts says that there is none.
        return Route(LOCAL, is_lmtp=True, tls=tls)
    where = join_host_port(delivery.host, delivery.port)
    return Route(f"lmtp://{where}", delivery.host, delivery.port, is_lmtp=True, tls=tls)


def _of_transport(pattern: str, to: Transport) -> Route:
    source = f"transports {pattern}"
    policy = _policy(Tls(to.tls), to.port, source)
    if to.scheme == "smtps":
        policy = TlsPolicy(Tls(to.tls), implicit=True, source=source)
    login = Login(to.username, to.password) if to.has_login else None
    # Two logins, or two demands on TLS, never share a connection.
    user = f"{quote(to.username, safe='')}@" if login else ""
    return Route(
        key=f"{to.scheme}://{user}{join_host_port(to.host, to.port)}?tls={to.tls}",
        host=to.host,
        port=to.port,
        is_lmtp=to.scheme == "lmtp",
        login=login,
        tls=policy,
    )
