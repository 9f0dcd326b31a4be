"""Schemas and parameters of the description of the API.

What is taken is wider than what is said here: numbers and booleans may come as texts, and the
members that a row was read with may come back with it.

Standards: OpenAPI 3.0.3 §4.7.24.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mailtwist.http.exchange import JSON_TYPE, JSONAPI_TYPE
from mailtwist.mail.filters import MAX_ITEMS, OPERATORS
from mailtwist.store.entities.model import SYSTEM_COLUMNS, Column, Entity, Relation, Type

Schema = dict[str, Any]

_OUT: Final[Mapping[Type, Schema]] = {
    Type.TEXT: {"type": "string"},
    Type.INTEGER: {"type": "integer"},
    Type.BOOLEAN: {"type": "boolean"},
    Type.NUMBER: {"type": "number"},
    Type.TIMESTAMP: {"type": "string", "format": "date-time"},
    Type.JSON: {},
    Type.LIST: {"type": "array", "items": {"type": "string"}},
    Type.PASSWORD: {"type": "string", "format": "password"},
    Type.SECRET: {"type": "string", "format": "password"},
}
TEXT: Final[Schema] = {"type": "string"}
_UUID: Final[Schema] = {"type": "string", "format": "uuid"}


def row_schema(entity: Entity) -> Schema:
    """A row as it leaves."""
    columns = {**SYSTEM_COLUMNS, **entity.columns}
    properties: Schema = {
        name: _out(column) for name, column in columns.items() if column.type is not Type.SECRET
    }
    for relation in entity.relations.values():
        if not relation.is_many:
            properties[relation.name] = {**_UUID, "nullable": True}
    return {
        "type": "object",
        "description": entity.doc,
        "required": ["type", "id", "attributes"],
        "properties": {
            "type": {"type": "string", "enum": [entity.name]},
            "id": _UUID,
            "attributes": {"type": "object", "properties": properties},
            "relationships": {
                "type": "object",
                "properties": {
                    name: ref("schemas", "_relationship") for name in sorted(entity.relations)
                },
            },
        },
    }


def _out(column: Column) -> Schema:
    found: Schema = {**_OUT[column.type], "nullable": True}
    if column.doc:
        found["description"] = column.doc
    if column.is_readonly:
        found["readOnly"] = True
    if column.choices:
        # Rows of older versions may hold others.
        found["description"] = f"{column.doc} One of: {', '.join(column.choices)}".strip()
    return found


def body_schema(entity: Entity, *, is_new: bool) -> Schema:
    """A row as a client writes it."""
    columns = [each for each in entity.columns.values() if not each.is_readonly]
    needed = [each.name for each in columns if each.is_required and each.default is None]
    properties: Schema = {each.name: _in(each) for each in columns}
    properties["permission"] = {"type": "integer", "minimum": 0, "maximum": 4_194_303}
    attributes: Schema = {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }
    if is_new and needed:
        attributes["required"] = needed
    data: Schema = {
        "type": "object",
        "required": ["type", "attributes"],
        "properties": {
            "type": {"type": "string", "enum": [entity.name]},
            "attributes": attributes,
            "relationships": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    each.name: _linkage(each)
                    for each in entity.relations.values()
                    if not each.is_readonly and not each.inverse
                },
            },
        },
    }
    if not is_new:
        data["properties"]["id"] = _UUID
    return {"type": "object", "required": ["data"], "properties": {"data": data}}


def _in(column: Column) -> Schema:
    found: Schema = {**_OUT[column.type], "nullable": not column.is_required}
    if column.type is Type.TEXT:
        found["maxLength"] = column.max_length
    if column.type is Type.INTEGER:
        found |= {"minimum": column.lowest, "maximum": column.highest}
    if column.choices:
        found["enum"] = [*column.choices, *([] if column.is_required else [None])]
    if isinstance(column.default, bool | int | float | str):
        found["default"] = column.default
    return found


def _linkage(relation: Relation) -> Schema:
    ref: Schema = {
        "type": "object",
        "required": ["type", "id"],
        "properties": {"type": {"type": "string", "enum": [relation.entity]}, "id": _UUID},
    }
    target: Schema = (
        {"type": "array", "items": ref}
        if relation.is_many
        else {**ref, "nullable": not relation.is_required}
    )
    return {"type": "object", "required": ["data"], "properties": {"data": target}}


def single(entity: Entity, *, is_nullable: bool = False) -> Schema:
    row: Schema = ref("schemas", entity.name)
    if is_nullable:
        row = {"allOf": [row], "nullable": True}
    return {
        "type": "object",
        "required": ["data"],
        "properties": {"data": row, "included": _INCLUDED},
    }


def listed(entity: Entity) -> Schema:
    return {
        "type": "object",
        "required": ["data", "links"],
        "properties": {
            "links": ref("schemas", "_page"),
            "data": {"type": "array", "items": ref("schemas", entity.name)},
            "included": _INCLUDED,
        },
    }


def ref(kind: str, name: str) -> Schema:
    return {"$ref": f"#/components/{kind}/{name}"}


_SCALARS: Final[list[Schema]] = [TEXT, {"type": "number"}, {"type": "boolean"}]
_INCLUDED: Final[Schema] = {"type": "array", "items": {"type": "object"}}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
COMMON_SCHEMAS: Final[Schema] = {
    "_relationship": {"type": "object", "properties": {"data": {}, "links": {"type": "object"}}},
    "_nothing": {"type": "object", "properties": {"meta": {"nullable": True}}},
    "_page": {
        "type": "object",
        "properties": {
            **dict.fromkeys(
                ("total", "per_page", "current_page", "last_page", "from", "to"), _COUNT
            ),
            **dict.fromkeys(
                ("first_page_url", "prev_page_url", "next_page_url", "last_page_url"), TEXT
            ),
        },
    },
    "_errors": {
        "type": "object",
        "required": ["errors"],
        "properties": {
            "errors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["status", "title"],
                    "properties": {"status": TEXT, "title": TEXT, "detail": TEXT},
                },
            }
        },
    },
}


def _query(name: str, schema: Schema, text: str) -> Schema:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": text}


PARAMETERS: Final[Schema] = {
    "id": {"name": "id", "in": "path", "required": True, "schema": _UUID},
    "page_number": _query("page[number]", {"type": "integer", "minimum": 0}, "From 1."),
    "page_size": _query("page[size]", {"type": "integer", "minimum": 0}, "10; at most 1000."),
    "page_after": _query("page[after]", _UUID, "Only rows behind this one."),
    "page_before": _query("page[before]", _UUID, "Only rows before this one."),
    "filter": _query("filter", TEXT, "A text to look for in the columns that name a row."),
}


def own_parameters(entity: Entity) -> Schema:
    """The parameters that name columns and relations of one entity."""
    relations = [each.name for each in entity.relations.values() if not each.inverse]
    columns = [each.name for each in entity.columns.values() if each.type is not Type.SECRET]
    fields, queryable = [*SYSTEM_COLUMNS, *columns, *relations], _queryable(entity)
    ways = [way for name in queryable for way in (name, f"-{name}")]
    relations = ["*", *relations]
    return {
        f"{entity.name}_sort": _names("sort", ways, "`-` for descending."),
        f"{entity.name}_query": _filter(queryable),
        f"{entity.name}_fields": _names("fields", fields, "The columns that are wanted."),
        f"{entity.name}_included": _names("included_relations", relations, "`*`: all of them."),
    }


def list_parameters(entity: Entity) -> tuple[Schema, ...]:
    """The parameters of a page."""
    named = (name for name in PARAMETERS if name != "id")
    return tuple(ref("parameters", name) for name in (*named, *own_parameters(entity)))


def row_parameters(entity: Entity) -> tuple[Schema, ...]:
    """The parameters of one row."""
    names = (f"{entity.name}_fields", f"{entity.name}_included")
    return tuple(ref("parameters", name) for name in names)


def _queryable(entity: Entity) -> list[str]:
    columns = {**SYSTEM_COLUMNS, **entity.columns}
    return [each.name for each in columns.values() if each.is_queryable]


def _names(name: str, names: list[str], text: str) -> Schema:
    """A parameter of names with commas between."""
    schema = {"type": "array", "items": {"type": "string", "enum": names}, "maxItems": 10}
    return _query(name, schema, text) | {"style": "form", "explode": False}


def _filter(columns: list[str]) -> Schema:
    """JSON, as :mod:`mailtwist.mail.filters` reads it."""
    condition = {
        "type": "object",
        "required": ["column", "operator"],
        "properties": {
            "column": {"type": "string", "enum": columns},
            "operator": {"type": "string", "enum": sorted(OPERATORS)},
            "value": {"anyOf": [*_SCALARS, {"type": "array", "items": {"anyOf": _SCALARS}}]},
            "logical_group": TEXT,
        },
    }
    schema = {"type": "array", "items": condition, "maxItems": MAX_ITEMS}
    found = _query("query", {}, "All must hold; of those in one `logical_group` one is enough.")
    del found["schema"]
    return found | {"content": {"application/json": {"schema": schema}}}


RESPONSES: Final[Schema] = {
    "refused": {
        "description": "Not done; the errors say why.",
        # What is no request yet is refused before it is known what it asks for.
        "content": {
            name: {"schema": ref("schemas", "_errors")} for name in (JSONAPI_TYPE, JSON_TYPE)
        },
    }
}
