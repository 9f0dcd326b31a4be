"""``aws.mail.send``: a letter that leaves by Amazon SES, under a credential of ours."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from mailtwist.actions import letters
from mailtwist.actions.registry import Call, Performed, Performer, Response
from mailtwist.actions.sending import captured_in
from mailtwist.errors import MailError, NotFound, ProtocolViolation
from mailtwist.queue import ses, ses_credentials
from mailtwist.store import credentials
from mailtwist.store.credentials import Stored

KEY: Final = "credential"


async def send(call: Call, attributes: Mapping[str, Any]) -> Performed:
    """Queue a letter for SES; the answer tells the id by which the queue knows it.

    Raises: ProtocolViolation, which names the attribute or the credential's field; NotFound for
    a credential that is not there or not for the caller; TooManyLetters.
    """
    context, mailing = call.context, call.context.services.mailing
    assert mailing is not None, "there is one wherever actions run"
    letter = letters.read(attributes, limit=mailing.limit, max_recipients=ses.MAX_RECIPIENTS)
    if not (letter.text or letter.html):
        raise ProtocolViolation("No valid mail body found")
    stored = await _credential(call, attributes)
    try:
        content = mailing.secrets.open(stored.sealed, credentials.PURPOSE)
    except MailError as error:
        raise ProtocolViolation(f"credential {stored.name}: {error.text}") from error
    ses_credentials.read(stored.name, content, is_trusted=stored.is_trusted)
    mailing.allow(context.viewer, context.peer)
    prepared = await mailing.prepare(
        letter,
        destination=ses.destination(stored.reference_id),
        is_captured=context.viewer.is_test,
        captured_in=await captured_in(context.services.database, context.viewer),
    )
    call.buffer.mail(prepared.acceptance)
    value = {"queue_id": prepared.queue_id, "message_id": prepared.message_id}
    told = {
        "message": "email sent successfully",
        "result": f'{{ MessageId: "{prepared.queue_id}" }}',
        "title": "Success",
        "type": "success",
    }
    return Performed(value, (Response("client.notify", told),))


async def _credential(call: Call, attributes: Mapping[str, Any]) -> Stored:
    """The caller's own of that name, else one that he, or the author, may use."""
    name = letters.text_of(KEY, attributes.get(KEY)) or ""
    if not name:
        raise ProtocolViolation(f"missing required field: {KEY}")
    found = await call.buffer.preview(partial(credentials.named, name=name))
    viewer = call.context.viewer
    for each in found:
        if viewer.owns(each.owner_user_id):
            return each
    for each in found:
        if viewer.is_admin or (each.is_trusted and _is_named_by_author(call, name)):
            return each
    raise NotFound(f"There is no credential {ascii(name)[1:-1][:200]}")


def _is_named_by_author(call: Call, name: str) -> bool:
    """Whether the text of the action itself names the credential, not what the caller gave.

    Who writes actions has the rights of an administrator in them.
    """
    return any(outcome.attributes.get(KEY) == name for outcome in call.definition.outcomes)


PERFORMERS: Final[Mapping[str, Performer]] = {"aws.mail.send": send}
