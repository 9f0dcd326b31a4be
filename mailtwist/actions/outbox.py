"""Mail that leaves: trying now what is due, and a plain letter."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final

from mailtwist.actions.inputs import refusal
from mailtwist.actions.registry import (
    FOR_USERS,
    Context,
    Input,
    Operation,
    Response,
    notify,
)
from mailtwist.actions.sending import send
from mailtwist.errors import ProtocolViolation
from mailtwist.mail.address import Address, parse_address
from mailtwist.mail.compose import compose
from mailtwist.mail.permissions import SEND
from mailtwist.store.entities.model import Item
from mailtwist.store.ids import now_us

MAX_RECIPIENTS: Final = 100


async def process_outbox(
    context: Context, _attributes: Mapping[str, Any], _subject: Item | None
) -> Sequence[Response]:
    """Answers when all that was due at the start has been tried once."""
    if context.services.queue is not None:
        await context.services.queue.run_once()
    return ()


async def send_letter(
    context: Context, attributes: Mapping[str, Any], _subject: Item | None
) -> Sequence[Response]:
    """Send a plain text from an address of the viewer's. Raises: Refusal, ProtocolViolation."""
    sender = _address("from", attributes["from"])
    given = attributes["to"]
    to = given if isinstance(given, list) else [given]
    if len(to) > MAX_RECIPIENTS:
        raise ProtocolViolation(f"invalid value for to: {MAX_RECIPIENTS} recipients at most")
    recipients = [_address("to", each) for each in to]
    letter = compose(
        sender=sender,
        recipients=recipients,
        subject=attributes.get("subject") or "",
        text=attributes.get("body") or "",
        seconds=now_us() / 1_000_000,
        message_id=f"{secrets.token_hex(12)}@{sender.domain.strip('[]')}",
    )
    queue_id = await send(context, letter, sender=sender, recipients=recipients)
    return (notify(f"queued as {queue_id}", title="Sent"),)


def _address(name: str, value: Any) -> Address:
    try:
        return parse_address(value if isinstance(value, str) else "")
    except ProtocolViolation as error:
        raise refusal("email", name) from error


OPERATIONS: Final = (
    Operation("outbox", "process_outbox", "Process outbox", process_outbox),
    Operation(
        "outbox",
        "send",
        "Send a plain letter",
        send_letter,
        inputs=(
            Input("from", "email", is_required=True),
            Input("to", "json", is_required=True),
            Input("subject"),
            Input("body", "content"),
        ),
        permission=FOR_USERS,
        scope=SEND,
    ),
)
