"""The way in: addresses become recipients, a message becomes one write.

Every front-end and every letter of our own comes through here. spool -> checks ->
`DeliveryPlan` -> one commit. SMTP's 250 follows the commit; what is for the queue has then
been handed to the runner, or waits in its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from mailtwist.errors import MailError, Refusal
from mailtwist.mail.address import Address
from mailtwist.mail.flags import SEEN
from mailtwist.mail.srs import Srs
from mailtwist.policy.checks import NO_CHECKS, Checks
from mailtwist.queue.admission import Admission, Directory
from mailtwist.queue.envelope import Author, Envelope, Mail, Origin, Recipient
from mailtwist.queue.incoming import StoredMessage
from mailtwist.queue.message import Arrival, delivered, message_of
from mailtwist.queue.passing import Passing
from mailtwist.queue.plan import DeliveryPlan, make_plan
from mailtwist.queue.refusals import USER_UNKNOWN, refusal
from mailtwist.store import sent
from mailtwist.store.content import CHUNK, Spool, Spooled
from mailtwist.store.deliver import Acceptance, Entry, deliver
from mailtwist.store.directory import Foreign
from mailtwist.store.ids import now_us
from mailtwist.store.queue.values import Attempt, Lease, Message, Notify

if TYPE_CHECKING:
    from mailtwist.config import Settings
    from mailtwist.mail.dkim import HashedMessage


class Outbound(Protocol):
    """The runner, as far as intake knows it."""

    def reserve(self, message: Message, octets: int) -> Lease | None:
        """Room for a message that is about to be written; None: its rows wait their turn.

        A lease is followed by exactly one :meth:`take` or :meth:`give_back`.
        """

    def take(self, message: Message, data: bytes | None, lease: Lease) -> None:
        """The message is committed. ``data`` is its content; None: the store has it."""

    def give_back(self, message: Message) -> None:
        """It was not committed."""

    def wake(self) -> None:
        """Rows were written that wait."""


class Parked:
    """No runner: whatever is for the queue waits in its rows."""

    def reserve(self, message: Message, octets: int) -> Lease | None:
        return None

    def take(self, message: Message, data: bytes | None, lease: Lease) -> None:
        raise AssertionError("there was no lease")

    def give_back(self, message: Message) -> None:
        raise AssertionError("there was no lease")

    def wake(self) -> None:
        pass


class Signer(Protocol):
    @property
    def is_enabled(self) -> bool: ...

    async def sign(
        self, hashed: HashedMessage, *, reverse_path: str, by_author: bool = True
    ) -> bytes:
        """DKIM-Signature fields, or nothing: a message is sooner unsigned than lost."""


class Reports(Protocol):
    async def of(
        self, message: Message, attempts: Sequence[Attempt], *, header: bytes | None = None
    ) -> tuple[Acceptance, ...]:
        """Reports of what became of a message; ``header``: its own, while it is not stored."""


class Intake:
    """Admits recipients and takes messages in; one for all front-ends of a process."""

    def __init__(
        self,
        database: Any,  # store.database.Database, or Inline
        directory: Directory,
        *,
        settings: Settings,
        outbound: Outbound | None = None,
        signer: Signer | None = None,
        srs: Srs | None = None,
        checks: Checks = NO_CHECKS,
        now: Callable[[], int] = now_us,  # in microseconds
    ) -> None:
        self.database = database
        self.settings = settings
        self.checks = checks
        self.outbound: Outbound = outbound or Parked()
        self.signer = signer
        # Whoever builds both sets it: reports are letters, which come in here too.
        self.reports: Reports | None = None
        self.now = now
        self._admission = Admission(database, directory, settings=settings, srs=srs, now=now)

    def configure(self, settings: Settings) -> None:
        """Take other settings for what comes from now on."""
        self.settings = settings
        self._admission.configure(settings)

    async def start(self) -> None:
        """Make what mail is captured in, so that no client waits for it. Raises: MailError."""
        if self.settings.inbox.domain:
            await self._admission.captured()

    @property
    def signs(self) -> bool:
        """Whether mail that leaves gets signatures."""
        return self.signer is not None and self.signer.is_enabled

    # -- mail of clients ----------------------------------------------------------------------

    def admit(
        self,
        address: Address,
        *,
        size: int = 0,
        may_relay: bool = False,
        is_sandbox: bool = False,
        is_bounce: bool = False,
        account_id: int = 0,
    ) -> Coroutine[Any, Any, Recipient]:
        """The recipient that an address names; `size` octets are announced for it.

        `is_bounce`: the reverse-path is null. `account_id`: of the login; what a project's sends
        is captured, whoever it is for. Raises: Refusal for a user that is unknown, a
        domain that is not ours (unless the client `may_relay`), an address that bounced too
        often; OverQuota.
        """
        return self._admission.admit(
            address,
            size=size,
            may_relay=may_relay,
            is_sandbox=is_sandbox,
            is_bounce=is_bounce,
            account_id=account_id,
        )

    async def captures(self, account_id: int) -> bool:
        """Whether whatever an account sends is captured in it: it is a project's.

        0 is nobody's account. Raises: NotFound for one that is gone.
        """
        return account_id != 0 and await self._admission.project(account_id) is not None

    async def is_local(self, domain: str) -> bool:
        """Whether mail for a domain stays here."""
        return await self._admission.directory.is_local(domain)

    def receive(self, envelope: Envelope, origin: Origin, *, limit: int) -> StoredMessage:
        """Take in the message of an envelope; it has `limit` octets at most."""
        return StoredMessage(self, Spool(self.database, limit=limit), origin, envelope)

    # -- letters of our own -------------------------------------------------------------------

    async def submit(
        self,
        letter: bytes,
        *,
        reverse_path: Address | None,
        recipients: Sequence[Address],
        **options: Any,
    ) -> str:
        """Commit a letter and hand it over; `options` as for `prepare`. Its queue id.

        Raises: Refusal when none of the recipients exists, and what the store raises.
        """
        acceptance = await self.prepare(
            letter, reverse_path=reverse_path, recipients=recipients, **options
        )
        if acceptance is None:
            raise refusal(USER_UNKNOWN)
        await self.commit(acceptance)
        return str(acceptance.received_as)

    async def prepare(
        self,
        letter: bytes,
        *,
        reverse_path: Address | None,
        recipients: Sequence[Address],
        hostname: str = "",
        account_id: int = 0,
        notify: Notify = Notify.UNSET,
        ret: str = "",
        envid: str = "",
        smtputf8: bool = False,
        requiretls: bool = False,
        sign: bool = True,
        is_report: bool = False,
        is_captured: bool = False,
        captured_in: int = 0,
        sent_copy: bool = False,
        destination: str = "",
        refused: list[Refusal] | None = None,
        admitted: list[Recipient] | None = None,
    ) -> Acceptance | None:
        """What writes a letter of our own, a whole message with CRLF line ends.

        Recipients that are refused are left out; None: nobody is left. `is_report`: no quota
        holds for it. `is_captured`: whoever it is for, it is kept and nobody gets it; so is what a
        project sends. `captured_in`: the account that keeps it, 0: the inbox account. `sent_copy`:
        one goes into the Sent mailbox of `account_id`. `destination`: it leaves that way for all
        of them, whosever they are. `refused` gets what is said of those left out.
        `admitted`: what :meth:`admit` made of the recipients, where the caller has asked.
        Raises: NotFound when `captured_in` captures nothing, StoreUnavailable, StoreFull.
        """
        if not captured_in and await self.captures(account_id):
            captured_in = account_id
        is_captured = is_captured or bool(captured_in)
        # In dev_mode nothing leaves, whatever way it would take.
        if is_captured or (destination and self.settings.dev_mode):
            admitted = await self._captured(recipients, captured_in)
        elif destination:
            admitted = _bound_for(destination, recipients, notify)
        elif admitted is None:
            is_bounce = reverse_path is None
            admitted = await self._admitted(recipients, notify, refused, is_bounce=is_bounce)
        if not admitted:
            return None
        passing = Passing(is_signed=sign and self.signs)
        spooled = await self._spool(letter, passing)
        mail = Mail(
            reverse_path,
            body="8BITMIME",
            ret=ret,
            envid=envid,
            smtputf8=smtputf8,
            requiretls=requiretls,
        )
        now = self.now()
        plan = self._own_plan(Envelope(mail, admitted), now, is_report=is_report)
        author = Author(hostname, account_id, sent_copy and not is_captured)
        return await self.complete(plan, Arrival(mail, author, passing, spooled, now))

    async def _captured(self, addresses: Sequence[Address], account_id: int) -> list[Recipient]:
        """All of them kept in one account, and nobody told."""
        target = await self._admission.captured(account_id)
        return [Recipient(each, (target,), Notify.NEVER) for each in addresses]

    async def _admitted(
        self,
        recipients: Sequence[Address],
        notify: Notify,
        refused: list[Refusal] | None,
        *,
        is_bounce: bool,
    ) -> list[Recipient]:
        found: list[Recipient] = []
        for address in recipients:
            try:
                targets = await self._admission.resolve(
                    address,
                    may_relay=True,
                    is_sandbox=self.settings.dev_mode,
                    is_bounce=is_bounce,
                )
            except Refusal as error:
                if refused is not None:
                    refused.append(error)
                continue
            found.append(Recipient(address, targets, notify))
        return found

    def _own_plan(self, envelope: Envelope, now: int, *, is_report: bool) -> DeliveryPlan:
        plan = make_plan(None, envelope, queue_id=self.database.ids.next(), now=now)
        if not is_report:
            return plan
        # No quota holds for it.
        return replace(plan, entries=tuple(replace(e, is_exempt=True) for e in plan.entries))

    async def _spool(self, letter: bytes, passing: Passing) -> Spooled:
        spool = Spool(self.database, limit=len(letter))
        try:
            # The reactor does other things while the blocks of a large one are written.
            for at in range(0, len(letter), CHUNK):
                await spool.write(passing.take(letter[at : at + CHUNK]))
            await spool.write(passing.close())
            return await spool.finish()
        except BaseException:
            await spool.discard()
            raise

    # -- the write ----------------------------------------------------------------------------

    async def complete(self, plan: DeliveryPlan, arrival: Arrival) -> Acceptance:
        """The plan with signature and sender's copy, as one write."""
        hashed = arrival.passing.hashed()
        if plan.recipients and hashed is not None and self.signer is not None:
            path = str(arrival.mail.reverse_path or "")
            # Of a login the reverse-path alone is checked: in From he may name another tenant.
            signature = await self.signer.sign(
                hashed, reverse_path=path, by_author=not arrival.author.is_login
            )
            plan = replace(plan, prefix=signature + plan.prefix)
        if arrival.author.has_copy and arrival.author.account_id:
            plan = await self._with_copy(plan, arrival)
        message = message_of(plan, arrival, self.settings) if plan.recipients else None
        return Acceptance(arrival.spooled, plan.entries, plan.queue_id, arrival.now, queue=message)

    async def _with_copy(self, plan: DeliveryPlan, arrival: Arrival) -> DeliveryPlan:
        """The plan, with an entry for the sender's own mailbox if he has one that lacks it."""
        account_id, spooled = arrival.author.account_id, arrival.spooled
        message_id = spooled.structure.message_id
        mailbox = await self.database.read(
            lambda connection: sent.place(connection, account_id, message_id, spooled.octets)
        )
        if mailbox is None:
            return plan
        # That the sender's account is full is no reason not to send.
        copy = Entry(account_id, mailbox, flags=SEEN, internaldate=arrival.now, is_exempt=True)
        return replace(plan, entries=(*plan.entries, copy))

    async def announcements(self, plan: DeliveryPlan, arrival: Arrival) -> tuple[Acceptance, ...]:
        """Reports of delivery for those who have a mailbox here (RFC 3461 §5.2.3)."""
        if not plan.announced or arrival.mail.reverse_path is None or self.reports is None:
            return ()
        message = message_of(replace(plan, recipients=plan.announced), arrival, self.settings)
        attempts = [delivered(recipient, arrival.now) for recipient in plan.announced]
        return await self.reports.of(message, attempts, header=arrival.passing.header)

    async def commit(self, acceptance: Acceptance, reports: Sequence[Acceptance] = ()) -> None:
        """Write an acceptance, with reports in the same transaction; hand it to the runner.

        Raises: NotFound, OverQuota, StoreUnavailable, StoreFull; nothing is written then.
        """
        message = acceptance.queue
        lease = None
        if message is not None:
            lease = self.outbound.reserve(message, acceptance.content.octets)
            if lease is not None:
                acceptance = replace(acceptance, lease=lease)
        try:
            await self._write(acceptance, reports)
        except BaseException:
            if message is not None and lease is not None:
                self.outbound.give_back(message)
            raise
        if message is not None and lease is not None:
            self.outbound.take(message, acceptance.content.data, lease)
        elif message is not None or any(report.queue is not None for report in reports):
            self.outbound.wake()

    async def _write(self, acceptance: Acceptance, reports: Sequence[Acceptance]) -> None:
        octets = acceptance.content.octets
        account_ids = _account_ids(acceptance, *reports)
        if not reports:
            await self.database.write_set(deliver, acceptance, accounts=account_ids, octets=octets)
            return

        def work(connection: Any) -> None:
            answer = deliver(connection, [acceptance, *reports])[0]
            if isinstance(answer, MailError):
                raise answer

        await self.database.write(work, accounts=account_ids, octets=octets)


def _bound_for(destination: str, addresses: Sequence[Address], notify: Notify) -> list[Recipient]:
    """All of them by one way, whatever their domains."""
    return [Recipient(each, (Foreign(str(each), destination),), notify) for each in addresses]


def _account_ids(*acceptances: Acceptance) -> list[int]:
    return sorted({entry.account_id for each in acceptances for entry in each.entries})
