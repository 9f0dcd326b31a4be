"""Actions of one's own, defined by REST as a user does it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from tests.support.rest import Answer, Rest

_numbers = count(1)
OPEN_TO_GUESTS = 2_085_152


def outcome(kind: str, attributes: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"Type": kind, "Method": "EXECUTE", "Attributes": dict(attributes), **more}


def define(
    admin: Rest,
    outcomes: Sequence[Mapping[str, Any]],
    *,
    inputs: Sequence[str] = (),
    name: str = "",
    **attributes: Any,
) -> str:
    """A new action on ``world``; its name."""
    name = name or f"own{next(_numbers)}"
    (world,) = admin.rows("world", ("table_name", "is", "world")).data
    fields = [{"Name": each, "ColumnName": each, "ColumnType": "label"} for each in inputs]
    schema = {
        "Name": name,
        "OnType": "world",
        "InstanceOptional": True,
        "OutFields": list(outcomes),
    }
    if fields:
        # Of an action that declares none whatever comes is an input.
        schema["InFields"] = [{**each, "IsNullable": True} for each in fields]
    given = {
        "action_name": name,
        "label": name,
        "instance_optional": True,
        "action_schema": json.dumps(schema),
        **attributes,
    }
    admin.make("action", given, {"world_id": ("world", world["id"])})
    return name


def run(rest: Rest, name: str, **attributes: Any) -> Answer:
    return rest.act("world", name, {"attributes": attributes})


def once(
    admin: Rest, kind: str, attributes: Mapping[str, Any], *, by: Rest | None = None, **more: Any
) -> Answer:
    """The answer of an action with this one outcome."""
    name = define(admin, [outcome(kind, attributes, **more)])
    return run(by or admin, name)
