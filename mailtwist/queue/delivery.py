"""One message to one next hop: which host, under what conditions, in which transactions.

Nothing here knows of rows. What a host says becomes one reply a recipient; what keeps
every host from being asked becomes :class:`Undeliverable`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any, Final, Protocol, TypeVar

from mailtwist.errors import MailError
from mailtwist.queue import ses
from mailtwist.queue.ports import Connector, Hosts, Rewrite, Session
from mailtwist.queue.tls_policy import TlsPolicies
from mailtwist.queue.values import (
    Host,
    Outgoing,
    OutgoingRecipient,
    RemoteReply,
    Route,
    Tls,
    TlsPolicy,
    Undeliverable,
)
from mailtwist.store import content
from mailtwist.store.engine import Connection
from mailtwist.store.queue.values import Message, Recipient

T = TypeVar("T")

# Hosts are asked one after the other; after so long the rest waits for the next attempt.
CONNECTING_S: Final = 180.0
# A host that could not be reached is asked last for so long.
SHUNNED_S: Final = 60.0
MAX_SHUNNED: Final = 1000
# Stages at which a host says that it cannot give what REQUIRETLS asks for.
TLS_STAGES: Final = frozenset({"starttls"})

# The key of a route that leads nowhere.
NO_ROUTE: Final = "nowhere"

# RFC 8689 §4.2.1
NEEDS_TLS: Final = RemoteReply(
    550, "5.7.30", "REQUIRETLS support required: no host offers verified TLS with REQUIRETLS",
    "starttls", is_ours=True,
)  # fmt: skip


class Store(Protocol):
    async def read(self, work: Callable[[Connection], T]) -> T: ...


class Delivery:
    """``hostname``: the name to greet with where a message has none; ``rewrite``: SRS.

    ``ses``: the way out for what a credential sends.
    """

    def __init__(
        self,
        database: Store,
        *,
        hosts: Hosts,
        connector: Connector,
        policies: TlsPolicies,
        clock: Any,
        hostname: str = "",
        rewrite: Rewrite | None = None,
        ses: ses.Ses | None = None,
    ) -> None:
        self._database = database
        self._hosts = hosts
        self._connector = connector
        self._policies = policies
        self._clock = clock
        self._hostname = hostname
        self._rewrite = rewrite
        self._ses = ses
        self._shunned: dict[str, float] = {}

    def configure(self, hostname: str) -> None:
        self._hostname = hostname

    # -- a session --------------------------------------------------------------------------

    async def connect(
        self, route: Route, destination: str, *, hostname: str = "", is_strict: bool = False
    ) -> Session:
        """A session with the first host that gives one; ``is_strict``: fit for REQUIRETLS.

        Raises: Undeliverable with the reply that decides: one that allows a later try, if any.
        """
        if route.key == NO_ROUTE:
            raise _nobody("No way to its destination is configured")
        if self._ses is not None and ses.is_destination(destination):
            return await self._ses.connect(destination)
        hosts = await self._hosts.of(route, destination)
        is_strict = is_strict and not route.is_lmtp  # RFC 8689 §2: relaying only
        policy = await self._policies.of(destination, route)
        if is_strict:
            policy = _strict(policy)
        give_up_at = self._clock.seconds() + CONNECTING_S
        worst: Undeliverable | None = None
        for host in self._in_order(hosts):
            try:
                session = await self._connector.connect(
                    host,
                    hostname=hostname or self._hostname,
                    policy=policy,
                    login=route.login,
                    is_lmtp=route.is_lmtp,
                )
            except Undeliverable as failure:
                self._shun(host)
                worst = _weightier(worst, _as_strict(failure, host) if is_strict else failure)
            else:
                if not is_strict or _keeps_secret(session):
                    return session
                worst = _weightier(worst, Undeliverable(NEEDS_TLS, host=host, tls=session.tls))
                await session.quit()
            if self._clock.seconds() >= give_up_at:
                break
        raise _for_route(route, worst) if worst else _nobody("No host to try")

    def _in_order(self, hosts: list[Host]) -> list[Host]:
        if not self._shunned:
            return hosts
        now = self._clock.seconds()
        return sorted(hosts, key=lambda host: self._shunned.get(str(host), 0.0) > now)

    def _shun(self, host: Host) -> None:
        if len(self._shunned) >= MAX_SHUNNED:
            self._shunned.clear()
        self._shunned[str(host)] = self._clock.seconds() + SHUNNED_S

    # -- a message ---------------------------------------------------------------------------

    async def send(
        self, session: Session, message: Message, data: bytes | None
    ) -> list[tuple[Recipient, RemoteReply]]:
        """Offer the message to the session's host; the reply for each of its recipients.

        Raises: MailError when the content cannot be read.
        """
        if data is None and message.octets <= content.CHUNK:
            data = await self._whole(message)
        if not any(recipient.forwarded_by for recipient in message.recipients):
            return await self._transact(session, message, message.reverse_path, data)
        answered: list[tuple[Recipient, RemoteReply]] = []
        for reverse_path, recipients in self._by_reverse_path(message).items():
            part = replace(message, recipients=tuple(recipients))
            answered += await self._transact(session, part, reverse_path, data)
        return answered

    async def _transact(
        self, session: Session, message: Message, reverse_path: str, data: bytes | None
    ) -> list[tuple[Recipient, RemoteReply]]:
        mail = Outgoing(
            reverse_path=reverse_path,
            recipients=tuple(
                OutgoingRecipient(recipient.address, recipient.orcpt, recipient.notify)
                for recipient in message.recipients
            ),
            octets=len(message.prefix) + (message.octets if data is None else len(data)),
            blocks=lambda: self._blocks(message, data),
            envid=message.envid,
            ret=message.ret,
            body=message.body,
            smtputf8=message.smtputf8,
            requiretls=message.requiretls,
        )
        replies = await session.deliver(mail)
        return list(zip(message.recipients, replies, strict=True))

    def _by_reverse_path(self, message: Message) -> dict[str, list[Recipient]]:
        parts: dict[str, list[Recipient]] = {}
        for recipient in message.recipients:
            reverse_path = message.reverse_path
            # RFC 5321 §4.5.5: a notification keeps its null reverse-path.
            if reverse_path and recipient.forwarded_by and self._rewrite is not None:
                reverse_path = self._rewrite(reverse_path, recipient.forwarded_by)
            parts.setdefault(reverse_path, []).append(recipient)
        return parts

    # -- content -----------------------------------------------------------------------------

    async def _whole(self, message: Message) -> bytes:
        return await self._read(message.content_id, 0, message.octets)

    async def _blocks(self, message: Message, data: bytes | None) -> AsyncIterator[bytes]:
        if data is not None:
            yield message.prefix + data
            return
        if message.prefix:
            yield message.prefix
        for start in range(0, message.octets, content.CHUNK):
            end = min(start + content.CHUNK, message.octets)
            yield await self._read(message.content_id, start, end)

    async def _read(self, content_id: int, start: int, end: int) -> bytes:
        block = await self._database.read(lambda c: content.read(c, content_id, start, end))
        if len(block) != end - start:
            raise MailError(detail=f"content {content_id} is shorter than its row says")
        return block


def _strict(policy: TlsPolicy) -> TlsPolicy:
    return replace(policy, level=Tls.VERIFY, source="REQUIRETLS")


def _keeps_secret(session: Session) -> bool:
    """Whether the host takes a message under REQUIRETLS (RFC 8689 §4.2.1)."""
    return bool(session.tls) and session.is_verified and "REQUIRETLS" in session.capabilities


def _as_strict(failure: Undeliverable, host: Host) -> Undeliverable:
    """A host without good TLS will not have it later either: that is final."""
    if failure.reply.stage not in TLS_STAGES:
        return failure
    reply = replace(NEEDS_TLS, text=f"REQUIRETLS support required: {failure.reply.text}"[:500])
    return Undeliverable(reply, host=failure.host or host, tls=failure.tls)


def _weightier(worst: Undeliverable | None, failure: Undeliverable) -> Undeliverable:
    """Of two failures the one that counts: a host that may be back outweighs one that refuses."""
    if worst is not None and worst.reply.code < 500 <= failure.reply.code:
        return worst
    return failure


def _for_route(route: Route, failure: Undeliverable) -> Undeliverable:
    """A configured host that refuses us refuses everybody's mail: that waits for its mending."""
    reply = failure.reply
    if reply.code < 500 or reply.status == NEEDS_TLS.status:
        return failure
    if not route.host and reply.stage != "auth":
        return failure
    softened = replace(reply, code=451, status="4" + reply.status[1:], text=str(reply)[:500])
    return Undeliverable(softened, host=failure.host, tls=failure.tls)


def _nobody(text: str) -> Undeliverable:
    return Undeliverable(RemoteReply(451, "4.4.4", text, "dns", is_ours=True))
