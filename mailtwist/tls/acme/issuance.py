"""A certificate from an authority into its row: one order, from the account to the chain.

What blocks runs in threads; rows are written between its steps. The challenges of http-01 are
rows, so every HTTP listener of every node answers them, also for an order of the command line.
Whatever goes wrong, the certificate that the row has stays in use.

Standards: RFC 8555; RFC 9773.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.task import deferLater
from twisted.logger import Logger

from mailtwist.config.outgoing import Acme
from mailtwist.errors import Conflict, MailError, ProtocolViolation, TemporaryFailure
from mailtwist.mail.address import parse_address
from mailtwist.store import acme, lease
from mailtwist.store.acme import Order
from mailtwist.store.certificates import ACME
from mailtwist.store.secrets import Secrets
from mailtwist.tls.acme.accounts import Accounts
from mailtwist.tls.acme.chains import RenewalTimes, checked, make_key, read
from mailtwist.tls.acme.proofs import Proofs
from mailtwist.tls.acme.threads import Steps, Threads, shielded
from mailtwist.tls.acme.values import (
    AccountUnknown,
    Challenge,
    OrderFailed,
    names_of,
)

if TYPE_CHECKING:
    from mailtwist.tls.acme.authority import Authority

log = Logger()

# One order in all: the checks, the hook of each name, the wait for DNS.
LEASE_S: Final = 1800.0
# RFC 9773 §4.3.3
ASK_S: Final = 6 * 3600.0
ASK_SELDOM_S: Final = 86400.0
# After the first failure; each further one doubles it.
RETRY_S: Final = 3600.0
LONGEST_RETRY_S: Final = 86400.0
# Daptin's words.
NO_EMAIL: Final = "email or mobile missing"
# Each has a thread.
MOST_ORDERS: Final = 16


class Issuance:
    """One in a process. ``threads``: where it blocks, for minutes; ``now``: microseconds."""

    def __init__(
        self,
        database: Any,
        settings: Acme,
        *,
        secrets: Secrets,
        threads: Threads,
        now: Callable[[], int],
    ) -> None:
        self._database = database
        self._settings = settings
        self._secrets = secrets
        self._now = now
        self._steps = steps = Steps(threads)
        self._accounts = Accounts(database, settings, secrets=secrets, steps=steps, now=now)
        self._proofs = Proofs(database, settings, steps=steps, now=now)
        self._running: set[int] = set()

    async def stop(self, clock: Any, seconds: float) -> None:
        """Let orders under way end at their next step, within some time; begin no other."""
        self._steps.stop.set()
        until = clock.seconds() + seconds
        while self._running and clock.seconds() < until:
            await deferLater(clock, 0.1)

    async def issue(self, reference_id: str, email: str = "", *, by_schedule: bool = False) -> None:
        """Order a certificate for a row; it is stored and in use on return.

        ``email``: whom the authority writes to, by default the address of the settings or of the
        account; ``by_schedule``: nobody waits for it. It goes on when who waits is cancelled.

        Raises: NotFound, ProtocolViolation (the host name, the address), Conflict (an order is
        under way, or the row has changed since), OrderFailed with the reason.
        """
        await shielded(self._issue(reference_id, email, by_schedule))

    async def _issue(self, reference_id: str, email: str, by_schedule: bool) -> None:
        order = await self._database.read(partial(acme.find, reference_id=reference_id))
        names = names_of(order.hostname, self._settings.challenge)
        if order.held_until > self._now():
            until = _moment(order.held_until).isoformat(timespec="seconds")
            raise OrderFailed(f"{order.hostname}: the authority takes no order before {until}")
        email = await self._address(email)
        await self._begin(order)
        try:
            await self._fulfil(order, names, email, by_schedule)
        except MailError as error:
            await self._failed(order, error)
            raise
        finally:
            await self._end(order)
        log.info("certificate issued", name=order.hostname, authority=self._settings.directory_url)

    async def _address(self, email: str) -> str:
        """Whom the authority writes to. Raises: ProtocolViolation."""
        chosen = email or self._settings.email
        if not chosen:
            account = await self._accounts.row()
            if account is None or not account.url:
                raise ProtocolViolation(NO_EMAIL)
            return account.email
        try:
            return str(parse_address(chosen))
        except ProtocolViolation as error:
            raise ProtocolViolation("invalid email") from error

    # -- one at a time ----------------------------------------------------------------------

    async def _begin(self, order: Order) -> None:
        """Raises: Conflict when an order for the row is under way, here or on another node."""
        if len(self._running) >= MOST_ORDERS:
            raise TemporaryFailure(f"{MOST_ORDERS} orders are under way, try again later")
        if order.certificate_id in self._running:
            raise Conflict(f"An order for {order.hostname} is under way")
        self._running.add(order.certificate_id)
        try:
            taken = not await self._database.write(partial(self._take, order=order))
        except BaseException:
            self._running.discard(order.certificate_id)
            raise
        if taken:
            self._running.discard(order.certificate_id)
            raise Conflict(f"Another node orders a certificate for {order.hostname}")

    def _take(self, connection: Any, order: Order) -> bool:
        node = self._database.ids.node_id
        return acme.take_lease(connection, _lease(order), node, now=self._now(), seconds=LEASE_S)

    async def _end(self, order: Order) -> None:
        self._running.discard(order.certificate_id)
        node = self._database.ids.node_id
        await self._database.write(
            lambda connection: lease.release(connection, _lease(order), node)
        )

    async def _failed(self, order: Order, error: MailError) -> None:
        """Remember why, and when to try again."""
        if self._steps.stop.is_set():
            return  # it says nothing of the order
        now = self._now()
        pause = min(RETRY_S * 2.0 ** min(order.failures, 10), LONGEST_RETRY_S)
        held = error.retry_after_s if isinstance(error, OrderFailed) else 0.0
        log.warn("no certificate for {name}: {error}", name=order.hostname, error=str(error))
        await self._database.write(
            partial(
                acme.note_failure,
                order=order,
                error=error.text,
                retry_at=now + int(max(pause, held) * 1e6),
                held_until=now + int(held * 1e6) if held else 0,
            )
        )

    # -- the order --------------------------------------------------------------------------

    async def _fulfil(
        self, order: Order, names: Sequence[str], email: str, by_schedule: bool
    ) -> None:
        key = await self._steps.run(partial(make_key, self._settings.key_type))
        authority, challenges = await self._ordered(order, names, key, email)
        try:
            await self._proofs.publish(challenges)
            chain = await self._steps.run(authority.finish)
        finally:
            await self._proofs.withdraw(challenges)
        await self._keep(order, names, chain, key, by_schedule)

    async def _ordered(
        self, order: Order, names: Sequence[str], key: str, email: str
    ) -> tuple[Authority, tuple[Challenge, ...]]:
        """An order at the authority; an account that it has forgotten is made anew, once."""
        for last in (False, True):
            authority = await self._accounts.signed_in(email)
            replaces = order.certificate if order.issuer == ACME else ""
            place = partial(
                authority.order,
                names,
                key.encode("ascii"),
                self._settings.challenge,
                replaces=replaces,
            )
            try:
                return authority, await self._steps.run(place)
            except AccountUnknown:
                if last:
                    raise
                await self._accounts.forget()
        raise AssertionError("the loop returns or raises")

    # -- the certificate --------------------------------------------------------------------

    async def _keep(
        self, order: Order, names: Sequence[str], chain: str, key: str, by_schedule: bool
    ) -> None:
        now = self._now()
        issued = await self._steps.run(
            partial(checked, chain, key, names, _moment(now), self._secrets)
        )
        times = RenewalTimes(issued.not_before, issued.not_after)
        renew_at = times.after_renewal if by_schedule else times.by_rule
        await self._database.write(
            partial(
                acme.keep,
                order=order,
                material=issued.material,
                renew_at=_number(renew_at),
                ask_at=now,
                now=now,
            )
        )

    # -- renewal ----------------------------------------------------------------------------

    async def ask_when(self, order: Order) -> Order:
        """Ask the authority when to renew; the order with what is known then.

        An authority that does not answer changes nothing but when it is asked again.
        Raises: OrderFailed for a certificate that cannot be read.
        """
        now = self._now()
        bundle = await self._steps.run(partial(read, order.certificate))
        by_rule = RenewalTimes(bundle.not_before, bundle.not_after).by_rule
        renew_at = _number(by_rule) if order.renew_at is None else order.renew_at
        pause = ASK_SELDOM_S
        try:
            authority, _ = await self._accounts.connected()
            said, retry_after_s = await self._steps.run(
                partial(authority.renewal_time, order.certificate)
            )
            if said is not None:
                renew_at = _number(min(said, bundle.not_after))
                # RFC 9773 §4.3.2: neither every minute nor never.
                pause = min(max(retry_after_s or ASK_S, 3600.0), ASK_SELDOM_S)
        except OrderFailed as error:
            log.info("renewal information of {name}: {error}", name=order.hostname, error=error)
            pause = ASK_S
        ask_at = now + int(pause * 1e6)
        await self._database.write(
            partial(acme.note_renewal, order=order, renew_at=renew_at, ask_at=ask_at)
        )
        return replace(order, renew_at=renew_at, ask_at=ask_at)


def _lease(order: Order) -> str:
    return f"acme/{order.certificate_id}"


def _moment(microseconds: int) -> datetime:
    return datetime.fromtimestamp(microseconds / 1e6, UTC)


def _number(moment: datetime) -> int:
    return int(moment.timestamp() * 1e6)
