"""Domains whose mail is ours, and addresses that stand for others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Connection, delete, insert, literal, select, update

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.address import parse_address
from mailtwist.mail.permissions import LOCKED
from mailtwist.store import accounts, changes, domains
from mailtwist.store.entities.model import (
    Change,
    Column,
    Entity,
    Reading,
    Stored,
    Type,
    by_name,
)
from mailtwist.store.entities.tabular import Tabular
from mailtwist.store.tables import address, address_target, domain

MAX_ADDRESS: Final = 320
# A list of addresses as JSON.
MAX_TARGETS: Final = accounts.MAX_TARGETS * (MAX_ADDRESS + 4)

# -- domains --------------------------------------------------------------------------------

_DOMAINS: Final = Tabular(
    domain, "domain_id", expressions={"is_enabled": domain.c.enabled}, kinds=("domain",)
)


def _create_domain(change: Change) -> str:
    values, catch_all = change.values, _catch_all(change.values)
    try:
        made = domains.add(
            change.connection,
            values["name"].strip(),
            values["kind"],
            catch_all=catch_all,
            delimiter=values["delimiter"],
            now=change.now,
        )
    except ProtocolViolation as error:
        raise ProtocolViolation("invalid value for name") from error
    more = {"owner_user_id": change.owner or 0, "permission": change.permission}
    change.connection.execute(
        update(domain)
        .where(domain.c.domain_id == made.domain_id)
        .values(enabled=values["is_enabled"], **more)
    )
    return made.reference_id


def _update_domain(change: Change) -> None:
    more: dict[str, Any] = {}
    if "is_enabled" in change.values:
        more["enabled"] = change.values["is_enabled"]
    if "catch_all" in change.values:
        more["catch_all"] = _catch_all(change.values)
    _DOMAINS.write(change, **more)


def _catch_all(values: Mapping[str, Any]) -> str:
    """An address, or none. Raises: ProtocolViolation."""
    return _address(values["catch_all"], "catch_all") if values["catch_all"] else ""


def _address(given: str, column: str) -> str:
    try:
        parsed = parse_address(given.strip())
    except ProtocolViolation as error:
        raise ProtocolViolation(f"invalid value for {column}: {given[:100]}") from error
    if not parsed.local_part or not parsed.domain:
        raise ProtocolViolation(f"invalid value for {column}: a whole address is expected")
    return parsed.folded


def _delete_domain(change: Change) -> None:
    """Delete it with its aliases. Raises: Conflict while accounts are in it."""
    name = change.connection.execute(
        select(domain.c.name).where(domain.c.domain_id == change.key)
    ).scalar_one()
    domains.remove(change.connection, name)
    _DOMAINS.delete(change)


DOMAIN: Final = Entity(
    name="domain",
    doc="Domains whose mail is ours.",
    columns=by_name(
        Column(
            "name", is_required=True, is_unique=True, is_fixed=True, is_folded=True, max_length=255
        ),
        Column(
            "kind",
            default="local",
            choices=("local", "inbox", "relay"),
            doc="Whose mailboxes: ours, anybody's by name, or another server's.",
        ),
        Column(
            "catch_all", default="", max_length=MAX_ADDRESS, doc="Who gets mail for unknown names."
        ),
        Column("delimiter", default="+", max_length=1, doc="Begins a detail: anna+list@..."),
        Column("is_enabled", Type.BOOLEAN, default=True),
    ),
    source=_DOMAINS,
    create=_create_domain,
    update=_update_domain,
    delete=_delete_domain,
    labels=("name",),
)

# -- aliases --------------------------------------------------------------------------------

_domain_name = (
    select(domain.c.name).where(domain.c.domain_id == address.c.domain_id).scalar_subquery()
)
_ALIASES: Final = Tabular(
    address,
    "reference_id",
    expressions={"address": address.c.local_part + "@" + _domain_name},
    permission=literal(LOCKED),
    where=address.c.kind == "alias",
    kinds=("address",),
)


def _targets(values: Mapping[str, Any]) -> list[str]:
    listed = [_address(each, "targets") for each in json.loads(values["targets"])]
    listed = list(dict.fromkeys(listed))
    if not 1 <= len(listed) <= accounts.MAX_TARGETS:
        raise ProtocolViolation(
            f"invalid value for targets: 1 to {accounts.MAX_TARGETS} are needed"
        )
    return listed


def _create_alias(change: Change) -> str:
    name, targets = _address(change.values["address"], "address"), _targets(change.values)
    return accounts.add_alias(change.connection, name, targets, now=change.now)


def _update_alias(change: Change) -> None:
    connection = change.connection
    domain_id, local_part = _place(connection, change.key)
    if "targets" in change.values:
        targets = _targets(change.values)
        _drop_targets(connection, domain_id, local_part)
        rows = [
            {"domain_id": domain_id, "local_part": local_part, "n": n, "target": target}
            for n, target in enumerate(targets, 1)
        ]
        connection.execute(insert(address_target), rows)
    connection.execute(
        update(address).where(address.c.reference_id == change.key).values(updated_at=change.now)
    )
    changes.bump(connection, "address")


def _delete_alias(change: Change) -> None:
    _drop_targets(change.connection, *_place(change.connection, change.key))
    _ALIASES.delete(change)


def _place(connection: Connection, reference: str) -> tuple[int, str]:
    row = connection.execute(
        select(address.c.domain_id, address.c.local_part).where(address.c.reference_id == reference)
    ).one()
    return int(row.domain_id), str(row.local_part)


def _drop_targets(connection: Connection, domain_id: int, local_part: str) -> None:
    of_alias = (address_target.c.domain_id == domain_id) & (
        address_target.c.local_part == local_part
    )
    connection.execute(delete(address_target).where(of_alias))


def _complete(reading: Reading, rows: Sequence[Stored]) -> Sequence[Stored]:
    """The rows with their targets, in one statement."""
    if not reading.wants("targets"):
        return rows
    found: dict[str, list[str]] = {}
    query = (
        select(address.c.reference_id, address_target.c.target)
        .join(
            address_target,
            (address_target.c.domain_id == address.c.domain_id)
            & (address_target.c.local_part == address.c.local_part),
        )
        .where(address.c.reference_id.in_([row.key for row in rows]))
        .order_by(address_target.c.n)
    )
    for reference, target in reading.connection.execute(query):
        found.setdefault(reference, []).append(target)
    return [_with_targets(row, found.get(row.key, [])) for row in rows]


def _with_targets(row: Stored, targets: list[str]) -> Stored:
    item = replace(row.item, attributes={**row.item.attributes, "targets": targets})
    return replace(row, item=item)


ALIAS: Final = Entity(
    name="alias",
    doc="Addresses that stand for others.",
    columns=by_name(
        Column("address", is_required=True, is_fixed=True, is_folded=True, max_length=MAX_ADDRESS),
        Column(
            "targets",
            Type.LIST,
            is_required=True,
            is_virtual=True,
            max_length=MAX_TARGETS,
            doc="Who gets the mail, here or elsewhere.",
        ),
    ),
    source=_ALIASES,
    create=_create_alias,
    update=_update_alias,
    delete=_delete_alias,
    complete=_complete,
    is_shared=False,
    labels=("address",),
)

ENTITIES: Final = (DOMAIN, ALIAS)
