"""Running a named operation: may the viewer, are the inputs good, what is the subject."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred, TimeoutError
from twisted.logger import Logger

from mailtwist.actions import definitions, inputs, outcomes
from mailtwist.actions.buffer import Buffer, Stale
from mailtwist.actions.builtin import OPERATIONS
from mailtwist.actions.definition import Definition
from mailtwist.actions.registry import Call, Context, Response, Services
from mailtwist.actions.values import Evaluator
from mailtwist.errors import NotFound, ProtocolViolation, Refusal, TemporaryFailure
from mailtwist.mail.permissions import (
    ADMIN,
    AUTHENTICATED_EXECUTE,
    PROJECT,
    SEND,
    SYSTEM,
    Bit,
    Viewer,
    allows,
)
from mailtwist.mail.scopes import has_all
from mailtwist.store import administration
from mailtwist.store.administration import Gates
from mailtwist.store.entities.model import Item
from mailtwist.store.entities.values import is_storable

log = Logger()

# So long may the outcomes of one call take together, and so often is one run when others write
# the same rows meanwhile.
CALL_S: Final = 30.0
ATTEMPTS: Final = 4
LIST_PAGE: Final = 500
MAX_LISTED: Final = 10_000

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

        What is built in comes first; else the action of that name is run. Raises: NotFound,
        Refusal (403), ProtocolViolation (400), and what the operation raises; http_status and
        text are the answer.
        """
        operation = OPERATIONS.get((entity, name))
        gates = None
        if is_storable(entity) and is_storable(name):
            gates = await self.services.database.read(
                partial(administration.gates, entity=entity, name=name)
            )
        if gates is None or (operation is None and not gates.schema):
            raise NotFound("no such action", detail=f"{entity[:64]}/{name[:64]}")
        if not may_execute(viewer, gates, ADMIN if operation is None else operation.scope):
            raise Refusal(FORBIDDEN)
        context = Context(self.services, viewer, peer)
        if operation is None:
            responses = await self._run_own(context, gates, attributes)
        else:
            given = inputs.checked(operation.inputs, attributes)
            subject = None
            if operation.needs_subject:
                subject = await self._subject(viewer, entity, given, is_needed=True)
            responses = await operation.run(context, given, subject)
        log.info("action", entity=entity, name=name, user=viewer.email, peer=peer)
        return responses

    # -- actions of one's own ---------------------------------------------------------------

    async def _run_own(
        self, context: Context, gates: Gates, attributes: Mapping[str, Any]
    ) -> Sequence[Response]:
        """Run the outcomes, write what they wrote; all of it again when others were quicker."""
        definition = definitions.of_row(gates.schema)
        given = inputs.taken(definition, attributes)
        is_optional = definition.is_instance_optional
        subject = await self._subject(
            context.viewer,
            gates.entity,
            attributes,
            is_needed=not (gates.is_instance_optional if is_optional is None else is_optional),
        )
        scope = await self._scope(context, definition, gates, given, attributes, subject)
        for attempt in range(ATTEMPTS):
            buffer = Buffer(self.services.database, self.services.intake)
            call = Call(
                context,
                definition,
                dict(scope),
                buffer,
                script=self._script(context),
                is_privileged=gates.is_administered,
            )
            running = outcomes.Running(call)
            try:
                await self._in_time(running.run())
                await buffer.commit()
            except Stale:
                if attempt + 1 == ATTEMPTS:
                    raise
            else:
                return running.answer()
        raise AssertionError("the last attempt returns or raises")

    def _script(self, context: Context) -> Evaluator | None:
        script = self.services.script
        return None if script is None else script.allowance(context.viewer.email or context.peer)

    async def _in_time(self, running: Coroutine[Any, Any, None]) -> None:
        """Raises: TemporaryFailure when outcomes take too long; nothing was written then."""
        clock = self.services.clock
        if clock is None:
            await running
            return
        deferred = Deferred.fromCoroutine(running)
        deferred.addTimeout(CALL_S, clock)
        try:
            await deferred
        except TimeoutError as error:
            raise TemporaryFailure(f"The action took longer than {CALL_S:.0f} s") from error

    async def _scope(
        self,
        context: Context,
        definition: Definition,
        gates: Gates,
        given: dict[str, Any],
        attributes: Mapping[str, Any],
        subject: Item | None,
    ) -> dict[str, Any]:
        """What expressions see. Raises: ProtocolViolation, when it is too large."""
        scope = {**given, "attributes": {**attributes, **given}}
        scope["env"] = dict(self.services.environment)
        if definition.mentions_user:
            scope["user"] = await self._user(context.viewer)
        if subject is not None:
            scope["subject"] = dict(subject.attributes)
            scope[f"{gates.entity}_id"] = subject.id
        if outcomes.weight(scope, outcomes.MAX_SCOPE) > outcomes.MAX_SCOPE:
            raise ProtocolViolation("The inputs are too large")
        return scope

    async def _user(self, viewer: Viewer) -> dict[str, Any]:
        """The caller's own row; what a guest has of it is empty."""
        found = {"id": viewer.user_id, "email": viewer.email, "reference_id": viewer.reference_id}
        if viewer.is_guest or not viewer.reference_id:
            return found
        try:
            page = await self.services.resources.get(SYSTEM, "user_account", viewer.reference_id)
        except NotFound:
            return found
        return {**page.items[0].attributes, **found}

    # -- what there is ----------------------------------------------------------------------

    def guest_list(self) -> dict[str, Any]:
        """What GET /actions answers: ``{"user:signup": schema, "user:signin": schema}``."""
        return {f"user:{name}": OPERATIONS[entity, name].schema() for entity, name in GUEST_LIST}

    async def listed(self, viewer: Viewer) -> dict[str, Any]:
        """The same, and for who signed in all that he may execute, as ``entity:name``."""
        found = self.guest_list()
        if viewer.is_guest:
            return found
        after, is_more = 0, True
        while is_more and len(found) < MAX_LISTED:
            page, after = await self.services.database.read(
                partial(administration.all_gates, after=after, limit=LIST_PAGE)
            )
            is_more = bool(after)
            for gates in page:
                schema = _schema(viewer, gates)
                if schema is not None:
                    found[f"{gates.entity}:{gates.name}"] = schema
        return found

    async def _subject(
        self, viewer: Viewer, entity: str, attributes: Mapping[str, Any], *, is_needed: bool
    ) -> Item | None:
        """The row that the call is about, as far as the viewer may see it."""
        row_id = attributes.get(f"{entity}_id")
        if not isinstance(row_id, str) or not row_id:
            if is_needed or row_id:
                raise ProtocolViolation(NO_SUBJECT)
            return None
        page = await self.services.resources.get(viewer, entity, row_id)
        return page.items[0]


def _schema(viewer: Viewer, gates: Gates) -> dict[str, Any] | None:
    """What a client draws the form of an action from; None: it is not for this viewer."""
    operation = OPERATIONS.get((gates.entity, gates.name))
    if not may_execute(viewer, gates, ADMIN if operation is None else operation.scope):
        return None
    if operation is not None:
        return operation.schema()
    try:
        definition = definitions.of_row(gates.schema) if gates.schema else None
    except ProtocolViolation:
        return None
    if definition is None:
        return None
    is_optional = definition.is_instance_optional
    return {
        "Name": gates.name,
        "Label": gates.label or definition.label,
        "OnType": gates.entity,
        "InstanceOptional": gates.is_instance_optional if is_optional is None else is_optional,
        **definition.schema(),
    }


def _kinds(viewer: Viewer) -> set[str]:
    """The kinds of scopes that a key has; what a project's key sends is captured."""
    kinds = {each.kind for each in viewer.scopes or ()}
    return kinds | {SEND} if PROJECT in kinds else kinds


def may_execute(viewer: Viewer, gates: Gates, scope: str) -> bool:
    """Whether both gates are open: that of the table and that of the action's row.

    ``scope``: a kind that an API key needs at least.
    """
    if viewer.is_admin:
        return True
    if not has_all(viewer.scopes) and scope not in _kinds(viewer):
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
