"""The queue's message, made of a plan and of what is known of the mail that arrived."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mailtwist.queue.envelope import Author, Mail
from mailtwist.queue.passing import Passing
from mailtwist.queue.plan import DeliveryPlan
from mailtwist.store.content import Spooled
from mailtwist.store.queue.values import BINARYMIME, Attempt, Message, Outcome, Recipient

if TYPE_CHECKING:
    from mailtwist.config import Settings


@dataclass(frozen=True, slots=True)
class Arrival:
    """A whole message with all that is known of it; ``now`` in microseconds."""

    mail: Mail
    author: Author
    passing: Passing
    spooled: Spooled
    now: int


def message_of(plan: DeliveryPlan, arrival: Arrival, settings: Settings) -> Message:
    mail, spooled, author, now = arrival.mail, arrival.spooled, arrival.author, arrival.now
    queue = settings.queue
    expires_at = now + int(queue.max_queue_time * 1_000_000)
    warn_at = now + int(queue.delay_warning * 1_000_000)
    return Message(
        queue_id=plan.queue_id,
        reverse_path=str(mail.reverse_path or ""),
        recipients=plan.recipients,
        received_at=now,
        expires_at=expires_at,
        attend_at=min(warn_at, expires_at) if queue.delay_warning else expires_at,
        prefix=plan.prefix,
        # One spelling of each name: sessions with a host are shared by it.
        hostname="" if author.hostname == settings.hostname else author.hostname,
        account_id=author.account_id,
        envid=mail.envid,
        ret=mail.ret,
        body=_body(mail.body, is_ascii=arrival.passing.is_ascii),
        smtputf8=mail.smtputf8,
        requiretls=mail.requiretls,
        priority=arrival.passing.priority,
        content_id=spooled.content_id,
        octets=spooled.octets,
        header_octets=spooled.structure.header_octets,
    )


def _body(said: str, *, is_ascii: bool) -> str:
    """What the next hop is told: many clients say 8BITMIME of every message.

    Hosts that lack it would bounce those. What came as BINARYMIME may have no lines at all.
    """
    return "7BIT" if is_ascii and said != BINARYMIME else said


def delivered(recipient: Recipient, now: int) -> Attempt:
    """What is told of a recipient whose mailbox is here."""
    return Attempt(
        recipient.n,
        Outcome.DELIVERED,
        250,
        "2.1.5",
        "Delivered to the mailbox",
        started_at=now,
        ended_at=now,
        is_ours=True,
    )
