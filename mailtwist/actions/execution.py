"""Running a named operation: may the viewer, are the inputs good, what is the subject."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from twisted.logger import Logger

from mailtwist.actions import inputs
from mailtwist.actions.builtin import OPERATIONS
from mailtwist.actions.registry import Context, Operation, Response, Services
from mailtwist.errors import NotFound, ProtocolViolation, Refusal
from mailtwist.mail.permissions import AUTHENTICATED_EXECUTE, Bit, Viewer, allows
from mailtwist.mail.scopes import has_all
from mailtwist.store import administration
from mailtwist.store.administration import Gates
from mailtwist.store.entities.model import Item

log = Logger()

FORBIDDEN: Final = "http error (403) forbidden and 0 more errors, forbidden"
NO_SUBJECT: Final = (
    "http error (400) no reference id and 0 more errors, "
    "required reference id not provided or incorrect"
)
# Who is not signed in sees these in GET /actions, whether or not they are open to him.
GUEST_LIST: Final = (("user_account", "signup"), ("user_account", "signin"))


class Operations:
    """All operations; one in a process."""

    def __init__(self, services: Services) -> None:
        self.services = services

    async def execute(
        self,
        viewer: Viewer,
        entity: str,
        name: str,
        attributes: Mapping[str, Any],
        *,
        peer: str = "",
    ) -> Sequence[Response]:
        """Run ``name`` of ``entity``; ``peer`` is the client's IP address.

        Raises: NotFound, Refusal (403), ProtocolViolation (400), and what the operation raises;
        http_status and text are the answer.
        """
        operation = OPERATIONS.get((entity, name))
        gates = None
        if operation is not None:
            gates = await self.services.database.read(
                partial(administration.gates, entity=entity, name=name)
            )
        if operation is None or gates is None:
            raise NotFound("no such action", detail=f"{entity[:64]}/{name[:64]}")
        if not may_execute(viewer, operation, gates):
            raise Refusal(FORBIDDEN)
        given = inputs.checked(operation.inputs, attributes)
        subject = await self._subject(viewer, operation, given)
        context = Context(self.services, viewer, peer)
        responses = await operation.run(context, given, subject)
        log.info("action", entity=entity, name=name, user=viewer.email, peer=peer)
        return responses

    def guest_list(self) -> dict[str, Any]:
        """What GET /actions answers: ``{"user:signup": schema, "user:signin": schema}``."""
        return {f"user:{name}": OPERATIONS[entity, name].schema() for entity, name in GUEST_LIST}

    async def _subject(
        self, viewer: Viewer, operation: Operation, attributes: Mapping[str, Any]
    ) -> Item | None:
        """The row that the call is about, as far as the viewer may see it."""
        if not operation.needs_subject:
            return None
        row_id = attributes.get(operation.subject_key)
        if not isinstance(row_id, str) or not row_id:
            raise ProtocolViolation(NO_SUBJECT)
        page = await self.services.resources.get(viewer, operation.entity, row_id)
        return page.items[0]


def may_execute(viewer: Viewer, operation: Operation, gates: Gates) -> bool:
    """Whether both gates are open: that of the table and that of the action's row."""
    if viewer.is_admin:
        return True
    if not has_all(viewer.scopes) and not any(
        scope.kind == operation.scope for scope in viewer.scopes or ()
    ):
        return False
    signed_in = not viewer.is_guest
    table = allows(
        gates.table_permission,
        Bit.EXECUTE,
        is_user=signed_in,
        in_group=bool(viewer.groups & gates.table_groups),
    )
    row = allows(
        gates.permission,
        Bit.EXECUTE,
        is_user=viewer.owns(gates.owner_user_id),
        in_group=bool(viewer.groups & gates.groups),
    )
    return table and (row or (signed_in and bool(gates.permission & AUTHENTICATED_EXECUTE)))
