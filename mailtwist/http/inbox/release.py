"""``POST /emails/{username}/{id}/release``: a captured message goes to its real recipients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mailtwist.actions.releasing import Released, read_recipients
from mailtwist.http.exchange import Answer, Exchange, json_answer
from mailtwist.mail.address import Address
from mailtwist.mail.permissions import Viewer
from mailtwist.store.inbox import Captured


class Releasing(Protocol):
    """:class:`mailtwist.actions.releasing.Releasing`."""

    async def release(
        self, viewer: Viewer, captured: Captured, recipients: Sequence[Address] = ()
    ) -> Released: ...


async def release(
    releasing: Releasing, exchange: Exchange, viewer: Viewer, captured: Captured
) -> Answer:
    """Send it, for a viewer who may read it; 202 once it is durably queued.

    Raises: ProtocolViolation for a body that makes no sense, and what releasing raises.
    """
    done = await releasing.release(viewer, captured, read_recipients(exchange.json()))
    body = {
        "message": f"Message {captured.queue_id} has been released",
        "id": done.queue_id,
        "recipients": [
            {"address": each.address, "state": each.state, "reply": each.reply}
            for each in done.recipients
        ],
    }
    return json_answer(body, 202, headers=(("Location", f"/send/{done.queue_id}"),))
