"""Who gets a message: an address becomes accounts here, addresses elsewhere, or a refusal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from mailtwist.errors import NotFound, OverQuota
from mailtwist.mail.address import Address
from mailtwist.mail.srs import Srs, is_srs
from mailtwist.queue.envelope import Recipient
from mailtwist.queue.refusals import RELAY_DENIED, USER_UNKNOWN, refusal, suppressed
from mailtwist.store import accounts, inbox, projects
from mailtwist.store.directory import Foreign, Target
from mailtwist.store.ids import now_us
from mailtwist.store.queue import suppression
from mailtwist.store.queue.values import LOCAL

if TYPE_CHECKING:
    from mailtwist.config import Settings

# Who gets what nobody owns, in dev_mode, and what is for the inbox domains.
CAPTURED: Final = inbox.ACCOUNT
MAX_CACHED: Final = 20_000

Targets = Sequence[Target | Foreign]


class Directory(Protocol):
    async def resolve(self, address: Address) -> tuple[Target | Foreign, ...]: ...
    async def is_local(self, domain: str) -> bool: ...
    def completed(self, address: Address) -> Address: ...


@dataclass(slots=True)
class _Bounced:
    """What is known of suppressed addresses; another one takes its place when rows change."""

    is_empty: bool | None = None  # None: not looked yet
    bounces: dict[str, int] = field(default_factory=dict)  # by folded address


class Admission:
    """Answers RCPT, from memory for nearly every address."""

    def __init__(
        self,
        database: Any,
        directory: Directory,
        *,
        settings: Settings,
        srs: Srs | None,
        now: Callable[[], int],
    ) -> None:
        self.database = database
        self.directory = directory
        self._srs = srs
        self._now = now
        self._unlimited: set[int] = set()  # accounts without quota: nothing to look up
        self._captured: Target | None = None
        self._projects: dict[int, Target | None] = {}  # by account; None: no project's
        self.configure(settings)
        database.changes.watch("account", self.clear)
        database.changes.watch("suppression", self._forget_bounces)

    def configure(self, settings: Settings) -> None:
        self._is_lmtp = settings.delivery.mode == "lmtp"
        self._suppress_after = settings.queue.suppress_after
        self._forget_bounces()

    def clear(self) -> None:
        """Forget what is known of accounts."""
        # A new set: a read that is under way adds to the old one.
        self._unlimited = set()
        self._captured = None

    def _forget_bounces(self) -> None:
        self._bounced = _Bounced()

    async def admit(
        self,
        address: Address,
        *,
        size: int,
        may_relay: bool,
        is_sandbox: bool,
        is_bounce: bool,
        account_id: int,
    ) -> Recipient:
        """See :meth:`mailtwist.queue.intake.Intake.admit`."""
        project = await self.project(account_id) if account_id else None
        targets: Targets = (project,) if project else ()
        targets = targets or await self.resolve(
            address, may_relay=may_relay, is_sandbox=is_sandbox, is_bounce=is_bounce
        )
        for target in targets:
            if isinstance(target, Target) and target.account_id not in self._unlimited:
                await self._require_room(target.account_id, size)
        return Recipient(address, targets)

    async def resolve(
        self, address: Address, *, may_relay: bool, is_sandbox: bool, is_bounce: bool
    ) -> Targets:
        """Whom an address stands for; whether they have room is not looked at. Raises: Refusal."""
        if is_sandbox:
            return await self._sandboxed(await self._owners(address))
        if is_srs(address.local_part) and await self._is_ours(address):
            original = self._original(address, is_bounce)
            if original is None:
                return await self._inboxes(address)
            address, may_relay = original, True
        targets = await self._owners(address)
        if targets and not self._is_lmtp:
            return targets
        return await self._queued(address, targets, may_relay)

    async def _owners(self, address: Address) -> Targets:
        """Whom the directory knows; an inbox has its account then."""
        targets = await self.directory.resolve(address)
        for target in targets:
            if isinstance(target, Target) and not target.account_id:
                made = (await self._capture()).account_id
                return [_with_account(each, made) for each in targets]
        return targets

    async def _is_ours(self, address: Address) -> bool:
        return await self.directory.is_local(address.domain)

    def _original(self, address: Address, is_bounce: bool) -> Address | None:
        """Whom a bounce of forwarded mail is for (mail.srs)."""
        # Only what we ourselves sent on comes back, and only as a bounce: no open relay.
        seconds = self._now() / 1_000_000
        return self._srs.original(address, seconds=seconds) if self._srs and is_bounce else None

    async def _inboxes(self, address: Address) -> Targets:
        """In an inbox domain what seems to be of forwarded mail is a name too. Raises: Refusal."""
        targets = await self._owners(address)
        found = [each for each in targets if isinstance(each, Target) and each.is_captured]
        if not found:
            raise refusal(USER_UNKNOWN)
        return found

    async def _sandboxed(self, targets: Targets) -> Targets:
        """In dev_mode every address is somebody's, and nothing leaves."""
        here = [target for target in targets if isinstance(target, Target)]
        return here if here and len(here) == len(targets) else [*here, await self._capture()]

    async def _queued(self, address: Address, targets: Targets, may_relay: bool) -> Targets:
        """What the queue is to serve. Raises: Refusal."""
        if targets:
            return [_for_lmtp(target, address) for target in targets]
        address = self.directory.completed(address)
        if address.domain and not await self._is_ours(address):
            if not may_relay:
                raise refusal(RELAY_DENIED)
            await self._require_good_name(address)
            return (Foreign(str(address), address.domain),)
        if not self._is_lmtp or not address.domain:
            raise refusal(USER_UNKNOWN)
        return (Foreign(str(address), LOCAL),)  # who has a mailbox is the LMTP server's to say

    async def _require_good_name(self, address: Address) -> None:
        """Refuse an address that has bounced too often. Raises: Refusal."""
        limit, known = self._suppress_after, self._bounced
        if not limit:
            return
        if known.is_empty is None:
            # Where nobody is suppressed, a list with many members costs no look-up for each.
            found = await self.database.read(
                lambda connection: suppression.list(connection, at_least=limit, limit=1)
            )
            known.is_empty = not found
        bounces = 0 if known.is_empty else await self._bounces_of(address, known.bounces)
        if bounces >= limit:
            raise suppressed(bounces)

    async def _bounces_of(self, address: Address, known: dict[str, int]) -> int:
        bounces = known.get(address.folded)
        if bounces is None:
            row = await self.database.read(
                lambda connection: suppression.find(connection, str(address))
            )
            bounces = row.bounces if row is not None else 0
            if len(known) >= MAX_CACHED:
                known.clear()
            known[address.folded] = bounces
        return bounces

    async def _require_room(self, account_id: int, size: int) -> None:
        """Refuse early what the writer would refuse late. Raises: OverQuota."""
        unlimited = self._unlimited
        account = await self.database.read(lambda connection: accounts.get(connection, account_id))
        if not account.quota_octets and not account.quota_messages:
            if len(unlimited) >= MAX_CACHED:
                unlimited.clear()
            unlimited.add(account_id)
            return
        too_big = account.quota_octets and account.octets + max(size, 1) > account.quota_octets
        too_many = account.quota_messages and account.messages >= account.quota_messages
        if too_big or too_many:
            raise OverQuota()

    async def captured(self, account_id: int = 0) -> Target:
        """Where mail goes that nobody is to get: to a project, or to the inbox account (0).

        Raises: NotFound for an account that captures nothing.
        """
        project = await self.project(account_id) if account_id else None
        if project is not None:
            return project
        made = await self._capture()
        if account_id not in {0, made.account_id}:
            raise NotFound("No such project", detail=f"account {account_id}")
        return made

    async def project(self, account_id: int) -> Target | None:
        """Where an account captures what it sends; None: it is no project's.

        Raises: NotFound for an account that is gone: it may have been one's.
        """
        known = self._projects
        # An account is a project's from its first day to its last or never, and its number does
        # not come back: no answer is ever stale.
        if account_id not in known:
            found = await self.database.read(
                lambda connection: _capturing_target(connection, account_id)
            )
            if len(known) >= MAX_CACHED:
                known.clear()
            known[account_id] = found
        return known.get(account_id)

    async def _capture(self) -> Target:
        """The account that keeps what nobody owns, made when it is first needed."""
        if self._captured is None:
            found = await self.database.read(inbox.account) or await self._make_inbox_account()
            self._captured = Target(found, "INBOX", CAPTURED, is_captured=True)
        return self._captured

    async def _make_inbox_account(self) -> int:
        try:
            return int(await self.database.write(_find_or_add_captured))
        except Exception:
            # Another node may have made it at the same moment.
            found = int(await self.database.read(inbox.account))
            if not found:
                raise
            return found


def _capturing_target(connection: Any, account_id: int) -> Target | None:
    project = projects.of_account(connection, account_id)
    if project is None:
        accounts.get(connection, account_id)
        return None
    return Target(account_id, "INBOX", project.username, is_captured=True)


def _with_account(target: Target | Foreign, account_id: int) -> Target | Foreign:
    if isinstance(target, Target) and not target.account_id:
        return replace(target, account_id=account_id)
    return target


def _for_lmtp(target: Target | Foreign, given: Address) -> Target | Foreign:
    if isinstance(target, Foreign) or target.is_captured:
        return target
    # The spelling is the client's, unless an alias led elsewhere.
    address = str(given) if target.address == given.folded else target.address
    return Foreign(address, LOCAL)


def _find_or_add_captured(connection: Any) -> int:
    return inbox.ensure_account(connection, now=now_us())
