"""A world without sockets for the runner: hosts that answer as they are told, on a Clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from mailtwist.config.settings import Settings
from mailtwist.queue.delivery import Delivery
from mailtwist.queue.runner import Runner
from mailtwist.queue.schedule import SECOND
from mailtwist.queue.tls_policy import from_settings
from mailtwist.queue.values import (
    Host,
    Outgoing,
    RemoteReply,
    Route,
    Tls,
    TlsPolicy,
    Undeliverable,
)
from mailtwist.store.content import Spool, Spooled
from mailtwist.store.deliver import Acceptance, deliver
from mailtwist.store.queue.values import Attempt, Message, Priority, Recipient
from tests.support.now import now as done

START = 1_800_000_000
OK = RemoteReply(250, "2.0.0", "taken", "end")
LATER = RemoteReply(451, "4.7.1", "try later", "rcpt")
NEVER = RemoteReply(550, "5.1.1", "no such user", "rcpt")
REFUSED = Undeliverable(RemoteReply(451, "4.4.1", "connection refused", "connect", is_ours=True))
LOST = RemoteReply(451, "4.4.2", "connection lost", "mail", is_ours=True)

HEADER = b"Subject: hello\r\n\r\n"


def started_clock() -> Clock:
    clock = Clock()
    clock.advance(START)
    return clock


def settings(**changes: Any) -> Settings:
    """``queue`` and ``outbound`` as dictionaries of what differs from the defaults."""
    base = Settings(hostname="mail.example.com")
    queue = replace(base.queue, **changes.pop("queue", {}))
    outbound = replace(base.outbound, **changes.pop("outbound", {}))
    return replace(base, queue=queue, outbound=outbound, **changes)


@dataclass
class Sent:
    """A transaction that a host saw."""

    at: float
    host: Host
    mail: Outgoing
    data: bytes

    @property
    def addresses(self) -> list[str]:
        return [recipient.address for recipient in self.mail.recipients]


class FakeSession:
    """Answers by the world's rules; with ``world.holds`` only when the test releases it."""

    tls = ""
    is_verified = False

    def __init__(self, world: World, host: Host) -> None:
        self.world = world
        self.host = host
        self.is_open = True
        self.capabilities: Mapping[str, str] = world.capabilities
        if world.tls:
            self.tls, self.is_verified = world.tls, True

    async def deliver(self, mail: Outgoing) -> tuple[RemoteReply, ...]:
        data = b"".join([block async for block in mail.blocks()])
        world = self.world
        if not self.is_open:
            return tuple(LOST for _ in mail.recipients)
        world.sent.append(Sent(world.clock.seconds(), self.host, mail, data))
        if world.holds:
            held: Deferred[None] = Deferred()
            world.held.append(held)
            await held
        if not self.is_open:
            return tuple(LOST for _ in mail.recipients)
        return tuple(world.reply(each.address) for each in mail.recipients)

    async def quit(self) -> None:
        self.abort()

    def abort(self) -> None:
        if self.is_open or self in self.world.sessions:
            self.is_open = False
            self.world.sessions.discard(self)


@dataclass
class World:
    """``replies``: address, domain or "*" to a reply, or a list of them in turn (the last
    repeats). ``hosts``: domain to host addresses or to what is raised. ``down``: addresses.
    ``silent``: addresses that accept and never greet."""

    clock: Clock
    replies: dict[str, Any] = field(default_factory=lambda: {"*": OK})
    hosts: dict[str, Any] = field(default_factory=dict)
    down: dict[str, Undeliverable] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    routes: dict[str, Route] = field(default_factory=dict)
    capabilities: Mapping[str, str] = field(default_factory=dict)
    tls: str = ""
    holds: bool = False
    max_sessions: int = 0  # a host refuses more
    sent: list[Sent] = field(default_factory=list)
    connects: list[tuple[float, str]] = field(default_factory=list)
    policies: list[TlsPolicy] = field(default_factory=list)
    hostnames: list[str] = field(default_factory=list)
    held: deque[Deferred[None]] = field(default_factory=deque)
    sessions: set[FakeSession] = field(default_factory=set)
    peak: int = 0

    def reply(self, address: str) -> RemoteReply:
        domain = address.rpartition("@")[2]
        for key in (address, domain, "*"):
            found = self.replies.get(key)
            if isinstance(found, list):
                return found.pop(0) if len(found) > 1 else found[0]
            if found is not None:
                return found
        raise AssertionError(f"no reply for {address}")

    def release(self, count: int = 1) -> None:
        """Let that many held transactions end."""
        for _ in range(count):
            self.held.popleft().callback(None)

    # The router, the hosts and the connector in one.

    def route(self, destination: str) -> Route:
        found = self.routes.get(destination) or self.routes.get("*")
        return found or Route(destination, tls=TlsPolicy(Tls.OPPORTUNISTIC))

    async def of(self, route: Route, destination: str) -> list[Host]:
        found = self.hosts.get(route.host or destination, ["192.0.2.1"])
        if isinstance(found, Exception):
            raise found
        return [Host(f"mx.{destination}", address, route.port) for address in found]

    async def connect(self, host: Host, **options: Any) -> FakeSession:
        self.connects.append((self.clock.seconds(), host.address))
        self.policies.append(options["policy"])
        self.hostnames.append(options["hostname"])
        if host.address in self.down:
            raise self.down[host.address]
        if host.address in self.silent:
            await Deferred()
        if self.max_sessions and len(self.sessions) >= self.max_sessions:
            raise REFUSED
        session = FakeSession(self, host)
        self.sessions.add(session)
        self.peak = max(self.peak, len(self.sessions))
        return session


class FakeReports:
    """Notes what it is asked for and reports nothing."""

    def __init__(self) -> None:
        self.asked: list[tuple[Message, tuple[Attempt, ...]]] = []
        self.failure: Exception | None = None

    async def of(
        self, message: Message, attempts: Any, *, relayed_to_dsn: bool = False
    ) -> tuple[Acceptance, ...]:
        if self.failure is not None:
            raise self.failure
        self.asked.append((message, tuple(attempts)))
        return ()


class Post:
    """A runner in its world, and what puts messages into the table."""

    def __init__(self, database: Any, world: World | None = None, **changes: Any) -> None:
        self.clock = world.clock if world is not None else started_clock()
        self.world = world or World(self.clock)
        self.database = database
        self.settings = settings(**changes)
        self.reports = FakeReports()
        self.runner = self.make_runner()

    def make_runner(self, database: Any = None) -> Runner:
        database = database or self.database
        delivery = Delivery(
            database,
            hosts=self.world,
            connector=self.world,
            policies=from_settings(self.settings),
            clock=self.clock,
            hostname=self.settings.hostname,
            rewrite=lambda path, by: f"SRS0={path.replace('@', '=')}@{by.rpartition('@')[2]}",
        )
        return Runner(
            database,
            settings=self.settings,
            clock=self.clock,
            router=self.world,
            delivery=delivery,
            reports=self.reports,
        )

    @property
    def now(self) -> int:
        return int(self.clock.seconds() * SECOND)

    def message(self, *addresses: str, **changes: Any) -> Message:
        warn = int(self.settings.queue.delay_warning * SECOND)
        expires_at = self.now + int(self.settings.queue.max_queue_time * SECOND)
        values: dict[str, Any] = {
            "queue_id": self.database.ids.next(),
            "reverse_path": "anna@example.com",
            "recipients": tuple(
                Recipient(n, address, address.rpartition("@")[2])
                for n, address in enumerate(addresses, 1)
            ),
            "received_at": self.now,
            "expires_at": expires_at,
            "attend_at": min(expires_at, self.now + warn) if warn else expires_at,
            "prefix": b"Received: here\r\n",
            "priority": Priority.NORMAL,
        }
        return Message(**values | changes)

    def submit(
        self, *addresses: str, text: bytes = b"hello\r\n", is_hot: bool = False, **changes: Any
    ) -> int:
        """Write a message, and hand it over when it has a lease; its queue id."""
        message = self.message(*addresses, **changes)
        acceptance, spooled = self._acceptance(message, HEADER + text)
        lease = self.runner.reserve(message, spooled.octets) if is_hot else None
        write = self.database.engine
        with write.write() as connection:
            answer = deliver(connection, [with_lease(acceptance, lease)])
            assert not isinstance(answer[0], Exception), answer
        if lease is not None:
            self.runner.take(with_content(message, spooled), spooled.data, lease)
        else:
            self.runner.wake()
        return message.queue_id

    def _acceptance(self, message: Message, data: bytes) -> tuple[Acceptance, Spooled]:
        spool = Spool(self.database, limit=len(data))
        done(spool.write(data))
        spooled = done(spool.finish())
        queued = with_content(message, spooled)
        return Acceptance(spooled, (), message.queue_id, self.now, queue=queued), spooled

    def rows(self, columns: str, table: str, where: str = "1 = 1") -> list[tuple[Any, ...]]:
        with self.database.engine.read() as connection:
            found = connection.exec_driver_sql(f"SELECT {columns} FROM {table} WHERE {where}")
            return [tuple(row) for row in found]

    def states(self) -> list[int]:
        return [row[0] for row in self.rows("state", "queue_recipient", "1=1 ORDER BY queue_id, n")]

    def attempts(self) -> list[float]:
        """Seconds since the start at which something was tried."""
        found = self.rows("started_at", "queue_attempt", "1=1 ORDER BY started_at")
        return [row[0] / SECOND - START for row in found]


def with_content(message: Message, spooled: Spooled) -> Message:
    return replace(
        message,
        content_id=spooled.content_id,
        octets=spooled.octets,
        header_octets=len(HEADER),
    )


def with_lease(acceptance: Acceptance, lease: Any) -> Acceptance:
    return replace(acceptance, lease=lease)


Ready = Callable[[], bool]


def run_until(clock: Clock, ready: Ready, *, seconds: float = 60.0) -> None:
    """Let time pass, from one call to the next, until something is so."""
    end = clock.seconds() + seconds
    while not ready():
        calls = [call.getTime() for call in clock.getDelayedCalls()]
        assert calls, "nothing is planned"
        assert min(calls) <= end, "it does not come about"
        clock.advance(max(0.0, min(calls) - clock.seconds()))
