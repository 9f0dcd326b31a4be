"""``/emails`` in the description of the API."""

from __future__ import annotations

from typing import Any, Final

Schema = dict[str, Any]

_TEXT: Final[Schema] = {"type": "string"}
_COUNT: Final[Schema] = {"type": "integer"}
_TEXTS: Final[Schema] = {"type": "array", "items": _TEXT}
_ITEM: Final[Schema] = {
    "id": {"type": "string", "pattern": "^[0-9]{1,19}$"},
    "from": _TEXT,
    "to": _TEXT,
    "subject": _TEXT,
    "body_text": _TEXT,
    "body_html": _TEXT,
    "attachments": _TEXTS,
    "received_at": _COUNT,
}
_LISTED: Final[Schema] = {"type": "object", "required": [*_ITEM], "properties": _ITEM}
_WHOLE: Final[Schema] = {
    "type": "object",
    "required": [*_ITEM, "size", "links", "codes", "headers", "attachment_details"],
    "properties": {
        **_ITEM,
        "size": _COUNT,
        "message_id": _TEXT,
        "reply_to": _TEXT,
        "links": _TEXTS,
        "codes": _TEXTS,
        "headers": {"type": "array", "items": _TEXTS},
        "attachment_details": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "filename": _TEXT,
                    "content_type": _TEXT,
                    "size": _COUNT,
                    "url": _TEXT,
                },
            },
        },
    },
}
_SAID: Final[Schema] = {
    "type": "object",
    "required": ["message"],
    "properties": {"message": _TEXT},
}
_WHY_NOT: Final[Schema] = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": _TEXT},
}
_LIST: Final[Schema] = {"type": "array", "items": _LISTED}
_JSON: Final = "application/json"


def _in_path(name: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": {**_TEXT, "minLength": 1}}


def _in_query(name: str, **schema: object) -> Schema:
    return {"name": name, "in": "query", "schema": schema or _TEXT}


def _operation(summary: str, good: Schema, *parameters: Schema, content: str = _JSON) -> Schema:
    refused = {"description": "Why not", "content": {_JSON: {"schema": _WHY_NOT}}}
    return {
        "summary": summary,
        "parameters": [*parameters, _in_query("project")],
        "responses": {
            "200": {"description": "", "content": {content: {"schema": good}}},
            "4XX": refused,
            "5XX": refused,
        },
    }


_NAME: Final = _in_path("name")
_NUMBER: Final = _in_path("number")
_PAGE: Final = (
    _in_query("query"),
    _in_query("limit", type="integer", minimum=1, maximum=50),
    _in_query("before"),
)
_FILE: Final[Schema] = {"type": "string", "format": "binary"}

PATHS: Final[Schema] = {
    "/emails": {"get": _operation("Mail of all names, newest first", _LIST, *_PAGE)},
    "/emails/{name}": {
        "parameters": [_NAME],
        "get": _operation("Mail of one name, newest first", _LIST, *_PAGE),
        "delete": _operation("Clear an inbox", _SAID),
    },
    "/emails/{name}/wait": {
        "parameters": [_NAME],
        "get": _operation(
            "The newest mail that fits, or the first that comes",
            _WHOLE,
            _in_query("timeout", type="number", minimum=0, maximum=300, default=30),
            *(_in_query(each) for each in ("subject", "from", "after", "query")),
        ),
    },
    "/emails/{name}/{number}": {
        "parameters": [_NAME, _NUMBER],
        "get": _operation("One message, with its links and codes", _WHOLE),
        "delete": _operation("Remove one message", _SAID),
    },
    "/emails/{name}/{number}/raw": {
        "parameters": [_NAME, _NUMBER],
        "get": _operation("A message as it came", _FILE, content="message/rfc822"),
    },
    "/emails/{name}/{number}/attachments/{attachment}": {
        "parameters": [_NAME, _NUMBER, _in_path("attachment")],
        "get": _operation(
            "One attachment, by its name or its number", _FILE, content="application/octet-stream"
        ),
    },
    "/emails/{name}/{number}/release": {
        "parameters": [_NAME, _NUMBER],
        "post": {
            "summary": "Send a captured message to its recipients",
            "requestBody": {
                "content": {_JSON: {"schema": {"type": "object", "properties": {"to": _TEXTS}}}}
            },
            "responses": {
                "202": {
                    "description": "It is queued",
                    "headers": {"Location": {"schema": _TEXT}},
                    "content": {_JSON: {"schema": {"type": "object"}}},
                },
                "4XX": {"description": "Why not", "content": {_JSON: {"schema": _WHY_NOT}}},
                "5XX": {"description": "Why not", "content": {_JSON: {"schema": _WHY_NOT}}},
            },
        },
    },
}
