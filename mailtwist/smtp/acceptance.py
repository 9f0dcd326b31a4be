"""The acceptance path: from admitted recipients and a spooled message to one write.

spool -> checks -> `DeliveryPlan` -> one commit. A check raises (the message is
refused) or changes the plan; whatever else a message should cause is added to
the plan, never done on the side. SMTP's 250 follows the commit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from twisted.logger import Logger

from mailtwist.errors import MailError, OverQuota, Refusal
from mailtwist.mail.address import Address
from mailtwist.mail.structure import Structure
from mailtwist.mail.trace import received, return_path
from mailtwist.net.pump import shielded
from mailtwist.smtp import replies
from mailtwist.smtp.envelope import Envelope, Origin, Recipient
from mailtwist.store import accounts
from mailtwist.store.content import Spool, Spooled
from mailtwist.store.deliver import Acceptance, Entry, deliver
from mailtwist.store.directory import Target
from mailtwist.store.ids import now_us

if TYPE_CHECKING:
    from mailtwist.mail.reply import Reply

log = Logger()

T = TypeVar("T")

# RFC 5321 §6.3: a limit of at least 100 Received fields.
MAX_HOPS = 100
# Who gets what nobody owns, in dev_mode. `.invalid` can be nobody's domain (RFC 2606 §2).
CAPTURED = "captured@mailtwist.invalid"
MAX_CACHED = 20_000


class Directory(Protocol):
    async def resolve(self, address: Address) -> tuple[Target, ...]: ...
    async def is_local(self, domain: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class DeliveryPlan:
    """All that the acceptance of one message writes, in one transaction.

    Recipients that the queue is to serve will stand beside `entries`.
    """

    queue_id: int
    entries: tuple[Entry, ...]

    @property
    def account_ids(self) -> list[int]:
        return sorted({entry.account_id for entry in self.entries})


# A check looks at the message and returns the plan, changed or not. Raises: MailError.
Check = Callable[[DeliveryPlan, Structure], DeliveryPlan]


def guard_against_loops(plan: DeliveryPlan, structure: Structure) -> DeliveryPlan:
    if structure.received_count >= MAX_HOPS:
        raise _refusal(replies.TOO_MANY_HOPS)
    return plan


CHECKS: tuple[Check, ...] = (guard_against_loops,)


def make_plan(origin: Origin, envelope: Envelope, *, queue_id: int, now: int) -> DeliveryPlan:
    """Who gets the message: each account once, however many recipients lead to it."""
    entries: dict[tuple[int, str], Entry] = {}
    top = return_path(envelope.reverse_path)
    reverse_path = str(envelope.reverse_path or "")
    for recipient in envelope.recipients:
        for target in recipient.targets:
            key = (target.account_id, target.mailbox)
            if key in entries:
                continue
            entries[key] = Entry(
                account_id=target.account_id,
                mailbox=target.mailbox,
                prefix=top + _trace(origin, recipient.address, target.address, queue_id, now),
                internaldate=now,
                return_path=reverse_path,
                recipient=str(recipient.address),
                client_address=origin.client_address,
                is_tls=origin.is_tls,
            )
    return DeliveryPlan(queue_id, tuple(entries.values()))


def _trace(origin: Origin, forward_path: Address, address: str, queue_id: int, now: int) -> bytes:
    """The fields of one copy; it names its own recipient only (RFC 5321 §7.2)."""
    # Delivered-To last: RFC 5321 §4.4 wants nothing but Return-Path above our Received.
    return (
        received(
            helo=origin.helo,
            client_address=origin.client_address,
            hostname=origin.hostname,
            protocol=origin.protocol,
            queue_id=str(queue_id),
            recipient=forward_path,
            seconds=now / 1_000_000,
        )
        + b"Delivered-To: %b\r\n" % address.encode()
    )


def _refusal(reply: Reply) -> Refusal:
    assert isinstance(reply.text, str)
    return Refusal(reply.text, code=reply.code, status=reply.status)


class StoredMailboxes:
    """Admits recipients by the directory and receives messages into the store."""

    def __init__(self, database: Any, directory: Directory) -> None:
        self.database = database
        self.directory = directory
        self._unlimited: set[int] = set()  # accounts without quota: nothing to look up
        self._captured: Target | None = None
        database.changes.watch("account", self.clear)

    def clear(self) -> None:
        """Forget what is known of accounts."""
        # A new set: a read that is under way adds to the old one.
        self._unlimited = set()
        self._captured = None

    # -- RCPT -------------------------------------------------------------------------------

    async def admit(
        self, address: Address, *, size: int = 0, may_relay: bool = False, is_sandbox: bool = False
    ) -> Recipient:
        """The recipient that an address names; `size` octets are announced for it.

        Raises: Refusal for a user that is unknown and a domain that is not ours, OverQuota.
        """
        targets = await self.directory.resolve(address)
        if not targets:
            if is_sandbox:
                targets = (await self._capture(),)
            elif not address.domain or await self.directory.is_local(address.domain):
                raise _refusal(replies.USER_UNKNOWN)
            else:
                # Until there is a queue nobody may relay, whatever may_relay says.
                raise _refusal(replies.RELAY_DENIED)
        for target in targets:
            if target.account_id not in self._unlimited:
                await self._require_room(target.account_id, size)
        return Recipient(address, targets)

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

    async def _capture(self) -> Target:
        """The account that keeps what nobody owns, made when it is first needed."""
        if self._captured is None:
            found = await self.database.write(_find_or_add_captured)
            self._captured = Target(found, "INBOX", CAPTURED)
        return self._captured

    # -- DATA -------------------------------------------------------------------------------

    def receive(self, envelope: Envelope, origin: Origin, *, limit: int) -> StoredMessage:
        return StoredMessage(self.database, Spool(self.database, limit=limit), origin, envelope)


def _find_or_add_captured(connection: Any) -> int:
    account = accounts.find(connection, CAPTURED)
    if account is None:
        account = accounts.add(connection, CAPTURED, [], now=now_us())
    return account.account_id


class StoredMessage:
    """One message on its way into the store."""

    def __init__(self, database: Any, spool: Spool, origin: Origin, envelope: Envelope) -> None:
        self._database = database
        self._spool = spool
        self._origin = origin
        self._envelope = envelope
        self.write = spool.write

    async def accept(self) -> str:
        # Once it is under way, the end of the connection does not stop it: what is
        # committed is logged, what is not is forgotten.
        return await shielded(self._accept())

    async def _accept(self) -> str:
        try:
            spooled = await self._spool.finish()
            plan = await self._commit(spooled)
        except BaseException:
            await self.discard()
            raise
        log.info(
            "message accepted",
            session=self._origin.session_id,
            queue_id=str(plan.queue_id),
            reverse_path=str(self._envelope.reverse_path or "<>"),
            recipients=len(self._envelope.recipients),
            octets=spooled.octets,
            message_id=spooled.structure.message_id,
            client=self._origin.client_address,
            **self._disclosed(spooled),
        )
        return str(plan.queue_id)

    def _disclosed(self, spooled: Spooled) -> dict[str, object]:
        """What a developer wants to see of each mail, and nobody else's log should hold."""
        if not self._origin.is_sandbox:
            return {}
        forward_paths = [str(recipient.address) for recipient in self._envelope.recipients]
        return {"forward_paths": forward_paths, "subject": spooled.structure.subject}

    async def _commit(self, spooled: Spooled) -> DeliveryPlan:
        now = now_us()
        plan = make_plan(self._origin, self._envelope, queue_id=self._database.ids.next(), now=now)
        for check in CHECKS:
            plan = check(plan, spooled.structure)
        acceptance = Acceptance(spooled, plan.entries, received_as=plan.queue_id, now=now)
        await self._database.write_set(
            deliver, acceptance, accounts=plan.account_ids, octets=spooled.octets
        )
        return plan

    async def discard(self) -> None:
        try:
            await self._spool.discard()
        except MailError:
            # The chunks that went ahead stay marked; the sweeper finds them.
            log.debug("spool not discarded", session=self._origin.session_id)
        except Exception:
            log.failure("spool not discarded", session=self._origin.session_id)
