"""JSON:API documents: rows as they go out, and what a client writes.

Standards: JSON:API 1.0, with the pagination in ``links`` and relations repeated as attributes,
as clients of Daptin read them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, cast
from urllib.parse import quote

from mailtwist.errors import Conflict, MailError, ProtocolViolation
from mailtwist.http.exchange import (
    JSONAPI_TYPE,
    Answer,
    encoded,
    json_answer,
    no_pause,
    phrase,
)
from mailtwist.store.entities import ENTITIES
from mailtwist.store.entities.model import Item, Ref

Document = dict[str, Any]
Links = Mapping[str, Any]

MAX_NAME: Final = 100
MAX_REFS: Final = 1000
# Rows that are encoded between two turns of the reactor: some 2 ms.
STEP: Final = 50


def resource(item: Item) -> Document:
    """One row: its attributes, and its relations as relationships too."""
    found: Document = {"type": item.entity, "id": item.id, "attributes": dict(item.attributes)}
    base = f"/api/{item.entity}/{item.id}"
    relationships = {
        name: {"data": linkage(target), "links": _links(base, name)}
        for name, target in item.relations.items()
    }
    for name in _inverse_relations(item.entity):
        if name not in relationships:
            relationships[name] = {"links": _links(base, name)}
    if relationships:
        found["relationships"] = relationships
    return found


def _links(base: str, name: str) -> Document:
    return {"self": f"{base}/relationships/{name}", "related": f"{base}/{name}"}


@cache
def _inverse_relations(entity: str) -> tuple[str, ...]:
    """The lists of other rows that lead here; they are linked, never listed."""
    found = ENTITIES.get(entity)
    if found is None:
        return ()
    return tuple(each.name for each in found.relations.values() if each.inverse)


def linkage(target: Ref | Sequence[Ref] | None) -> Any:
    """What a relationship points to. JSON:API §5.2.5."""
    if target is None:
        return None
    if isinstance(target, Ref):
        return {"type": target.type, "id": target.id}
    return [{"type": ref.type, "id": ref.id} for ref in target]


def single(item: Item | None, included: Iterable[Item] = ()) -> Document:
    found: Document = {"data": None if item is None else resource(item)}
    others = [resource(each) for each in included]
    if others:
        found["included"] = others
    return found


async def listing(
    links: Links,
    items: Sequence[Item],
    included: Sequence[Item] = (),
    *,
    pause: Callable[[], Awaitable[None]] = no_pause,
) -> bytes:
    """A page of rows, encoded in steps of a few milliseconds."""
    pieces = [b'{"links":', encoded(links), b',"data":', await _rows(items, pause)]
    if included:
        pieces += [b',"included":', await _rows(included, pause)]
    pieces.append(b"}")
    return b"".join(pieces)


async def _rows(items: Sequence[Item], pause: Callable[[], Awaitable[None]]) -> bytes:
    pieces = []
    for at in range(0, len(items), STEP):
        if at:
            await pause()
        rows = [resource(each) for each in items[at : at + STEP]]
        pieces.append(encoded(rows)[1:-1])
    return b"[" + b",".join(pieces) + b"]"


def page_links(*, base: str, query: str, number: int, size: int, total: int) -> Document:
    """Where the page stands among the others. ``query``: the other parameters, encoded.

    ``from`` and ``to`` are the ordinals of the first and the last row, 0 without rows.
    """
    last = max(1, -(-total // size))

    def url(page: int) -> str:
        if not 1 <= page <= last:
            return ""
        return f"{base}?{query}{'&' if query else ''}page[number]={page}&page[size]={size}"

    first_row = (number - 1) * size + 1
    return {
        "total": total,
        "per_page": size,
        "current_page": number,
        "last_page": last,
        "from": first_row if first_row <= total else 0,
        "to": min(number * size, total) if first_row <= total else 0,
        "first_page_url": url(1),
        "prev_page_url": url(number - 1),
        "next_page_url": url(number + 1),
        "last_page_url": url(last),
    }


def encode_query(pairs: Iterable[tuple[str, str]]) -> str:
    return "&".join(f"{quote(name, safe='[]')}={quote(value, safe=',')}" for name, value in pairs)


# -- what goes wrong ------------------------------------------------------------------------


def refuse(error: MailError) -> Answer:
    """An error as JSON:API has it; the title of a permission says which gate was closed."""
    status = error.http_status
    title = getattr(error, "title", "") or phrase(status)
    return json_answer(
        {"errors": [{"status": str(status), "title": title, "detail": error.text}]},
        status,
        content_type=JSONAPI_TYPE,
        headers=(("WWW-Authenticate", "Bearer"),) if status == 401 else (),
    )


def answer(document: Document, status: int = 200, *, location: str = "") -> Answer:
    headers = (("Location", location),) if location else ()
    return json_answer(document, status, content_type=JSONAPI_TYPE, headers=headers)


# -- what a client writes -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Given:
    """The row of a request."""

    attributes: dict[str, Any] = field(default_factory=dict)
    relations: dict[str, Ref | tuple[Ref, ...] | None] = field(default_factory=dict)


def read_resource(document: object, entity: str, row_id: str = "") -> Given:
    """Read ``{"data": {"type", "id", "attributes", "relationships"}}``; other members don't count.

    Raises: ProtocolViolation, which names the member; Conflict when type or id are not those of
    the address (JSON:API §7.2.3).
    """
    data = _member(_object(document, "The document"), "data", "data")
    kind = data.get("type", entity)
    if kind != entity:
        raise Conflict(f"data.type: {_shown(kind)} is not {entity}")
    given_id = data.get("id")
    if row_id and given_id not in (None, "", row_id):
        raise Conflict("id in the resource does not match servers endpoint")
    attributes = _member(data, "attributes", "data.attributes", default={})
    relationships = _member(data, "relationships", "data.relationships", default={})
    return Given(
        dict(attributes),
        {
            name: _relation(value, name)
            for name, value in relationships.items()
            # One of links alone says nothing of what it points to.
            if not (isinstance(value, dict) and "data" not in value and value)
        },
    )


def read_linkage(document: object) -> Ref | tuple[Ref, ...] | None:
    """Read the body of a relationships address: ``{"data": ...}``. Raises: ProtocolViolation."""
    return _relation(_object(document, "The document"), "data")


def _relation(value: object, name: str) -> Ref | tuple[Ref, ...] | None:
    where = f"data.relationships.{name[:MAX_NAME]}" if name != "data" else "data"
    relation = _object(value, where)
    if "data" not in relation:
        raise ProtocolViolation(f"{where}: data is missing")
    data = relation["data"]
    if data is None:
        return None
    if isinstance(data, list):
        if len(data) > MAX_REFS:
            raise ProtocolViolation(f"{where}: more than {MAX_REFS} rows")
        return tuple(_ref(each, where) for each in data)
    return _ref(data, where)


def _ref(value: object, where: str) -> Ref:
    found = _object(value, where)
    kind, row_id = found.get("type", ""), found.get("id")
    if not isinstance(row_id, str) or not row_id:
        raise ProtocolViolation(f"{where}: id must be a text")
    if not isinstance(kind, str):
        raise ProtocolViolation(f"{where}: type must be a text")
    return Ref(kind, row_id)


def _member(
    found: Mapping[str, Any], name: str, where: str, default: Mapping[str, Any] | None = None
) -> Mapping[str, Any]:
    if default is not None and found.get(name) is None:
        return default
    if name not in found:
        raise ProtocolViolation(f"{where}: missing")
    return _object(found[name], where)


def _object(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ProtocolViolation(f"{where}: must be an object")
    return cast("Mapping[str, Any]", value)


def _shown(value: object) -> str:
    return value[:MAX_NAME] if isinstance(value, str) else type(value).__name__
