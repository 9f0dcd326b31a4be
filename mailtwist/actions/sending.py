"""Sending a message on behalf of who asks over HTTP: may he, and does it leave at all."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from mailtwist.errors import Refusal
from mailtwist.mail.address import Address
from mailtwist.mail.permissions import Viewer
from mailtwist.mail.scopes import may_send
from mailtwist.store import project_access, senders

if TYPE_CHECKING:
    from mailtwist.actions.registry import Context
    from mailtwist.store.projects import Project


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


async def captured_in(database: Any, viewer: Viewer) -> int:
    """The account that keeps what is sent with the viewer's key, 0 when no project does.

    Raises: Refusal when the project is gone, or not the key's owner's any more.
    """
    if not viewer.project:
        return 0
    project: Project | None = await database.read(partial(project_access.usable, viewer=viewer))
    if project is None:
        # What was to be captured never leaves instead.
        raise Refusal("The project of the API key is gone")
    return project.account_id


async def send(
    context: Context, letter: bytes, *, sender: Address, recipients: Sequence[Address]
) -> str:
    """Commit a whole message with CRLF line ends; the id of "queued as".

    What is sent with a test key, or one that is for a project, is captured instead, for local
    addresses too. Raises: Refusal, and what the store raises.
    """
    database = context.services.database
    project = await captured_in(database, context.viewer)
    # What is captured may say whatever it likes of its sender.
    account_id = 0 if project else await allowed_account(database, context.viewer, sender)
    hostname = await database.read(partial(senders.hostname_of, account_id=account_id))
    return await context.services.intake.submit(
        letter,
        reverse_path=sender,
        recipients=recipients,
        account_id=account_id,
        hostname=hostname,
        is_captured=context.viewer.is_test,
        captured_in=project,
    )
