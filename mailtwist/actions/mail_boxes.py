"""Mailboxes: the counters and latest messages of those that the viewer may see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from mailtwist.actions.registry import FOR_USERS, Context, Input, Operation, Response
from mailtwist.errors import ProtocolViolation
from mailtwist.mail.filters import AllOf, Comparison, Operator
from mailtwist.mail.permissions import Viewer
from mailtwist.store import mailbox_status
from mailtwist.store.engine import Connection
from mailtwist.store.entities import ids
from mailtwist.store.entities.ids import Kind
from mailtwist.store.entities.model import Item, ListRequest, Page, Reading
from mailtwist.store.entities.registry import ENTITIES
from mailtwist.store.mailbox_status import Status

DEFAULT_SIZE: Final = 50
MAX_SIZE: Final = 500
MAX_NUMBER: Final = 1_000_000
# What is shown of a mailbox's latest message.
LATEST: Final = (
    "subject",
    "from_address",
    "internal_date",
    "message_id",
    "seen",
    "recent",
    "uid",
    "reference_id",
)


async def status(
    context: Context, attributes: Mapping[str, Any], _subject: Item | None
) -> Sequence[Response]:
    """A page of mailboxes with their counters, by name."""
    size = _whole(attributes, "page_size", DEFAULT_SIZE, MAX_SIZE)
    number = _whole(attributes, "page_number", 1, MAX_NUMBER)
    wanted = [
        Comparison(column, Operator.EQ, value)
        for column, name in (
            ("mail_account_id", "mail_account_id"),
            ("reference_id", "mail_box_id"),
        )
        if (value := attributes.get(name))
    ]
    request = ListRequest(
        filter=AllOf(tuple(wanted)) if wanted else None,
        sort=(("name", False),),
        size=size,
        number=number,
        columns=frozenset({"name"}),
    )
    page = await context.services.resources.list(context.viewer, "mail_box", request)
    rows = await context.services.database.read(
        lambda connection: _described(connection, context.viewer, page)
    )
    shown = {
        "current_page": number,
        "from": (number - 1) * size + 1 if rows else 0,
        "per_page": size,
        "to": (number - 1) * size + len(rows),
        "total": page.total,
    }
    return (Response("mail_box.status", {"data": rows, "pagination": shown}),)


def _whole(attributes: Mapping[str, Any], name: str, default: int, highest: int) -> int:
    """Raises: ProtocolViolation, which names the input."""
    text = str(attributes.get(name) or default)
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise ProtocolViolation(f"invalid value for {name}")
    return max(1, min(int(text), highest))


def _described(connection: Connection, viewer: Viewer, page: Page) -> list[dict[str, Any]]:
    """Three statements, however many mailboxes."""
    keys = {item.id: key for item in page.items if (key := ids.unpack(Kind.MAIL_BOX, item.id))}
    states = mailbox_status.read(connection, tuple(keys.values()))
    latest = {
        key: ids.pack(Kind.MAIL, key[0], state.latest_entry)
        for key, state in states.items()
        if state.latest_entry is not None
    }
    mail = ENTITIES["mail"]
    reading = Reading(connection, viewer, mail, columns=frozenset(LATEST))
    messages = mail.source.rows(reading, tuple(latest.values())) if latest else {}
    found = []
    for item in page.items:
        key = keys.get(item.id)
        state = states.get(key) if key else None
        if key is None or state is None:
            continue
        message = messages.get(latest.get(key, ""))
        found.append(_row(item, state, message.item if message else None))
    return found


def _row(item: Item, state: Status, latest: Item | None) -> dict[str, Any]:
    account = item.relations.get("mail_account_id")
    return {
        "mail_box_id": item.id,
        "mail_account_id": getattr(account, "id", item.attributes.get("mail_account_id")),
        "name": item.attributes["name"],
        "messages": state.messages,
        "recent": state.recent,
        "unseen": state.unseen,
        "uidnext": state.uidnext,
        "uidvalidity": state.uidvalidity,
        "latest_message": latest and {name: latest.attributes.get(name) for name in LATEST},
    }


OPERATIONS: Final = (
    Operation(
        "mail_box",
        "status",
        "Mailbox status",
        status,
        inputs=(
            Input("mail_account_id"),
            Input("mail_box_id"),
            Input("page_size"),
            Input("page_number"),
        ),
        permission=FOR_USERS,
    ),
)
