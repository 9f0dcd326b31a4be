"""Who is told of events by HTTP, and what became of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import delete, func, select

from mailtwist.errors import Conflict, ProtocolViolation
from mailtwist.mail.permissions import LOCKED, OPEN, OWNER, Bit
from mailtwist.net.urls import MAX_URL, read_url
from mailtwist.store import events
from mailtwist.store.entities.model import (
    PRIVATE_ROW,
    Change,
    Column,
    Entity,
    Relation,
    Type,
    by_name,
    relations,
)
from mailtwist.store.entities.tables import webhook, webhook_delivery
from mailtwist.store.entities.tabular import Reference, Tabular
from mailtwist.store.reference import reference_id

KIND: Final = "webhook"
MAX_SECRET: Final = 200
# Of one who is no administrator: each may keep a connection for seconds.
MAX_OF_USER: Final = 10
# What guests may do on a server that nobody administers yet is not to call addresses.
_WITHOUT_GUESTS: Final = OPEN & ~int(Bit.CREATE | Bit.UPDATE | Bit.DELETE)

_WEBHOOKS: Final = Tabular(webhook, "webhook_id", kinds=(KIND,))
_DELIVERIES: Final = Tabular(
    webhook_delivery,
    "delivery_id",
    references={
        "webhook_id": Reference(webhook_delivery.c.webhook_id, webhook, webhook.c.webhook_id)
    },
)


def _checked(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values with every kind once. Raises: ProtocolViolation."""
    if "url" in values:
        try:
            read_url(values["url"])
        except ProtocolViolation as error:
            raise ProtocolViolation(f"invalid value for url: {error.text}") from error
    if "kinds" not in values:
        return values
    kinds = dict.fromkeys(json.loads(values["kinds"] or "[]"))
    if not kinds.keys() <= set(events.KINDS):
        expected = ", ".join(events.KINDS)
        raise ProtocolViolation(f"invalid value for kinds: some of {expected} are expected")
    return {**values, "kinds": json.dumps(list(kinds))}


def _create(change: Change) -> str:
    change = change.with_values(_checked(change.values))
    own = select(func.count()).where(webhook.c.owner_user_id == change.viewer.user_id)
    if not change.viewer.is_admin and change.connection.execute(own).scalar_one() >= MAX_OF_USER:
        raise Conflict(f"More than {MAX_OF_USER} webhooks")
    _WEBHOOKS.insert(change, reference := reference_id(change.now), position=_now(change))
    return reference


def _now(change: Change) -> int:
    """Nobody is told of what was before."""
    return events.latest(change.connection)


def _update(change: Change) -> None:
    values = _checked(change.values)
    more: dict[str, Any] = {}
    if values.keys() & {"url", "secret", "active"}:
        more = {"failing_since": None, "last_error": ""}
    assert change.row is not None
    if values.get("active") and not change.row.item.attributes.get("active"):
        more["position"] = _now(change)
    _WEBHOOKS.write(change.with_values(values), **more)


def _delete(change: Change) -> None:
    own = webhook_delivery.c.webhook_id == change.key
    change.connection.execute(delete(webhook_delivery).where(own))
    _WEBHOOKS.delete(change)


WEBHOOK: Final = Entity(
    name="webhook",
    doc="Web addresses that are told what happens to the mail of their owner's accounts.",
    columns=by_name(
        Column("url", is_required=True, max_length=MAX_URL, doc="What is posted to."),
        Column(
            "kinds",
            Type.LIST,
            default="[]",
            doc="Some of `received`, `delivered`, `deferred`, `bounced`; empty: all.",
        ),
        Column(
            "secret",
            Type.SECRET,
            is_required=True,
            is_writeonly=True,
            max_length=MAX_SECRET,
            doc="What each delivery is signed with.",
        ),
        Column("active", Type.BOOLEAN, default=True),
        Column(
            "failing_since",
            Type.TIMESTAMP,
            is_readonly=True,
            doc="Since when nothing was taken; after 3 days it is no longer active.",
        ),
        Column("last_sent_at", Type.TIMESTAMP, is_readonly=True),
        Column("last_error", default="", is_readonly=True),
    ),
    relations=relations(
        Relation("webhook_delivery_id", "webhook_delivery", is_many=True, inverse="webhook_id")
    ),
    source=_WEBHOOKS,
    create=_create,
    update=_update,
    delete=_delete,
    is_private=True,
    is_shared=False,
    table_permission=LOCKED | (Bit.CREATE | Bit.UPDATE | Bit.DELETE) << OWNER,
    row_permission=PRIVATE_ROW,
    fresh_row_permission=PRIVATE_ROW,
    fresh_table_permission=_WITHOUT_GUESTS,
    labels=("url",),
)

WEBHOOK_DELIVERY: Final = Entity(
    name="webhook_delivery",
    doc="What was or is to be posted to a webhook; kept for 3 days.",
    columns=by_name(
        Column("event_id", Type.INTEGER, is_readonly=True),
        Column("kind", is_readonly=True),
        Column("body", is_readonly=True, is_hidden=True, doc="What is posted."),
        Column("state", is_readonly=True, choices=("waiting", "sent", "failed")),
        Column("due_at", Type.TIMESTAMP, is_readonly=True, doc="Of the next attempt."),
        Column("attempts", Type.INTEGER, is_readonly=True),
        Column("code", Type.INTEGER, is_readonly=True, doc="Of the last answer; 0: none came."),
        Column("error", is_readonly=True),
    ),
    relations=relations(Relation("webhook_id", "webhook", is_readonly=True)),
    source=_DELIVERIES,
    is_private=True,
    is_shared=False,
    row_permission=PRIVATE_ROW,
    fresh_row_permission=PRIVATE_ROW,
    labels=("kind", "state"),
)

ENTITIES: Final = (WEBHOOK, WEBHOOK_DELIVERY)
