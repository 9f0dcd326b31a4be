"""A session with a next hop that is ready for messages, one after the other.

Whatever the peer does comes back as replies. A message counts as delivered only by a 2xx
behind its whole content; anything less, a lost last reply too, is a 4xx and is tried again.

RFC 5321 §3.3; RFC 2033 (LMTP).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from mailtwist.queue import client_commands as commands
from mailtwist.queue.client_commands import Features
from mailtwist.queue.client_content import BareLineEnd, Content, ShortContent
from mailtwist.queue.client_link import Link, Timeouts
from mailtwist.queue.client_transaction import Transaction, lost
from mailtwist.queue.values import Host, Outgoing, RemoteReply

# Seconds that a host may take to close after QUIT.
GONE_S: Final = 1.0


class ClientSession:
    """One `deliver` at a time.

    ``tls``: facts for people, "" in clear. ``capabilities``: as announced, names in upper case.
    ``served``: messages so far.
    """

    def __init__(
        self,
        link: Link,
        host: Host,
        *,
        timeouts: Timeouts,
        capabilities: Mapping[str, str],
        tls: str = "",
        is_verified: bool = False,
        is_lmtp: bool = False,
    ) -> None:
        self.host = host
        self.tls = tls
        self.is_verified = is_verified
        self.is_lmtp = is_lmtp
        self.capabilities = capabilities
        self.served = 0
        self._features = Features.of(capabilities)
        self._link = link
        self._timeouts = timeouts
        self._is_busy = False
        self._is_retiring = False

    @property
    def is_open(self) -> bool:
        return self._link.broken is None

    @property
    def lost(self) -> RemoteReply:
        """What a message is told that comes when the session has ended."""
        return lost(self._link, "mail")

    def when_broken(self, call: Callable[[], None]) -> None:
        """Have this called when the connection breaks, whoever ends it."""
        self._link.when_broken = call

    async def deliver(self, mail: Outgoing) -> tuple[RemoteReply, ...]:
        """Try to hand over a message: one reply for each of its recipients, in their order.

        ``mail.blocks`` may be called twice. Raises what it raises, and CancelledError; the
        session has then ended.
        """
        self._is_busy = True
        try:
            return await self._try(mail)
        finally:
            self._is_busy = False
            if self._is_retiring:
                self.retire()

    async def _try(self, mail: Outgoing) -> tuple[RemoteReply, ...]:
        refusal = commands.refusal(mail, self._features, is_secure=self.is_verified)
        if refusal is None:
            try:
                return await self._deliver(mail)
            except BareLineEnd:
                refusal = commands.BARE_LINE_END
            except ShortContent:
                refusal = commands.SHORT_CONTENT
            except BaseException:
                # The peer must not take for an end what is none.
                self.abort()
                raise
            self.abort()
        return (refusal,) * len(mail.recipients)

    async def _deliver(self, mail: Outgoing) -> tuple[RemoteReply, ...]:
        content = await Content.of(mail)
        if mail.body == "8BITMIME" and not self._features.eightbit and await content.has_8bit():
            # RFC 6152 §3: returned; a conversion would break its signature.
            return (commands.NO_8BITMIME,) * len(mail.recipients)
        timeouts = self._timeouts
        time_s = timeouts.message + mail.octets / timeouts.slowest
        self._link.limit = self._link.clock.seconds() + time_s
        replies: dict[int, RemoteReply] = {}
        waiting: list[int] = []
        for n, recipient in enumerate(mail.recipients):
            refusal = commands.recipient_refusal(recipient, self._features)
            if refusal is None:
                waiting.append(n)
            else:
                replies[n] = refusal
        while waiting:
            batch = waiting[: self._features.recipients]
            done = await self._transact(mail, content, batch)
            replies.update(done.replies)
            waiting = done.postponed + waiting[len(batch) :]
        self.served += 1
        return tuple(replies[n] for n in range(len(mail.recipients)))

    async def _transact(self, mail: Outgoing, content: Content, batch: list[int]) -> Transaction:
        transaction = Transaction(
            self._link,
            mail,
            content,
            batch,
            features=self._features,
            timeouts=self._timeouts,
            is_lmtp=self.is_lmtp,
        )
        await transaction.run()
        return transaction

    async def quit(self) -> None:
        """Say goodbye and end the connection; takes seconds at most."""
        if self.is_open:
            self._link.limit = 0.0
            await self._link.ask(b"QUIT\r\n", self._timeouts.quit)
            # RFC 5321 §4.1.1.10: the host closes; until it has, it counts the connection.
            await self._link.gone(GONE_S)
            self._link.close()

    def retire(self) -> None:
        """End after the first message, or the one under way, or at once where that is over."""
        self._is_retiring = True
        if self.served and not self._is_busy and self.is_open:
            self._link.leave()

    def abort(self) -> None:
        """End the connection at once."""
        if self.is_open:
            self._link.end("given up")
