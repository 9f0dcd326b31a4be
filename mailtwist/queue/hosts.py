"""The addresses to try for a destination, in the order in which to try them.

RFC 5321 §5.1: the MX hosts by preference, or the domain itself where it has none.
Whatever DNS says, 10 names are looked up and 20 addresses tried at most, and
nothing leads back to this server.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from random import Random
from typing import Final, NoReturn, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailtwist.config.settings import Settings
from mailtwist.errors import ProtocolViolation
from mailtwist.mail.address import fold_domain
from mailtwist.net.dns import Answer, DnsError, LookupFailed, Mx, NoData, NoSuchName
from mailtwist.queue import ourselves
from mailtwist.queue.ourselves import Ourselves
from mailtwist.queue.values import Host, RemoteReply, Route, Undeliverable
from mailtwist.store.queue.values import LOCAL

log = Logger()

MAX_NAMES: Final = 10
MAX_ADDRESSES: Final = 20
# Of one name, so that it doesn't push the next one out.
ADDRESSES_OF_A_NAME: Final = 8
# Each may have cost ten seconds.
MAX_FAILED_LOOKUPS: Final = 3


class Lookups(Protocol):
    """What is asked: net.dns.Resolver."""

    async def query(self, name: str, kind: str) -> Answer: ...

    async def addresses(self, name: str) -> tuple[str, ...]: ...


class Hosts:
    """Finds the hosts of a route.

    ``may_loop_back``: whether DNS may lead to this machine (127.0.0.1, localhost).
    Public DNS may not; a DNS server that the configuration names may.
    """

    def __init__(
        self,
        resolver: Lookups,
        *,
        own: Ourselves,
        random: Random,
        may_loop_back: bool = False,
    ) -> None:
        self._resolver = resolver
        self._own = own
        self._random = random
        self._may_loop_back = may_loop_back

    def know(self, own: Ourselves) -> None:
        """Take another idea of who we are."""
        self._own = own

    async def of(self, route: Route, destination: str) -> list[Host]:
        """At least one. Raises: Undeliverable."""
        if route.host:
            return await self._of_named(route)
        if destination == LOCAL:
            _fail(451, "4.3.5", "No LMTP server is configured")
        if destination.startswith("["):
            return [self._of_literal(destination, route.port)]
        candidates = self._before_us(destination, await self._exchangers(destination))
        return await self._of_exchangers(destination, candidates, route.port)

    async def _of_named(self, route: Route) -> list[Host]:
        """The configuration's own host. What is wrong with it is ours to mend: mail waits."""
        try:
            addresses = await self._resolver.addresses(route.host)
        except LookupFailed as error:
            _fail(451, "4.4.3", f"DNS cannot say where {route.host} is", error)
        except DnsError as error:
            _fail(451, "4.4.4", f"{route.host} has no address", error)
        # An LMTP server is none of our SMTP listeners, whatever its port.
        if not route.is_lmtp and any(self._own.has(each, route.port) for each in addresses):
            _fail(451, "4.4.6", f"{route.host}:{route.port} is this server, mail would loop")
        return [Host(route.host, each, route.port) for each in addresses[:MAX_ADDRESSES]]

    def _of_literal(self, destination: str, port: int) -> Host:
        """RFC 5321 §4.1.3: ``[192.0.2.1]``, ``[IPv6:2001:db8::1]``."""
        text = destination[1:-1]
        address = text[5:] if text[:5].lower() == "ipv6:" else text
        if _ip(address) is None:
            _fail(550, "5.1.2", f"{destination} is no address")
        if self._own.has(address, port):
            _fail(554, "5.4.6", f"Mail for {destination} loops back to this server")
        if not self._is_usable(address):
            _fail(550, "5.4.4", f"{destination} takes no mail from elsewhere")
        return Host(address, address, port)

    # -- by MX ---------------------------------------------------------------------------

    async def _exchangers(self, domain: str) -> list[Mx]:
        """By preference, equal ones shuffled; the domain itself where it has none."""
        try:
            found = list((await self._resolver.query(domain, "MX")).values)
        except NoData:
            return [Mx(0, domain)]  # RFC 5321 §5.1, the implicit MX
        except NoSuchName as error:
            _fail(550, "5.1.2", f"The domain {domain} does not exist", error)
        except DnsError as error:
            # RFC 5321 §5.1: not the implicit MX then.
            _fail(451, "4.4.3", f"DNS cannot say who takes mail for {domain}", error)
        named = [mx for mx in found if mx.name]
        if not named:
            _fail(556, "5.1.10", f"The domain {domain} takes no mail")  # RFC 7505 §4.1
        self._random.shuffle(named)
        return sorted(named, key=lambda mx: mx.preference)

    def _before_us(self, domain: str, exchangers: Sequence[Mx]) -> list[Mx]:
        """RFC 5321 §5.1: where we are an MX ourselves, only those before us are called."""
        ours = next((mx.preference for mx in exchangers if self._own.has_name(mx.name)), None)
        if ours is None:
            return list(exchangers)
        before = [mx for mx in exchangers if mx.preference < ours]
        if not before:
            _loop(domain)
        return before

    async def _of_exchangers(self, domain: str, exchangers: Sequence[Mx], port: int) -> list[Host]:
        found = _Found()
        for mx in exchangers[:MAX_NAMES]:
            try:
                addresses = await self._addresses(mx.name)
            except LookupFailed as error:
                log.debug("MX {mx} of {domain}: {error}", mx=mx.name, domain=domain, error=error)
                found.failed += 1
                addresses = []
            if any(self._own.has(address, port) for address in addresses):
                found.cut(mx.preference)
            else:
                found.add(mx, addresses, port)
            if found.is_enough:
                break
        return found.hosts(domain)

    async def _addresses(self, name: str) -> list[str]:
        """Both families in turns. Raises: LookupFailed when that is why there is none."""
        if not _is_host_name(name):
            return [name] if self._may_loop_back and _ip(name) else []
        if not self._may_loop_back and (name == "localhost" or name.endswith(".localhost")):
            return []
        both = [Deferred.fromCoroutine(self._family(name, kind)) for kind in ("A", "AAAA")]
        found = [await each for each in both]
        # IPv4 first: every host has it, and there is less that can go wrong on the way.
        turns = itertools.zip_longest(*(each for each in found if isinstance(each, list)))
        addresses = [address for turn in turns for address in turn if address]
        usable = [each for each in addresses if self._is_usable(each)]
        if not addresses:
            for each in found:
                if isinstance(each, LookupFailed):
                    raise each
        return usable[:ADDRESSES_OF_A_NAME]

    async def _family(self, name: str, kind: str) -> list[str] | LookupFailed:
        try:
            values = list((await self._resolver.query(name, kind)).values)
        except LookupFailed as error:
            return error
        except DnsError:
            return []
        self._random.shuffle(values)
        return values

    def _is_usable(self, address: str) -> bool:
        return self._may_loop_back or not _is_inward(address)


@dataclass(slots=True)
class _Found:
    """What the look-ups of a domain's exchangers came to so far."""

    by_address: dict[str, tuple[int, Host]] = field(default_factory=dict)
    failed: int = 0
    is_loop: bool = False

    def add(self, mx: Mx, addresses: Sequence[str], port: int) -> None:
        for address in addresses:
            self.by_address.setdefault(address, (mx.preference, Host(mx.name, address, port)))

    def cut(self, preference: int) -> None:
        """We are an MX of this preference: neither its equals nor those behind are called."""
        self.is_loop = True
        self.by_address = {
            address: (each, host)
            for address, (each, host) in self.by_address.items()
            if each < preference
        }

    @property
    def is_enough(self) -> bool:
        is_full = len(self.by_address) >= MAX_ADDRESSES
        return is_full or self.is_loop or self.failed >= MAX_FAILED_LOOKUPS

    def hosts(self, domain: str) -> list[Host]:
        if not self.by_address:
            self._fail(domain)
        return [host for _, host in self.by_address.values()][:MAX_ADDRESSES]

    def _fail(self, domain: str) -> NoReturn:
        # First: one that could not be looked up may be the right one.
        if self.failed:
            _fail(451, "4.4.3", f"DNS cannot say where the mail hosts of {domain} are")
        if self.is_loop:
            _loop(domain)
        _fail(550, "5.4.4", f"No mail host of {domain} has an address that can be called")


def from_settings(settings: Settings, resolver: Lookups, random: Random) -> Hosts:
    """As the configuration has it."""
    outbound = settings.outbound
    return Hosts(
        resolver,
        own=ourselves.of(settings.hostname, settings.listeners),
        random=random,
        may_loop_back=bool(outbound.resolver or outbound.mx_override),
    )


def _ip(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _is_inward(address: str) -> bool:
    """Whether a call to it stays on this machine or its wire, or is no call to one host."""
    ip = ip_address(address)
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return ip.is_loopback or ip.is_unspecified or ip.is_multicast or ip.is_link_local


def _is_host_name(name: str) -> bool:
    """DNS holds any octets; and an address where a name should be is a common fault."""
    try:
        fold_domain(name)
    except ProtocolViolation:
        return False
    # RFC 3696 §2: no top-level domain is all digits.
    return not name.rpartition(".")[2].isdigit()


def _loop(domain: str) -> NoReturn:
    _fail(554, "5.4.6", f"Mail for {domain} loops back to this server")


def _fail(code: int, status: str, text: str, error: DnsError | None = None) -> NoReturn:
    if error is not None:
        log.info("{text}: {error}", text=text, error=error)
    raise Undeliverable(RemoteReply(code, status, text[:500], "dns", is_ours=True))
