"""Who is logging in: the one place where a username and a password are compared.

Every protocol calls :meth:`Authenticator.login`. In the order of cost it

1. refuses a peer that is known to be shut out, from memory;
2. reads the account and both counts of bad logins in one read, so that a changed password,
   a removed account or a lock of another node is noticed at once;
3. accepts a password that was right within the last five minutes by a keyed hash;
4. else waits for its turn, reads again and derives the key in a thread.

A bad login is committed to the counts before it is answered. Text and time are the
same for a wrong password and an unknown account, and unknown names are locked like
real ones. One account is checked once at a time, so its fifth bad login is its last;
who comes meanwhile with the same password shares the outcome.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from twisted.logger import Logger

from mailtwist.errors import MailError, ProtocolViolation, Refusal
from mailtwist.mail.address import parse_address
from mailtwist.policy import hashing, passwords
from mailtwist.policy.backends import Backend
from mailtwist.policy.backends.sql import Accounts
from mailtwist.policy.lockout import (
    LOCK_S,
    MAX_REMEMBERED,
    REMEMBERED_S,
    WINDOW_S,
    RecentRefusals,
    Subject,
    address_subject,
    locked_out,
)
from mailtwist.policy.passwords import Scram
from mailtwist.policy.presence import Presence
from mailtwist.policy.remembered import Addresses, Check, Successes
from mailtwist.policy.scram import Proof
from mailtwist.store import failures
from mailtwist.store.accounts import Verifier
from mailtwist.store.engine import Connection
from mailtwist.store.logins import Active

log = Logger()

T = TypeVar("T")

# The longest path of RFC 5321 is 256 octets; nothing longer can be an account.
MAX_USERNAME: Final = 256
# These wait for the outcome of one check, which answers them all when it is good.
MAX_WAITING_FOR_ACCOUNT: Final = 4096


# Who is shut out, and until when (microseconds).
Locked = tuple[tuple[Subject, int], ...]


class Clock(Protocol):
    def seconds(self) -> float: ...
    def callLater(self, delay: float, function: Callable[..., Any], /, *args: Any) -> Any: ...  # noqa: N802


class Store(Protocol):
    """The part of the database that logins need."""

    @property
    def changes(self) -> Any: ...
    async def read(self, work: Callable[[Connection], T]) -> T: ...
    async def write(self, work: Callable[[Connection], T]) -> T: ...


@dataclass(frozen=True, slots=True)
class Login:
    """Who logged in, and the addresses that this account may send as (folded).

    ``account_id``: 0 for a user of another back-end who has no mailbox here.
    ``auth_version``: which of his passwords it was.
    """

    account_id: int
    username: str
    addresses: frozenset[str]
    auth_version: int = 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try and the two counters that it falls under."""

    username: str
    account: Subject
    address: Subject
    peer: str

    @property
    def subjects(self) -> tuple[Subject, Subject]:
        return self.account, self.address


# Whether what a client brought proves who it is, by what was read of him.
Evidence = Callable[["Attempt", "Facts"], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Facts:
    """What one read finds; ``account`` is None for an unknown or disabled one."""

    account: Active | None
    addresses: frozenset[str] = frozenset()
    verifiers: Sequence[Verifier] = ()
    locked: Locked = ()

    def login(self) -> Login:
        assert self.account is not None, "only of a known account"
        account = self.account
        return Login(account.account_id, account.username, self.addresses, account.auth_version)


class Authenticator:
    """Checks who logs in against a back-end and keeps count of the bad logins.

    ``default_domain`` completes a username that has no domain; ``cost`` is that of new
    verifiers, so that an unknown account takes as long. ``backend``: who knows the users; mail
    accounts by default. ``secret``: what the keys of unknown users are made up from; the same
    one at each start, so that they stay the same.
    """

    def __init__(
        self,
        database: Store,
        *,
        clock: Clock,
        derivation: hashing.Derivation | None = None,
        cost: int = passwords.DEFAULT_COST,
        default_domain: str = "",
        turns: hashing.Turns | None = None,
        backend: Backend | None = None,
        secret: bytes = b"",
    ) -> None:
        self._database = database
        self.backend = backend or Accounts()
        self._clock = clock
        self._derivation = derivation or hashing.Inline()
        self._unknown = passwords.unknown_verifiers(cost)
        self._secret = secret or os.urandom(32)
        self.default_domain = default_domain
        self._turns = turns or hashing.Turns()
        self._refusals = RecentRefusals()
        self._successes = Successes()
        self._addresses = Addresses(database.changes)
        self._checks: dict[Subject, Check] = {}
        # Accounts whose bad logins this process counted: only these need be forgiven.
        self._missed: OrderedDict[Subject, None] = OrderedDict()
        self._presence = Presence(database, self.backend, clock)

    def watch(self, login: Login, gone: Callable[[], object]) -> Callable[[], None]:
        """Call ``gone()`` when a login is none any more; the answer ends the watch.

        An account that was removed or disabled, or whose password is another one, is noticed
        about a second after word of it has come.
        """
        return self._presence.enter(
            Active(login.account_id, login.username, login.auth_version), gone
        )

    def recheck(self) -> None:
        """The back-end knows other users now."""
        self._presence.recheck()

    async def login(self, username: str, password: str, *, peer: str, service: str) -> Login:
        """Return who it is.

        ``peer`` is the client's IP address, ``service`` the protocol, for the log.
        Raises: Refusal (535 5.7.8, AUTHENTICATIONFAILED) for a wrong pair, TemporaryFailure
        (454 4.7.0) for a locked account or address, too many logins at once, or a back-end
        that does not answer.
        """
        # What another server says today it may not say tomorrow: nothing of it is remembered.
        digest = b"" if self.backend.ask else self._successes.digest(password)
        evidence = partial(self._knows, password)
        return await self._logged(self._attempt(username, peer), evidence, digest, service)

    async def scram_keys(self, username: str, *, peer: str) -> Scram:
        """The keys that SCRAM shows and checks; made up for who has none.

        Raises: TemporaryFailure as :meth:`login` does.
        """
        attempt = self._attempt(username, peer)
        self._refuse_remembered(attempt)
        facts = await self._facts(attempt, with_verifiers=True)
        return passwords.scram_of(facts.verifiers) or passwords.unknown_scram(
            self._secret, attempt.username
        )

    async def prove(self, username: str, proof: Proof, *, peer: str, service: str) -> Login:
        """Return who it is by the proof of a SCRAM exchange. Raises: as :meth:`login`."""

        async def holds(attempt: Attempt, facts: Facts) -> bool:
            keys = passwords.scram_of(facts.verifiers)
            return keys is not None and proof.holds(keys)

        return await self._logged(self._attempt(username, peer), holds, b"", service)

    async def _logged(
        self, attempt: Attempt, evidence: Evidence, digest: bytes, service: str
    ) -> Login:
        peer = attempt.peer
        try:
            login = await self._login(attempt, evidence, digest)
        except MailError as error:
            log.info(
                "login refused",
                username=attempt.username,
                service=service,
                peer=peer,
                reason=error.detail or error.text,
            )
            raise
        log.info(
            "login",
            username=login.username,
            account_id=login.account_id,
            service=service,
            peer=peer,
        )
        return login

    def _attempt(self, username: str, peer: str) -> Attempt:
        name = username[: MAX_USERNAME + 1].strip()
        if self.default_domain and "@" not in name:
            name = f"{name}@{self.default_domain}"
        try:
            name = parse_address(name).folded
        except ProtocolViolation:
            # Nobody's name, but counted and logged like one: what no database takes must go.
            name = "".join(c if c.isprintable() else "?" for c in name)
        return Attempt(name, Subject(self.backend.scope, name), address_subject(peer), peer)

    async def _knows(self, password: str, attempt: Attempt, facts: Facts) -> bool:
        """Whether this is his password; takes as long where there is no such user."""
        ask = self.backend.ask
        if ask is not None:
            return passwords.is_possible(password) and await ask(attempt.username, password)
        unknown = self.backend.unknown() or self._unknown
        return await self._derivation.run(
            partial(passwords.check, facts.verifiers, password, unknown=unknown)
        )

    async def _login(self, attempt: Attempt, evidence: Evidence, digest: bytes) -> Login:
        known = await self._remembered(attempt, digest)
        while known is None and attempt.account in self._checks:
            good = await self._outcome_of_another(attempt)
            if digest and good == digest:
                known = await self._remembered(attempt, digest)
        if known is not None:
            return known
        check = self._checks[attempt.account] = Check()
        try:
            login = await self._turns.take(
                attempt.address.name, lambda: self._check(attempt, evidence, digest)
            )
            check.good = digest
        finally:
            del self._checks[attempt.account]
            check.end()
        return login

    async def _outcome_of_another(self, attempt: Attempt) -> bytes:
        """Wait for the check that runs; the digest of its password if that was right."""
        check = self._checks[attempt.account]
        if check.waiting >= MAX_WAITING_FOR_ACCOUNT:
            raise hashing.too_many(check.waiting)
        good = await check.ended()
        self._refuse_remembered(attempt)
        return good

    async def _remembered(self, attempt: Attempt, digest: bytes) -> Login | None:
        """Tell who it is when this password was right lately and still is."""
        self._refuse_remembered(attempt)
        facts = await self._facts(attempt)
        if facts.account is not None and self._successes.covers(
            facts.account, digest, self._clock.seconds()
        ):
            return facts.login()
        return None

    async def _check(self, attempt: Attempt, evidence: Evidence, digest: bytes) -> Login:
        # While this attempt waited for its turn, others from this address may have failed.
        self._refuse_remembered(attempt)
        facts = await self._facts(attempt, with_verifiers=True)
        is_right = await evidence(attempt, facts)
        if facts.account is None or not is_right:
            await self._count(attempt)
            raise invalid_credentials()
        if digest:
            self._successes.add(facts.account, digest, self._clock.seconds())
        await self._forgive(attempt.account)
        return facts.login()

    async def _facts(self, attempt: Attempt, *, with_verifiers: bool = False) -> Facts:
        """Read what is true now. Raises: TemporaryFailure when a count is full."""
        now = self._clock.seconds()
        generation = self._addresses.generation
        facts = await self._database.read(
            lambda connection: self._read_facts(connection, attempt, int(now * 1e6), with_verifiers)
        )
        for subject, until in facts.locked:
            self._refusals.add(subject, min(now + REMEMBERED_S, until / 1e6))
            raise locked_out(subject)
        if facts.account is not None:
            self._addresses.add(facts.account.username, facts.addresses, generation)
        return facts

    def _read_facts(
        self, connection: Connection, attempt: Attempt, now: int, with_verifiers: bool
    ) -> Facts:
        backend = self.backend
        locked = tuple(
            (subject, until)
            for subject in attempt.subjects
            if (until := failures.locked(connection, subject.scope, subject.name, now=now))
        )
        account = backend.find(connection, attempt.username) if not locked else None
        if account is None:
            return Facts(None, locked=locked)
        addresses = self._addresses.get(account.username)
        if addresses is None:
            addresses = backend.addresses(connection, account)
        verifiers = backend.verifiers(connection, account) if with_verifiers else ()
        return Facts(account, addresses, verifiers)

    # -- shut out ---------------------------------------------------------------------------

    def _refuse_remembered(self, attempt: Attempt) -> None:
        now = self._clock.seconds()
        for subject in attempt.subjects:
            if self._refusals.covers(subject, now):
                raise locked_out(subject)

    async def _count(self, attempt: Attempt) -> None:
        """Commit one bad login to both counts."""
        now = self._clock.seconds()
        self._missed[attempt.account] = None
        if len(self._missed) > MAX_REMEMBERED:
            self._missed.popitem(last=False)
        try:
            for subject, until in await self._database.write(
                lambda connection: _count_failure(connection, attempt, int(now * 1e6))
            ):
                self._refusals.add(subject, min(now + REMEMBERED_S, until / 1e6))
        except MailError:
            # Nobody may guess on while the store can't count: one miss shuts both out.
            for subject in attempt.subjects:
                self._refusals.add(subject, now + REMEMBERED_S)
            raise

    async def _forgive(self, account: Subject) -> None:
        """Drop the account's count after a good login, where this process counted one.

        The address keeps its count: else whoever has one account could guess for ever
        at the others.
        """
        if account not in self._missed:
            return
        del self._missed[account]
        try:
            await self._database.write(
                lambda connection: failures.clear(connection, account.scope, account.name)
            )
        except MailError as error:
            log.info("bad logins not forgotten", account=account.name, reason=error.detail)

    async def forgive_all(self) -> None:
        """Forget every bad login there was: nobody is shut out. Raises: MailError."""
        if await self._database.read(failures.exist):
            await self._database.write(failures.clear_all)
        self._refusals = RecentRefusals()
        self._missed.clear()


def invalid_credentials() -> Refusal:
    """Make the one refusal for a wrong password, an unknown name and a proof that fails."""
    return Refusal(
        "Authentication credentials invalid",
        code=535,
        status="5.7.8",
        imap_code="AUTHENTICATIONFAILED",
    )


def _count_failure(connection: Connection, attempt: Attempt, now: int) -> Locked:
    """Count for both subjects; returns those that are locked now."""
    counted = (
        (
            subject,
            failures.record(
                connection,
                subject.scope,
                subject.name,
                now=now,
                limit=subject.limit,
                window=WINDOW_S * 1_000_000,
                lock=LOCK_S * 1_000_000,
            ),
        )
        for subject in attempt.subjects
    )
    return tuple((subject, until) for subject, until in counted if until)
