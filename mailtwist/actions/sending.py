"""Sending a message on behalf of who asks over HTTP: may he, and does it leave at all."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from mailtwist.errors import Refusal
from mailtwist.mail.address import Address
from mailtwist.mail.permissions import Viewer
from mailtwist.mail.scopes import may_send
from mailtwist.store import senders

if TYPE_CHECKING:
    from mailtwist.actions.registry import Context


class Intake(Protocol):
    """The way in of :mod:`mailtwist.queue.intake`."""

    async def submit(
        self,
        letter: bytes,
        *,
        reverse_path: Address | None,
        recipients: Sequence[Address],
        **options: Any,
    ) -> str: ...


async def allowed_account(database: Any, viewer: Viewer, sender: Address) -> int:
    """The account that a message from this address is sent by, 0 for an administrator's.

    Raises: Refusal when the address is not the viewer's, or beyond the scopes of his key.
    """
    if not may_send(viewer.scopes, sender.domain):
        raise Refusal(f"The API key may not send as {sender.domain}")
    account_id: int | None = await database.read(
        partial(senders.account_for, user_id=viewer.user_id, address=sender)
    )
    if account_id is None and not viewer.is_admin:
        raise Refusal(f"Sender address rejected: {sender} is not yours")
    return account_id or 0


async def send(
    context: Context, letter: bytes, *, sender: Address, recipients: Sequence[Address]
) -> str:
    """Commit a whole message with CRLF line ends; the id of "queued as".

    What is sent with a test key is captured instead, for local addresses too. Raises: Refusal,
    and what the store raises.
    """
    database = context.services.database
    account_id = await allowed_account(database, context.viewer, sender)
    hostname = await database.read(partial(senders.hostname_of, account_id=account_id))
    return await context.services.intake.submit(
        letter,
        reverse_path=sender,
        recipients=recipients,
        account_id=account_id,
        hostname=hostname,
        is_captured=context.viewer.is_test,
    )
