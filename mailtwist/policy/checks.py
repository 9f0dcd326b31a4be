"""What mail without a login is checked for: rows of a table, asked in their order at their stage.

A :class:`Check` is a small asynchronous function of what is known so far with one kind of
answer, a :class:`Verdict`. It has a deadline, and a verdict for when it fails or is late: a
check that is broken stops no mail unless it says so. To add one, add a row.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailtwist.errors import MailError
from mailtwist.mail.address import Address
from mailtwist.mail.dkim_signatures import Candidate

log = Logger()


class Stage(StrEnum):
    """When a check is asked; ``connect`` is asked with the first greeting, which answers it."""

    CONNECT = "connect"
    HELO = "helo"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a client and its message, as far as its session is."""

    client_address: str
    helo: str = ""
    hostname: str = ""  # the name that we greet with
    is_tls: bool = False
    reverse_path: Address | None = None
    forward_path: Address | None = None  # at ``rcpt``
    header: bytes = b""  # at ``data``, as the client sent it
    is_too_long: bool = False  # the header: nothing is known of it
    signatures: tuple[Candidate, ...] = ()
    is_relay: bool = False  # a client of allowed_relays


@dataclass(frozen=True, slots=True)
class Verdict:
    """``refusal``: 5xx refuses, 4xx defers. ``score`` counts against the message; ``results``:
    in the words of Authentication-Results. The empty one passes.
    """

    refusal: MailError | None = None
    score: float = 0.0
    results: tuple[str, ...] = ()

    def __add__(self, other: Verdict) -> Verdict:
        return Verdict(
            self.refusal or other.refusal, self.score + other.score, self.results + other.results
        )


PASS: Final = Verdict()

Run = Callable[[Facts], Awaitable[Verdict]]


@dataclass(frozen=True, slots=True)
class Check:
    """``otherwise``: the verdict when it raises or is late. ``spares_relays``: clients that may
    relay are not asked about. ``concerns``: whether there is anything to ask; most mail has
    nothing for most checks, and then costs next to nothing.
    """

    name: str
    stage: Stage
    run: Run
    deadline_s: float = 5.0
    otherwise: Verdict = PASS
    spares_relays: bool = True
    concerns: Callable[[Facts], bool] = lambda facts: True

    def is_asked(self, facts: Facts) -> bool:
        return self.concerns(facts) and not (self.spares_relays and facts.is_relay)


class Checks:
    """The table. ``clock`` counts the deadlines."""

    def __init__(self, rows: Iterable[Check] = (), *, clock: Any) -> None:
        self.rows = tuple(rows)
        self._clock = clock
        self._by_stage = {
            stage: tuple(row for row in self.rows if row.stage is stage) for stage in Stage
        }

    def has(self, stage: Stage) -> bool:
        """Whether anybody asks at this stage."""
        return bool(self._by_stage[stage])

    async def at(self, stage: Stage, facts: Facts) -> Verdict:
        """The sum of all verdicts, up to the first that refuses or defers."""
        total = PASS
        for check in self._by_stage[stage]:
            if not check.is_asked(facts):
                continue
            total += await self._asked(check, facts)
            if total.refusal is not None:
                log.info(
                    "check refused",
                    check=check.name,
                    client=facts.client_address,
                    code=total.refusal.code,
                    text=total.refusal.text,
                )
                break
        return total

    async def _asked(self, check: Check, facts: Facts) -> Verdict:
        asking: Deferred[Verdict] = Deferred.fromCoroutine(_run(check, facts))
        asking.addTimeout(
            check.deadline_s, self._clock, onTimeoutCancel=lambda *_: self._late(check)
        )
        try:
            return await asking
        except Exception:
            log.failure("check failed", check=check.name)
            return check.otherwise

    @staticmethod
    def _late(check: Check) -> Verdict:
        log.warn("check is late", check=check.name)
        return check.otherwise


async def _run(check: Check, facts: Facts) -> Verdict:
    return await check.run(facts)


NO_CHECKS: Final = Checks(clock=None)
