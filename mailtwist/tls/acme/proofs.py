"""What proves that a name is ours: rows that HTTP listeners answer from, or records in DNS.

Standards: RFC 8555 §8.3 (http-01), §8.4 (dns-01).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from twisted.logger import Logger

from mailtwist.config.outgoing import Acme
from mailtwist.errors import MailError, TemporaryFailure
from mailtwist.store import acme
from mailtwist.tls.acme import dns
from mailtwist.tls.acme.threads import Steps
from mailtwist.tls.acme.values import DNS, Challenge

log = Logger()

# As long as an order may take.
CHALLENGE_S: Final = 1800.0
# Reads that wait; an authority asks a few times.
MOST_QUESTIONS: Final = 64


class Proofs:
    """``steps``: where it blocks; ``now``: in microseconds."""

    def __init__(
        self, database: Any, settings: Acme, *, steps: Steps, now: Callable[[], int]
    ) -> None:
        self._database = database
        self._settings = settings
        self._steps = steps
        self._now = now

    async def publish(self, challenges: Sequence[Challenge]) -> None:
        """Have every challenge answered before the authority looks. Raises: OrderFailed."""
        if self._settings.challenge == DNS:
            stop = self._steps.stop
            records = await self._steps.run(partial(dns.records_of, self._settings, stop))
            wait_s = self._settings.dns_wait if challenges else 0.0
            await self._steps.run(
                partial(dns.publish, records, challenges, wait_s=wait_s, stop=stop)
            )
            return
        now = self._now()
        await self._database.write(
            partial(
                acme.put_challenges,
                answers=[(each.token, each.answer) for each in challenges],
                now=now,
                until=now + int(CHALLENGE_S * 1e6),
            )
        )

    async def withdraw(self, challenges: Sequence[Challenge]) -> None:
        """Leave nothing behind; what cannot be removed is told in the log alone."""
        try:
            if self._settings.challenge == DNS:
                records = await self._steps.run_anyway(partial(dns.records_of, self._settings))
                for failure in await self._steps.run_anyway(
                    partial(dns.withdraw, records, challenges)
                ):
                    log.warn("{error}", error=failure.text)
                return
            tokens = [each.token for each in challenges]
            await self._database.write(partial(acme.remove_challenges, tokens=tokens))
        except MailError as error:
            log.warn("a challenge stays: {error}", error=str(error))


class Challenges:
    """What HTTP listeners answer at ``/.well-known/acme-challenge/``."""

    def __init__(self, database: Any, now: Callable[[], int]) -> None:
        self._database = database
        self._now = now
        self._asking = 0

    async def answer(self, token: str) -> str | None:
        """The key authorization of a token, while its order is under way.

        Raises: TemporaryFailure when too many ask.
        """
        if self._asking >= MOST_QUESTIONS:
            raise TemporaryFailure("Too many questions at once")
        self._asking += 1
        try:
            found: str | None = await self._database.read(
                partial(acme.answer, token=token, now=self._now())
            )
        finally:
            self._asking -= 1
        return found
