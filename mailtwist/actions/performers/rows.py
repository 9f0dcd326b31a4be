"""Outcomes that read and write rows of any table.

They have the rights of an administrator; what they make belongs to the caller. What they read
has all that the outcomes before them wrote.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from mailtwist.actions.definition import Method
from mailtwist.actions.registry import Call, Performed, Response, notify
from mailtwist.actions.resources import Planned
from mailtwist.errors import ProtocolViolation
from mailtwist.mail.filters import parse_query
from mailtwist.store.entities.model import Item, ListRequest

DEFAULT_SIZE: Final = 10
MAX_SIZE: Final = 1000
MAX_NUMBER: Final = 1_000_000
MAX_SORT: Final = 10

OnRows = Callable[[Call, str, Mapping[str, Any]], Awaitable[Performed]]


async def create(call: Call, table: str, attributes: Mapping[str, Any]) -> Performed:
    """Make a row; relations to other rows are attributes that hold their ids."""
    planned = await call.context.services.resources.creating(
        call.as_administrator, table, attributes, {}, is_asked_first=False
    )
    return _written(call, planned)


async def update(call: Call, table: str, attributes: Mapping[str, Any]) -> Performed:
    given = dict(attributes)
    row_id = _row_id(given)
    planned = await call.context.services.resources.updating(
        call.as_administrator, table, row_id, given, {}, is_asked_first=False
    )
    return _written(call, planned)


async def delete(call: Call, table: str, attributes: Mapping[str, Any]) -> Performed:
    resources = call.context.services.resources
    planned = resources.deleting(call.as_administrator, table, _row_id(dict(attributes)))
    call.buffer.add(planned.unit, accounts=planned.accounts)

    async def deleted() -> None:
        resources.deleted(table)

    call.buffer.after(deleted)
    return Performed(None, (notify(f"Deleted {table}"),))


async def get(call: Call, table: str, attributes: Mapping[str, Any]) -> Performed:
    """One row by its id."""
    resources = call.context.services.resources
    row_id = _row_id(dict(attributes))
    page = await call.buffer.preview(resources.finding(call.as_administrator, table, row_id))
    return _whole(page.items[0])


async def find(call: Call, table: str, attributes: Mapping[str, Any]) -> Performed:
    """The rows of a page, as a list; the attributes are what a query string may say."""
    resources = call.context.services.resources
    request = _request(attributes)
    page = await call.buffer.preview(resources.listing(call.as_administrator, table, request))
    rows = [dict(item.attributes) for item in page.items]
    return Performed(rows, (Response(table, rows),))


def _written(call: Call, planned: Planned) -> Performed:
    """The row that a write will come to."""
    unit = call.buffer.add(planned.unit, accounts=planned.accounts, octets=planned.octets)

    async def written() -> None:
        await call.context.services.resources.written(unit.result)

    call.buffer.after(written)
    return Performed(later=lambda: _whole(planned.shown(unit.result)))


def _whole(item: Item) -> Performed:
    row = dict(item.attributes)
    return Performed(row, (Response(item.entity, row),))


def _row_id(attributes: dict[str, Any]) -> str:
    """Take the id of the row out of the attributes. Raises: ProtocolViolation."""
    row_id = attributes.pop("reference_id", None) or attributes.pop("id", None)
    if not isinstance(row_id, str):
        raise ProtocolViolation("reference_id is missing")
    return row_id


def _request(attributes: Mapping[str, Any]) -> ListRequest:
    query = attributes.get("query") or ""
    return ListRequest(
        filter=parse_query(query if isinstance(query, str) else json.dumps(query)),
        text=_text(attributes, "filter"),
        sort=tuple(_sort(_text(attributes, "sort"))),
        size=min(_whole_number(attributes, "page[size]", DEFAULT_SIZE), MAX_SIZE),
        number=_whole_number(attributes, "page[number]", 1),
        needs_total=False,
    )


def _sort(text: str) -> list[tuple[str, bool]]:
    names = [name for part in text.split(",") if (name := part.strip())]
    if len(names) > MAX_SORT:
        raise ProtocolViolation(f"sort: more than {MAX_SORT} columns")
    return [(name.lstrip("-+"), name.startswith("-")) for name in names]


def _text(attributes: Mapping[str, Any], name: str) -> str:
    value = attributes.get(name)
    if value is not None and not isinstance(value, str):
        raise ProtocolViolation(f"{name}: a text is expected")
    return value or ""


def _whole_number(attributes: Mapping[str, Any], name: str, default: int) -> int:
    value = attributes.get(name)
    text = str(default if value is None or value == "" else value)
    if not (text.isascii() and text.isdecimal() and len(text) < 8):
        raise ProtocolViolation(f"{name}: not a number from 0 to {MAX_NUMBER}")
    return max(1, min(int(text), MAX_NUMBER))


ON_ROWS: Final[Mapping[Method, OnRows]] = MappingProxyType(
    {
        Method.POST: create,
        Method.PATCH: update,
        Method.DELETE: delete,
        Method.GET: find,
        Method.GET_BY_ID: get,
    }
)
