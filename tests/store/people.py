"""Users for the tests of entities, and shorthands for what they do."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select

from mailtwist.mail.permissions import SYSTEM, Viewer
from mailtwist.store import entities, identities
from mailtwist.store.accounts import Verifier
from mailtwist.store.entities import engine
from mailtwist.store.entities.model import Item, ListRequest, Page, Prepared
from mailtwist.store.entities.tables import user_account, world
from mailtwist.store.identities import ADMINISTRATORS
from tests.store.making import NOW

PASSWORD = Prepared((Verifier("bcrypt", "$2b$a"), Verifier("scram-sha-256", "b")))


def seeded(connection: Connection) -> None:
    entities.seed(connection, NOW)


def locked(connection: Connection) -> None:
    """What a server's tables say once somebody administers it."""
    entities.seed(connection, NOW)
    for entity in entities.ENTITIES.values():
        connection.execute(
            world.update()
            .where(world.c.table_name == entity.name)
            .values(permission=entity.table_permission, default_permission=entity.row_permission)
        )


def user(connection: Connection, email: str, *groups: str) -> Viewer:
    """A user in these groups, by name."""
    ids = [item.id for item in rows(connection, SYSTEM, "usergroup") if named(item) in groups]
    attributes = {"name": email, "email": email, "password": PASSWORD}
    item = make(connection, SYSTEM, "user_account", attributes, usergroup_id=ids)
    return viewer(connection, item.id)


def administrator(connection: Connection, email: str = "admin@example.com") -> Viewer:
    return user(connection, email, ADMINISTRATORS)


def viewer(connection: Connection, id_: str) -> Viewer:
    """Who a user is now."""
    found = identities.user(connection, id_)
    assert found is not None
    return Viewer(found.user_id, found.reference_id, found.email, found.groups, found.is_admin)


def named(item: Item) -> Any:
    return item.attributes["name"]


def make(
    connection: Connection,
    who: Viewer,
    entity: str,
    attributes: dict[str, Any],
    **relations: Any,
) -> Item:
    return engine.create_row(connection, who, entity, attributes, relations, now=NOW)


def change(
    connection: Connection, who: Viewer, item: Item, attributes: dict[str, Any], **relations: Any
) -> Item:
    return engine.update_row(
        connection, who, item.entity, item.id, attributes, relations, now=NOW + 1
    )


def remove(connection: Connection, who: Viewer, item: Item) -> None:
    engine.delete_row(connection, who, item.entity, item.id, now=NOW)


def listed(connection: Connection, who: Viewer, entity: str, **request: Any) -> Page:
    return engine.list_rows(connection, who, entity, ListRequest(**request))


def rows(connection: Connection, who: Viewer, entity: str, **request: Any) -> tuple[Item, ...]:
    return listed(connection, who, entity, **{"size": 1000} | request).items


def user_number(connection: Connection, email: str) -> int:
    query = select(user_account.c.user_id).where(user_account.c.email == email)
    return connection.execute(query).scalar_one()
