"""What clients ask about the API itself: columns, types, counts of requests.

``/meta`` and ``/jsmodel/{entity}`` are what dashboards of Daptin build their forms from.
"""

from __future__ import annotations

from typing import Any, Final

from mailtwist.errors import NotFound
from mailtwist.http.exchange import Answer, Exchange, Route, json_answer
from mailtwist.store.entities import ENTITIES
from mailtwist.store.entities.model import SYSTEM_COLUMNS, Column, Entity, Relation, Type

Document = dict[str, Any]

# Our types by the names that those forms know.
_NAMES: Final = {
    Type.TEXT: "label",
    Type.INTEGER: "measurement",
    Type.BOOLEAN: "truefalse",
    Type.NUMBER: "float",
    Type.TIMESTAMP: "datetime",
    Type.JSON: "json",
    Type.LIST: "json",
    Type.PASSWORD: "password",
    Type.SECRET: "encrypted",
}


def routes() -> list[Route]:
    return [
        Route("/meta", ("GET",), meta),
        Route("/jsmodel/<entity>", ("GET",), model),
    ]


async def meta(exchange: Exchange) -> Answer:
    """``?query=column_types``: the types there are; ``?query=<entity>``: one; else all."""
    asked = exchange.first("query")
    if asked == "column_types":
        return json_answer({name: {"Name": name} for name in sorted(set(_NAMES.values()))})
    if asked in ENTITIES:
        return json_answer(_model(ENTITIES[asked]))
    return json_answer({name: _model(ENTITIES[name]) for name in sorted(ENTITIES)})


async def model(exchange: Exchange, entity: str) -> Answer:
    name = entity.removesuffix(".js").removesuffix(".json")
    if name not in ENTITIES:
        raise NotFound(f"no such entity [{name[:100]}]")
    return json_answer(_model(ENTITIES[name]))


def _model(entity: Entity) -> Document:
    columns = {**SYSTEM_COLUMNS, **entity.columns}
    return {
        "TableName": entity.name,
        "Description": entity.doc,
        "ColumnModel": {
            "__type": {"Name": "type", "ColumnName": "__type", "ColumnType": "hidden"},
            **{name: _column(column) for name, column in columns.items()},
            **{name: _relation(each) for name, each in entity.relations.items()},
        },
        "Actions": [],
        "IsStateMachineEnabled": False,
        "StateMachines": [],
    }


def _column(column: Column) -> Document:
    return {
        "Name": column.name,
        "ColumnName": column.name,
        "ColumnType": _NAMES[column.type],
        "ColumnDescription": column.doc,
        "DefaultValue": column.default if isinstance(column.default, bool | int | str) else None,
        "IsNullable": not column.is_required,
        "IsUnique": column.is_unique,
        "IsReadOnly": column.is_readonly,
        "ExcludeFromApi": column.is_secret,
    }


def _relation(relation: Relation) -> Document:
    return {
        "Name": relation.name,
        "ColumnName": relation.name,
        "ColumnType": "entity",
        "type": relation.entity,
        "jsonApi": "hasMany" if relation.is_many else "hasOne",
        "IsNullable": not relation.is_required,
    }
