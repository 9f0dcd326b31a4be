"""An open mailbox behind `IMailbox` of twisted.mail; see :mod:`mailtwist.imap.adapter`."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterable, Sequence
from email.utils import mktime_tz, parsedate_tz
from functools import partial
from typing import IO, TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.mail.imap4 import (
    IMailbox,
    IMessageCopier,
    ISearchableMailbox,
    MessageSet,
    NoSuchMailbox,
    ReadOnlyMailbox,
    statusRequestHelper,
)
from zope.interface import implementer

from mailtwist.errors import MailError
from mailtwist.imap.adapter_message import Stored, StoredMessage, flag_names
from mailtwist.imap.grammar import ASTRING_ATOM, Parser, quote
from mailtwist.imap.search_grammar import parse_search
from mailtwist.mail import flags as bits
from mailtwist.mail.uidset import SequenceSet
from mailtwist.store import content, fetch, ids, messages
from mailtwist.store.content import Spool
from mailtwist.store.engine import Connection
from mailtwist.store.masks import indexes
from mailtwist.store.names import DELIMITER
from mailtwist.store.search import Search
from mailtwist.store.snapshot import Snapshot, changes_between

if TYPE_CHECKING:
    from mailtwist.imap.adapter import StoreAccount

_COLUMNS = ("uid", "flags", "internaldate", "parts", "prefix", "content_id", "content_octets")
_BLOCK = 65536
_MODES = {-1: "-", 0: "=", 1: "+"}
_SET = re.compile(rb"[0-9*:,]+")

_later = Deferred.fromCoroutine


@implementer(IMailbox, ISearchableMailbox, IMessageCopier)
class StoreMailbox:
    """An open mailbox. Its numbering moves when messages come and in its own EXPUNGE."""

    def __init__(
        self, account: StoreAccount, name: str, view: Snapshot, *, writeable: bool
    ) -> None:
        self._account = account
        self._database = account.database
        self._name = name
        self._view = view
        self._writeable = writeable
        self._listeners: dict[Any, Callable[[], None]] = {}

    @property
    def _key(self) -> tuple[int, int]:
        return self._view.account_id, self._view.mailbox_id

    # -- facts of the view -----------------------------------------------------------------------

    def getFlags(self) -> list[str]:  # noqa: N802
        return [*bits.SYSTEM, *self._view.keywords.names.values()]

    def getHierarchicalDelimiter(self) -> str:  # noqa: N802
        return DELIMITER

    def getUIDValidity(self) -> int:  # noqa: N802
        return self._view.uidvalidity

    def getUIDNext(self) -> int:  # noqa: N802
        return self._view.uidnext

    def getUID(self, message: int) -> int:  # noqa: N802
        return self._view.uids[message - 1]

    def getMessageCount(self) -> int:  # noqa: N802
        return len(self._view)

    def getRecentCount(self) -> int:  # noqa: N802
        return self._view.recent

    def getUnseenCount(self) -> int:  # noqa: N802
        return sum(not flags & bits.SEEN for flags in self._view.flags)

    def isWriteable(self) -> bool:  # noqa: N802
        return self._writeable

    def requestStatus(self, names: Iterable[str]) -> Any:  # noqa: N802
        return statusRequestHelper(self, names)

    def destroy(self) -> None:
        """Deleting is the account's."""

    # -- listeners -------------------------------------------------------------------------------

    def addListener(self, listener: Any) -> None:  # noqa: N802
        def changed(mailbox_id: int, modseq: int) -> None:
            if mailbox_id == self._view.mailbox_id:
                # The mailbox may be gone: then there is nothing to tell.
                _later(self._tell(listener)).addErrback(lambda failure: failure.trap(MailError))

        changes = self._database.changes
        self._listeners[listener] = changes.subscribe(self._view.account_id, changed)

    def removeListener(self, listener: Any) -> None:  # noqa: N802
        unsubscribe = self._listeners.pop(listener, None)
        if unsubscribe is None:
            raise ValueError("not a listener of this mailbox")
        unsubscribe()

    async def _tell(self, listener: Any) -> None:
        """Announce what is new; what was expunged elsewhere waits for an EXPUNGE of ours."""
        old, new = self._view, await self._account.snapshots.current(*self._key)
        diff = changes_between(old, new)
        if diff.expunged_seqs or listener not in self._listeners:
            return
        self._view = new
        if diff.added:
            listener.newMessages(len(new), new.recent)
        if diff.changed:
            flags = {new.seq_of(uid): flag_names(f, new.keywords) for uid, f in diff.changed}
            listener.flagsChanged(flags)

    # -- messages --------------------------------------------------------------------------------

    def fetch(self, messages: MessageSet, uid: bool) -> Deferred[list[tuple[int, StoredMessage]]]:
        return _later(self._fetch(self._uids(messages, uid)))

    async def _fetch(self, uids: Sequence[int]) -> list[tuple[int, StoredMessage]]:
        found = await self._database.read(partial(self._read, uids))
        view = self._view
        return [
            (
                view.seq_of(stored.uid),
                StoredMessage(
                    stored,
                    view.mailbox_id,
                    view.keywords,
                    recent=stored.uid >= view.recent_from,
                ),
            )
            for stored in found
        ]

    def _read(self, uids: Sequence[int], connection: Connection) -> list[Stored]:
        rows = fetch.rows(connection, *self._key, uids, _COLUMNS)
        return [_stored(connection, *row) for row in rows]

    def store(
        self, messages: MessageSet, flags: Iterable[str | bytes], mode: int, uid: bool
    ) -> Deferred[dict[int, list[str]]]:
        if not self._writeable:
            raise ReadOnlyMailbox(self._name)
        return _later(self._store(self._uids(messages, uid), list(flags), _MODES[mode]))

    async def _store(
        self, uids: Sequence[int], flags: list[str | bytes], op: str
    ) -> dict[int, list[str]]:
        system, keywords = _parted(flags)
        work = partial(_store_flags, self._key, uids, op, system, keywords)
        await self._database.write(work, accounts=(self._view.account_id,))
        new = await self._account.snapshots.current(*self._key)
        known = dict(zip(new.uids, new.flags, strict=True))
        wanted = (uid for uid in uids if uid in known)
        return {self._view.seq_of(uid): flag_names(known[uid], new.keywords) for uid in wanted}

    def addMessage(  # noqa: N802
        self, message: IO[bytes], flags: Iterable[str | bytes] = (), date: Any = None
    ) -> Deferred[int]:
        if not self._writeable:
            raise ReadOnlyMailbox(self._name)
        return _later(self._add(message, list(flags), date))

    async def _add(self, message: IO[bytes], flags: list[str | bytes], date: Any) -> int:
        spool = Spool(self._database, limit=self._account.message_limit)
        try:
            while block := message.read(_BLOCK):
                await spool.write(block)
            spooled = await spool.finish()
            system, keywords = _parted(flags)
            now = ids.now_us()
            moment = _moment(date)
            entry = messages.Entry(
                self._view.account_id,
                self._name,
                flags=system,
                keywords=keywords,
                internaldate=now if moment is None else moment,
            )
            (delivered,) = await self._database.write_set(
                messages.deliver,
                messages.Acceptance(spooled, (entry,), None, now),
                accounts=(self._view.account_id,),
                octets=len(spooled.data or b""),
            )
        except BaseException:
            await spool.discard()
            raise
        self._view = await self._account.snapshots.current(*self._key)
        return delivered.uid

    def copy(self, messageObject: Any) -> Deferred[int]:  # noqa: N803
        """Copy a message of another of our mailboxes, without touching its octets."""
        if isinstance(messageObject, StoredMessage):
            return _later(self._copy(messageObject))
        return self.addMessage(messageObject.open(), messageObject.getFlags())

    async def _copy(self, message: StoredMessage) -> int:
        work = partial(_copy_one, self._view.account_id, message, self._name)
        copied = await self._database.write(work, accounts=(self._view.account_id,))
        if not copied.uids:
            raise NoSuchMailbox("the message is gone")
        self._view = await self._account.snapshots.current(*self._key)
        return copied.uids[0][1]

    def expunge(self) -> Deferred[list[int]]:
        if not self._writeable:
            raise ReadOnlyMailbox(self._name)
        return _later(self._expunge())

    async def _expunge(self) -> list[int]:
        work = partial(messages.expunge, account_id=self._key[0], mailbox_id=self._key[1])
        await self._database.write(work, accounts=(self._view.account_id,))
        old, self._view = self._view, await self._account.snapshots.current(*self._key)
        return changes_between(old, self._view).expunged_seqs

    def search(self, query: list[Any], uid: bool) -> Deferred[list[int]]:
        """Sequence numbers that match; the stock server turns them into uids itself."""
        return _later(self._search(b" ".join(map(_spoken, query))))

    async def _search(self, text: bytes) -> list[int]:
        view = self._view
        key = parse_search(Parser(text)).key
        matching = Search(self._database, view, view, view.recent_from)
        return [place + 1 for place in indexes(await matching.matches(key))]

    def _uids(self, messages: MessageSet, uid: bool) -> array[int]:
        view = self._view
        last = (view.uids[-1] if view.uids else 0) if uid else len(view)
        if not last:
            return view.uids[:0]
        messages.last = last
        numbers = SequenceSet(tuple((low, high or low) for low, high in messages.ranges))
        if uid:
            return numbers.select(view.uids, last)
        chosen = array(view.uids.typecode)
        for low, high in numbers.ranges(last):
            chosen.extend(view.uids[low - 1 : high])
        return chosen


def _stored(
    connection: Connection,
    uid: int,
    flags: int,
    internaldate: int,
    parts: bytes,
    prefix: bytes,
    content_id: int,
    octets: int,
) -> Stored:
    starts = range(0, octets, content.CHUNK)
    data = b"".join(content.read(connection, content_id, start, octets) for start in starts)
    return Stored(uid, flags, internaldate, parts, prefix, data)


def _store_flags(
    key: tuple[int, int],
    uids: Sequence[int],
    op: str,
    system: int,
    keywords: tuple[str, ...],
    connection: Connection,
) -> messages.Stored:
    return messages.store_flags(connection, *key, uids, op, system, keywords)


def _copy_one(
    account_id: int, message: StoredMessage, target: str, connection: Connection
) -> messages.Copied:
    uids = [message.getUID()]
    return messages.copy(connection, account_id, message.mailbox_id, uids, target)


def _parted(flags: Iterable[str | bytes]) -> tuple[int, tuple[str, ...]]:
    r"""System flags as bits, keywords by name; \Recent is nobody's to set."""
    known = {name.lower(): bit for name, bit in bits.SYSTEM.items()}
    system, keywords = 0, []
    for flag in flags:
        name = flag.decode("ascii") if isinstance(flag, bytes) else flag
        system |= known.get(name.lower(), 0)
        if not name.startswith("\\"):
            keywords.append(name)
    return system, tuple(keywords)


def _moment(date: Any) -> int | None:
    """A date-time of APPEND in microseconds; None where there is none."""
    text = date.decode("ascii", "replace") if isinstance(date, bytes) else date
    parsed = parsedate_tz(text) if text else None
    return None if parsed is None else mktime_tz(parsed) * 1_000_000


def _spoken(query: Any) -> bytes:
    """A search query of the stock parser as it stood on the wire."""
    if isinstance(query, list | tuple):
        return b"(%b)" % b" ".join(map(_spoken, query))
    text = query if isinstance(query, bytes) else str(query).encode()
    return text if ASTRING_ATOM.fullmatch(text) or _SET.fullmatch(text) else quote(text)
