"""The octets of messages: spooled while they arrive, read in ranges, swept when nothing refers.

A message up to 1 MiB waits in memory and is written by the transaction that
accepts it. A longer one goes ahead in chunks, each a small transaction of its
own, marked by an ``upload`` row until the accepting transaction publishes it; so
a spool never holds more than three MiB, whatever arrives.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from sqlalchemy import Connection, bindparam, delete, exists, func, select, text
from twisted.internet.defer import Deferred

from mailtwist.errors import MailError, Refusal, StoreUnavailable
from mailtwist.store import ids
from mailtwist.store.queue.tables import queue_message
from mailtwist.store.sql import Statement
from mailtwist.store.tables import (
    content,
    content_chunk,
    content_doubt,
    email,
    upload,
)

if TYPE_CHECKING:
    from mailtwist.mail.structure import Parser, Structure
    from mailtwist.store.database import Database

CHUNK = 1 << 20
# Up to here octets stand in the content row itself: one look-up less for most mail.
INLINE = 1 << 16
DAY_US = 86_400 * 1_000_000


@dataclass(frozen=True, slots=True)
class Spooled:
    """A whole message, not yet accepted.

    ``data`` holds up to 1 MiB that :func:`write_new` is still to write; None: the chunks are in.
    """

    content_id: int
    octets: int
    sha256: bytes
    data: bytes | None
    structure: Structure


@cache
def _parser_type() -> type[Parser]:
    # Its tables take their time: they are loaded by who takes messages in alone.
    from mailtwist.mail.structure import Parser

    return Parser


class Spool:
    """Takes one incoming message, block by block.

    Whoever stops before :meth:`finish`'s value is accepted calls :meth:`discard`.
    """

    def __init__(self, database: Database, *, limit: int) -> None:
        self.octets = 0
        self._database = database
        self._limit = limit
        self._parser = _parser_type()()
        self._sha256 = hashlib.sha256()
        self._gathered = bytearray()
        self._content_id = database.ids.next()
        self._chunks = 0
        # One chunk is on its way while the next one gathers.
        self._flight: Deferred[None] | None = None
        self._failure: MailError | None = None

    async def write(self, block: bytes) -> None:
        """Take a block; to await it is the back-pressure.

        Raises: Refusal 552 past the limit, StoreUnavailable or StoreFull when chunks cannot be
        stored. After either only :meth:`discard` makes sense: each further call raises it again.
        """
        self.octets += len(block)
        if self.octets > self._limit:
            self._fail(_too_big())
        if self._failure is not None:
            raise self._failure
        self._sha256.update(block)
        self._parser.feed(block)
        self._gathered += block
        # The message that ends exactly here is still a small one.
        while len(self._gathered) > CHUNK:
            await self._send_chunk()

    async def finish(self, *, is_kept: bool = True) -> Spooled:
        """End the message. ``is_kept``: a mailbox gets it. Raises: as :meth:`write`."""
        if self._failure is not None:
            raise self._failure
        data: bytes | None = None
        if self._chunks:
            await self._send_chunk()
            await self._landed()
        else:
            data = bytes(self._gathered)
        self._gathered.clear()
        structure = self._parser.close(passing=None if is_kept else data)
        digest = self._sha256.digest()
        return Spooled(self._content_id, self.octets, digest, data, structure)

    async def discard(self) -> None:
        """Forget the message; chunks that went ahead are left to the sweeper. Raises nothing."""
        self._fail(StoreUnavailable(detail="discarded"))
        if not self._chunks:
            return
        content_id = self._content_id
        try:
            await self._landed()
            await self._database.write(lambda connection: abandon(connection, content_id))
        except MailError:
            return  # swept a day later

    def _fail(self, failure: MailError) -> None:
        self._failure = self._failure or failure
        self._gathered.clear()

    async def _send_chunk(self) -> None:
        chunk = bytes(self._gathered[:CHUNK])
        del self._gathered[:CHUNK]
        await self._landed()
        n, content_id, node_id = self._chunks, self._content_id, self._database.ids.node_id
        self._chunks += 1

        def work(connection: Connection) -> None:
            _write_ahead(connection, content_id, node_id, n, chunk)

        self._flight = Deferred.fromCoroutine(self._database.write(work, octets=len(chunk)))

    async def _landed(self) -> None:
        flight, self._flight = self._flight, None
        if flight is None:
            return
        try:
            await flight
        except MailError as error:
            self._fail(error)
            raise


def _too_big() -> Refusal:
    # RFC 1870 §6.3
    return Refusal(
        "Message size exceeds fixed maximum message size",
        code=552,
        status="5.3.4",
        imap_code="TOOBIG",
    )


# -- writing --------------------------------------------------------------------------------


_INSERT_CONTENT = Statement(
    "INSERT INTO content (content_id, octets, sha256, data) VALUES (?, ?, ?, ?)"
)
_INSERT_CHUNK = Statement(
    "INSERT INTO content_chunk (content_id, n, start, data) VALUES (?, ?, ?, ?)"
)


def _write_ahead(
    connection: Connection, content_id: int, node_id: int, n: int, chunk: bytes
) -> None:
    if n == 0:
        values = {"content_id": content_id, "node_id": node_id, "started_at": ids.now_us()}
        connection.execute(upload.insert(), values)
    _INSERT_CHUNK(connection, (content_id, n, n * CHUNK, chunk))


def write_new(connection: Connection, spooled: Iterable[Spooled]) -> None:
    """Publish contents, in the transaction that refers to them: three statements for any number.

    Raises: StoreUnavailable when the chunks of one were swept in the meantime.
    """
    distinct = {item.content_id: item for item in spooled}
    rows, chunks, ahead = [], [], []
    for item in distinct.values():
        whole = item.data if item.data is not None and item.octets <= INLINE else None
        rows.append((item.content_id, item.octets, item.sha256, whole))
        if item.data is None:
            ahead.append(item.content_id)
        elif whole is None:
            chunks.append((item.content_id, 0, 0, item.data))
    _INSERT_CONTENT.each(connection, rows)
    _INSERT_CHUNK.each(connection, chunks)
    if ahead:
        published = connection.execute(delete(upload).where(upload.c.content_id.in_(ahead)))
        if published.rowcount != len(ahead):
            raise StoreUnavailable(detail="chunks of an upload were swept before it was accepted")


def abandon(connection: Connection, content_id: int) -> None:
    """Leave an upload to the sweeper."""
    connection.execute(upload.update().where(upload.c.content_id == content_id).values(node_id=-1))


# -- reading --------------------------------------------------------------------------------

_WHOLE = text("SELECT octets, data FROM content WHERE content_id = :content_id")
_SLICES = text(
    "SELECT start, substr(data,"
    " CASE WHEN start < :low THEN CAST(:low - start AS INTEGER) + 1 ELSE 1 END,"
    " CAST(:high - :low AS INTEGER))"
    " FROM content_chunk WHERE content_id = :content_id"
    " AND n >= :first AND n <= :last ORDER BY n"
)


def read(connection: Connection, content_id: int, start: int, end: int) -> bytes:
    """The octets [start, end) of a content, clipped to it; at most 1 MiB at a time.

    Raises: StoreUnavailable when there is no such content.
    """
    end = min(end, start + CHUNK)
    row = connection.execute(_WHOLE, {"content_id": content_id}).first()
    if row is None:
        raise StoreUnavailable(detail=f"content {content_id} is missing")
    end = min(end, row.octets)
    if end <= start:
        return b""
    if row.data is not None:
        return bytes(row.data[start:end])
    parameters = {
        "content_id": content_id,
        "low": start,
        "high": end,
        "first": start // CHUNK,
        "last": (end - 1) // CHUNK,
    }
    slices = connection.execute(_SLICES, parameters)
    return b"".join(bytes(data) for _, data in slices)[: end - start]


# -- sweeping -------------------------------------------------------------------------------


def doubt(connection: Connection, content_ids: Sequence[int], *, now: int | None = None) -> None:
    """Mark contents that may have lost their last referent; :func:`sweep` decides a day later."""
    if not content_ids:
        return
    since = ids.now_us() if now is None else now
    statement = text(
        "INSERT INTO content_doubt (content_id, since) VALUES (:content_id, :since)"
        " ON CONFLICT (content_id) DO UPDATE SET since = excluded.since"
    )
    rows = [{"content_id": content_id, "since": since} for content_id in sorted(set(content_ids))]
    connection.execute(statement, rows)


def sweep(connection: Connection, now: int, limit: int = 16) -> bool:
    """Remove what nothing refers to, at most ``limit`` chunks and contents; True: all is swept.

    That is: contents in doubt for a day, and uploads whose node is gone, restarted or gave up.
    """
    removed = _sweep_uploads(connection, now, limit)
    removed += _sweep_doubts(connection, now, limit - removed) if removed < limit else 0
    return removed < limit


def disown(connection: Connection, node_id: int) -> None:
    """Leave all uploads of a node number to the sweeper: its process begins or ends."""
    connection.execute(upload.update().where(upload.c.node_id == node_id).values(node_id=-1))


def _sweep_uploads(connection: Connection, now: int, limit: int) -> int:
    alive = ids.living(connection, now)
    dead = select(upload.c.content_id).where(
        upload.c.node_id.not_in(sorted(alive)) | (upload.c.started_at < now - DAY_US)
    )
    removed = 0
    for content_id in connection.execute(dead.limit(limit)).scalars().all():
        gone, finished = _remove_chunks(connection, content_id, limit - removed)
        removed += gone
        if finished:
            connection.execute(delete(upload).where(upload.c.content_id == content_id))
            removed += 1
        if removed >= limit:
            break
    return removed


def _sweep_doubts(connection: Connection, now: int, limit: int) -> int:
    due = select(content_doubt.c.content_id).where(content_doubt.c.since < now - DAY_US)
    referred = select(
        exists().where(email.c.content_id == bindparam("content_id"))
        | exists().where(queue_message.c.content_id == bindparam("content_id"))
    )
    removed = 0
    for content_id in connection.execute(due.limit(limit)).scalars().all():
        finished = True
        if not connection.execute(referred, {"content_id": content_id}).scalar():
            gone, finished = _remove_chunks(connection, content_id, limit - removed)
            removed += gone
            if finished:
                connection.execute(delete(content).where(content.c.content_id == content_id))
        if finished:
            connection.execute(
                delete(content_doubt).where(content_doubt.c.content_id == content_id)
            )
        removed += 1
        if removed >= limit:
            break
    return removed


def _remove_chunks(connection: Connection, content_id: int, limit: int) -> tuple[int, bool]:
    """Remove up to ``limit`` chunks of a content; how many, and whether none is left."""
    some = (
        select(content_chunk.c.chunk_id)
        .where(content_chunk.c.content_id == content_id)
        .limit(max(limit, 1))
    )
    gone = connection.execute(
        delete(content_chunk).where(content_chunk.c.chunk_id.in_(some.scalar_subquery()))
    ).rowcount
    left = select(func.count()).where(content_chunk.c.content_id == content_id)
    return gone, connection.execute(left).scalar() == 0
