"""Group commit: who shares a batch, who breaks it, and what each caller is told."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
from sqlalchemy import Connection, event, text

from mailtwist.errors import Conflict, MailError, OverQuota, StoreUnavailable
from mailtwist.store import changes, writer
from mailtwist.store.batch import Unit
from mailtwist.store.engine import Engine
from tests.support.writers import Running, note, notes, together, write_note


def count_commits(engine: Engine) -> list[int]:
    commits: list[int] = []
    event.listen(engine.writing, "commit", lambda connection: commits.append(1))
    return commits


def test_a_unit_is_committed_before_it_is_answered(engine: Engine) -> None:
    with Running(engine) as running:
        unit = note("a")
        running.run(unit)
        assert (unit.done, unit.result, unit.error) == (True, "a", None)
        assert notes(engine) == {"a"}


def test_units_that_wait_share_one_commit(engine: Engine) -> None:
    commits = count_commits(engine)
    units = [note(f"n{n}") for n in range(20)]
    owner = together(*units, engine=engine)
    assert len(commits) == 1
    assert owner.batches == [units], "and one call for all their answers"
    assert notes(engine) == {f"n{n}" for n in range(20)}


def test_units_that_arrive_while_a_commit_syncs_share_the_next(engine: Engine) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def slow(connection: Connection) -> None:
        entered.set()
        assert go_on.wait(20)

    commits = count_commits(engine)
    with Running(engine) as running:
        first = Unit(work=slow)
        running.writer.submit(first)
        assert entered.wait(20)
        later = [note(f"n{n}") for n in range(5)]
        for unit in later:
            running.writer.submit(unit)
        go_on.set()
        running.owner.wait_for(first, *later)
    assert len(commits) == 2
    assert running.owner.batches == [[first], later]


def test_a_batch_is_bounded_in_units_and_octets(engine: Engine) -> None:
    units = [note(f"n{n}") for n in range(writer.BATCH_UNITS + 1)]
    assert [len(batch) for batch in together(*units, engine=engine).batches] == [64, 1]

    large = [Unit(work=lambda connection: None, octets=3 << 20) for _ in range(3)]
    assert [len(batch) for batch in together(*large, engine=engine).batches] == [1, 1, 1]


def test_a_unit_that_raises_fails_alone(engine: Engine) -> None:
    def bug(connection: Connection) -> None:
        write_note(connection, "never")
        raise ZeroDivisionError

    bad = Unit(work=bug)
    good = [note(f"n{n}") for n in range(4)]
    together(*good[:2], bad, *good[2:], engine=engine)
    assert isinstance(bad.error, ZeroDivisionError)
    assert [unit.error for unit in good] == [None] * 4
    assert notes(engine) == {"n0", "n1", "n2", "n3"}


def test_a_unit_that_breaks_a_constraint_fails_alone(engine: Engine) -> None:
    good, twice = note("same"), note("same")
    together(good, twice, note("other"), engine=engine)
    assert good.error is None
    assert type(twice.error).__name__ == "IntegrityError"
    assert notes(engine) == {"same", "other"}


def test_many_bad_units_in_one_batch_do_not_stop_the_good(engine: Engine) -> None:
    runs: list[int] = []

    def bug(connection: Connection) -> None:
        runs.append(1)
        raise ZeroDivisionError

    bad = [Unit(work=bug) for _ in range(30)]
    good = [note(f"n{n}") for n in range(30)]
    mixed = [unit for pair in zip(bad, good, strict=True) for unit in pair]
    together(*mixed, engine=engine)
    assert all(isinstance(unit.error, ZeroDivisionError) for unit in bad)
    assert notes(engine) == {f"n{n}" for n in range(30)}
    assert len(runs) <= 2 * len(bad), "the work grows with the batch, not with its square"


@pytest.mark.parametrize("writes", [False, True])
def test_a_refusal_is_the_answer_of_its_unit_and_undoes_what_it_wrote(
    engine: Engine, writes: bool
) -> None:
    def refuse(connection: Connection) -> None:
        if writes:
            write_note(connection, "half")
        raise Conflict("Mailbox exists")

    refused = Unit(work=refuse)
    before, after = note("before"), note("after")
    together(before, refused, after, engine=engine)
    assert isinstance(refused.error, Conflict)
    assert (before.error, after.error) == (None, None)
    assert notes(engine) == {"before", "after"}


def test_the_values_of_one_set_writer_are_written_in_one_call(engine: Engine) -> None:
    calls: list[list[str]] = []

    def write_all(connection: Connection, values: list[str]) -> Sequence[str | MailError]:
        calls.append(values)
        for value in values:
            if value != "full":
                write_note(connection, value)
        return [OverQuota() if value == "full" else value.upper() for value in values]

    a, full, b = (Unit(writer=write_all, value=value) for value in ("a", "full", "b"))
    together(a, note("between"), full, b, engine=engine)
    assert calls == [["a", "full", "b"]]
    assert (a.result, b.result) == ("A", "B")
    assert isinstance(full.error, OverQuota)
    assert notes(engine) == {"a", "b", "between"}


def test_when_a_set_writer_raises_each_value_is_tried_alone(engine: Engine) -> None:
    def write_all(connection: Connection, values: list[str]) -> list[str]:
        for value in values:
            write_note(connection, value)
            if value == "bad":
                raise ZeroDivisionError
        return values

    units = [Unit(writer=write_all, value=value) for value in ("a", "bad", "b")]
    together(*units, note("other"), engine=engine)
    assert [type(unit.error) for unit in units] == [type(None), ZeroDivisionError, type(None)]
    assert notes(engine) == {"a", "b", "other"}


def test_a_report_tells_what_was_committed_and_no_more(engine: Engine) -> None:
    def change(account: int, *, bug: bool = False) -> Unit:
        def work(connection: Connection) -> None:
            changes.touched(connection, account, 7, 100 + account)
            changes.bump(connection, f"kind{account}")
            if bug:
                raise ZeroDivisionError

        return Unit(work=work)

    with Running(engine) as running:
        reports = running.run(change(1), change(2, bug=True), change(3))
    told = {key: modseq for report in reports for key, modseq in report.modseqs.items()}
    assert told == {(1, 7): 101, (3, 7): 103}
    assert {kind for report in reports for kind in report.kinds} == {"kind1", "kind3"}


def test_a_unit_that_nobody_waits_for_any_more_is_passed_over(engine: Engine) -> None:
    left = note("left")
    left.answered = True
    together(left_marker := note("kept"), engine=engine)
    with Running(engine) as running:
        running.writer.submit(left)
        running.run(note("last"))
    assert left_marker.done
    assert notes(engine) == {"kept", "last"}


def test_stopping_writes_what_is_queued(engine: Engine) -> None:
    running = Running(engine)
    units = [note(f"n{n}") for n in range(100)]
    for unit in units:
        running.writer.submit(unit)
    with running:
        pass
    assert len(notes(engine)) == 100


def test_a_failed_commit_is_told_to_its_units_and_the_next_ones_find_a_new_connection(
    engine: Engine,
) -> None:
    connections: list[object] = []
    failures = [OSError("the disk went away")]

    def commit(connection: Connection) -> None:
        connections.append(connection.connection.driver_connection)
        if failures:
            raise failures.pop()

    event.listen(engine.writing, "commit", commit)
    running = Running(engine)
    lost = [note("a"), note("b")]
    for unit in lost:
        running.writer.submit(unit)
    with running:
        running.owner.wait_for(*lost)
        assert [type(unit.error) for unit in lost] == [StoreUnavailable, StoreUnavailable]
        assert isinstance(running.owner.health.get(timeout=20), StoreUnavailable)
        again = note("a")
        running.run(again)
        assert again.error is None
        assert running.owner.health.get(timeout=20) is None, "well again"
    assert connections[0] is not connections[1], "nothing is retried on the handle that failed"
    assert notes(engine) - {"probe"} == {"a"}


def test_an_idle_writer_finds_out_by_itself_that_the_store_is_well_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "PROBE_S", 0.01)
    failing = [True, True, True]

    def commit(connection: Connection) -> None:
        if failing:
            failing.pop()
            raise OSError("no")

    event.listen(engine.writing, "commit", commit)
    with Running(engine) as running:
        running.run(note("a"))
        tellings = [running.owner.health.get(timeout=20) for _ in range(4)]
    assert [type(telling) for telling in tellings] == [StoreUnavailable] * 3 + [type(None)]


def test_the_text_of_a_failure_holds_no_sql(engine: Engine) -> None:
    with engine.read() as connection:
        before = connection.execute(text("SELECT count(*) FROM generation")).scalar()

    def refused(connection: Connection) -> None:
        raise OSError("INSERT INTO secrets")

    event.listen(engine.writing, "commit", refused)
    unit = note("a")
    together(unit, engine=engine)
    assert isinstance(unit.error, StoreUnavailable)
    assert unit.error.text == "Store unavailable, try again later"
    assert "INSERT" in unit.error.detail
    assert before == 0
