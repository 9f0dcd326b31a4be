"""Octets on their way in, out, and away."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
from sqlalchemy import Connection, event, func, select

from mailtwist.errors import Refusal, StoreFull, StoreUnavailable
from mailtwist.store import content, ids
from mailtwist.store.content import CHUNK, DAY_US, INLINE, Spool, Spooled
from mailtwist.store.database import Inline
from mailtwist.store.engine import Engine
from mailtwist.store.tables import content as content_table
from mailtwist.store.tables import content_chunk, content_doubt, upload
from tests.support.now import now

HEADER = b"Subject: octets\r\n\r\n"
LIMIT = 64 << 20


def message(octets: int) -> bytes:
    line = b"".join(b"%07d\r\n" % n for n in range(2000))
    repeated = HEADER + line * (octets // len(line) + 1)
    return repeated[:octets]


async def spool(database: Inline, data: bytes, *, block: int = 60_000, limit: int = LIMIT) -> Spool:
    spool = Spool(database, limit=limit)
    for at in range(0, len(data), block):
        await spool.write(data[at : at + block])
    return spool


def spooled(database: Inline, data: bytes, *, block: int = 60_000) -> Spooled:
    async def run() -> Spooled:
        return await (await spool(database, data, block=block)).finish()

    return now(run())


def published(database: Inline, *items: Spooled) -> None:
    """As deliver() does; marked as doubtful, as no e-mail here refers to them."""

    def work(connection: Connection) -> None:
        content.write_new(connection, list(items))
        content.doubt(connection, [item.content_id for item in items])

    now(database.write(work))


def rows(engine: Engine) -> tuple[int, int, int, int]:
    """How many contents, chunks, uploads, doubts."""
    tables = (content_table, content_chunk, upload, content_doubt)
    with engine.read() as connection:
        counts = [connection.execute(select(func.count()).select_from(t)).scalar() for t in tables]
    return tuple(counts)  # type: ignore[return-value]


def in_pages(connection: Connection, item: Spooled, page: int) -> bytes:
    starts = range(0, item.octets, page)
    return b"".join(
        content.read(connection, item.content_id, at, min(at + page, item.octets)) for at in starts
    )


SIZES = [19, INLINE, INLINE + 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 5]


@pytest.mark.parametrize("octets", SIZES)
@pytest.mark.parametrize("block", [60_000, 5 * CHUNK])
def test_octets_come_out_as_they_went_in(database: Inline, octets: int, block: int) -> None:
    data = message(octets)
    item = spooled(database, data, block=block)
    assert (item.octets, item.sha256) == (octets, hashlib.sha256(data).digest())
    assert item.structure.octets == octets
    assert (item.data is None) == (octets > CHUNK)
    published(database, item)
    with database.engine.read() as connection:
        assert in_pages(connection, item, CHUNK) == data
        assert in_pages(connection, item, 700_001) == data
        assert content.read(connection, item.content_id, octets - 3, octets + 99) == data[-3:]
        assert content.read(connection, item.content_id, octets, octets + 1) == b""
        assert content.read(connection, item.content_id, 4, 4) == b""


def test_one_read_gives_at_most_a_chunk(database: Inline) -> None:
    data = message(2 * CHUNK)
    item = spooled(database, data)
    published(database, item)
    with database.engine.read() as connection:
        assert content.read(connection, item.content_id, 9, 2 * CHUNK) == data[9 : 9 + CHUNK]


def test_a_range_is_read_across_the_border_of_two_chunks(database: Inline) -> None:
    data = message(3 * CHUNK)
    item = spooled(database, data)
    published(database, item)
    with database.engine.read() as connection:
        piece = content.read(connection, item.content_id, CHUNK - 3, CHUNK + 4)
        assert piece == data[CHUNK - 3 : CHUNK + 4]
        assert (
            content.read(connection, item.content_id, CHUNK, CHUNK + 1) == data[CHUNK : CHUNK + 1]
        )


def test_an_empty_message_is_one_too(database: Inline) -> None:
    item = spooled(database, b"")
    published(database, item)
    with database.engine.read() as connection:
        assert content.read(connection, item.content_id, 0, 10) == b""


def test_a_content_that_is_not_there_is_a_fault_of_the_store(engine: Engine) -> None:
    with engine.read() as connection, pytest.raises(StoreUnavailable):
        content.read(connection, 4711, 0, 1)


def test_small_messages_touch_the_database_only_when_they_are_accepted(database: Inline) -> None:
    item = spooled(database, message(CHUNK))
    assert rows(database.engine) == (0, 0, 0, 0)
    published(database, item)
    assert rows(database.engine) == (1, 1, 0, 1)


def test_large_messages_go_ahead_under_the_mark_of_an_upload(database: Inline) -> None:
    item = spooled(database, message(2 * CHUNK + 1))
    assert rows(database.engine) == (0, 3, 1, 0)
    published(database, item)
    assert rows(database.engine) == (1, 3, 0, 1)


def test_many_contents_are_written_in_a_fixed_number_of_statements(database: Inline) -> None:
    sizes = [10, 20, INLINE + 1, INLINE + 2, CHUNK + 1, CHUNK + 2]
    items = [spooled(database, message(size)) for size in sizes]
    statements: list[str] = []

    def work(connection: Connection) -> None:
        event.listen(
            connection, "before_cursor_execute", lambda *given: statements.append(given[2])
        )
        content.write_new(connection, [*items, items[0]])
        content.doubt(connection, [item.content_id for item in items])

    now(database.write(work))
    assert len(statements) <= 4
    assert rows(database.engine)[0] == len(items)


def test_past_the_limit_the_message_is_refused_and_stays_so(database: Inline) -> None:
    async def run() -> None:
        large = await spool(database, message(CHUNK + 10), limit=CHUNK + 10)
        for _ in range(2):
            with pytest.raises(Refusal) as refused:
                await large.write(b"x")
            assert (refused.value.code, refused.value.status) == (552, "5.3.4")
            assert refused.value.imap_code == "TOOBIG"
        with pytest.raises(Refusal):
            await large.finish()
        await large.discard()

    now(run())
    sweep_all(database)
    assert rows(database.engine) == (0, 0, 0, 0)


def sweep_all(database: Inline, at: int | None = None) -> int:
    steps = 1
    when = ids.now_us() if at is None else at
    while not now(database.write(lambda connection: content.sweep(connection, when, 2))):
        steps += 1
        assert steps < 100
    return steps


def test_discarded_uploads_are_swept_in_steps(database: Inline) -> None:
    async def run() -> None:
        await (await spool(database, message(6 * CHUNK))).discard()
        await (await spool(database, message(CHUNK))).discard()

    now(run())
    assert rows(database.engine) == (0, 5, 1, 0)
    assert sweep_all(database) > 2
    assert rows(database.engine) == (0, 0, 0, 0)


def test_uploads_of_a_living_node_are_left_alone(database: Inline) -> None:
    item = spooled(database, message(2 * CHUNK))
    sweep_all(database)
    published(database, item)
    assert rows(database.engine) == (1, 2, 0, 1)


Ending = Callable[[Inline], int]


def restarts(database: Inline) -> int:
    with database.engine.write() as connection:
        content.disown(connection, database.ids.node_id)
    return ids.now_us()


@pytest.mark.parametrize(
    "end",
    [restarts, lambda _: ids.now_us() + ids.STALE_US + 1, lambda _: ids.now_us() + DAY_US + 1],
    ids=["restarts", "falls silent", "takes a day"],
)
def test_uploads_of_a_node_that_is_gone_are_swept_and_accepted_no_more(
    database: Inline, end: Ending
) -> None:
    item = spooled(database, message(2 * CHUNK))
    sweep_all(database, end(database))
    assert rows(database.engine) == (0, 0, 0, 0)
    with pytest.raises(StoreUnavailable):
        published(database, item)
    assert rows(database.engine) == (0, 0, 0, 0)


def test_contents_in_doubt_are_swept_after_a_day(database: Inline) -> None:
    items = [spooled(database, message(size)) for size in (10, INLINE + 1, 4 * CHUNK)]
    published(database, *items)
    sweep_all(database)
    assert rows(database.engine) == (3, 5, 0, 3)
    assert sweep_all(database, ids.now_us() + DAY_US + 1) > 2
    assert rows(database.engine) == (0, 0, 0, 0)


def test_chunks_that_find_no_room_end_the_message(
    database: Inline, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object, **__: object) -> None:
        raise StoreFull

    async def run() -> None:
        large = await spool(database, message(CHUNK))
        monkeypatch.setattr(database, "write", full)
        await large.write(b"one chunk leaves")
        with pytest.raises(StoreFull):
            await large.finish()
        with pytest.raises(StoreFull):
            await large.write(b"more")
        await large.discard()

    now(run())


def test_a_spool_holds_little_whatever_comes(database: Inline) -> None:
    import tracemalloc

    block = b"x" * 65_536

    async def run() -> int:
        large = Spool(database, limit=LIMIT)
        tracemalloc.start()
        for _ in range(20 * 16):
            await large.write(block)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        await large.discard()
        return peak

    assert now(run()) < 6 * CHUNK
