"""Lanes: where messages wait for their turn at one next hop, and what is known of that hop."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Final

from twisted.internet.defer import Deferred

from mailtwist.net.session_id import new_session_id
from mailtwist.queue.ports import Session
from mailtwist.queue.schedule import SECOND, suspension
from mailtwist.queue.values import RemoteReply, Route
from mailtwist.queue.window import Held
from mailtwist.store.queue.values import Message, Priority

# What waits in one lane; the rest stays in the table, so that no lane fills the window.
PENDING: Final = 100
# A destination shows that it takes mail before it is given more connections than these.
FIRST_SESSIONS: Final = 5
# A host that refused one more connection while others were open is not asked for more so long.
CEILING_US: Final = 300 * SECOND
# So many sessions in a row that end in the middle of a message are the hop's failure; fewer may be
# a message's.
MAX_LOSSES: Final = 3
# Names that a lane keeps of those it told; they are few but for a smart host.
MAX_TOLD: Final = 10_000


@dataclass(frozen=True, slots=True)
class LaneKey:
    """Sessions are shared by messages that differ in none of these.

    ``is_strict``: for messages that want REQUIRETLS, whose sessions are verified.
    """

    route: str
    hostname: str
    is_strict: bool


class Job:
    """One message's recipients behind one next hop, from the lease to the record.

    ``data``: the whole content when it is at hand, else None. ``is_retry``: a reused session
    turned out to be dead; that was no attempt. ``ended`` fires when nothing is left to do.
    """

    __slots__ = (
        "claimed_at",
        "data",
        "ended",
        "held",
        "is_retry",
        "lane",
        "lease_until",
        "message",
    )

    def __init__(
        self, message: Message, data: bytes | None, held: Held, lease_until: int, lane: Lane
    ) -> None:
        self.claimed_at = 0
        self.message = message
        self.data = data
        self.held = held
        self.lease_until = lease_until
        self.lane = lane
        self.is_retry = False
        self.ended: Deferred[None] | None = None

    @property
    def keys(self) -> list[tuple[int, int]]:
        """Of its rows."""
        queue_id = self.message.queue_id
        return [(queue_id, recipient.n) for recipient in self.message.recipients]


class Line:
    """A place for one session, of which there are at most ``queue.max_workers``.

    ``name``: in log lines, as the session id of a client's connection is.
    """

    __slots__ = ("idle_since", "is_recording", "name", "served", "session")

    def __init__(self) -> None:
        self.name = new_session_id()
        self.session: Session | None = None
        self.served = 0  # messages on this session
        self.idle_since = 0.0
        self.is_recording = False

    @property
    def is_open(self) -> bool:
        return self.session is not None and self.session.is_open


class Lane:
    """The messages for one next hop, its sessions, and how it fares."""

    __slots__ = (
        "at_work",
        "ceiling",
        "ceiling_until",
        "failures",
        "idle",
        "is_paused",
        "is_proven",
        "key",
        "limit",
        "losses",
        "next_send",
        "pending",
        "reply",
        "route",
        "suspended_until",
        "told",
        "waiting",
        "was_skipped",
    )

    def __init__(self, key: LaneKey, route: Route, per_domain: int) -> None:
        self.key = key
        self.route = route
        self.waiting: tuple[deque[Job], ...] = tuple(deque() for _ in Priority)
        self.pending = 0  # jobs in `waiting`
        self.was_skipped = False  # there may be more in the table
        self.idle: list[Line] = []
        self.at_work: set[Line] = set()
        self.limit = min(FIRST_SESSIONS, per_domain)
        self.ceiling = 0
        self.ceiling_until = 0
        self.next_send = 0.0  # outbound.rate
        self.is_paused = False
        self.is_proven = False  # the hop has answered since we know it
        self.failures = 0
        self.losses = 0  # sessions in a row that ended in the middle of a message
        self.suspended_until = 0
        self.reply = ""
        self.told: dict[str, int] = {}  # destinations whose rows say that the hop is down; since

    @property
    def is_full(self) -> bool:
        return self.pending >= PENDING

    def put(self, job: Job) -> None:
        self.waiting[job.message.priority].append(job)
        self.pending += 1

    def put_back(self, job: Job) -> None:
        """Put a job in front: its turn came too early."""
        self.waiting[job.message.priority].appendleft(job)
        self.pending += 1

    def pop(self) -> Job | None:
        for jobs in self.waiting:
            if jobs:
                self.pending -= 1
                return jobs.popleft()
        return None

    def pop_all(self) -> list[Job]:
        jobs = list(self.jobs())
        for waiting in self.waiting:
            waiting.clear()
        self.pending = 0
        return jobs

    def jobs(self) -> Iterator[Job]:
        """Those that wait, in the order of their turns."""
        return chain.from_iterable(self.waiting)

    def destinations(self) -> set[str]:
        """Of the jobs that wait."""
        recipients = (job.message.recipients for job in self.jobs())
        return {recipient.destination for recipient in chain.from_iterable(recipients)}

    # -- how the next hop fares ---------------------------------------------------------------

    def allowed(self, now: int, per_domain: int, *, is_scarce: bool) -> int:
        """How many sessions at once; ``is_scarce``: others may need them."""
        if self.failures or (is_scarce and not self.is_proven):
            return 1  # one message finds out whether it is there
        limit = min(self.limit, per_domain)
        return min(limit, self.ceiling) if now < self.ceiling_until else limit

    def succeeded(self) -> None:
        """A message was taken or refused in an orderly way: the hop is alive."""
        self.limit += 1
        self.losses = 0
        self.is_proven = True
        if self.failures:
            self.failures = self.suspended_until = 0
            self.told.clear()

    def tell(self, names: Iterable[str], now: int) -> None:
        """Note that the rows of these destinations say that the hop is down."""
        if len(self.told) > MAX_TOLD:
            self.told.clear()
        self.told.update(dict.fromkeys(names, now))

    def is_flushed(self, job: Job) -> bool:
        """Whether a job was claimed although its destination's row said that it rests."""
        told = self.told
        return any(
            told.get(recipient.destination, job.claimed_at) < job.claimed_at
            for recipient in job.message.recipients
        )

    def failed(self, reply: RemoteReply, *, waits: tuple[float, ...], now: int) -> None:
        """No session can be had. Sessions that failed together count once."""
        if now < self.suspended_until:
            return
        self.failures += 1
        self.limit = 1
        self.reply = str(reply)
        self.suspended_until = suspension(self.failures, schedule=waits, now=now)

    def is_losing(self) -> bool:
        """Note a session that ended in the middle of a message; whether the hop is to blame."""
        self.losses += 1
        self.is_proven = False
        return self.failures > 0 or self.losses >= MAX_LOSSES

    def is_sated(self, now: int) -> bool:
        """Whether a failed connection only says that there are enough; if so that is kept."""
        others = len(self.idle) + sum(line.is_open for line in self.at_work)
        if not others or self.failures:
            return False
        self.ceiling, self.ceiling_until = others, now + CEILING_US
        return True
