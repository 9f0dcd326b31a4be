"""What a reply means for a recipient: delivered, to be tried again, or given up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mailtwist.queue import schedule
from mailtwist.queue.schedule import Rules
from mailtwist.queue.values import Host, RemoteReply
from mailtwist.store.queue.values import Attempt, Message, Outcome, Recipient

# RFC 3463 §3.5: delivery time expired.
EXPIRED: Final = "4.4.7"


def judge(
    message: Message,
    answered: Sequence[tuple[Recipient, RemoteReply]],
    rules: Rules,
    *,
    host: Host | None,
    tls: str,
    started_at: int,
    now: int,
) -> tuple[Attempt, ...]:
    """The attempts that the replies make."""
    name, address = (host.name, str(host)) if host is not None else ("", "")
    return tuple(
        [
            _attempt(message, recipient, reply, rules, name, address, tls, started_at, now)
            for recipient, reply in answered
        ]
    )


def _attempt(
    message: Message,
    recipient: Recipient,
    reply: RemoteReply,
    rules: Rules,
    name: str,
    address: str,
    tls: str,
    started_at: int,
    now: int,
) -> Attempt:
    outcome, status, text, due_at = Outcome.DELIVERED, reply.status, reply.text, 0
    if reply.code >= 500:
        outcome = Outcome.FAILED
    elif not 200 <= reply.code < 300:
        outcome, due_at = _again(message, recipient, rules, now)
        if outcome is Outcome.FAILED:
            status, text = EXPIRED, _with_status(reply.status, text)
    return Attempt(
        recipient.n,
        outcome,
        reply.code,
        status,
        text,
        reply.stage,
        name,
        address,
        tls,
        started_at,
        now,
        due_at,
        True,
        outcome is Outcome.DEFERRED and must_warn(message, recipient, rules, now),
        reply.is_ours,
    )


def _again(message: Message, recipient: Recipient, rules: Rules, now: int) -> tuple[Outcome, int]:
    made = recipient.attempts + 1
    due_at = schedule.next_attempt(made, schedule=rules.waits, now=now)
    is_over = schedule.gives_up(
        made, max_retries=rules.max_retries, due_at=due_at, expires_at=message.expires_at
    )
    return (Outcome.FAILED, 0) if is_over else (Outcome.DEFERRED, due_at)


def must_warn(message: Message, recipient: Recipient, rules: Rules, now: int) -> bool:
    """Whether the sender is to hear now that the recipient has not got it yet."""
    if not rules.delay_warning or recipient.was_warned:
        return False
    return now - message.received_at >= rules.delay_warning


def given_up(recipient: Recipient, now: int) -> Attempt:
    """A recipient whose time ran out while nobody tried; what was said last is told."""
    text = recipient.reply or "Not tried before it expired: its destination was out of reach"
    text = _with_status(recipient.status, text)
    return Attempt(
        recipient.n,
        Outcome.FAILED,
        recipient.code or 451,
        EXPIRED,
        text,
        started_at=now,
        ended_at=now,
        is_counted=False,
        is_ours=not recipient.reply,
    )


def _with_status(status: str, text: str) -> str:
    """A reply that keeps its own status where :data:`EXPIRED` takes its place."""
    return f"{status} {text}" if status and not text.startswith(status) else text


def untried(recipient: Recipient, *, now: int, is_warned: bool = False) -> Attempt:
    """Nothing happened to the recipient; it keeps its place in the schedule."""
    return Attempt(
        recipient.n,
        Outcome.DEFERRED,
        recipient.code,
        recipient.status,
        recipient.reply,
        started_at=now,
        ended_at=now,
        is_counted=False,
        is_warned=is_warned,
    )
