"""The description of the API, made from the declarations of the entities: nothing is written
twice.

Standards: OpenAPI 3.0.3; JSON:API 1.0.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Final

from mailtwist import __version__
from mailtwist.http import listeners
from mailtwist.http.exchange import (
    JSONAPI_TYPE,
    Answer,
    Exchange,
    Route,
    json_answer,
    text_answer,
)
from mailtwist.http.inbox import description as inbox
from mailtwist.http.schemas import (
    COMMON_SCHEMAS,
    PARAMETERS,
    RESPONSES,
    TEXT,
    Schema,
    body_schema,
    list_parameters,
    listed,
    own_parameters,
    ref,
    row_parameters,
    row_schema,
    single,
)
from mailtwist.http.send import description as send
from mailtwist.http.yaml import dump
from mailtwist.store.entities import ENTITIES
from mailtwist.store.entities.model import Entity, Relation

YAML_TYPE: Final = "application/yaml; charset=utf-8"


def routes() -> list[Route]:
    """``/openapi.yaml`` and ``/openapi.json``."""
    return [
        Route("/openapi.yaml", ("GET",), as_yaml),
        Route("/openapi.json", ("GET",), as_json),
    ]


async def as_yaml(exchange: Exchange) -> Answer:
    return _as_yaml()


async def as_json(exchange: Exchange) -> Answer:
    return _as_json()


# The declarations are part of the code: they do not change while it runs.
@cache
def _as_yaml() -> Answer:
    return text_answer(dump(description(ENTITIES.values())), content_type=YAML_TYPE)


@cache
def _as_json() -> Answer:
    return json_answer(description(ENTITIES.values()))


def description(entities: Iterable[Entity]) -> Schema:
    """The whole document."""
    given = sorted(entities, key=lambda entity: entity.name)
    paths: Schema = {**_FIXED_PATHS, **listeners.PATHS}
    for entity in given:
        paths.update(_paths(entity))
    return {
        "openapi": "3.0.3",
        "info": {
            "title": "Mail server",
            "version": __version__,
            "description": "JSON:API over every table of the server, and named actions.",
        },
        "security": [{"bearer": []}, {"api_key": []}, {}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
            "schemas": COMMON_SCHEMAS | {e.name: row_schema(e) for e in given},
            "parameters": PARAMETERS
            | {name: each for e in given for name, each in own_parameters(e).items()},
            "responses": RESPONSES,
        },
    }


# -- paths ----------------------------------------------------------------------------------


def _paths(entity: Entity) -> Schema:
    base, one = f"/api/{entity.name}", f"/api/{entity.name}/{{id}}"
    paths: Schema = {base: {}, one: {"parameters": [ref("parameters", "id")]}}
    paths[base]["get"] = _operation(entity, "list", 200, listed(entity), list_parameters(entity))
    paths[one]["get"] = _operation(entity, "get", 200, single(entity), row_parameters(entity))
    if entity.create is not None:
        paths[base]["post"] = _operation(
            entity, "create", 201, single(entity), body=body_schema(entity, is_new=True)
        )
    if entity.update is not None:
        paths[one]["patch"] = _operation(
            entity, "update", 200, single(entity), body=body_schema(entity, is_new=False)
        )
    if entity.delete is not None:
        paths[one]["delete"] = _operation(entity, "delete", 200, ref("schemas", "_nothing"))
    for relation in entity.relations.values():
        paths[f"{one}/{relation.name}"] = _related(entity, relation)
    return paths


def _operation(
    entity: Entity,
    verb: str,
    status: int,
    answer: Schema,
    parameters: tuple[Schema, ...] = (),
    *,
    body: Schema | None = None,
) -> Schema:
    found: Schema = {
        "operationId": f"{verb}_{entity.name}",
        "tags": [entity.name],
        "summary": f"{verb} {entity.name}",
        "description": entity.doc,
        "responses": _responses(status, answer),
    }
    if parameters:
        found["parameters"] = list(parameters)
    if body is not None:
        found["requestBody"] = {"required": True, "content": {JSONAPI_TYPE: {"schema": body}}}
    return found


def _related(entity: Entity, relation: Relation) -> Schema:
    target = ENTITIES[relation.entity]
    schema = listed(target) if relation.is_many else single(target, is_nullable=True)
    parameters = list_parameters(target) if relation.is_many else row_parameters(target)
    operation = _operation(entity, f"get_{relation.name}_of", 200, schema, parameters)
    return {"parameters": [ref("parameters", "id")], "get": operation}


def _responses(status: int, answer: Schema) -> Schema:
    good: Schema = {"description": "Done", "content": {JSONAPI_TYPE: {"schema": answer}}}
    if status == 201:
        good["headers"] = {"Location": {"schema": TEXT}}
    return {
        str(status): good,
        "4XX": ref("responses", "refused"),
        "5XX": ref("responses", "refused"),
    }


def _plain(summary: str, content: str, schema: Schema, *more: int) -> Schema:
    answer = {"content": {content: {"schema": schema}}}
    return {
        "summary": summary,
        "security": [{}],
        "responses": {str(status): {"description": "", **answer} for status in (200, *more)},
    }


_FIXED_PATHS: Final[Schema] = {
    **send.PATHS,
    **inbox.PATHS,
    "/ping": {"get": _plain("Whether the server answers", "text/plain", TEXT)},
    "/health": {
        "get": _plain("Whether mail can be taken", "application/json", {"type": "object"}, 503)
    },
    "/actions": {
        "get": _plain(
            "What may be executed: by key `entity:name` the inputs of each action",
            "application/json",
            {
                "type": "object",
                "additionalProperties": {
                    "type": "object",
                    "properties": {
                        "Name": TEXT,
                        "Label": TEXT,
                        "OnType": TEXT,
                        "InstanceOptional": {"type": "boolean"},
                        "InFields": {"type": "array", "items": {"type": "object"}},
                        "Validations": {"type": "array", "items": {"type": "object"}},
                    },
                },
            },
        )
    },
    "/events": {
        "get": {
            "summary": "What happens to one's mail, as server-sent events",
            "parameters": [
                {"name": "kind", "in": "query", "schema": TEXT},
                {"name": "after", "in": "query", "schema": TEXT},
                {"name": "Last-Event-ID", "in": "header", "schema": TEXT},
            ],
            "responses": {
                "200": {"description": "", "content": {"text/event-stream": {"schema": TEXT}}},
                "4XX": ref("responses", "refused"),
                "5XX": ref("responses", "refused"),
            },
        },
    },
    "/action/{entity}/{name}": {
        "parameters": [
            {"name": "entity", "in": "path", "required": True, "schema": TEXT},
            {"name": "name", "in": "path", "required": True, "schema": TEXT},
        ],
        "post": {
            "summary": "Run a named action",
            "requestBody": {
                "required": False,
                "content": {
                    "application/json": {
                        "schema": {
                            "type": "object",
                            "properties": {"attributes": {"type": "object"}},
                        }
                    }
                },
            },
            "responses": {
                status: {
                    "description": text,
                    "content": {
                        "application/json": {
                            "schema": {"type": "array", "items": {"type": "object"}}
                        }
                    },
                }
                for status, text in (
                    ("200", "What the client is to do"),
                    ("4XX", "Why not"),
                    ("5XX", "Why not"),
                )
            },
        },
    },
}
