"""``mail.send``: a letter, written with all else that its action writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mailtwist.actions import letters
from mailtwist.actions.registry import Call, Performed, Performer
from mailtwist.actions.sending import captured_in

SERVER: Final = "mail_server_hostname"


async def send(call: Call, attributes: Mapping[str, Any]) -> Performed:
    """Send a letter from any address: an action may what its author lets it.

    The value under its Reference is ``{"queue_id": ..., "message_id": ...}``. Raises:
    ProtocolViolation, which names the attribute; Refusal; TooManyLetters.
    """
    context, mailing = call.context, call.context.services.mailing
    assert mailing is not None, "there is one wherever actions run"
    letter = letters.read(attributes, limit=mailing.limit)
    mailing.allow(context.viewer, context.peer)
    hostname = letters.text_of(SERVER, attributes.get(SERVER)) or ""
    prepared = await mailing.prepare(
        letter,
        hostname=letters.in_header(SERVER, hostname),
        is_captured=context.viewer.is_test,
        captured_in=await captured_in(context.services.database, context.viewer),
    )
    call.buffer.mail(prepared.acceptance)
    return Performed({"queue_id": prepared.queue_id, "message_id": prepared.message_id})


PERFORMERS: Final[Mapping[str, Performer]] = {"mail.send": send}
