"""One message of a client on its way into the store."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from twisted.logger import Logger

from mailtwist.errors import MailError
from mailtwist.mail.authentication_results import without_ours
from mailtwist.policy.checks import Facts, Stage, Verdict
from mailtwist.queue.envelope import Author, Envelope, Origin
from mailtwist.queue.message import Arrival
from mailtwist.queue.passing import Passing, missing_fields
from mailtwist.queue.plan import CHECKS, DeliveryPlan, make_plan, with_verdict
from mailtwist.store.content import Spool, Spooled
from mailtwist.store.deliver import Acceptance
from mailtwist.store.directory import Foreign, Target
from mailtwist.store.queue.values import Notify

if TYPE_CHECKING:
    from mailtwist.queue.intake import Intake

log = Logger()


class StoredMessage:
    """Blocks go to the spool; at the end one plan is made and committed."""

    def __init__(self, intake: Intake, spool: Spool, origin: Origin, envelope: Envelope) -> None:
        self._intake = intake
        self._spool = spool
        self._origin = origin
        self._envelope = envelope
        self._passing: Passing | None = None
        # Who logs in, we know; his mail is not held against him.
        self._is_judged = not origin.is_authenticated and intake.checks.has(Stage.DATA)
        self._is_watched = origin.is_authenticated or _is_looked_at(envelope)
        if self._is_watched or self._is_judged:
            self._passing = self._look()

    def _look(self) -> Passing:
        origin, intake = self._origin, self._intake
        # Strangers' mail that an alias sends on is not ours to vouch for.
        is_signed = origin.may_relay and intake.signs and _has(self._envelope, Foreign)
        # Nothing in here leads back to this message: it goes, octets and all, when it is done,
        # and not when the collector comes.
        return Passing(
            rewrite=partial(_completed if origin.is_authenticated else _cleaned, intake, origin),
            is_signed=is_signed,
            is_judged=self._is_judged,
        )

    async def write(self, block: bytes) -> None:
        if self._passing is not None:
            block = self._passing.take(block)
            if not block:
                return
        await self._spool.write(block)

    async def accept(self) -> str:
        """Once it is under way, the end of the connection must not stop it.

        What is committed is logged, what is not is forgotten.
        """
        try:
            if self._passing is not None and (rest := self._passing.close()):
                await self._spool.write(rest)
            spooled = await self._spool.finish(is_kept=self._is_kept())
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

    def _is_kept(self) -> bool:
        """Whether a mailbox here is to get it, or may: the sender's own one."""
        return self._wants_copy or _has(self._envelope, Target)

    @property
    def _wants_copy(self) -> bool:
        return self._origin.is_authenticated and self._intake.settings.delivery.sent_copy

    def _disclosed(self, spooled: Spooled) -> dict[str, object]:
        """What a developer wants to see of each mail, and nobody else's log should hold."""
        if not self._origin.is_sandbox:
            return {}
        forward_paths = [str(recipient.address) for recipient in self._envelope.recipients]
        return {"forward_paths": forward_paths, "subject": spooled.structure.subject}

    async def _commit(self, spooled: Spooled) -> DeliveryPlan:
        intake = self._intake
        now = intake.now()
        queue_id = intake.database.ids.next()
        plan = make_plan(self._origin, self._envelope, queue_id=queue_id, now=now)
        for check in CHECKS:
            plan = check(plan, spooled.structure)
        if self._is_judged:
            plan = with_verdict(plan, await self._judge(), self._origin.hostname)
        if self._passing is None or not self._is_watched:
            await intake.commit(Acceptance(spooled, plan.entries, queue_id, now))
        else:
            await self._commit_watched(plan, spooled, self._passing, now)
        return plan

    async def _judge(self) -> Verdict:
        """What all checks say of the message. Raises: the MailError of one that refuses it."""
        passing, origin = self._passing, self._origin
        assert passing is not None, "judged messages are looked at"
        known = Facts(
            origin.client_address,
            origin.helo,
            origin.hostname,
            origin.is_tls,
            self._envelope.reverse_path,
            header=passing.original,
            is_too_long=passing.too_long,
            signatures=passing.signatures(),
            is_relay=origin.may_relay,
        )
        verdict = origin.verdict
        verdict += await self._intake.checks.at(Stage.DATA, known)
        if verdict.refusal is not None:
            raise verdict.refusal
        return verdict

    async def _commit_watched(
        self, plan: DeliveryPlan, spooled: Spooled, passing: Passing, now: int
    ) -> None:
        intake, origin, mail = self._intake, self._origin, self._envelope.mail
        has_copy = self._wants_copy and not _is_captured(plan, origin)
        author = Author(
            origin.hostname, origin.account_id, has_copy, is_login=origin.is_authenticated
        )
        arrival = Arrival(mail, author, passing, spooled, now)
        acceptance = await intake.complete(plan, arrival)
        reports = await intake.announcements(plan, arrival)
        await intake.commit(acceptance, reports)

    async def discard(self) -> None:
        try:
            await self._spool.discard()
        except MailError:
            # The chunks that went ahead stay marked; the sweeper finds them.
            log.debug("spool not discarded", session=self._origin.session_id)
        except Exception:
            log.failure("spool not discarded", session=self._origin.session_id)


def _completed(intake: Intake, origin: Origin, header: bytes) -> bytes:
    """With the fields that a submission must have."""
    above = missing_fields(
        header,
        message_id=f"{intake.database.ids.next():x}@{origin.hostname}",
        seconds=intake.now() / 1_000_000,
    )
    return above + header


def _cleaned(intake: Intake, origin: Origin, header: bytes) -> bytes:
    """Without what a stranger says that we found."""
    ours, server = origin.hostname, intake.settings.hostname
    header = without_ours(header, ours)
    return header if ours == server else without_ours(header, server)


def _is_captured(plan: DeliveryPlan, origin: Origin) -> bool:
    """Whether a project has it already."""
    return any(entry.inbox and entry.account_id == origin.account_id for entry in plan.entries)


def _has(envelope: Envelope, kind: type[Foreign | Target]) -> bool:
    """Whether any of it leaves (Foreign), or stays (Target)."""
    return any(
        isinstance(target, kind)
        for recipient in envelope.recipients
        for target in recipient.targets
    )


def _is_looked_at(envelope: Envelope) -> bool:
    """Whether more is to be known of a message than the spool finds out."""
    return _has(envelope, Foreign) or any(
        recipient.notify and recipient.notify & Notify.SUCCESS for recipient in envelope.recipients
    )
