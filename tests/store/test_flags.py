from __future__ import annotations

import pytest

from mailtwist.errors import MailError, NotFound, Refusal
from mailtwist.store import keywords, mailboxes
from mailtwist.store.engine import Connection, Engine
from mailtwist.store.messages import store_flags
from tests.store.making import account, put

# flags before, operation, given, flags after
OPERATIONS = [
    (0, "+", 1, 1),
    (1, "+", 1, 1),
    (2, "+", 1 | 8, 11),
    (3, "-", 1, 2),
    (2, "-", 1, 2),
    (31, "=", 4, 4),
    (4, "=", 0, 0),
    (1 << 62, "+", 1, (1 << 62) + 1),
    ((1 << 62) + 1, "-", 1 << 62, 1),
]


@pytest.mark.mission("DAP-230")
@pytest.mark.parametrize(("before", "op", "given", "after"), OPERATIONS)
def test_flags_are_added_removed_and_replaced(
    engine: Engine, before: int, op: str, given: int, after: int
) -> None:
    with engine.write() as connection:
        anna = account(connection)
        names = [f"k{n}" for n in range(55)]
        keywords.add(connection, anna, names)
        (delivered,) = put(connection, anna, flags=before)
        stored = store_flags(connection, anna, 1, [1], op, given)
        row = connection.exec_driver_sql("SELECT flags, modseq FROM message").one()
        if before == after:
            assert stored.modseq == 0
            assert stored.changed == []
            assert stored.unchanged == [(1, before, delivered.modseq)]
        else:
            assert stored.modseq > delivered.modseq
            assert stored.changed == [(1, after, stored.modseq)]
        assert tuple(row) == (after, stored.modseq or delivered.modseq)
        assert mailboxes.status(connection, anna, 1).highestmodseq == row.modseq


def test_an_unknown_operation_is_refused(engine: Engine) -> None:
    with engine.write() as connection:
        anna = account(connection)
        with pytest.raises(MailError):
            store_flags(connection, anna, 1, [1], "*", 1)
        with pytest.raises(NotFound):
            store_flags(connection, anna, 99, [1], "+", 1)


def test_only_messages_that_differ_change(engine: Engine) -> None:
    with engine.write() as connection:
        anna = account(connection)
        put(connection, anna, count=2)
        put(connection, anna, count=2, flags=1)
        stored = store_flags(connection, anna, 1, [1, 3, 4, 9], "+", 1)
        assert [uid for uid, _, _ in stored.changed] == [1]
        assert [uid for uid, _, _ in stored.unchanged] == [3, 4]
        assert mailboxes.status(connection, anna, 1).unseen == 1


def test_what_changed_since_is_left_alone(engine: Engine) -> None:
    with engine.write() as connection:
        anna = account(connection)
        (first,) = put(connection, anna)
        (second,) = put(connection, anna)
        stored = store_flags(connection, anna, 1, [1, 2], "+", 1, (), first.modseq)
        assert [uid for uid, _, _ in stored.changed] == [1]
        assert stored.modified == [2]
        assert second.modseq > first.modseq
        # RFC 7162 §3.1.3: nothing fulfils UNCHANGEDSINCE 0.
        assert store_flags(connection, anna, 1, [1, 2], "-", 1, (), 0).modified == [1, 2]


def bits_of(connection: Connection) -> int:
    return int(connection.exec_driver_sql("SELECT flags FROM message").scalar_one())


def test_keywords_get_bits_when_set_but_not_when_removed(engine: Engine) -> None:
    with engine.write() as connection:
        anna = account(connection)
        put(connection, anna)
        assert store_flags(connection, anna, 1, [1], "-", 0, ["Unknown"]).modseq == 0
        assert keywords.load(connection, anna) == keywords.EMPTY
        store_flags(connection, anna, 1, [1], "+", 1, ["$Junk", "Later"])
        assert bits_of(connection) == (3 << 8) + 1
        store_flags(connection, anna, 1, [1], "-", 0, ["$JUNK", "Unknown"])
        assert bits_of(connection) == (2 << 8) + 1
        store_flags(connection, anna, 1, [1], "=", 2, ["third"])
        assert bits_of(connection) == (4 << 8) + 2
        known = keywords.load(connection, anna)
        assert dict(known.names) == {8: "$Junk", 9: "Later", 10: "third"}
        assert known.mask(["$junk", "THIRD", "no"]) == 5 << 8


@pytest.mark.parametrize("name", ["", "a b", "a(b", "\\Seen", "k\u00e4se", 'a"b', "x" * 101, "a]"])
def test_a_keyword_is_an_atom(engine: Engine, name: str) -> None:
    with engine.write() as connection:
        anna = account(connection)
        put(connection, anna)
        with pytest.raises(Refusal) as caught:
            store_flags(connection, anna, 1, [1], "+", 1, [name])
        assert caught.value.imap_code == "LIMIT"
        assert bits_of(connection) == 0


def test_the_55th_keyword_is_the_last(engine: Engine) -> None:
    with engine.write() as connection:
        anna = account(connection)
        put(connection, anna)
        store_flags(connection, anna, 1, [1], "+", 0, [f"k{n}" for n in range(54)])
        with pytest.raises(Refusal):
            store_flags(connection, anna, 1, [1], "+", 0, ["a", "b"])
        assert not keywords.load(connection, anna).is_full
        store_flags(connection, anna, 1, [1], "+", 0, ["a", "A"])
        assert keywords.load(connection, anna).is_full
        assert bits_of(connection) == (1 << 63) - (1 << 8)
        with pytest.raises(Refusal):
            store_flags(connection, anna, 1, [1], "=", 0, ["b"])
        store_flags(connection, anna, 1, [1], "=", 0, ["K0"])
        assert bits_of(connection) == 1 << 8
