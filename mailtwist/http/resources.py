"""``/api/{entity}``: the rows of every entity, as JSON:API resources.

====================================================  =======================================
address                                               methods
====================================================  =======================================
``/api/{entity}``                                     GET a page, POST a new row
``/api/{entity}/{id}``                                GET, PATCH, DELETE
``/api/{entity}/{id}/{relation}``                     GET the rows that it points to
``/api/{entity}/{id}/relationships/{relation}``       GET, POST, PATCH, DELETE their ids
====================================================  =======================================

Who may do what is decided below; here a request becomes values and rows become a document.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from mailtwist.errors import NotFound, ProtocolViolation
from mailtwist.http import jsonapi
from mailtwist.http.exchange import JSONAPI_TYPE, Answer, Exchange, Route, Run
from mailtwist.http.parameters import other_pages, read_columns, read_includes, read_list
from mailtwist.http.ports import Resources
from mailtwist.store.entities import ENTITIES
from mailtwist.store.entities.model import ListRequest, Page, Ref, Relation

ALL: Final = "*"
# What a row's address may be followed by instead of a relation.
RELATIONSHIPS: Final = "relationships"


def routes(resources: Resources) -> list[Route]:
    """The routes of all entities."""
    rows = Rows(resources)
    one = "/api/<entity>/<row_id>"
    linked = f"{one}/{RELATIONSHIPS}/<relation>"
    table: list[tuple[str, str, Run]] = [
        ("/api/<entity>", "GET", rows.list),
        ("/api/<entity>", "POST", rows.create),
        (one, "GET", rows.get),
        (one, "PATCH", rows.update),
        (one, "DELETE", rows.delete),
        (linked, "GET", rows.linkage),
        (linked, "POST", rows.relate),
        (linked, "PATCH", rows.replace),
        (linked, "DELETE", rows.unrelate),
        (f"{one}/<relation>", "GET", rows.related),
    ]
    return [Route(rule, (method,), run, jsonapi.refuse) for rule, method, run in table]


class Rows:
    """One method for each line of the table above."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    async def list(self, exchange: Exchange, entity: str) -> Answer:
        viewer = await exchange.identify()
        request = _with_all_includes(read_list(exchange.parameters, _known(entity)), entity)
        page = await self._resources.list(viewer, entity, request)
        return await _page(exchange, request, page)

    async def create(self, exchange: Exchange, entity: str) -> Answer:
        viewer = await exchange.identify()
        given = jsonapi.read_resource(exchange.json(), _known(entity))
        item = await self._resources.create(viewer, entity, given.attributes, given.relations)
        return jsonapi.answer(jsonapi.single(item), 201, location=f"/api/{item.entity}/{item.id}")

    async def get(self, exchange: Exchange, entity: str, row_id: str) -> Answer:
        viewer = await exchange.identify()
        page = await self._resources.get(
            viewer,
            _known(entity),
            row_id,
            columns=read_columns(exchange.parameters, entity),
            includes=_includes(read_includes(exchange.parameters), entity),
        )
        return jsonapi.answer(jsonapi.single(page.items[0], page.included))

    async def update(self, exchange: Exchange, entity: str, row_id: str) -> Answer:
        viewer = await exchange.identify()
        given = jsonapi.read_resource(exchange.json(), _known(entity), row_id)
        item = await self._resources.update(
            viewer, entity, row_id, given.attributes, given.relations
        )
        return jsonapi.answer(jsonapi.single(item))

    async def delete(self, exchange: Exchange, entity: str, row_id: str) -> Answer:
        viewer = await exchange.identify()
        await self._resources.delete(viewer, _known(entity), row_id)
        return jsonapi.answer({"meta": None})

    # -- relations --------------------------------------------------------------------------

    async def related(self, exchange: Exchange, entity: str, row_id: str, relation: str) -> Answer:
        viewer = await exchange.identify()
        found = _relation(entity, relation)
        request = _with_all_includes(read_list(exchange.parameters, found.entity), found.entity)
        page = await self._resources.related(viewer, entity, row_id, relation, request)
        if found.is_many:
            return await _page(exchange, request, page)
        item = page.items[0] if page.items else None
        return jsonapi.answer(jsonapi.single(item, page.included))

    async def linkage(self, exchange: Exchange, entity: str, row_id: str, relation: str) -> Answer:
        """The ids alone, of a page where the relation is a list."""
        viewer = await exchange.identify()
        found = _relation(entity, relation)
        request = read_list(exchange.parameters, found.entity)
        page = await self._resources.related(viewer, entity, row_id, relation, request)
        refs = tuple(Ref(item.entity, item.id) for item in page.items)
        base = f"/api/{entity}/{row_id}"
        links: dict[str, Any] = {
            "self": f"{base}/{RELATIONSHIPS}/{relation}",
            "related": f"{base}/{relation}",
        }
        if not found.is_many:
            target = refs[0] if refs else None
            return jsonapi.answer({"links": links, "data": jsonapi.linkage(target)})
        links |= _links(exchange, request, page)
        return jsonapi.answer({"links": links, "data": jsonapi.linkage(refs)})

    async def relate(self, exchange: Exchange, entity: str, row_id: str, relation: str) -> Answer:
        viewer = await exchange.identify()
        refs = _many(exchange, _relation(entity, relation))
        await self._resources.relate(viewer, entity, row_id, relation, refs)
        return await self.linkage(exchange, entity, row_id, relation)

    async def unrelate(self, exchange: Exchange, entity: str, row_id: str, relation: str) -> Answer:
        viewer = await exchange.identify()
        refs = _many(exchange, _relation(entity, relation))
        await self._resources.unrelate(viewer, entity, row_id, relation, refs)
        return await self.linkage(exchange, entity, row_id, relation)

    async def replace(self, exchange: Exchange, entity: str, row_id: str, relation: str) -> Answer:
        viewer = await exchange.identify()
        found = _relation(entity, relation)
        given = jsonapi.read_linkage(exchange.json())
        if isinstance(given, tuple) != found.is_many:
            raise ProtocolViolation(_one_or_many(found))
        await self._resources.replace(viewer, entity, row_id, relation, given)
        return await self.linkage(exchange, entity, row_id, relation)


def _known(entity: str) -> str:
    if entity not in ENTITIES:
        raise NotFound(f"no such entity [{entity[:100]}]")
    return entity


def _relation(entity: str, name: str) -> Relation:
    found = ENTITIES[_known(entity)].relations.get(name)
    if found is None:
        raise NotFound(f"{entity} has no relation [{name[:100]}]")
    return found


def _many(exchange: Exchange, relation: Relation) -> Sequence[Ref]:
    """The rows to add or to take away. JSON:API §7.2.2: of a list alone."""
    given = jsonapi.read_linkage(exchange.json())
    if not relation.is_many or not isinstance(given, tuple):
        raise ProtocolViolation(_one_or_many(relation))
    return given


def _one_or_many(relation: Relation) -> str:
    if relation.is_many:
        return f"{relation.name}: data must be a list"
    return f"{relation.name}: leads to one row; PATCH it, with that row or null"


def _includes(names: tuple[str, ...], entity: str) -> tuple[str, ...]:
    """``*`` stands for all relations to single rows."""
    if ALL not in names:
        return names
    single = (each.name for each in ENTITIES[entity].relations.values() if not each.is_many)
    return tuple(dict.fromkeys((*(name for name in names if name != ALL), *single)))


def _with_all_includes(request: ListRequest, entity: str) -> ListRequest:
    if ALL not in request.includes:
        return request
    return replace(request, includes=_includes(request.includes, entity))


async def _page(exchange: Exchange, request: ListRequest, page: Page) -> Answer:
    links = _links(exchange, request, page)
    body = await jsonapi.listing(links, page.items, page.included, pause=exchange.pause)
    return Answer(200, body, JSONAPI_TYPE)


def _links(exchange: Exchange, request: ListRequest, page: Page) -> dict[str, Any]:
    return jsonapi.page_links(
        base=exchange.origin + exchange.path,
        query=other_pages(exchange.parameters),
        number=request.number,
        size=request.size,
        total=page.total,
    )
