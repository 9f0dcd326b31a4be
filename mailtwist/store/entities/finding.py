"""One row by its id, through both gates."""

from __future__ import annotations

from uuid import UUID

from mailtwist.errors import NotFound
from mailtwist.mail.permissions import Bit
from mailtwist.store.entities import permissions
from mailtwist.store.entities.model import AccessDenied, Entity, Reading, Stored
from mailtwist.store.entities.registry import ENTITIES

UUID_LENGTH = 36


def entity_of(entity: Entity | str) -> Entity:
    """An entity by its name. Raises: NotFound."""
    if isinstance(entity, Entity):
        return entity
    found = ENTITIES.get(entity)
    if found is None:
        raise NotFound(f"no such entity [{entity[:100]}]")
    return found


def canonical(id_: str) -> str | None:
    """A UUID as rows have it; None for anything else."""
    if len(id_) != UUID_LENGTH:
        return None
    try:
        return str(UUID(id_))
    except ValueError:
        return None


def checked_row(reading: Reading, id_: str, bit: Bit) -> Stored:
    """Find a row for which the viewer has the bit. Raises: AccessDenied, NotFound."""
    connection, viewer, entity = reading.connection, reading.viewer, reading.entity
    bits = (bit, Bit.PEEK) if bit is Bit.READ else (bit,)
    is_open = permissions.table_allows(connection, viewer, entity, *bits)
    by_owning = bool(entity.owner_bits & bit) and viewer.in_scope(entity.name, bit)
    if not is_open and not by_owning:
        raise AccessDenied(AccessDenied.TABLE)
    row = find(reading, id_)
    if row is None:
        raise NotFound(f"no such entity [{entity.name}][{id_[:100]}]")
    if not is_open and not viewer.owns(row.owner):
        raise AccessDenied(AccessDenied.TABLE)
    permissions.check_row(connection, viewer, entity, row, bit)
    return row


def find(reading: Reading, id_: str) -> Stored | None:
    """Find a row before any gate."""
    known = canonical(id_)
    return None if known is None else reading.entity.source.rows(reading, [known]).get(known)
