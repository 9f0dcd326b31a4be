from __future__ import annotations

from array import array
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailtwist.errors import NotFound
from mailtwist.store import keywords, mailboxes, snapshot
from mailtwist.store.database import Inline
from mailtwist.store.engine import Connection, Engine
from mailtwist.store.messages import copy, expunge, move, store_flags
from mailtwist.store.snapshot import Diff, Snapshot, Snapshots, changes_between
from tests.store.making import account, put
from tests.support.now import now

INBOX = 1


def shown(taken: Snapshot) -> dict[int, int]:
    return dict(zip(taken.uids, taken.flags, strict=True))


def loaded(connection: Connection, account_id: int) -> Snapshot:
    return snapshot.current(connection, account_id, INBOX)


def test_a_snapshot_shows_the_mailbox(engine: Engine) -> None:
    with engine.write() as connection:
        anna = account(connection)
        put(connection, anna, count=2)
        put(connection, anna, flags=9, keywords=("k",))
        mailboxes.claim_recent(connection, anna, INBOX)
        put(connection, anna)
        store_flags(connection, anna, INBOX, [2], "+", 8)
        expunge(connection, anna, INBOX, [2])
        taken = loaded(connection, anna)
        assert shown(taken) == {1: 0, 3: 9 + 256, 4: 0}
        assert (taken.uidnext, taken.recent_from, taken.recent, len(taken)) == (5, 4, 1, 3)
        assert [taken.seq_of(uid) for uid in (1, 2, 3, 4, 5)] == [1, 0, 2, 3, 0]
        assert taken.keywords.spelled(taken.flags[1]) == ["k"]
        state = mailboxes.status(connection, anna, INBOX)
        assert (taken.modseq, taken.uidvalidity) == (state.highestmodseq, state.uidvalidity)
        with pytest.raises(NotFound):
            snapshot.current(connection, anna, 99)


def test_a_snapshot_is_brought_up_to_date_as_if_read_anew(engine: Engine) -> None:
    with engine.write() as connection:
        anna = account(connection)
        put(connection, anna, count=10)
        known = loaded(connection, anna)
        assert snapshot.current(connection, anna, INBOX, known) is known
        changes = [
            lambda: put(connection, anna, count=3, keywords=("k",)),
            lambda: store_flags(connection, anna, INBOX, [2, 5, 13], "+", 9),
            lambda: expunge(connection, anna, INBOX),
            lambda: move(connection, anna, INBOX, [1, 12], "Trash"),
            lambda: copy(connection, anna, INBOX, [3, 4], "INBOX"),
            lambda: mailboxes.claim_recent(connection, anna, INBOX),
            lambda: move(connection, anna, INBOX, [3], "INBOX"),
        ]
        oldest = known
        for change in changes:
            change()
            fresh = loaded(connection, anna)
            newer = snapshot.current(connection, anna, INBOX, known)
            assert newer == fresh == snapshot.current(connection, anna, INBOX, oldest)
            assert newer is not known
            known = newer


def test_recent_and_keywords_change_without_a_modseq_of_the_mailbox(engine: Engine) -> None:
    with engine.write() as connection:
        anna = account(connection)
        put(connection, anna)
        known = loaded(connection, anna)
        mailboxes.claim_recent(connection, anna, INBOX)
        claimed = snapshot.current(connection, anna, INBOX, known)
        assert (claimed.recent, claimed.modseq) == (0, known.modseq)
        assert claimed.uids is known.uids
        put(connection, anna, "Spam", keywords=("k",))
        named = snapshot.current(connection, anna, INBOX, claimed)
        assert dict(named.keywords.names) == {8: "k"}
        assert named.flags is known.flags


def test_many_changes_are_read_anew(engine: Engine) -> None:
    with engine.write() as connection:
        anna = account(connection)
        put(connection, anna, count=300)
        known = loaded(connection, anna)
        store_flags(connection, anna, INBOX, range(1, 301), "+", 1)
        store_flags(connection, anna, INBOX, [7], "+", 8)
        expunge(connection, anna, INBOX)
        newer = snapshot.current(connection, anna, INBOX, known)
        assert newer == loaded(connection, anna)
        assert len(newer) == 299


def test_what_was_expunged_before_the_floor_is_found_by_reading_anew(engine: Engine) -> None:
    with engine.write() as connection:
        anna = account(connection)
        put(connection, anna, count=3)
        known = loaded(connection, anna)
        store_flags(connection, anna, INBOX, [2], "+", 8)
        expunged = expunge(connection, anna, INBOX)
        connection.exec_driver_sql("DELETE FROM expunged")
        connection.exec_driver_sql(f"UPDATE mailbox_state SET expunged_floor = {expunged.modseq}"
                                   f" WHERE mailbox_id = {INBOX}")  # fmt: skip
        assert list(snapshot.current(connection, anna, INBOX, known).uids) == [1, 3]


# -- differences ----------------------------------------------------------------------------


def made(uids: Iterable[int], flags: Iterable[int] | None = None) -> Snapshot:
    listed = array("I", uids)
    marks = array("q", [0] * len(listed) if flags is None else flags)
    return Snapshot(1, 1, 1, 10**6, 1, listed, marks, 1, keywords.EMPTY)


DIFFS = [
    (made([]), made([]), Diff([], [], 0, 0, [])),
    (made([]), made([1, 2]), Diff([], [], 2, 2, [])),
    (made([1, 2]), made([]), Diff([2, 1], [1, 2], 0, 0, [])),
    (made([1, 2, 3]), made([2, 4]), Diff([3, 1], [1, 3], 2, 1, [])),
    (made([1, 2, 3], [0, 1, 2]), made([1, 3], [4, 2]), Diff([2], [2], 2, 0, [(1, 4)])),
    (made([1, 5]), made([6, 7]), Diff([2, 1], [1, 5], 2, 2, [])),
]


@pytest.mark.mission("DAP-238")
@pytest.mark.parametrize(("old", "new", "expected"), DIFFS, ids=range(len(DIFFS)))
def test_differences(old: Snapshot, new: Snapshot, expected: Diff) -> None:
    assert changes_between(old, new) == expected
    assert bool(expected) == (shown(old) != shown(new))


@given(
    st.integers(0, 5000),
    st.sets(st.integers(0, 4999), max_size=40),
    st.lists(st.tuples(st.integers(0, 4999), st.integers(0, 4999)), max_size=3),
    st.sets(st.integers(0, 4999), max_size=20),
    st.integers(0, 1500),
)
def test_a_session_that_follows_the_differences_knows_the_mailbox(
    size: int,
    gone: set[int],
    spans: list[tuple[int, int]],
    marked: set[int],
    added: int,
) -> None:
    for low, high in spans:
        gone |= set(range(min(low, high), max(low, high)))
    uids = [3 * n + 1 for n in range(size)]
    kept = [uid for n, uid in enumerate(uids) if n not in gone]
    flags = [int(uid // 3 in marked) for uid in kept]
    fresh = range(3 * size + 5, 3 * size + 5 + added)
    old, new = made(uids), made([*kept, *fresh], [*flags, *[2] * added])
    diff = changes_between(old, new)
    view = list(zip(old.uids, old.flags, strict=True))
    for seq in diff.expunged_seqs:
        del view[seq - 1]
    known = dict(view) | dict(diff.changed)
    assert known == dict(zip(kept, flags, strict=True))
    assert diff.expunged_uids == sorted(set(uids) - set(kept))
    assert (diff.exists, diff.added) == (len(new), added)
    assert [uid for uid, _ in diff.changed] == [u for u, f in zip(kept, flags, strict=True) if f]


# -- sharing --------------------------------------------------------------------------------


def test_sessions_share_the_newest(database: Inline) -> None:
    shared = Snapshots(database)
    with database.engine.write() as connection:
        anna = account(connection)
        put(connection, anna, count=5)
    first = now(shared.current(anna, INBOX))
    assert now(shared.current(anna, INBOX)) is first
    now(database.write(lambda connection: put(connection, anna)))
    second = now(shared.current(anna, INBOX))
    assert list(first.uids) == [1, 2, 3, 4, 5]
    assert list(second.uids) == [1, 2, 3, 4, 5, 6]
    assert now(shared.current(anna, INBOX)) is second
    assert shared.octets == second.octets


def test_an_older_reading_does_not_replace_a_newer_one(database: Inline) -> None:
    shared = Snapshots(database)
    with database.engine.write() as connection:
        anna = account(connection)
        put(connection, anna)
    with database.engine.read() as reading:
        assert mailboxes.status(reading, anna, INBOX).messages == 1  # this state is kept
        now(database.write(lambda connection: put(connection, anna)))
        newer = now(shared.current(anna, INBOX))
        assert list(shared.read(reading, anna, INBOX).uids) == [1]
    assert now(shared.current(anna, INBOX)) is newer


def test_snapshots_are_bounded_by_octets(database: Inline) -> None:
    with database.engine.write() as connection:
        anna = account(connection)
        for name in ("INBOX", "Spam", "Sent"):
            put(connection, anna, name, 50)
        numbers = [mailboxes.get(connection, anna, n).mailbox_id for n in ("INBOX", "Spam", "Sent")]
    one = now(Snapshots(database).current(anna, INBOX)).octets
    shared = Snapshots(database, max_octets=2 * one)
    taken = [now(shared.current(anna, number)) for number in numbers]
    assert shared.octets == 2 * one
    assert now(shared.current(anna, numbers[2])) is taken[2]
    assert now(shared.current(anna, numbers[1])) is taken[1]
    assert now(shared.current(anna, numbers[0])) is not taken[0]
    assert now(shared.current(anna, numbers[2])) is not taken[2]


def test_a_deleted_mailbox_is_forgotten(database: Inline) -> None:
    shared = Snapshots(database)
    with database.engine.write() as connection:
        anna = account(connection)
        number = mailboxes.create(connection, anna, "a").mailbox_id
        put(connection, anna, "a", 1500)
    now(shared.current(anna, number))
    now(database.write(lambda connection: mailboxes.delete(connection, anna, "a")))
    with pytest.raises(NotFound):
        now(shared.current(anna, number))
    assert shared.octets == 0
    while not now(database.write(lambda c: mailboxes.remove_step(c, anna, number))):
        pass
