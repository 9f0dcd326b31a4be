"""Rows over the reactor: each call is one read or one write of the store.

What a client gives as a secret is made safe before it becomes a row (:mod:`.secret_values`);
whether he may write the row at all is asked before that, for it keeps a processor busy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailtwist.actions import certificate_values, new_keys, seen_once
from mailtwist.actions.certificate_values import CertificateValues
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
_EMPTIED_LATER: Final = frozenset({"mail_account", "mail_box", "project"})
# Empty in the row of a mail server whose domain has no key.
_KEY_COLUMN: Final = "dkim_public_key"
# Whose ids tell the account, which is to be locked before its rows.
_KINDS: Final = {"mail_box": Kind.MAIL_BOX, "mail": Kind.MAIL}


@dataclass(frozen=True, slots=True)
class Planned:
    """One write, ready to be run in a transaction; ``accounts`` and ``octets`` as of a unit.

    ``secret``: attributes that the answer is to have, and no other.
    """

    unit: Callable[[Connection], Any]
    accounts: tuple[int, ...] = ()
    octets: int = 0
    secret: Mapping[str, str] = field(default_factory=dict, repr=False)

    def shown(self, item: Item) -> Item:
        """What the maker of the row gets to see."""
        return seen_once.shown(item, self.secret)


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
        self.certificates = CertificateValues(database, secrets, derivation, facts)
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

    def listing(
        self, viewer: Viewer, entity: str, request: ListRequest
    ) -> Callable[[Connection], Page]:
        """What :meth:`list` does, for a transaction of the caller's."""
        return self._reading(engine.list_rows, viewer, entity, request)

    def finding(self, viewer: Viewer, entity: str, row_id: str) -> Callable[[Connection], Page]:
        """What :meth:`get` does, for a transaction of the caller's."""
        return self._reading(engine.find_row, viewer, entity, row_id)

    async def _read(
        self, work: Callable[..., Page], viewer: Viewer, entity: str, *given: Any
    ) -> Page:
        page: Page = await self._database.read(self._reading(work, viewer, entity, *given))
        return page

    def _reading(
        self, work: Callable[..., Page], viewer: Viewer, entity: str, *given: Any
    ) -> Callable[[Connection], Page]:
        facts = self._facts()
        return lambda connection: work(connection, viewer, entity, *given, facts=facts)

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

    async def written(self, item: Item) -> None:
        """A row that :meth:`creating` or :meth:`updating` planned is committed."""
        await self._adopt_key(item)

    async def _adopt_key(self, item: Item) -> None:
        """Let the key that came with a domain's certificate sign its mail."""
        if item.entity == certificate_values.ENTITY and self._keyring is not None:
            await self._keyring().adopt(str(item.attributes.get("hostname", "")))

    # -- writing ----------------------------------------------------------------------------

    async def create(
        self, viewer: Viewer, entity: str, attributes: Mapping[str, Any], relations: Relations
    ) -> Item:
        """Make a row. What is made up for it is in this answer, and nowhere else."""
        planned = await self.creating(viewer, entity, attributes, relations)
        item: Item = await self._write(planned)
        await self._adopt_key(item)
        if await self._made_key(item):
            item = (await self.get(viewer, entity, item.id)).items[0]
        return planned.shown(item)

    async def creating(
        self,
        viewer: Viewer,
        entity: str,
        attributes: Mapping[str, Any],
        relations: Relations,
        *,
        is_asked_first: bool = True,
    ) -> Planned:
        """What :meth:`create` writes; ``is_asked_first``: whether the viewer may is asked before
        anything costs time.
        """
        declared = entity_of(entity)
        _check_action(declared, attributes)
        secret, attributes = seen_once.completed(declared, attributes)
        asked = "" if is_asked_first else None
        if certificate_values.are_in(declared, attributes):
            await self._ask(viewer, declared, asked)
            attributes = await self.certificates.checked(attributes, "")
        given = await self._made_safe(viewer, declared, attributes, asked)
        places = [ref.id for ref in relations.values() if isinstance(ref, Ref)]
        unit = self._unit(engine.create_row, viewer, declared, given, relations)
        return Planned(unit, _accounts(places), _octets(given), secret)

    async def update(
        self,
        viewer: Viewer,
        entity: str,
        row_id: str,
        attributes: Mapping[str, Any],
        relations: Relations,
    ) -> Item:
        """Change what is given and nothing else; the whole row."""
        item: Item = await self._write(
            await self.updating(viewer, entity, row_id, attributes, relations)
        )
        await self._adopt_key(item)
        return item

    async def updating(
        self,
        viewer: Viewer,
        entity: str,
        row_id: str,
        attributes: Mapping[str, Any],
        relations: Relations,
        *,
        is_asked_first: bool = True,
    ) -> Planned:
        """What :meth:`update` writes."""
        declared = entity_of(entity)
        _check_action(declared, attributes)
        attributes = new_keys.checked(declared, attributes)
        asked = row_id if is_asked_first else None
        if certificate_values.are_in(declared, attributes):
            await self._ask(viewer, declared, asked)
            attributes = await self.certificates.checked(attributes, row_id)
        given = await self._made_safe(viewer, declared, attributes, asked)
        unit = self._unit(engine.update_row, viewer, declared, row_id, given, relations)
        return Planned(unit, _accounts([row_id]))

    async def delete(self, viewer: Viewer, entity: str, row_id: str) -> None:
        await self._write(self.deleting(viewer, entity, row_id))
        self.deleted(entity)

    def deleting(self, viewer: Viewer, entity: str, row_id: str) -> Planned:
        """What :meth:`delete` writes; :meth:`deleted` is to follow it."""
        unit = self._unit(engine.delete_row, viewer, entity_of(entity), row_id)
        return Planned(unit, _accounts([row_id]))

    def deleted(self, entity: str) -> None:
        """A row was deleted: begin to empty what it held."""
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
        unit = self._unit(engine.change_related, viewer, declared, row_id, relation, refs, mode)
        await self._write(Planned(unit, _accounts([row_id])))

    def _unit(
        self, work: Callable[..., Any], viewer: Viewer, entity: Entity, *given: Any
    ) -> Callable[[Connection], Any]:
        """The work on a connection, at this moment and with the settings of this moment."""
        facts, now = self._facts(), self._now()
        return lambda connection: work(connection, viewer, entity, *given, now=now, facts=facts)

    async def _write(self, planned: Planned) -> Any:
        return await self._database.write(
            planned.unit, accounts=planned.accounts, octets=planned.octets
        )

    async def _made_safe(
        self, viewer: Viewer, entity: Entity, attributes: Mapping[str, Any], row_id: str | None
    ) -> dict[str, Any]:
        """The attributes without clear secrets; who may not write ``row_id`` is refused first.

        ``row_id`` "": a new row; None: nobody is asked. The text of a new mail is spooled, for it
        may be long.
        """
        is_mail = entity.name == MAIL and not row_id and isinstance(attributes.get(MAIL), str)
        if is_mail or self._secret_values.are_in(entity, attributes):
            await self._ask(viewer, entity, row_id)
        given = await self._secret_values.safe(entity, attributes)
        if is_mail:
            given[MAIL] = Prepared(await appending.spool(self._database, attributes[MAIL]))
        return given

    async def _ask(self, viewer: Viewer, entity: Entity, row_id: str | None) -> None:
        """Refuse who may not write; ``row_id`` "": a new row; None: nobody is asked."""
        if row_id is not None:
            await self._database.read(
                partial(_check_gates, viewer=viewer, entity=entity, row_id=row_id)
            )


def _check_action(entity: Entity, attributes: Mapping[str, Any]) -> None:
    """Refuse the definition of an action that cannot be run. Raises: ProtocolViolation."""
    if entity.name == "action" and attributes.get("action_schema"):
        # Late: what performs outcomes needs the rows.
        from mailtwist.actions import definitions

        definitions.check_given(attributes["action_schema"])


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
