"""`IMessageDelivery` over our store: stock `twisted.mail.smtp.ESMTP` delivers into it.

Our own protocol does not pass through here. Where code for Twisted's mail
interfaces is to work with mailtwist's mailboxes, these avatars are what the
portal (`policy.realm`) hands out. Twisted asks for one IMessage a recipient:
each is an acceptance of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.mail.smtp import Address as StockAddress
from twisted.mail.smtp import (
    IMessage,
    IMessageDelivery,
    SMTPBadRcpt,
    SMTPBadSender,
    SMTPServerError,
    User,
)
from zope.interface import implementer

from mailtwist.errors import MailError
from mailtwist.mail.address import Address, parse_path
from mailtwist.net.pump import shielded
from mailtwist.queue.envelope import Envelope, Mail, Origin, Recipient
from mailtwist.queue.intake import Intake
from mailtwist.smtp.ports import Identity


@implementer(IMessageDelivery)
class StoreDelivery:
    """Delivers for one client; `login` is None for a stranger."""

    def __init__(
        self,
        intake: Intake,
        *,
        hostname: str,
        max_size: int,
        login: Identity | None = None,
    ) -> None:
        self.intake = intake
        self.hostname = hostname
        self.max_size = max_size
        self.login = login

    def validateFrom(  # noqa: N802
        self, helo: tuple[bytes, bytes], origin: StockAddress
    ) -> StockAddress:
        address = _address(origin)
        if self.login and address and address.folded not in self.login.addresses:
            raise SMTPBadSender(origin, 553, "Sender address rejected: not owned by the login")
        return origin

    def validateTo(self, user: User) -> Deferred[Callable[[], StoreMessage]]:  # noqa: N802
        return Deferred.fromCoroutine(self._validate(user))

    async def _validate(self, user: User) -> Callable[[], StoreMessage]:
        address = _address(user.dest)
        if address is None:
            raise SMTPBadRcpt(user, 501, "Invalid address")
        try:
            recipient = await self.intake.admit(
                address,
                may_relay=self.login is not None,
                is_bounce=_address(user.orig) is None,
                account_id=self.login.account_id if self.login else 0,
            )
        except MailError as error:
            raise SMTPBadRcpt(user, error.code, error.text) from error
        return lambda: self._message(user, recipient)

    def _message(self, user: User, recipient: Recipient) -> StoreMessage:
        helo, client = user.helo
        origin = Origin(
            hostname=self.hostname,
            session_id="",
            client_address=_text(client),
            helo=_text(helo),
            protocol="ESMTP",
            is_tls=False,
            account_id=self.login.account_id if self.login else 0,
            is_authenticated=self.login is not None,
            may_relay=self.login is not None,
        )
        envelope = Envelope(Mail(_address(user.orig)), [recipient])
        return StoreMessage(self.intake, envelope, origin, self.max_size)

    def receivedHeader(  # noqa: N802
        self, helo: tuple[bytes, bytes], origin: StockAddress, recipients: list[User]
    ) -> bytes:
        # The store writes the trace fields itself, beside the shared content.
        return b""


@implementer(IMessage)
class StoreMessage:
    """One message for one recipient, fed line by line."""

    def __init__(self, intake: Intake, envelope: Envelope, origin: Origin, limit: int) -> None:
        self._incoming = intake.receive(envelope, origin, limit=limit)
        # Lines come without waiting; the writes of large messages follow one another.
        self._last: Deferred[None] = Deferred()
        self._last.callback(None)

    def lineReceived(self, line: bytes) -> None:  # noqa: N802
        self._follow(self._incoming.write(line + b"\r\n"))

    def eomReceived(self) -> Deferred[str]:  # noqa: N802
        return Deferred.fromCoroutine(self._accept(self._last))

    async def _accept(self, written: Deferred[None]) -> str:
        try:
            await written
            return await shielded(self._incoming.accept())
        except MailError as error:
            raise SMTPServerError(error.code, error.text) from error

    def connectionLost(self) -> None:  # noqa: N802
        self._last.addErrback(lambda _: None)
        self._follow(self._incoming.discard())

    def _follow(self, work: Coroutine[Any, Any, None]) -> None:
        before = self._last

        async def run() -> None:
            try:
                await before
            except MailError:
                work.close()
                raise
            await work

        self._last = Deferred.fromCoroutine(run())


def _address(address: Any) -> Address | None:
    path, _ = parse_path(b"<%b>" % bytes(address))
    return path


def _text(value: bytes | str | None) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value or ""
