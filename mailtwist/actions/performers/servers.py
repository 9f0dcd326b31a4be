"""Outcomes that concern the server: its listeners, certificates, queue and mailboxes.

What is no row happens after the commit.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from mailtwist.actions import mail_boxes, world
from mailtwist.actions.registry import Call, Performed, Performer, Response, notify, redirect
from mailtwist.errors import NotFound, ProtocolViolation
from mailtwist.mail.filters import Comparison, Operator
from mailtwist.store.entities.model import Item, ListRequest
from mailtwist.store.ids import now_us


async def sync(call: Call, _attributes: Mapping[str, Any]) -> Performed:
    """Bring the listeners in line with the rows, those of this call among them."""

    async def apply() -> None:
        await world.sync_mail_servers(call.context, {}, None)

    call.buffer.after(apply)
    return Performed()


async def process_outbox(call: Call, _attributes: Mapping[str, Any]) -> Performed:
    """Try once what is due, mail of this call among it."""
    queue = call.context.services.queue
    if queue is not None:
        call.buffer.after(queue.run_once)
    return Performed()


async def restart(call: Call, _attributes: Mapping[str, Any]) -> Performed:
    async def begin() -> None:
        call.context.services.reconciliation.restart()

    call.buffer.after(begin)
    return Performed(None, (notify("Initiating system update."), redirect("/", 5000)))


async def become_administrator(call: Call, _attributes: Mapping[str, Any]) -> Performed:
    """Make the caller the first administrator. Raises: Refusal when there is one."""
    user_id = call.context.viewer.user_id
    await call.buffer.perform(partial(world.become_first, user_id=user_id, now=now_us()))
    return Performed(None, (redirect("/", 7000), Response("Restart")))


async def mailbox_status(call: Call, attributes: Mapping[str, Any]) -> Performed:
    """The counters of the mailboxes that the caller himself may see."""
    given = {name: value for name, value in attributes.items() if value is not None}
    responses = await mail_boxes.status(call.context, given, None)
    return Performed(responses[0].attributes, responses)


# -- certificates ---------------------------------------------------------------------------


async def sign_certificate(call: Call, attributes: Mapping[str, Any]) -> Performed:
    """Put a new key and a certificate of our own into a row of ``certificate``."""
    row = await _certificate(call, attributes)
    services, hostname = call.context.services, str(row.attributes["hostname"])
    values = await services.resources.certificates.signed(hostname)
    planned = await services.resources.updating(
        call.as_administrator, "certificate", row.id, values, {}, is_asked_first=False
    )
    item: Item = await call.buffer.perform(planned.unit, accounts=planned.accounts)
    call.buffer.after(partial(services.resources.written, item))
    told = notify(f"Certificate generated for {hostname}", kind="message")
    return Performed(dict(item.attributes), (told,))


async def _certificate(call: Call, attributes: Mapping[str, Any]) -> Item:
    """The row that is meant: by its id, as a whole row, or by its host name.

    Raises: NotFound, ProtocolViolation.
    """
    given = attributes.get("certificate")
    whole = given if isinstance(given, Mapping) else {}
    row_id = attributes.get("certificate_id") or whole.get("reference_id")
    resources, viewer = call.context.services.resources, call.as_administrator
    if isinstance(row_id, str):
        work = resources.finding(viewer, "certificate", row_id)
        return (await call.buffer.preview(work)).items[0]
    hostname = attributes.get("hostname") or whole.get("hostname") or given
    if not isinstance(hostname, str):
        raise ProtocolViolation("missing required field: certificate")
    request = ListRequest(filter=Comparison("hostname", Operator.EQ, hostname.lower()), size=1)
    page = await call.buffer.preview(resources.listing(viewer, "certificate", request))
    if not page.items:
        raise NotFound(f"certificate not found [{hostname[:253]}]")
    return page.items[0]


async def order_certificate(call: Call, attributes: Mapping[str, Any]) -> Performed:
    """Have an authority sign one, after the commit: it looks at what we serve."""
    # Late: what is built in names this module's neighbours.
    from mailtwist.actions.acme import order

    row = await _certificate(call, attributes)
    email = attributes.get("email") or ""
    if not isinstance(email, str):
        raise ProtocolViolation("invalid value for email")
    call.buffer.after(partial(order, call.context.services, row.id, email))
    return Performed()


PERFORMERS: Final[Mapping[str, Performer]] = MappingProxyType(
    {
        "mail.servers.sync": sync,
        "outbox.process": process_outbox,
        "self.tls.generate": sign_certificate,
        "acme.tls.generate": order_certificate,
        "mail_box.status": mailbox_status,
        "__become_admin": become_administrator,
        "__restart": restart,
        # What schemas of predecessors call a restart.
        "system_json_schema_update": restart,
    }
)
