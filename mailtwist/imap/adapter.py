r"""`IAccount` and `IMailbox` over our store: stock `twisted.mail.imap4.IMAP4Server` serves it.

Our own protocol does not pass through here. Where code for Twisted's mail
interfaces is to work with mailtwist's mailboxes, :class:`StoreAccount` is what
the portal (`policy.realm`) hands out.

What the stock server awaits is asynchronous. CREATE, DELETE, RENAME and
subscriptions it calls synchronously, so these wait for the database in the
calling thread; messages are held in memory while it reads them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.mail.imap4 import IAccount, IMailboxInfo, INamespacePresenter, MailboxException
from zope.interface import implementer

from mailtwist.errors import MailError
from mailtwist.imap.adapter_mailbox import StoreMailbox
from mailtwist.imap.wildcard import Wildcard
from mailtwist.store import mailboxes
from mailtwist.store.database import Database
from mailtwist.store.names import DELIMITER
from mailtwist.store.snapshot import Snapshots

_later = Deferred.fromCoroutine


@implementer(IAccount, INamespacePresenter)
class StoreAccount:
    """The mailboxes of one account. ``message_limit``: octets of one APPEND."""

    def __init__(
        self,
        database: Database,
        snapshots: Snapshots,
        account_id: int,
        *,
        message_limit: int = 26214400,
    ) -> None:
        self.database = database
        self.snapshots = snapshots
        self.account_id = account_id
        self.message_limit = message_limit

    # -- synchronous, because the stock server takes a Deferred for success ------------------

    def _write(self, work: Callable[..., Any], *arguments: Any) -> bool:
        try:
            with self.database.engine.write() as connection:
                work(connection, self.account_id, *arguments)
        except MailError as error:
            raise MailboxException(error.text) from error
        return True

    def addMailbox(self, name: str, mbox: object = None) -> bool:  # noqa: N802
        return self.create(name)

    def create(self, pathspec: str) -> bool:
        return self._write(mailboxes.create, pathspec)

    def delete(self, name: str) -> bool:
        return self._write(mailboxes.delete, name)

    def rename(self, oldname: str, newname: str) -> bool:
        return self._write(mailboxes.rename, oldname, newname)

    def subscribe(self, name: str) -> bool:
        return self._write(mailboxes.subscribe, name)

    def unsubscribe(self, name: str) -> bool:
        return self._write(mailboxes.unsubscribe, name)

    def isSubscribed(self, name: str) -> bool:  # noqa: N802
        with self.database.engine.read() as connection:
            return name in mailboxes.subscribed(connection, self.account_id)

    # -- awaited -----------------------------------------------------------------------------

    def select(self, name: str, rw: bool = True) -> Deferred[StoreMailbox | None]:
        return _later(self._select(name, bool(rw)))

    async def _select(self, name: str, rw: bool) -> StoreMailbox | None:
        find = partial(mailboxes.find, account_id=self.account_id, name=name)
        found = await self.database.read(find)
        if found is None:
            return None
        view = await self.snapshots.current(self.account_id, found.mailbox_id)
        return StoreMailbox(self, found.name, view, writeable=rw)

    def listMailboxes(  # noqa: N802
        self, ref: str, wildcard: str
    ) -> Deferred[list[tuple[str, MailboxInfo]]]:
        return _later(self._list(Wildcard(ref + wildcard)))

    async def _list(self, wildcard: Wildcard) -> list[tuple[str, MailboxInfo]]:
        found = await self.database.read(
            lambda connection: mailboxes.list(connection, self.account_id)
        )
        return [
            (box.name, MailboxInfo(box.special_use)) for box in found if wildcard.matches(box.name)
        ]

    # -- INamespacePresenter -------------------------------------------------------------------

    def getPersonalNamespaces(self) -> list[list[bytes]]:  # noqa: N802
        return [[b"", DELIMITER.encode()]]

    def getSharedNamespaces(self) -> None:  # noqa: N802
        return None

    def getUserNamespaces(self) -> None:  # noqa: N802
        return None


@implementer(IMailboxInfo)
class MailboxInfo:
    """A line of LIST."""

    def __init__(self, special_use: str) -> None:
        self._attributes = [special_use] if special_use else []

    def getFlags(self) -> list[str]:  # noqa: N802
        return self._attributes

    def getHierarchicalDelimiter(self) -> str:  # noqa: N802
        return DELIMITER
