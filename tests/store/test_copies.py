from __future__ import annotations

import pytest

from mailtwist.errors import NotFound, OverQuota
from mailtwist.store import mailboxes
from mailtwist.store.engine import Connection, Engine
from mailtwist.store.messages import Copied, copy, expunge, move, store_flags
from tests.store.making import account, put

INBOX, TRASH = 1, 4


def rows(connection: Connection, mailbox_id: int) -> list[tuple[int, ...]]:
    query = (
        "SELECT uid, entry_id, email_id, flags, octets, internaldate FROM message"
        f" WHERE mailbox_id = {mailbox_id} ORDER BY uid"
    )
    return [tuple(row) for row in connection.exec_driver_sql(query)]


def state(connection: Connection, account_id: int, mailbox_id: int) -> tuple[int, ...]:
    s = mailboxes.status(connection, account_id, mailbox_id)
    return s.messages, s.unseen, s.deleted, s.octets, s.uidnext


@pytest.mark.mission("DAP-232")
def test_a_copy_has_flags_and_dates_and_shares_the_mail(engine: Engine) -> None:
    with engine.write() as connection:
        anna = account(connection)
        put(connection, anna, count=2, flags=1, keywords=("k",), internaldate=5)
        put(connection, anna, flags=8, internaldate=6)
        before = rows(connection, INBOX)
        copied = copy(connection, anna, INBOX, [1, 3, 7], "trash".title())
        uidvalidity = mailboxes.get(connection, anna, "Trash").uidvalidity
        assert copied == Copied(uidvalidity, [(1, 1), (3, 2)], copied.modseq)
        assert rows(connection, INBOX) == before
        copies = rows(connection, TRASH)
        assert [c[0] for c in copies] == [1, 2]
        assert {c[1] for c in copies}.isdisjoint(b[1] for b in before)
        assert [c[2:] for c in copies] == [before[0][2:], before[2][2:]]
        assert state(connection, anna, TRASH) == (2, 1, 1, 50, 3)
        assert connection.exec_driver_sql("SELECT count(*) FROM email").scalar() == 3
        assert connection.exec_driver_sql("SELECT messages, octets FROM account_state").one() == (
            5,
            125,
        )


def test_a_copy_into_the_same_mailbox_gets_new_uids(engine: Engine) -> None:
    with engine.write() as connection:
        anna = account(connection)
        put(connection, anna, count=2)
        assert copy(connection, anna, INBOX, [1, 2], "inbox").uids == [(1, 3), (2, 4)]


def test_a_move_keeps_the_entry_and_tells_the_source(engine: Engine) -> None:
    with engine.write() as connection:
        anna = account(connection, quota_messages=3)
        put(connection, anna, count=3, flags=8)
        before = rows(connection, INBOX)
        moved = move(connection, anna, INBOX, [1, 2, 9], "Trash")
        assert moved.uids == [(1, 1), (2, 2)]
        assert rows(connection, INBOX) == before[2:]
        assert rows(connection, TRASH) == before[:2]
        told = connection.exec_driver_sql("SELECT mailbox_id, modseq, uids FROM expunged").one()
        assert told == (INBOX, moved.modseq, "1:2")
        assert state(connection, anna, INBOX) == (1, 1, 1, 25, 4)
        assert state(connection, anna, TRASH) == (2, 2, 2, 50, 3)


def test_a_move_within_one_mailbox_renumbers(engine: Engine) -> None:
    with engine.write() as connection:
        anna = account(connection)
        put(connection, anna, count=3)
        assert move(connection, anna, INBOX, [1, 3], "INBOX").uids == [(1, 4), (3, 5)]
        assert [row[0] for row in rows(connection, INBOX)] == [2, 4, 5]
        assert state(connection, anna, INBOX) == (3, 3, 0, 75, 6)


@pytest.mark.mission("DAP-232")
def test_a_missing_target_asks_for_its_creation(engine: Engine) -> None:
    with engine.write() as connection:
        anna = account(connection)
        put(connection, anna)
        for work in (copy, move):
            with pytest.raises(NotFound) as caught:
                work(connection, anna, INBOX, [1], "nowhere")
            assert caught.value.imap_code == "TRYCREATE"
            with pytest.raises(NotFound):
                work(connection, anna, 99, [1], "Trash")
            assert work(connection, anna, INBOX, [5], "Trash").uids == []
            assert work(connection, anna, INBOX, [], "Trash").modseq == 0


def test_a_copy_over_quota_copies_nothing(engine: Engine) -> None:
    with engine.write() as connection:
        anna = account(connection, quota_octets=100)
        put(connection, anna, count=3)
        with pytest.raises(OverQuota):
            copy(connection, anna, INBOX, [1, 2], "Trash")
        assert rows(connection, TRASH) == []
        assert copy(connection, anna, INBOX, [1], "Trash").uids == [(1, 1)]


# uids marked, uids named in EXPUNGE, uids gone
EXPUNGES: list[tuple[list[int], list[int] | None, list[int]]] = [
    ([1, 3, 4], None, [1, 3, 4]),
    ([1, 3, 4], [3, 4, 5], [3, 4]),
    ([], None, []),
    ([2], [1], []),
    ([2], [], []),
]


@pytest.mark.mission("DAP-231")
@pytest.mark.parametrize(("marked", "named", "gone"), EXPUNGES)
def test_expunge_takes_what_is_marked_and_named(
    engine: Engine, marked: list[int], named: list[int] | None, gone: list[int]
) -> None:
    with engine.write() as connection:
        anna = account(connection)
        put(connection, anna, count=5)
        store_flags(connection, anna, INBOX, marked, "+", 8)
        expunged = expunge(connection, anna, INBOX, named)
        assert expunged.uids == gone
        assert bool(expunged.modseq) == bool(gone)
        left = [row[0] for row in rows(connection, INBOX)]
        assert left == [uid for uid in range(1, 6) if uid not in gone]
        for table in ("content_doubt", "expunged"):
            count = connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar()
            assert count == (len(gone) if table == "content_doubt" else bool(gone))


def test_expunge_goes_by_portions(engine: Engine) -> None:
    with engine.write() as connection:
        anna = account(connection)
        put(connection, anna, count=5, flags=8)
        portions = []
        while uids := expunge(connection, anna, INBOX, limit=2).uids:
            portions.append(uids)
        assert portions == [[1, 2], [3, 4], [5]]


def test_the_mail_goes_with_its_last_copy(engine: Engine) -> None:
    def counts(connection: Connection) -> tuple[int, int]:
        emails = connection.exec_driver_sql("SELECT count(*) FROM email").scalar_one()
        return emails, connection.exec_driver_sql("SELECT count(*) FROM content_doubt").scalar_one()

    with engine.write() as connection:
        anna = account(connection)
        put(connection, anna, flags=8)
        copy(connection, anna, INBOX, [1], "Trash")
        expunge(connection, anna, INBOX)
        assert counts(connection) == (1, 0)
        expunge(connection, anna, TRASH)
        assert counts(connection) == (0, 1)
        with pytest.raises(NotFound):
            expunge(connection, anna, 99)
