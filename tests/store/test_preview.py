"""Units that are tried out: they see what they write, and nobody else ever does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from mailtwist.errors import Conflict, StoreUnavailable
from mailtwist.store import changes, ids
from mailtwist.store.batch import Unit
from mailtwist.store.database import Database, Inline
from mailtwist.store.engine import Engine, open_engine
from mailtwist.store.reference import Repetition, reference_id, repeatable
from mailtwist.store.writer import TURN_PREVIEWS
from tests.store.making import acceptance, account
from tests.support.now import now
from tests.support.pumped import PumpedReactor
from tests.support.writers import Running, note, notes, together, write_note


def tried(kind: str) -> Unit:
    """A preview that leaves a trace, and looks for it."""

    def work(connection: Connection) -> int:
        write_note(connection, kind)
        found = text("SELECT count(*) FROM generation WHERE kind = :kind")
        return int(connection.execute(found, {"kind": kind}).scalar_one())

    return Unit(work=work, is_preview=True)


class Started:
    def __init__(self, engine: Engine) -> None:
        self.reactor = PumpedReactor()
        self.database: Any = Database(open_engine(engine.url), reactor=self.reactor)
        self.reactor.until(self.database.start())
        self.until = self.reactor.until


class Here:
    def __init__(self, engine: Engine) -> None:
        self.database: Any = Inline(engine)
        self.until = now


@pytest.fixture(params=[Started, Here], ids=["threads", "inline"])
def store(request: pytest.FixtureRequest, engine: Engine) -> Iterator[Any]:
    made = request.param(engine)
    yield made
    made.until(made.database.close())


def test_a_preview_sees_what_it_writes_and_leaves_nothing(store: Any, engine: Engine) -> None:
    def work(connection: Connection) -> int:
        made = account(connection)
        write_note(connection, "tried")
        return made

    before = notes(engine)
    assert store.until(store.database.preview(work)) > 0
    assert notes(engine) == before
    # The address is free: what was made is gone.
    made = store.until(store.database.write(account))
    count = store.database.read(lambda c: c.execute(text("SELECT count(*) FROM account")).scalar())
    assert (store.until(count), made > 0) == (1, True)


def test_what_a_preview_raises_its_caller_sees(store: Any, engine: Engine) -> None:
    def refused(connection: Connection) -> None:
        write_note(connection, "tried")
        raise Conflict("taken")

    with pytest.raises(Conflict, match="taken"):
        store.until(store.database.preview(refused))

    def broken(connection: Connection) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.until(store.database.preview(broken))
    assert "tried" not in notes(engine)
    assert store.until(store.database.write(lambda c: write_note(c, "a"))) == "a"


def test_nobody_hears_of_a_preview(store: Any) -> None:
    heard: list[str] = []
    store.database.changes.watch("domain", lambda: heard.append("domain"))
    store.until(store.database.preview(lambda connection: changes.bump(connection, "domain")))
    assert heard == []
    store.until(store.database.write(lambda connection: write_note(connection, "a")))
    assert heard == [], "nor with the next commit"
    store.until(store.database.write(lambda connection: changes.bump(connection, "domain")))
    assert heard == ["domain"]


def test_numbers_for_contents_outlive_a_preview(database: Inline) -> None:
    first = now(database.preview(lambda _: database.ids.next()))
    second = now(database.write(lambda _: database.ids.next()))
    assert second > first
    # The claim of the node number was committed.
    assert now(database.read(lambda c: c.execute(text("SELECT count(*) FROM node")).scalar())) == 1


def test_accounts_of_a_preview_are_locked_and_free_again(store: Any) -> None:
    made = store.until(store.database.write(account))
    letter = acceptance(made)

    def work(connection: Connection) -> object:
        from mailtwist.store.deliver import deliver

        return deliver(connection, [letter])[0]

    (place,) = store.until(store.database.preview(work, accounts=[made]))
    assert place.uid == 1
    (place,) = store.until(store.database.write(work, accounts=[made]))
    assert place.uid == 1, "nothing of the preview counts"


# -- among others ---------------------------------------------------------------------------


def test_writes_share_a_commit_whatever_previews_stand_between(engine: Engine) -> None:
    commits: list[int] = []
    event.listen(engine.writing, "commit", lambda connection: commits.append(1))
    units = [tried("x"), note("a"), tried("y"), note("b"), tried("z"), note("c")]
    owner = together(*units, engine=engine)
    assert len(commits) == 1
    assert notes(engine) == {"a", "b", "c"}
    assert [unit.result for unit in units] == [1, "a", 1, "b", 1, "c"]
    assert [len(batch) for batch in owner.batches] == [3, 1, 1, 1]


def test_many_previews_do_not_keep_writes_waiting(engine: Engine) -> None:
    order: list[str] = []

    def noted(name: str, *, is_preview: bool) -> Unit:
        return Unit(work=lambda _: order.append(name), is_preview=is_preview)

    previews = [noted("preview", is_preview=True) for _ in range(2 * TURN_PREVIEWS + 1)]
    last = noted("write", is_preview=False)
    together(*previews, last, engine=engine)
    assert order.count("preview") == len(previews)
    assert order.index("write") == 2 * TURN_PREVIEWS


def test_a_preview_does_not_say_that_the_store_is_well(engine: Engine) -> None:
    with Running(engine) as running:
        running.owner.healthy = False
        running.run(tried("x"))
        assert running.owner.health.empty()
        running.run(note("a"))
        assert running.owner.health.get(timeout=20) is None


def test_previews_of_a_store_that_is_unwell_are_answered(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(connection: Connection) -> None:
        raise StoreUnavailable(detail="gone")

    with Running(engine) as running:
        unit = Unit(work=lost, is_preview=True)
        running.run(unit)
        assert isinstance(unit.error, StoreUnavailable)
        running.run(note("a"))
    assert notes(engine) == {"a"}


# -- ids that are made twice ----------------------------------------------------------------


def test_ids_come_again_in_each_run_of_one_repetition() -> None:
    moment = ids.now_us()

    def made(repetition: Repetition) -> list[str]:
        with repeatable(repetition):
            return [reference_id(moment) for _ in range(3)]

    one, other = Repetition(), Repetition()
    assert made(one) == made(one)
    assert len({*made(one), *made(other)}) == 6
    assert reference_id(moment) != reference_id(moment), "outside it is chance"


def test_an_account_has_the_same_number_in_each_run(database: Inline) -> None:
    repetition = Repetition()

    def work(connection: Connection) -> int:
        with repeatable(repetition):
            return account(connection)

    first, second = now(database.preview(work)), now(database.preview(work))
    assert first == second == now(database.write(work))
    other = now(database.write(lambda connection: account(connection, "bob@example.com")))
    assert other > first
