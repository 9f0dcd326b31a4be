"""``/send`` in the description of the API."""

from __future__ import annotations

from typing import Any, Final

Schema = dict[str, Any]

_TEXT: Final[Schema] = {"type": "string"}
_NUMBER: Final[Schema] = {"type": "string", "pattern": "^[0-9]{1,19}$"}
_NULLABLE: Final[Schema] = {"type": "string", "nullable": True}
_MAILBOX: Final[Schema] = {
    "type": "object",
    "properties": {"email": {"type": "string"}, "name": _TEXT},
    "required": ["email"],
}
_MAILBOXES: Final[Schema] = {
    "oneOf": [_TEXT, _MAILBOX, {"type": "array", "items": {"oneOf": [_TEXT, _MAILBOX]}}]
}
_REQUEST: Final[Schema] = {
    "type": "object",
    "required": ["to", "subject"],
    "properties": {
        "to": _MAILBOXES,
        "cc": _MAILBOXES,
        "bcc": _MAILBOXES,
        "from": {"oneOf": [_TEXT, _MAILBOX]},
        "reply_to": _MAILBOXES,
        "subject": {"type": "string", "minLength": 1, "maxLength": 900},
        "body": _TEXT,
        "html": {"oneOf": [{"type": "boolean"}, _TEXT]},
        "text": _TEXT,
        "headers": {"type": "object", "additionalProperties": _TEXT},
        "attachments": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["content"],
                "properties": {
                    "filename": _TEXT,
                    "content": {"type": "string", "format": "byte"},
                    "content_type": _TEXT,
                    "content_id": _TEXT,
                },
            },
        },
    },
}
_DONE: Final[Schema] = {
    "type": "object",
    "required": ["success", "message"],
    "properties": {"success": {"type": "boolean"}, "message": _TEXT},
}
_REFUSED: Final[Schema] = {
    "type": "object",
    "required": ["success", "message", "error", "details"],
    "properties": {
        "success": {"type": "boolean"},
        "message": _TEXT,
        "error": _TEXT,
        "details": _TEXT,
    },
}
_FATE: Final[Schema] = {
    "type": "object",
    "required": ["id", "created_at", "from", "message_id", "state", "recipients"],
    "properties": {
        "id": _TEXT,
        "created_at": {"type": "string", "format": "date-time"},
        "from": _TEXT,
        "subject": _TEXT,
        "message_id": _TEXT,
        "state": {"enum": ["queued", "sent", "partly", "failed", "captured"]},
        "recipients": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "address": _TEXT,
                    "state": {
                        "enum": [
                            "queued", "deferred", "delivered", "failed", "refused", "captured",
                        ]
                    },
                    "reply": _TEXT,
                    "attempts": {"type": "integer"},
                    "next_attempt_at": _NULLABLE,
                },
            },
        },
    },
}  # fmt: skip


def _answers(good: Schema, **more: Schema) -> Schema:
    refused = {"description": "Why not", "content": {"application/json": {"schema": _REFUSED}}}
    return {
        "200": {"description": "", "content": {"application/json": {"schema": good}}, **more},
        "4XX": refused,
        "5XX": refused,
    }


PATHS: Final[Schema] = {
    "/send": {
        "post": {
            "summary": "Send a letter",
            "parameters": [{"name": "Idempotency-Key", "in": "header", "schema": _TEXT}],
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": _REQUEST}},
            },
            "responses": _answers(_DONE, headers={"Location": {"schema": _TEXT}}),
        }
    },
    "/send/{number}": {
        "parameters": [{"name": "number", "in": "path", "required": True, "schema": _NUMBER}],
        "get": {"summary": "What became of a letter", "responses": _answers(_FATE)},
    },
}
