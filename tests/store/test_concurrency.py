"""Two writers and a reader on the same accounts, as two nodes are."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pytest

from mailtwist.store import check, mailboxes, snapshot
from mailtwist.store.engine import Connection, Engine, open_engine
from mailtwist.store.messages import Acceptance, Entry, deliver, expunge, move, store_flags
from mailtwist.store.snapshot import Snapshot, changes_between
from tests.store.making import NOW, account, spooled

ROUNDS = 40


def work_on(connection: Connection, accounts: list[int], chance: random.Random) -> None:
    """Do a few things at once, in an order that would deadlock without ordered locks."""
    chance.shuffle(accounts)
    entries = tuple(Entry(account_id, "INBOX") for account_id in accounts)
    deliver(connection, [Acceptance(spooled(), entries, 1, NOW)])


def change_one(connection: Connection, accounts: list[int], chance: random.Random) -> None:
    who = chance.choice(accounts)
    uids = sorted(chance.sample(range(1, 120), 30))
    store_flags(connection, who, 1, uids, "+", chance.choice([1, 8]))
    if chance.random() < 0.3:
        expunge(connection, who, 1, uids)
        move(connection, who, 1, uids[:3], "Trash")


def in_threads(*functions: Callable[[], None]) -> None:
    errors: list[BaseException] = []

    def guarded(function: Callable[[], None]) -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []


@pytest.mark.mission("DAP-116")
@pytest.mark.real
def test_writers_neither_deadlock_nor_overtake_each_other(postgresql_url: str) -> None:
    engine = open_engine(postgresql_url)
    with engine.write() as connection:
        accounts = [account(connection, f"u{n}@example.com") for n in range(4)]
    done = threading.Event()
    uids: list[int] = []

    def writer(seed: int) -> Callable[[], None]:
        def run() -> None:
            chance = random.Random(seed)
            for _ in range(ROUNDS):
                with engine.write() as connection:
                    work_on(connection, list(accounts), chance)
                with engine.write() as connection:
                    change_one(connection, accounts, chance)

        return run

    def follow() -> None:
        """Follow one mailbox by differences alone: nothing may appear behind our back."""
        known = read(engine, accounts[0], None)
        view = list(known.uids)
        is_last = False
        while not is_last:
            is_last = done.is_set()
            newer = read(engine, accounts[0], known)
            assert newer.modseq >= known.modseq
            diff = changes_between(known, newer)
            for seq in diff.expunged_seqs:
                del view[seq - 1]
            view += newer.uids[len(view) :]
            known = newer
        uids.extend(view)

    def write() -> None:
        try:
            in_threads(writer(1), writer(2))
        finally:
            done.set()

    in_threads(follow, write)
    with engine.read() as connection:
        assert check.verify(connection) == []
        for account_id in accounts:
            state = mailboxes.status(connection, account_id, 1)
            assert state.uidnext == 2 * ROUNDS + 1
        last = snapshot.current(connection, accounts[0], 1)
        assert list(last.uids) == uids
    engine.dispose()


def read(engine: Engine, account_id: int, known: Snapshot | None) -> Snapshot:
    with engine.read() as connection:
        return snapshot.current(connection, account_id, 1, known)
