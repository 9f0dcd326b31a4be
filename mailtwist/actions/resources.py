"""Rows over the reactor: each call is one read or one write of the store.

What a client gives as a secret is made safe before it becomes a row (:mod:`.secret_values`);
whether he may write the row at all is asked before that, for it keeps a processor busy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailtwist.actions import new_keys
from mailtwist.actions.secret_values import SecretValues
from mailtwist.mail.permissions import Bit, Viewer
from mailtwist.policy.hashing import Derivation, Turns
from mailtwist.policy.keyring import Keyring
from mailtwist.store import steps
from mailtwist.store.engine import Connection
from mailtwist.store.entities import appending, engine, ids, permissions, signing
from mailtwist.store.entities.changing import Mode
from mailtwist.store.entities.finding import checked_row, entity_of
from mailtwist.store.entities.ids import Kind
from mailtwist.store.entities.model import (
    Entity,
    Facts,
    Item,
    ListRequest,
    Page,
    Prepared,
    Reading,
    Ref,
)
from mailtwist.store.secrets import Secrets

log = Logger()

Relations = Mapping[str, Ref | tuple[Ref, ...] | None]

# An entity, and its column that holds a whole message.
MAIL: Final = "mail"
# Deleting one of these only hides it; what it held goes in steps.
_EMPTIED_LATER: Final = frozenset({"mail_account", "mail_box"})
# Empty in the row of a mail server whose domain has no key.
_KEY_COLUMN: Final = "dkim_public_key"
# Whose ids tell the account, which is to be locked before its rows.
_KINDS: Final = {"mail_box": Kind.MAIL_BOX, "mail": Kind.MAIL}


class Resources:
    """All entities, as one viewer may see and change them; ``entity`` is a name.

    Raises: NotFound for an entity or row that is unknown, Refusal for one that the viewer may
    not, MethodNotAllowed, ProtocolViolation for bad input, Conflict; and what the store raises.

    ``facts``: what settings say, asked at each call. ``now``: microseconds. ``keyring``: makes the
    DKIM keys that rows of mail servers show.
    """

    def __init__(
        self,
        database: Any,
        *,
        secrets: Secrets,
        derivation: Derivation,
        cost: int,
        now: Callable[[], int],
        facts: Callable[[], Facts] = Facts,
        turns: Turns | None = None,
        keyring: Callable[[], Keyring] | None = None,
    ) -> None:
        self._database = database
        self._keyring = keyring
        self._secret_values = SecretValues(secrets, derivation, turns or Turns(), cost)
        self._now = now
        self._facts = facts

    # -- reading ----------------------------------------------------------------------------

    async def list(self, viewer: Viewer, entity: str, request: ListRequest) -> Page:
        return await self._read(engine.list_rows, viewer, entity, request)

    async def get(
        self,
        viewer: Viewer,
        entity: str,
        row_id: str,
        *,
        columns: frozenset[str] | None = None,
        includes: Sequence[str] = (),
    ) -> Page:
        """A page of exactly one item, with what it is to include."""
        find = partial(engine.find_row, columns=columns, includes=includes)
        page = await self._read(find, viewer, entity, row_id)
        if await self._made_key(page.items[0]):
            page = await self._read(find, viewer, entity, row_id)
        return page

    async def related(
        self, viewer: Viewer, entity: str, row_id: str, relation: str, request: ListRequest
    ) -> Page:
        """The rows behind a relation; at most one of a relation to one."""
        return await self._read(engine.related_rows, viewer, entity, row_id, relation, request)

    async def _read(
        self, work: Callable[..., Page], viewer: Viewer, entity: str, *given: Any
    ) -> Page:
        facts = self._facts()
        page: Page = await self._database.read(
            lambda connection: work(connection, viewer, entity, *given, facts=facts)
        )
        return page

    async def _made_key(self, item: Item) -> bool:
        """Make the key that a mail server's row is to show, if it has none yet."""
        if self._keyring is None or item.attributes.get(_KEY_COLUMN) != "":
            return False
        facts, hostname = self._facts(), str(item.attributes.get("hostname", ""))
        if not hostname:
            return False
        domains = await self._database.read(
            lambda connection: signing.domains_of(connection, [hostname], facts)
        )
        await self._keyring().active(domains[hostname])
        return True

    # -- writing ----------------------------------------------------------------------------

    async def create(
        self, viewer: Viewer, entity: str, attributes: Mapping[str, Any], relations: Relations
    ) -> Item:
        """Make a row. An API key's text is in its answer, and nowhere else."""
        declared = entity_of(entity)
        key, attributes = new_keys.completed(declared, attributes)
        given = await self._made_safe(viewer, declared, attributes, "")
        places = [ref.id for ref in relations.values() if isinstance(ref, Ref)]
        item: Item = await self._write(
            engine.create_row,
            viewer,
            declared,
            given,
            relations,
            places=places,
            octets=_octets(given),
        )
        if await self._made_key(item):
            item = (await self.get(viewer, entity, item.id)).items[0]
        return item if key is None else new_keys.shown(item, key)

    async def update(
        self,
        viewer: Viewer,
        entity: str,
        row_id: str,
        attributes: Mapping[str, Any],
        relations: Relations,
    ) -> Item:
        """Change what is given and nothing else; the whole row."""
        declared = entity_of(entity)
        attributes = new_keys.checked(declared, attributes)
        given = await self._made_safe(viewer, declared, attributes, row_id)
        item: Item = await self._write(
            engine.update_row, viewer, declared, row_id, given, relations, places=[row_id]
        )
        return item

    async def delete(self, viewer: Viewer, entity: str, row_id: str) -> None:
        declared = entity_of(entity)
        await self._write(engine.delete_row, viewer, declared, row_id, places=[row_id])
        if entity in _EMPTIED_LATER:
            emptying = Deferred.fromCoroutine(steps.resume(self._database))
            # The next start goes on where this stops.
            emptying.addErrback(
                lambda failure: log.warn("emptying is put off: {error}", error=failure.value)
            )

    async def relate(
        self, viewer: Viewer, entity: str, row_id: str, relation: str, refs: Sequence[Ref]
    ) -> None:
        """Add to a relation to many; what is there already is no error."""
        await self._change(viewer, entity, row_id, relation, refs, Mode.ADD)

    async def unrelate(
        self, viewer: Viewer, entity: str, row_id: str, relation: str, refs: Sequence[Ref]
    ) -> None:
        await self._change(viewer, entity, row_id, relation, refs, Mode.REMOVE)

    async def replace(
        self,
        viewer: Viewer,
        entity: str,
        row_id: str,
        relation: str,
        refs: Sequence[Ref] | Ref | None,
    ) -> None:
        """Make the relation lead to exactly these."""
        exactly = (refs,) if isinstance(refs, Ref) else tuple(refs or ())
        await self._change(viewer, entity, row_id, relation, exactly, Mode.REPLACE)

    async def _change(
        self,
        viewer: Viewer,
        entity: str,
        row_id: str,
        relation: str,
        refs: Sequence[Ref],
        mode: Mode,
    ) -> None:
        declared = entity_of(entity)
        await self._write(
            engine.change_related, viewer, declared, row_id, relation, refs, mode, places=[row_id]
        )

    async def _write(
        self,
        work: Callable[..., Any],
        viewer: Viewer,
        entity: Entity,
        *given: Any,
        places: Sequence[str] = (),
        octets: int = 0,
    ) -> Any:
        """One unit; ``places``: ids of rows in whose accounts it writes."""
        facts, now = self._facts(), self._now()

        def unit(connection: Connection) -> Any:
            return work(connection, viewer, entity, *given, now=now, facts=facts)

        return await self._database.write(unit, accounts=_accounts(places), octets=octets)

    async def _made_safe(
        self, viewer: Viewer, entity: Entity, attributes: Mapping[str, Any], row_id: str
    ) -> dict[str, Any]:
        """The attributes without clear secrets; who may not write is refused first.

        The text of a new mail is spooled, for it may be long.
        """
        is_mail = entity.name == MAIL and not row_id and isinstance(attributes.get(MAIL), str)
        if is_mail or self._secret_values.are_in(entity, attributes):
            await self._database.read(
                partial(_check_gates, viewer=viewer, entity=entity, row_id=row_id)
            )
        given = await self._secret_values.safe(entity, attributes)
        if is_mail:
            given[MAIL] = Prepared(await appending.spool(self._database, attributes[MAIL]))
        return given


def _check_gates(connection: Connection, *, viewer: Viewer, entity: Entity, row_id: str) -> None:
    if row_id:
        checked_row(Reading(connection, viewer, entity, columns=frozenset()), row_id, Bit.UPDATE)
    else:
        permissions.check_table(connection, viewer, entity, Bit.CREATE)


def _accounts(places: Sequence[str]) -> tuple[int, ...]:
    """The accounts that the ids of rows tell."""
    found = (ids.unpack(kind, place) for place in places for kind in _KINDS.values())
    return tuple({numbers[0] for numbers in found if numbers is not None})


def _octets(attributes: Mapping[str, Any]) -> int:
    """About how much a unit writes."""
    spooled = attributes.get(MAIL)
    return spooled.value.octets if isinstance(spooled, Prepared) else 0
