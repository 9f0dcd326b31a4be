"""Our SMTP and LMTP client: connects to a host and hands out a session.

Where what lives: `client_link` the connection and its time, `client_replies` the parser,
`client_opening` up to AUTH, `client_session` and `client_transaction` messages,
`client_commands` what is said, `client_content` what is sent.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

from OpenSSL import SSL
from twisted.internet.error import NotConnectingError
from twisted.internet.protocol import ClientFactory
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from typing_extensions import override

from mailtwist.net.transport import connect_prompt
from mailtwist.queue.client_link import Link, Timeouts
from mailtwist.queue.client_opening import NoTls, Opening, Wishes
from mailtwist.queue.client_session import ClientSession
from mailtwist.queue.client_transaction import lost
from mailtwist.queue.values import Host, Login, RemoteReply, Tls, TlsPolicy, Undeliverable
from mailtwist.tls.outgoing import Authorities, Handshake, make_client_context

__all__ = ["ClientSession", "Connector", "Timeouts"]


class Connector:
    """Makes sessions. ``clock`` (default: the reactor) is what every time-out is counted by."""

    def __init__(
        self, reactor: Any, *, clock: Any = None, timeouts: Timeouts | None = None
    ) -> None:
        self._reactor = reactor
        self._clock = reactor if clock is None else clock
        self._timeouts = timeouts or Timeouts()
        self._authorities = Authorities(self._clock.seconds)

    async def connect(
        self,
        host: Host,
        *,
        hostname: str,
        policy: TlsPolicy,
        login: Login | None = None,
        is_lmtp: bool = False,
    ) -> ClientSession:
        """A session that is greeted, under TLS as the policy asks, and logged in.

        Raises: Undeliverable; a login that was refused is temporary (454).
        """
        wishes = Wishes(hostname, policy, policy.level, login, is_lmtp)
        try:
            return await self._open(host, wishes)
        except NoTls:
            if policy.level is not Tls.OPPORTUNISTIC or policy.implicit:
                raise
        # RFC 7435 §1: better in clear than not at all, where nobody asked for more.
        return await self._open(host, Wishes(hostname, policy, Tls.NONE, login, is_lmtp))

    async def _open(self, host: Host, wishes: Wishes) -> ClientSession:
        timeouts = self._timeouts
        link = await _connect(self._reactor, self._clock, host.address, host.port, timeouts)
        if link.broken is not None:
            reply = replace(lost(link, "connect"), status="4.4.1")
            raise Undeliverable(reply, host=host)
        opening = Opening(link, host, wishes, timeouts=timeouts, handshake=self._handshake)
        try:
            return await opening.run()
        except Undeliverable as error:
            link.leave()
            error.host = host
            raise
        except BaseException:
            link.end("given up")
            raise

    async def _handshake(self, ca_file: str, name: str) -> Handshake:
        """Raises: Undeliverable."""
        context = self._authorities.known(ca_file)
        if context is None:
            context = await self._build(ca_file)
            self._authorities.keep(ca_file, context)
        return Handshake(context, name)

    async def _build(self, ca_file: str) -> SSL.Context:
        pool = self._reactor.getThreadPool()
        try:
            return await deferToThreadPool(self._reactor, pool, make_client_context, ca_file)
        except ValueError as error:
            reply = RemoteReply(451, "4.7.5", str(error), "starttls", is_ours=True)
            raise Undeliverable(reply) from error


class _Factory(ClientFactory):
    noisy = False

    def __init__(self, link: Link) -> None:
        self._link = link

    @override
    def buildProtocol(self, addr: object) -> Link:
        return self._link

    @override
    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        self._link.failed(reason)


async def _connect(reactor: Any, clock: Any, address: str, port: int, timeouts: Timeouts) -> Link:
    """A link that is connected, or broken."""
    link = Link(clock)
    link.limit = clock.seconds() + timeouts.opening
    connector = connect_prompt(reactor, address, port, _Factory(link))
    try:
        await link.established(timeouts.connect)
    finally:
        if link.transport is None and link.broken is not None:
            with contextlib.suppress(NotConnectingError):
                connector.stopConnecting()
    return link
