"""FETCH and UID FETCH (RFC 9051 §6.4.5, §6.4.9).

Pages are read and rendered by the store's reading threads; this module writes
them, no faster than the client reads, while the next one is on its way.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, TypeAlias

from mailtwist.errors import MailError
from mailtwist.imap.fetch_grammar import FLAGS, Fetch, Item, parse_fetch, with_uid
from mailtwist.imap.present import present
from mailtwist.imap.render import Extent, Names, Plan, UnknownKeyword
from mailtwist.imap.sections import Piece
from mailtwist.imap.session import Session
from mailtwist.imap.table import SELECTED, Command, Completion, Sync
from mailtwist.mail.flags import SEEN
from mailtwist.store import content, keywords
from mailtwist.store import fetch as rows_of
from mailtwist.store.ahead import Ahead, ahead, drop
from mailtwist.store.messages import store_flags

if TYPE_CHECKING:
    from mailtwist.store.engine import Connection
    from mailtwist.store.snapshot import Snapshot

# Messages of a page (about 350 KiB of envelopes, some KiB of honest headers each), and octets
# of one that holds bodies. With 2000 messages the first FETCH lost an eighth to fresh memory.
PAGE = 500
OCTETS = 1 << 20
# Octets of one message, counted for each item that asks for them; what is longer is streamed.
COPIES = 8 << 20
# A page of lines straight from the arrays; up to STEP are rendered without a thread.
LINES = 8192
STEP = 1000
# Of a large message that is streamed.
BLOCK = 1 << 18

# (uid, flags) that were told before the view has them.
News: TypeAlias = list[tuple[int, int]]


async def fetch(session: Session, arguments: Fetch) -> Completion:
    await _fetch(session, arguments, arguments.items, by_uid=False)
    return Completion("FETCH completed")


async def uid_fetch(session: Session, arguments: Fetch) -> Completion:
    await _fetch(session, arguments, with_uid(arguments.items), by_uid=True)
    return Completion("UID FETCH completed")


async def _fetch(
    session: Session, arguments: Fetch, items: tuple[Item, ...], *, by_uid: bool
) -> None:
    numbers, uids = session.mailbox().resolve(arguments.numbers, by_uid)
    if not uids:
        return
    marked: frozenset[int] = frozenset()
    if arguments.sets_seen and not session.mailbox().read_only:
        marked = await _mark(session, uids)
    await answer(session, items, numbers, uids, marked)


async def answer(
    session: Session,
    items: Sequence[Item],
    numbers: Sequence[int],
    uids: Sequence[int],
    marked: frozenset[int] = frozenset(),
) -> None:
    """Write the FETCH responses of those messages; those that are gone are left out."""
    selected = session.mailbox()
    plan = Plan(items, Names.of(selected.view.keywords.names, selected.recent_from))
    if plan.only_flags and not marked:
        await _Arrays(session, plan, numbers, uids).send(await present(session))
    else:
        await _Pages(session, plan, numbers, uids, marked).send()


async def _mark(session: Session, uids: Sequence[int]) -> frozenset[int]:
    r"""Set \Seen where it is not; tells where it was not."""
    selected = session.mailbox()
    now = await present(session)
    unseen = {uid for uid, flags in zip(now.uids, now.flags, strict=True) if not flags & SEEN}
    wanted = [uid for uid in uids if uid in unseen]
    for start in range(0, len(wanted), STEP):
        stored = await session.database.write(
            partial(
                store_flags,
                account_id=selected.account_id,
                mailbox_id=selected.mailbox_id,
                uids=wanted[start : start + STEP],
                op="+",
                flags=SEEN,
            ),
            accounts=(selected.account_id,),
        )
        selected.tell((uid, flags) for uid, flags, _ in stored.changed)
    return frozenset(wanted)


class _Arrays:
    """Answers of UID and FLAGS alone: no message row is read."""

    def __init__(
        self, session: Session, plan: Plan, numbers: Sequence[int], uids: Sequence[int]
    ) -> None:
        self._session = session
        self._plan = plan
        self._numbers = numbers
        self._uids = uids

    async def send(self, now: Snapshot) -> None:
        session = self._session
        selected = session.mailbox()
        if now.keywords is not selected.view.keywords:
            self._plan = Plan(self._plan.items, Names.of(now.keywords.names, selected.recent_from))
        if len(now.uids) == selected.exists:
            page = partial(self._dense, now)
        else:
            flags = dict(zip(now.uids, now.flags, strict=True))
            page = partial(self._thinned, flags)
        if len(self._uids) <= STEP:
            self._write(*page(0, STEP))
            return
        for start in range(0, len(self._uids), LINES):
            work = partial(self._rendered, page, start)
            self._write(*await session.database.read(work, account_id=selected.account_id))
            await session.drained()

    def _write(self, lines: bytes, news: News) -> None:
        self._session.write(lines)
        self._session.mailbox().announced.update(news)

    @staticmethod
    def _rendered(
        page: partial[tuple[bytes, News]], start: int, connection: Connection
    ) -> tuple[bytes, News]:
        return page(start, start + LINES)

    def _dense(self, now: Snapshot, start: int, stop: int) -> tuple[bytes, News]:
        """Nothing is gone: sequence numbers are places in the arrays."""
        numbers, uids = self._numbers[start:stop], self._uids[start:stop]
        flags: Sequence[int]
        if isinstance(numbers, range):
            flags = now.flags[numbers.start - 1 : numbers.stop - 1]
        else:
            flags = [now.flags[number - 1] for number in numbers]
        return self._lines(numbers, uids, flags)

    def _lines(
        self, numbers: Sequence[int], uids: Sequence[int], flags: Sequence[int]
    ) -> tuple[bytes, News]:
        lines = self._plan.lines(numbers, {"uid": uids, "flags": flags})
        told = FLAGS in self._plan.items
        return lines, self._session.mailbox().news(numbers, uids, flags) if told else []

    def _thinned(self, flags: dict[int, int], start: int, stop: int) -> tuple[bytes, News]:
        found = [
            (number, uid, flags[uid])
            for number, uid in zip(self._numbers[start:stop], self._uids[start:stop], strict=True)
            if uid in flags
        ]
        if not found:
            return b"", []
        numbers, uids, values = zip(*found, strict=True)
        return self._lines(numbers, uids, values)


class _Pages:
    """Answers from rows, page by page."""

    def __init__(
        self,
        session: Session,
        plan: Plan,
        numbers: Sequence[int],
        uids: Sequence[int],
        marked: frozenset[int],
    ) -> None:
        selected = session.mailbox()
        self._session = session
        self._selected = selected
        self._mailbox = selected.account_id, selected.mailbox_id
        self._recent_from = selected.recent_from
        self._plan = plan
        self._numbers = numbers
        self._uids = uids
        self._marked = marked
        # How often an octet of a message may stand in the answer.
        copies = max(sum(item.section is not None for item in plan.items), 1)
        self._octets = OCTETS // copies
        self._longest = min(COPIES // copies, content.CHUNK)

    async def send(self) -> None:
        waiting: Ahead[tuple[list[Piece], News, int]] | None = ahead(self._page(0))
        try:
            while waiting is not None:
                pieces, news, after = await waiting
                self._selected.announced.update(news)
                waiting = ahead(self._page(after)) if after < len(self._uids) else None
                await self._write(pieces)
        finally:
            drop(waiting)

    async def _page(self, start: int) -> tuple[list[Piece], News, int]:
        work = partial(self._read, start)
        return await self._session.database.read(work, account_id=self._mailbox[0])

    def _read(self, start: int, connection: Connection) -> tuple[list[Piece], News, int]:
        """In a reading thread: one page from ``start``, rendered, and where the next begins."""
        numbers = self._numbers[start : start + PAGE]
        uids = self._uids[start : start + PAGE]
        dense = numbers[-1] - numbers[0] == len(numbers) - 1
        if self._plan.source == "data" and len(uids) > 1:
            count = rows_of.fit(connection, *self._mailbox, uids, self._octets, dense=dense)
            numbers, uids = numbers[:count], uids[:count]
        rows = rows_of.rows(connection, *self._mailbox, uids, self._plan.columns, dense=dense)
        if self._plan.source:
            rows, is_whole = self._filled(connection, rows)
            if not is_whole:
                count = bisect_right(uids, rows[-1][0])
                numbers, uids = numbers[:count], uids[:count]
        if len(rows) != len(uids):
            known = dict(zip(uids, numbers, strict=True))
            numbers = [known[row[0]] for row in rows]
        pieces = self._rendered(connection, numbers, rows)
        return pieces, self._news(numbers, rows), start + len(uids)

    def _news(self, numbers: Sequence[int], rows: list[rows_of.Row]) -> News:
        tells_all = FLAGS in self._plan.items
        if not tells_all and not self._marked:
            return []
        flags = array("q", map(itemgetter(self._plan.columns.index("flags")), rows))
        news = self._selected.news(numbers, [row[0] for row in rows], flags)
        return news if tells_all else [told for told in news if told[0] in self._marked]

    def _rendered(
        self, connection: Connection, numbers: Sequence[int], rows: list[rows_of.Row]
    ) -> list[Piece]:
        read = partial(content.read, connection)
        try:
            return self._plan.render(numbers, rows, self._marked, read)
        except UnknownKeyword:
            # Another session made a keyword since this one looked.
            names = keywords.load(connection, self._mailbox[0]).names
            self._plan = Plan(self._plan.items, Names.of(names, self._recent_from))
            return self._plan.render(numbers, rows, self._marked, read)

    def _filled(
        self, connection: Connection, rows: list[rows_of.Row]
    ) -> tuple[list[rows_of.Row], bool]:
        """Put in what lies in one chunk; what is longer stays to be streamed.

        Ends with the row that makes the page full; tells whether that was the last one.
        """
        columns = self._plan.columns
        at, content_id = columns.index(self._plan.source), columns.index("content_id")
        size = columns.index("header_octets" if self._plan.source == "header" else "content_octets")
        total = 0
        for n, row in enumerate(rows):
            if row[at] is None and row[size] <= self._longest:
                data = content.read(connection, row[content_id], 0, row[size])
                rows[n] = (*row[:at], data, *row[at + 1 :])
            total += len(rows[n][at] or b"")
            if total >= self._octets:
                return rows[: n + 1], n + 1 == len(rows)
        return rows, True

    async def _write(self, pieces: list[Piece]) -> None:
        session = self._session
        for piece in pieces:
            if isinstance(piece, Extent):
                await self._stream(piece)
            else:
                session.write(piece)
        await session.drained()

    async def _stream(self, extent: Extent) -> None:
        """Write a long run of octets; no transaction is held while the client reads."""
        session = self._session
        for start in range(extent.start, extent.end, BLOCK):
            end = min(start + BLOCK, extent.end)
            try:
                work = partial(_block, extent.content_id, start, end)
                block = await session.database.read(work, account_id=self._mailbox[0])
            except MailError:
                # In the middle of a literal there is no way to say it.
                session.wire.close()
                raise
            session.write(block)
            await session.drained()


def _block(content_id: int, start: int, end: int, connection: Connection) -> bytes:
    return content.read(connection, content_id, start, end)


ROWS = (
    Command("FETCH", parse_fetch, fetch, SELECTED, Sync.NO_EXPUNGE, uses_sequence=True),
    # RFC 9051 §7.5.1: EXPUNGE may follow the commands that name messages by uid.
    Command("UID FETCH", parse_fetch, uid_fetch, SELECTED, Sync.FULL, breaks_sequence=True),
)
