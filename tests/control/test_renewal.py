"""When certificates of authorities are renewed, in virtual time; the authority is a list."""

from __future__ import annotations

import socket
import subprocess
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from mailtwist.control.renewal import EVERY_S, FIRST_S, LEASE, PAUSE_S, Renewal
from mailtwist.errors import Conflict, ProtocolViolation
from mailtwist.store import acme, certificates, lease
from mailtwist.store.acme import Order
from mailtwist.store.database import Inline
from mailtwist.tls.acme.values import OrderFailed
from tests.support.now import now

HOUR = 3_600_000_000
START = 1_800_000_000


class Orders:
    """An issuance that succeeds, or fails as it is told."""

    def __init__(self, database: Inline, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self.asked: list[str] = []
        self.made: list[str] = []
        self.failing: dict[str, Exception] = {}
        self.said: dict[str, int] = {}
        self.waits: Deferred[None] | None = None
        self.is_stopped = False

    def hours(self) -> int:
        return int(self._clock.seconds() * 1e6)

    async def ask_when(self, order: Order) -> Order:
        self.asked.append(order.hostname)
        renew_at = self.said.get(order.hostname, order.renew_at or self.hours() + 100 * HOUR)
        await self._database.write(
            lambda connection: acme.note_renewal(
                connection, order, renew_at=renew_at, ask_at=self.hours() + 6 * HOUR
            )
        )
        with self._database.engine.read() as connection:
            return acme.find(connection, order.reference_id)

    async def issue(self, reference_id: str, email: str = "", *, by_schedule: bool = False) -> None:
        assert (email, by_schedule) == ("", True)
        with self._database.engine.read() as connection:
            order = acme.find(connection, reference_id)
        if self.waits is not None:
            await self.waits
        self.made.append(order.hostname)
        if order.hostname in self.failing:
            raise self.failing[order.hostname]
        renew(self._database, order.hostname, self.hours() + 1000 * HOUR, self.hours() + 6 * HOUR)

    async def stop(self, clock: Any, seconds: float) -> None:
        self.is_stopped = True


def renew(database: Inline, hostname: str, renew_at: int | None, ask_at: int) -> None:
    with database.engine.write() as connection:
        connection.exec_driver_sql(
            f"UPDATE certificate SET renew_at = {'NULL' if renew_at is None else renew_at},"
            f" ask_at = {ask_at} WHERE hostname = '{hostname}'"
        )


class World:
    def __init__(self, database: Inline) -> None:
        self.database = database
        self.clock = Clock()
        self.clock.advance(START)
        self.orders = Orders(database, self.clock)
        self.renewal = Renewal(
            database,
            self.orders,  # type: ignore[arg-type]
            clock=self.clock,
            now=self.orders.hours,
        )

    def row(self, hostname: str, renew_in: int | None, ask_in: int = 6) -> None:
        """A certificate of an authority, to be renewed and asked about in so many hours."""
        at = self.orders.hours()
        with self.database.engine.write() as connection:
            certificates.add(connection, hostname, hostname, now=at)
            connection.exec_driver_sql(
                "UPDATE certificate SET issuer = 'acme', certificate_pem = 'PEM'"
                f" WHERE hostname = '{hostname}'"
            )
        due = None if renew_in is None else at + renew_in * HOUR
        renew(self.database, hostname, due, at + ask_in * HOUR)

    def look(self) -> None:
        """One sweep, with its pauses."""
        Deferred.fromCoroutine(self.renewal.sweep())
        self.clock.pump([PAUSE_S] * 20)

    def order(self, hostname: str) -> Order:
        with self.database.engine.read() as connection:
            return acme.find(connection, hostname)

    def value(self, statement: str) -> Any:
        with self.database.engine.read() as connection:
            return connection.exec_driver_sql(statement).scalar()


@pytest.fixture
def world(database: Inline) -> World:
    return World(database)


@pytest.mark.mission("DAP-199")
def test_it_looks_at_the_start_and_then_every_hour(world: World) -> None:
    world.row("soon.example", 2)
    world.renewal.start()
    world.clock.advance(FIRST_S)
    assert world.orders.made == []
    for hour in (1, 2, 3, 4):
        world.clock.pump([EVERY_S - 1, 1])
        assert world.orders.made == (["soon.example"] if hour >= 2 else [])


def test_what_is_due_at_the_start_is_renewed_then(world: World) -> None:
    world.row("due.example", -1)
    world.renewal.start()
    assert world.orders.made == []
    world.clock.advance(FIRST_S)
    assert world.orders.made == ["due.example"]


def test_the_authority_may_bring_a_renewal_forward_or_put_it_off(world: World) -> None:
    at = world.orders.hours()
    world.row("early.example", 500, ask_in=-1)
    world.row("late.example", -1, ask_in=-1)
    world.row("new.example", None)
    world.row("silent.example", 500)
    world.orders.said = {"early.example": at - HOUR, "late.example": at + 9 * HOUR}
    world.look()
    assert world.orders.asked == ["early.example", "late.example", "new.example"]
    assert world.orders.made == ["early.example"]


def test_one_that_fails_keeps_no_other_from_its_turn(world: World) -> None:
    for name in ("a.example", "b.example", "c.example"):
        world.row(name, -1)
    world.orders.failing = {
        "a.example": OrderFailed("no"),
        "b.example": Conflict("An order for b.example is under way"),
    }
    world.look()
    assert world.orders.made == ["a.example", "b.example", "c.example"]
    # What had no chance to put itself off is put off; what somebody else does is not.
    assert world.order("a.example").failures == 1
    assert world.value("SELECT last_error FROM certificate WHERE hostname = 'a.example'") == "no"
    assert world.order("b.example").failures == 0
    world.look()
    assert world.orders.made[3:] == ["b.example"]


def test_a_fault_of_our_own_keeps_no_other_from_its_turn(world: World) -> None:
    for name in ("a.example", "b.example"):
        world.row(name, -1)
    world.orders.failing = {"a.example": ZeroDivisionError()}
    failures: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mailtwist.control.renewal.log.failure", lambda *a, **k: failures.append(k))
        world.look()
    assert world.orders.made == ["a.example", "b.example"]
    assert failures == [{"name": "a.example"}]
    assert world.order("a.example").failures == 1


def test_what_has_put_itself_off_counts_once(world: World) -> None:
    world.row("a.example", -1)
    issue = world.orders.issue

    async def fail(reference_id: str, email: str = "", *, by_schedule: bool = False) -> None:
        await issue(reference_id, email, by_schedule=by_schedule)
        with world.database.engine.write() as connection:
            order = acme.find(connection, reference_id)
            later = world.orders.hours() + 2 * HOUR
            acme.note_failure(connection, order, "no", retry_at=later, held_until=0)
        raise ProtocolViolation("no")

    world.orders.issue = fail  # type: ignore[method-assign]
    world.look()
    assert world.order("a.example").failures == 1


def test_many_are_renewed_in_pages(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailtwist.control.renewal.PAGE", 2)
    names = [f"{each}.example" for each in "abcde"]
    for name in names:
        world.row(name, -1)
    world.orders.failing = {"b.example": OrderFailed("no")}
    world.look()
    assert world.orders.made == names


def test_another_node_renews_for_all(world: World) -> None:
    world.row("due.example", -1)
    at = world.orders.hours()
    with world.database.engine.write() as connection:
        connection.exec_driver_sql(
            f"INSERT INTO node (node_id, name, version, seen_at) VALUES (9, 'far/1/x', '', {at})"
        )
        assert lease.take(connection, LEASE, 9, now=at, seconds=3600)
    world.look()
    assert world.orders.made == []


def test_a_killed_process_keeps_no_lease(world: World) -> None:
    world.row("due.example", -1)
    at = world.orders.hours()
    gone = subprocess.Popen(["true"])
    gone.wait()
    name = f"{socket.gethostname()}/{gone.pid}/x"
    with world.database.engine.write() as connection:
        connection.exec_driver_sql(
            f"INSERT INTO node (node_id, name, version, seen_at) VALUES (9, '{name}', '', {at})"
        )
        assert lease.take(connection, LEASE, 9, now=at, seconds=3600)
    world.look()
    assert world.orders.made == ["due.example"]


def test_a_server_that_stops_gives_the_lease_back_and_renews_no_more(world: World) -> None:
    for name in ("a.example", "b.example"):
        world.row(name, -1)
    world.orders.waits = Deferred()
    world.renewal.start()
    world.clock.advance(FIRST_S)
    assert world.value("SELECT count(*) FROM lease") == 1
    now(world.renewal.stop())
    assert world.orders.is_stopped
    assert world.value("SELECT count(*) FROM lease") == 0
    world.clock.pump([PAUSE_S] * 20)
    world.clock.advance(EVERY_S)
    assert world.orders.made == []


def test_a_server_that_stops_before_its_first_look_looks_never(world: World) -> None:
    world.row("due.example", -1)
    world.renewal.start()
    now(world.renewal.stop())
    world.clock.advance(EVERY_S)
    assert world.orders.made == []
