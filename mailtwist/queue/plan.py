"""What the acceptance of one message writes: mailbox entries and recipients for the queue.

A check raises (the message is refused) or changes the plan; whatever else a message should
cause is added to the plan, never done on the side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from mailtwist.mail import authentication_results
from mailtwist.mail.address import Address
from mailtwist.mail.structure import Structure
from mailtwist.mail.trace import received, return_path
from mailtwist.policy.checks import Verdict
from mailtwist.queue.envelope import Envelope, Origin, Recipient
from mailtwist.queue.refusals import TOO_MANY_HOPS, refusal
from mailtwist.store.deliver import Entry
from mailtwist.store.directory import Foreign, Target
from mailtwist.store.queue import values
from mailtwist.store.queue.values import LOCAL, Notify

# RFC 5321 §6.3: a limit of at least 100 Received fields.
MAX_HOPS: Final = 100


@dataclass(frozen=True, slots=True)
class DeliveryPlan:
    """All that the acceptance of one message writes, in one transaction.

    ``prefix`` stands before the copy that the queue keeps. ``announced``: recipients with a
    mailbox here of whose delivery the sender wants to hear.
    """

    queue_id: int
    entries: tuple[Entry, ...]
    recipients: tuple[values.Recipient, ...] = ()
    prefix: bytes = b""
    announced: tuple[values.Recipient, ...] = ()

    @property
    def account_ids(self) -> list[int]:
        return sorted({entry.account_id for entry in self.entries})


# A check looks at the message and returns the plan, changed or not. Raises: MailError.
Check = Callable[[DeliveryPlan, Structure], DeliveryPlan]


def guard_against_loops(plan: DeliveryPlan, structure: Structure) -> DeliveryPlan:
    if structure.received_count >= MAX_HOPS:
        raise refusal(TOO_MANY_HOPS)
    return plan


CHECKS: tuple[Check, ...] = (guard_against_loops,)


# A message that counts more is marked with the keyword, and one that counts still more is
# put into the mailbox.
MARKED_ABOVE: Final = 50
PUT_AWAY_ABOVE: Final = 299
SPAM: Final = "Spam"


def with_verdict(plan: DeliveryPlan, verdict: Verdict, hostname: str) -> DeliveryPlan:
    """The plan of a message of which the checks have something to say."""
    if not verdict.score and not verdict.results:
        return plan
    field = authentication_results.field(hostname, verdict.results) if verdict.results else b""
    entries: dict[tuple[int, str, tuple[str, ...]], Entry] = {}
    for entry in plan.entries:
        # What is captured is listed from INBOX.
        is_put_away = verdict.score > PUT_AWAY_ABOVE and not entry.inbox
        mailbox = SPAM if is_put_away else entry.mailbox
        judged = replace(
            entry,
            mailbox=mailbox,
            prefix=entry.prefix + field,
            keywords=(*entry.keywords, SPAM) if verdict.score > MARKED_ABOVE else entry.keywords,
            spam_score=verdict.score,
            verdicts="; ".join(verdict.results),
        )
        entries.setdefault((entry.account_id, mailbox, entry.inbox), judged)
    return replace(plan, entries=tuple(entries.values()), prefix=plan.prefix + field)


def make_plan(
    origin: Origin | None, envelope: Envelope, *, queue_id: int, now: int
) -> DeliveryPlan:
    """Who gets the message; without an origin it is a letter of our own."""
    # Each account and each address once, however many recipients lead to it.
    entries: dict[_Place, Entry] = {}
    captured: dict[_Place, list[str]] = {}
    foreign: dict[str, values.Recipient] = {}
    announced: list[values.Recipient] = []
    top, reverse_path = b"", ""
    for recipient in envelope.recipients:
        for target in recipient.targets:
            if isinstance(target, Foreign):
                if target.address not in foreign:
                    foreign[target.address] = _queued(len(foreign) + 1, recipient, target)
                continue
            key = (target.account_id, target.mailbox, _inbox(target))
            if target.is_captured:
                captured.setdefault(key, []).append(_spelled(recipient, target))
            if key in entries:
                continue
            if not entries:
                top = return_path(envelope.reverse_path)
                reverse_path = str(envelope.reverse_path or "")
            entries[key] = Entry(
                account_id=target.account_id,
                mailbox=target.mailbox,
                prefix=top + _trace(origin, recipient.address, target.address, queue_id, now),
                internaldate=now,
                return_path=reverse_path,
                recipient=str(recipient.address),
                client_address=origin.client_address if origin else "",
                is_tls=origin.is_tls if origin else False,
            )
            is_asked = recipient.notify and recipient.notify & Notify.SUCCESS
            if is_asked and not _is_own(target, origin):
                announced.append(_announced(len(announced) + 1, recipient))
    prefix = b""
    if foreign:
        # RFC 5321 §7.2: no recipient is named to another one.
        only = envelope.recipients[0].address if len(envelope.recipients) == 1 else None
        prefix = _received(origin, only, queue_id, now)
    return DeliveryPlan(
        queue_id, _filed(entries, captured), tuple(foreign.values()), prefix, tuple(announced)
    )


# An account, its mailbox, and the inbox that gets a message of its own; "": none does.
_Place = tuple[int, str, str]


def _inbox(target: Target) -> str:
    return target.address.rpartition("@")[0] if target.is_apart else ""


def _spelled(recipient: Recipient, target: Target) -> str:
    """The address that a message is captured for, as the client wrote it."""
    if target.is_apart and recipient.address.folded != target.address:
        return target.address  # an alias led there
    return str(recipient.address)


def _is_own(target: Target, origin: Origin | None) -> bool:
    """Whether it is captured in the project of its sender: of such mail nothing is told."""
    return target.is_captured and origin is not None and origin.account_id == target.account_id


def _filed(entries: dict[_Place, Entry], captured: dict[_Place, list[str]]) -> tuple[Entry, ...]:
    for place, addresses in captured.items():
        entries[place] = replace(entries[place], inbox=tuple(addresses))
    return tuple(entries.values())


def _queued(n: int, recipient: Recipient, target: Foreign) -> values.Recipient:
    original = str(recipient.address)
    return values.Recipient(
        n=n,
        address=target.address,
        destination=target.destination,
        original="" if original == target.address else original,
        forwarded_by=target.forwarded_by,
        orcpt=recipient.orcpt,
        notify=recipient.notify,
    )


def _announced(n: int, recipient: Recipient) -> values.Recipient:
    return values.Recipient(
        n, str(recipient.address), LOCAL, orcpt=recipient.orcpt, notify=recipient.notify
    )


def _trace(
    origin: Origin | None, forward_path: Address, address: str, queue_id: int, now: int
) -> bytes:
    """The fields of one copy; it names its own recipient only (RFC 5321 §7.2)."""
    # Delivered-To last: RFC 5321 §4.4 wants nothing but Return-Path above our Received.
    trace = _received(origin, forward_path, queue_id, now)
    return trace + b"Delivered-To: %b\r\n" % address.encode()


def _received(
    origin: Origin | None, forward_path: Address | None, queue_id: int, now: int
) -> bytes:
    if origin is None:
        return b""
    return received(
        helo=origin.helo,
        client_address=origin.client_address,
        hostname=origin.hostname,
        protocol=origin.protocol,
        queue_id=str(queue_id),
        recipient=forward_path,
        seconds=now / 1_000_000,
    )
