"""Five days in a second: the engine on a clock that the test moves."""

from __future__ import annotations

import email
import email.policy
import time
from dataclasses import replace
from typing import Any

import pytest

from mailtwist.queue.intake import Intake
from mailtwist.queue.reports import Reports
from mailtwist.queue.schedule import SECOND
from mailtwist.store.content import Spooled
from mailtwist.store.directory import Directory
from mailtwist.store.engine import Connection
from mailtwist.store.queue import claims, rows
from mailtwist.store.queue.values import State
from tests.queue.fakes import LATER, OK, REFUSED, START, Post, World, started_clock
from tests.store.making import STRUCTURE, account
from tests.support.now import now as done

DAY = 86400


class Days(Post):
    """A post office whose reports are the real ones, and that can wait."""

    def __init__(self, database, world, **changes):
        super().__init__(database, world, **changes)
        intake = Intake(
            database, Directory(database, self.settings), settings=self.settings, now=self._now
        )
        reports: Any = Reports(database, intake, settings=self.settings, now=self._now)
        self.reports = intake.reports = reports
        self.runner = self.make_runner()

    def _now(self):
        return self.now

    def jump(self) -> None:
        """To the next moment at which something is due."""

        def work(connection: Connection) -> list[int]:
            attended = connection.exec_driver_sql(
                "SELECT min(attend_at) FROM queue_message WHERE finished_at IS NULL"
            ).scalar()
            return [each for each in (claims.next_due(connection), attended) if each is not None]

        moments = done(self.database.read(work))
        self.clock.advance(max(min(moments, default=self.now + SECOND) - self.now, 0) / SECOND)
        # What takes a moment: rows that came together, the looks of every few seconds.
        self.clock.pump([0.05] * 4)

    def letters(self) -> list[tuple[float, str, str]]:
        """Seconds since the start, subject and status of what came into the sender's INBOX."""
        rows = self.rows(
            "m.internaldate, c.data",
            "message m JOIN email e ON e.email_id = m.email_id"
            " JOIN content c ON c.content_id = e.content_id",
            "1=1 ORDER BY m.uid",
        )
        found = []
        for moment, data in rows:
            parsed = email.message_from_bytes(bytes(data), policy=email.policy.default)
            assert parsed.get_content_type() == "multipart/report"
            parts: Any = parsed.walk()
            status = next(
                part for part in parts if part.get_content_type() == "message/delivery-status"
            )
            fields = status.get_payload()[1]
            found.append((moment / SECOND - START, str(fields["Action"]), str(fields)))
        return found


@pytest.fixture
def days(database, engine):
    clock = started_clock()
    with engine.write() as connection:
        account(connection, "anna@example.com")
    post = Days(database, World(clock, replies={"*": LATER}), domains=("example.com",))
    done(post.runner.start())
    yield post
    done(post.runner.stop())


def expected_attempts(waits: tuple[float, ...], end: float) -> list[float]:
    moments, at = [0.0], 0.0
    waits = (*waits, *[waits[-1]] * 100)
    for wait in waits:
        at += wait
        if at > end:
            return moments
        moments.append(at)
    raise AssertionError


@pytest.mark.mission("ELE-49", "DAP-142")
def test_five_days_of_retries_a_warning_after_four_hours_and_a_bounce(days):
    begun = time.monotonic()
    days.submit("bob@far.example", is_hot=True)
    while days.states() == [State.WAITING]:
        days.jump()
        assert days.clock.seconds() < START + 6 * DAY
    expected = expected_attempts(days.settings.queue.retry_schedule, 5 * DAY)
    assert days.attempts() == pytest.approx(expected, abs=0.3 * len(expected))
    assert days.states() == [State.FAILED]
    letters = days.letters()
    assert [action for _, action, _ in letters] == ["delayed", "failed"]
    assert letters[0][0] == pytest.approx(4 * 3600, abs=11)
    assert letters[1][0] == pytest.approx(expected[-1], abs=10)
    assert "4.4.7" in letters[1][2]
    assert "451 4.7.1 try later" in " ".join(letters[1][2].split())
    assert time.monotonic() - begun < 10


def test_each_attempt_is_at_its_time(days):
    days.submit("bob@far.example", is_hot=True)
    for _ in range(6):
        days.jump()
    gaps = [round(b - a) for a, b in zip(days.attempts(), days.attempts()[1:], strict=False)]
    assert gaps[:6] == [120, 240, 480, 960, 1920, 3600]


def test_what_nobody_could_try_is_warned_of_and_returned_too(days):
    """Its destination rests all the time behind another message's attempts."""
    days.world.down["192.0.2.1"] = REFUSED
    for n in range(3):
        days.submit(f"bob{n}@far.example")
    while set(days.states()) != {State.FAILED}:
        days.jump()
        assert days.clock.seconds() < START + 6 * DAY
    actions = sorted(action for _, action, _ in days.letters())
    assert actions == ["delayed"] * 3 + ["failed"] * 3


DEAD = 100_000


def dead_rows(connection: Connection, post: Days, count: int) -> None:
    """Messages for a destination that nobody reaches, written in bulk."""
    post_message = post.message("bob@dead.example")
    numbers = range(1, count + 1)
    connection.exec_driver_sql(
        "INSERT INTO content (content_id, octets, sha256, data) VALUES (1, 2, 'x', 'xx')"
        if connection.dialect.name == "sqlite"
        else "INSERT INTO content (content_id, octets, sha256, data)"
        " VALUES (1, 2, '\\x00'::bytea, 'xx'::bytea)"
    )
    spooled = Spooled(1, 2, b"x", b"xx", STRUCTURE)
    for start in range(0, count, 5000):
        items = [
            (replace(post_message, queue_id=n), spooled, None)
            for n in numbers[start : start + 5000]
        ]
        rows.insert(connection, items)


@pytest.mark.slow
def test_a_hundred_thousand_rows_of_a_dead_host_do_not_delay_a_live_one(days, engine):
    days.world.hosts["dead.example"] = ["192.0.2.66"]
    days.world.down["192.0.2.66"] = REFUSED
    days.world.replies = {"*": OK}
    with engine.write() as connection:
        dead_rows(connection, days, DEAD)
    days.runner.wake()
    days.clock.pump([0.05] * 4)
    assert days.world.connects, "the dead host is tried"
    tried = len(days.world.connects)
    begun = time.monotonic()
    for n in range(50):
        days.submit(f"carol{n}@live.example")
        days.clock.pump([0.05] * 2)
    took = (time.monotonic() - begun) / 50
    assert len(days.world.sent) == 50
    assert len(days.world.connects) - tried < 5, "the dead host is left alone"
    assert days.runner.active <= 1000
    assert took < 0.2
    with engine.write() as connection:
        connection.exec_driver_sql("DELETE FROM queue_recipient WHERE destination = 'dead.example'")
        connection.exec_driver_sql(f"DELETE FROM queue_attempt WHERE queue_id <= {DEAD}")
        connection.exec_driver_sql(f"DELETE FROM queue_message WHERE queue_id <= {DEAD}")
        connection.exec_driver_sql("DELETE FROM queue_destination WHERE name = 'dead.example'")
        connection.exec_driver_sql("DELETE FROM content WHERE content_id = 1")
