"""Requests to web servers elsewhere, under bounds, and never into our own network.

A name is looked up once; each address is checked, and it is that very address which is called:
a second look-up could give another (DNS rebinding). Refused is what is not public: loopback,
private and shared networks (RFC 1918, RFC 4193, RFC 6598), link-local, multicast, reserved, and
IPv6 forms that hold such an IPv4 address; unless ``allow`` has it. TLS is verified for the name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Final, Protocol, TypeAlias
from urllib.parse import urljoin

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol as Receiver
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.iweb import IAgentEndpointFactory, IBodyProducer
from zope.interface import implementer

from mailtwist.errors import MailError
from mailtwist.net.dns import DnsError
from mailtwist.net.urls import Url, is_public, read_address, read_url

Network: TypeAlias = "IPv4Network | IPv6Network"

MAX_BODY: Final = 64 << 10
# All that one connection may say: header, framing and body.
MAX_OCTETS: Final = 4 << 20
MAX_ADDRESSES: Final = 4
CONNECT_S: Final = 5.0
TIMEOUT_S: Final = 10.0


class WebError(MailError):
    """No answer came, or none that may be asked for. The text says why."""

    http_status = 502
    default_text = "The web server did not answer"


@dataclass(frozen=True, slots=True)
class WebAnswer:
    """``headers``: names in lower case, the first value of each. ``body`` is cut at its bound."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class Lookups(Protocol):
    """What is asked: :class:`mailtwist.net.dns.Resolver`."""

    async def addresses(self, name: str) -> tuple[str, ...]: ...


class Web:
    """``allow``: networks that are called although they are not public.

    ``trust``: makes the TLS options for a host name; by default the system's authorities count.
    """

    def __init__(
        self,
        reactor: Any,
        resolver: Lookups,
        *,
        allow: Sequence[str] = (),
        trust: Callable[[str], Any] | None = None,
    ) -> None:
        self._reactor = reactor
        self._resolver = resolver
        self._allow: tuple[Network, ...] = ()
        self._trust = trust or _by_system
        self.allow(allow)

    def allow(self, networks: Sequence[str]) -> None:
        """Take another list of networks."""
        self._allow = tuple(ip_network(each, strict=False) for each in networks)

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout_s: float = TIMEOUT_S,
        max_body: int = MAX_BODY,
        max_redirects: int = 0,
    ) -> WebAnswer:
        """Ask, and take what comes within the bounds; ``timeout_s`` is for all of it.

        A redirect beyond ``max_redirects`` is an answer like others. Only GET is redirected.
        Raises: ProtocolViolation for a bad address, WebError.
        """
        work = Deferred.fromCoroutine(
            self._follow(method, url, headers or {}, body, max_body, max_redirects)
        )
        timer = self._reactor.callLater(timeout_s, work.cancel)
        try:
            return await work
        except CancelledError as error:
            if timer.active():
                raise  # somebody else's wish
            raise WebError(f"No answer within {timeout_s:g} s") from error
        finally:
            if timer.active():
                timer.cancel()

    async def _follow(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        max_body: int,
        redirects: int,
    ) -> WebAnswer:
        while True:
            answer = await self._ask(method, read_url(url), headers, body, max_body)
            location = answer.headers.get("location", "")
            if method != "GET" or not redirects or answer.status // 100 != 3 or not location:
                return answer
            redirects -= 1
            url = urljoin(url, location)

    async def _ask(
        self, method: str, url: Url, headers: Mapping[str, str], body: bytes, max_body: int
    ) -> WebAnswer:
        from twisted.internet.error import ConnectError

        refused: Exception | None = None
        for address in await self._addresses(url):
            try:
                return await self._ask_at(address, method, url, headers, body, max_body)
            except ConnectError as error:
                refused = error  # the next one may be up
            except Exception as error:
                if any(isinstance(each, CancelledError) for each in _reasons(error)):
                    raise CancelledError from error
                raise _failure(url, error) from error
        raise _failure(url, refused) from refused

    async def _addresses(self, url: Url) -> list[str]:
        try:
            found = await self._resolver.addresses(url.host)
        except DnsError as error:
            raise WebError(f"{url.host} has no address", detail=str(error)) from error
        allowed = [each for each in found if self._may_call(each)]
        if not allowed:
            raise WebError(
                f"{url.host} is not called: it has no public address, and none of http_client.allow"
            )
        return allowed[:MAX_ADDRESSES]

    def _may_call(self, text: str) -> bool:
        address = read_address(text)
        if address is None:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        every = [address] if mapped is None else [address, mapped]
        if any(each in network for each in every for network in self._allow):
            return True
        return is_public(address)

    async def _ask_at(
        self,
        address: str,
        method: str,
        url: Url,
        headers: Mapping[str, str],
        body: bytes,
        max_body: int,
    ) -> WebAnswer:
        from twisted.web.client import Agent
        from twisted.web.http_headers import Headers

        agent = Agent.usingEndpointFactory(self._reactor, _At(self._endpoint(url, address)))
        given = Headers({name: [value] for name, value in headers.items()})
        response: Any = await agent.request(
            method.encode("ascii"), url.text.encode("ascii"), given, _Body(body) if body else None
        )
        collector = _Collector(max_body)
        response.deliverBody(collector)
        content = await collector.received
        found = {
            name.decode("latin-1").lower(): values[0].decode("latin-1")
            for name, values in response.headers.getAllRawHeaders()
        }
        return WebAnswer(response.code, content, found)

    def _endpoint(self, url: Url, address: str) -> Any:
        """Where the address is reached, by TLS where the URL says so."""
        from twisted.internet.endpoints import (
            TCP4ClientEndpoint,
            TCP6ClientEndpoint,
            wrapClientTLS,
        )

        kind = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
        plain = kind(self._reactor, address, url.port, timeout=CONNECT_S)
        if url.scheme == "http":
            return plain
        return wrapClientTLS(self._trust(url.host), plain)


def _by_system(host: str) -> Any:
    from twisted.internet.ssl import optionsForClientTLS

    return optionsForClientTLS(host)


def _reasons(error: Exception | None) -> list[Any]:
    """What is behind an error: the agent wraps several into one."""
    from twisted.web.client import RequestTransmissionFailed, ResponseFailed

    if isinstance(error, ResponseFailed | RequestTransmissionFailed):
        return [reason.value for reason in error.reasons]
    return [error]


def _failure(url: Url, error: Exception | None) -> WebError:
    """What went wrong, in words that tell nothing about networks behind us."""
    from twisted.internet.error import ConnectError

    reasons = _reasons(error)
    text = f"{url.host} broke the connection off, or its answer is no HTTP"
    if isinstance(error, ConnectError):
        text = f"{url.host} takes no connection"
    elif any(type(each).__module__.startswith(("OpenSSL", "service_identity")) for each in reasons):
        text = f"{url.host} has no certificate that can be verified"
    return WebError(text, detail="; ".join(repr(each) for each in reasons)[:500])


@implementer(IAgentEndpointFactory)
class _At:
    """Always this endpoint, whatever the URL names."""

    def __init__(self, endpoint: Any) -> None:
        self._endpoint = endpoint

    def endpointForURI(self, uri: Any) -> Any:  # noqa: N802
        return _BoundedEndpoint(self._endpoint)


@implementer(IStreamClientEndpoint)
class _BoundedEndpoint:
    """Ends a connection that says more than :data:`MAX_OCTETS`, whatever it is."""

    def __init__(self, endpoint: Any) -> None:
        self._endpoint = endpoint

    def connect(self, factory: Any) -> Any:
        bounded = WrappingFactory(factory)
        bounded.noisy = False
        bounded.protocol = _Bounded
        connecting = self._endpoint.connect(bounded)
        return connecting.addCallback(lambda wrapper: wrapper.wrappedProtocol)


class _Bounded(ProtocolWrapper):
    transport: Any
    _octets = 0

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        self._octets += len(data)
        if self._octets > MAX_OCTETS:
            self.transport.abortConnection()
        else:
            super().dataReceived(data)  # type: ignore[no-untyped-call]


@implementer(IBodyProducer)
class _Body:
    """What is sent, at once."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: Any) -> Deferred[None]:  # noqa: N802
        consumer.write(self._body)
        return succeed(None)

    def stopProducing(self) -> None:  # noqa: N802
        pass

    def pauseProducing(self) -> None:  # noqa: N802
        pass

    def resumeProducing(self) -> None:  # noqa: N802
        pass


class _Collector(Receiver):
    """Takes a body up to its bound; ``received`` fires at the bound or at the end."""

    def __init__(self, limit: int) -> None:
        self.received: Deferred[bytes] = Deferred(lambda _: self._abort())
        self._limit = limit
        self._body = bytearray()

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        self._body += data[: self._limit - len(self._body)]
        if len(self._body) >= self._limit:
            self._end()
            self._abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802
        from twisted.web.client import ResponseDone
        from twisted.web.http import PotentialDataLoss

        if reason.check(ResponseDone, PotentialDataLoss):
            self._end()
        elif not self.received.called:
            self.received.errback(reason)

    def _end(self) -> None:
        if not self.received.called:
            self.received.callback(bytes(self._body))

    def _abort(self) -> None:
        abort = getattr(self.transport, "abortConnection", None)
        if abort is not None:
            abort()
