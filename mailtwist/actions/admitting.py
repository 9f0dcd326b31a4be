"""For whom a message is, before it is written: who is taken, and what is known of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mailtwist.errors import MailError, OverQuota, Refusal
from mailtwist.mail.address import Address
from mailtwist.queue.envelope import Recipient
from mailtwist.store.directory import Target
from mailtwist.store.send_requests import CAPTURED, DELIVERED, QUEUED, REFUSED, Expected


@dataclass(frozen=True, slots=True)
class Admitted:
    """``expected``: all recipients in their order; ``taken``: those who are not refused."""

    taken: list[Recipient]
    expected: tuple[Expected, ...]

    @property
    def first_reply(self) -> str:
        return next((each.reply for each in self.expected if each.reply), "")


async def admit(
    intake: Any,
    addresses: Sequence[Address],
    octets: int,
    *,
    is_sandbox: bool = False,
    is_bounce: bool = False,
) -> Admitted:
    """Ask for each recipient. ``intake``: :class:`mailtwist.queue.intake.Intake`.

    Raises: what the store raises.
    """
    taken: list[Recipient] = []
    expected: list[Expected] = []
    for address in addresses:
        try:
            recipient = await intake.admit(
                address, size=octets, may_relay=True, is_sandbox=is_sandbox, is_bounce=is_bounce
            )
        except (Refusal, OverQuota) as error:
            expected.append(Expected(str(address), REFUSED, reply_of(error)))
        else:
            taken.append(recipient)
            expected.append(Expected(str(address), _state(recipient)))
    return Admitted(taken, tuple(expected))


def _state(recipient: Recipient) -> str:
    """What is known of a recipient before its message is written."""
    here = [target for target in recipient.targets if isinstance(target, Target)]
    if len(here) < len(recipient.targets):
        return QUEUED
    return CAPTURED if any(target.is_captured for target in here) else DELIVERED


def reply_of(error: MailError) -> str:
    """A refusal as an SMTP server says it."""
    return f"{error.code} {error.status} {error.text}"
