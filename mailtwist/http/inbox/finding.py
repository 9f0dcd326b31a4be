"""Which messages of an inbox fit: lists, searches, and the test that a waiting client puts.

Usable without HTTP: :class:`Wanted` says what, :meth:`Finding.newest` looks. Messages past
the time that they are kept are never found, swept or not.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any, Final

from mailtwist.mail.search import And, Node
from mailtwist.mail.words import fold
from mailtwist.store import inbox
from mailtwist.store.engine import Connection
from mailtwist.store.inbox import Captured
from mailtwist.store.keywords import EMPTY
from mailtwist.store.search import Search
from mailtwist.store.snapshot import Snapshot

# Messages looked at by one step of a search, and by a whole one.
PAGE: Final = 200
MAX_SEARCHED: Final = 10_000
# By how much a queue id may be lower than that of a message that was stored before: 5 minutes.
_SLACK: Final = 300_000 << 22


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of an account's inboxes.

    ``local_part``: folded; None: all of them. ``domain``: folded; "": any. ``subject`` and
    ``sender`` are contained in what a reader sees of them, or of the reverse-path, in any letter
    case. ``tree``: a search besides. What came later alone: ``after_us`` in microseconds,
    ``after_entry`` as entries are numbered, ``after_id`` by queue id (which is given when a
    message begins to come in, so that one may arrive after another with a higher id).
    """

    account_id: int
    local_part: str | None = None
    domain: str = ""
    subject: str = ""
    sender: str = ""
    tree: Node | None = None
    after_id: int = 0
    after_us: int = 0
    after_entry: int = 0

    @property
    def is_plain(self) -> bool:
        """Whether all that the store lists fits."""
        return not (self.subject or self.sender or self.tree or self.after_id or self.after_entry)

    def fits(self, captured: Captured) -> bool:
        """Whether a message fits, but for the ``tree``."""
        return (
            self.local_part in (None, captured.local_part)
            and self.domain in ("", captured.domain)
            and captured.queue_id > self.after_id
            and captured.entry_id > self.after_entry
            and captured.received_at > self.after_us
            and fold(self.subject) in fold(captured.subject)
            and self._is_from(captured)
        )

    def _is_from(self, captured: Captured) -> bool:
        sender = fold(self.sender)
        return sender in captured.folded_from or sender in fold(captured.return_path or "")


@dataclass(frozen=True, slots=True)
class Found:
    """``messages``: newest first. ``before``: the queue id to go on with, None: that is all."""

    messages: tuple[Captured, ...]
    before: int | None = None


class Finding:
    """``retention_s``: how long captured mail is kept. ``now``: microseconds."""

    def __init__(
        self, database: Any, *, retention_s: Callable[[], float], now: Callable[[], int]
    ) -> None:
        self._database = database
        self._retention_s = retention_s
        self._now = now

    def since(self) -> int:
        """What came before is no longer there."""
        return self._now() - int(self._retention_s() * 1_000_000)

    async def newest(self, wanted: Wanted, *, limit: int, before: int | None = None) -> Found:
        """The newest messages that fit, at most ``limit``; at most ``MAX_SEARCHED`` are looked at.

        Raises: TemporaryFailure, ProtocolViolation or Refusal for a search that is too complex.
        """
        found: list[Captured] = []
        looked_at = 0
        while True:
            # One more tells whether there is another page.
            size = limit + 1 if wanted.is_plain else PAGE
            page = await self._page(wanted, size, before)
            found += await self._fitting(wanted, page)
            looked_at += len(page)
            if len(found) > limit:
                return Found(tuple(found[:limit]), found[limit - 1].queue_id)
            if len(page) < size or page[-1].queue_id <= wanted.after_id:
                return Found(tuple(found))
            before = page[-1].queue_id
            if looked_at >= MAX_SEARCHED:
                return Found(tuple(found), before)

    async def behind(self, wanted: Wanted) -> Wanted:
        """The same, with ``after_id`` taken for the message that it is the id of, if it is there.

        What comes after that message may have the lower id.
        """
        if not wanted.after_id:
            return wanted
        named = await self.find(wanted, wanted.after_id)
        if named is None:
            return wanted
        lowest = max(wanted.after_id - _SLACK, 0)
        return replace(wanted, after_id=lowest, after_entry=named.entry_id)

    async def find(self, wanted: Wanted, queue_id: int) -> Captured | None:
        """One message of the inbox by its id."""
        since = self.since()

        def work(connection: Connection) -> Captured | None:
            return inbox.find(
                connection,
                wanted.account_id,
                wanted.local_part,
                queue_id,
                domain=wanted.domain,
                since=since,
            )

        found: Captured | None = await self._database.read(work, account_id=wanted.account_id)
        return found

    async def matching(self, tree: Node, page: Sequence[Captured]) -> list[Captured]:
        """Those of some messages of one account that a search finds, in their order."""
        ordered = sorted({each.uid: each for each in page}.values(), key=lambda each: each.uid)
        if not ordered:
            return []
        view = _view(ordered)
        mask = await Search(self._database, view, view, 0, is_sparse=True).matches(tree)
        uids = set(compress(view.uids, mask))
        return [each for each in page if each.uid in uids]

    async def _page(self, wanted: Wanted, size: int, before: int | None) -> list[Captured]:
        since = max(self.since(), wanted.after_us + 1)

        def work(connection: Connection) -> list[Captured]:
            return inbox.list(
                connection,
                wanted.account_id,
                wanted.local_part,
                domain=wanted.domain,
                since=since,
                before=before,
                limit=size,
            )

        page: list[Captured] = await self._database.read(work, account_id=wanted.account_id)
        return page

    async def _fitting(self, wanted: Wanted, page: list[Captured]) -> list[Captured]:
        fitting = [each for each in page if wanted.fits(each)]
        return await self.matching(wanted.tree, fitting) if wanted.tree is not None else fitting


def search_of(tree: Node) -> Node | None:
    """A search, None when every message fits it."""
    return None if tree == And(()) else tree


def _view(ordered: Sequence[Captured]) -> Snapshot:
    """These messages as if they were a mailbox: a search looks at no others."""
    first = ordered[0]
    uids = array("I", [each.uid for each in ordered])
    return Snapshot(
        account_id=first.account_id,
        mailbox_id=first.mailbox_id,
        uidvalidity=1,
        uidnext=uids[-1] + 1,
        modseq=1,
        uids=uids,
        flags=array("q", bytes(8 * len(uids))),
        recent_from=0,
        keywords=EMPTY,
    )
