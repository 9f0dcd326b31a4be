"""Tables as rows, named operations on them, and when they run by themselves."""

from __future__ import annotations

import json
from typing import Any, Final

from sqlalchemy import select

from mailtwist.errors import Conflict, ProtocolViolation
from mailtwist.mail.permissions import ACTION_LOCKED, ALL, HIGHEST, OPEN, Bit
from mailtwist.store.entities.model import (
    AccessDenied,
    Change,
    Column,
    Entity,
    Relation,
    Type,
    by_name,
    relations,
)
from mailtwist.store.entities.tables import action, task, user_account, world
from mailtwist.store.entities.tabular import Reference, Tabular
from mailtwist.store.schedules import read_schedule

MAX_SCHEMA: Final = 256 << 10
MAX_NAME: Final = 200
# What may be done on a server that nobody administers yet must not outlive that.
WITHOUT_GUESTS: Final = OPEN & ~int(Bit.CREATE | Bit.UPDATE | Bit.DELETE)

_WORLD: Final = Tabular(world, "world_id", kinds=("world",))
_ACTIONS: Final = Tabular(
    action,
    "action_id",
    references={"world_id": Reference(action.c.world_id, world, world.c.world_id)},
    kinds=("action",),
)
_TASKS: Final = Tabular(
    task,
    "task_id",
    references={"as_user_id": Reference(task.c.as_user_id, user_account, user_account.c.user_id)},
    kinds=("task",),
)

WORLD: Final = Entity(
    name="world",
    doc="One row for each table: who may do what with it.",
    columns=by_name(
        Column("table_name", is_readonly=True, is_required=True, is_unique=True),
        Column(
            "default_permission",
            Type.INTEGER,
            lowest=0,
            highest=HIGHEST,
            doc="The permission of a new row of the table.",
        ),
    ),
    source=_WORLD,
    update=_WORLD.update,
    fresh_table_permission=WITHOUT_GUESTS,
    order=(("table_name", False),),
    labels=("table_name",),
)


def _create_action(change: Change) -> str:
    _check_action(change)
    return _ACTIONS.create(change)


def _update_action(change: Change) -> None:
    _check_action(change)
    _ACTIONS.update(change)


def _check_action(change: Change) -> None:
    """Refuse a schema that is none, and a second action of a name on one table.

    Raises: ProtocolViolation, Conflict.
    """
    schema = change.values.get("action_schema")
    if schema and not isinstance(json.loads(schema), dict):
        raise ProtocolViolation("invalid value for action_schema: an object is expected")
    if change.row is None or {"action_name"} & change.values.keys() or change.relations:
        _check_name(change)


def _check_name(change: Change) -> None:
    number, name = change.relations.get("world_id"), change.values.get("action_name")
    query = select(action.c.action_id).limit(1)
    if change.row is not None:
        current: Any = change.connection.execute(
            select(action.c.world_id, action.c.action_name).where(action.c.action_id == change.key)
        ).one()
        query = query.where(action.c.action_id != change.key)
        world_id = current.world_id if number is None else number.key
        name = name or current.action_name
    else:
        world_id = number.key if number is not None else 0
    same = (action.c.world_id == world_id) & (action.c.action_name == name)
    if change.connection.execute(query.where(same)).first() is not None:
        raise Conflict(f"The action {name} exists already")


ACTION: Final = Entity(
    name="action",
    doc="Named operations on a table, those that are built in and your own.",
    columns=by_name(
        Column("action_name", is_required=True, max_length=MAX_NAME),
        Column("label", default="", max_length=MAX_NAME),
        Column(
            "instance_optional",
            Type.BOOLEAN,
            default=True,
            doc="Whether it runs without naming a row.",
        ),
        Column(
            "action_schema",
            Type.JSON,
            default="",
            is_hidden=True,
            max_length=MAX_SCHEMA,
            doc="What it does; empty: it is built in.",
        ),
    ),
    relations=relations(Relation("world_id", "world", is_required=True, doc="Of which table.")),
    source=_ACTIONS,
    create=_create_action,
    update=_update_action,
    delete=_ACTIONS.delete,
    fresh_table_permission=WITHOUT_GUESTS,
    # It may do everything, so whom it is open to is to be said.
    row_permission=ACTION_LOCKED,
    fresh_row_permission=OPEN & ~ALL | Bit.EXECUTE,
    labels=("action_name", "label"),
)


def _create_task(change: Change) -> str:
    return _TASKS.create(_checked_task(change))


def _update_task(change: Change) -> None:
    change = _checked_task(change)
    # When it is next, whoever runs tasks works out anew.
    _TASKS.write(change, next_run_at=None)


def _checked_task(change: Change) -> Change:
    """Refuse a schedule that is none, and to act in the name of somebody else.

    Raises: ProtocolViolation, AccessDenied.
    """
    values = change.values
    if "schedule" in values:
        try:
            read_schedule(values["schedule"])
        except ProtocolViolation as error:
            raise ProtocolViolation(f"invalid value for schedule: {error.text}") from error
    if values.get("attributes") and not isinstance(json.loads(values["attributes"]), dict):
        raise ProtocolViolation("invalid value for attributes: an object is expected")
    if not change.viewer.is_admin and _runs_as(change) != change.viewer.user_id:
        raise AccessDenied(AccessDenied.ROW, "A task runs in one's own name")
    return change


def _runs_as(change: Change) -> int:
    """The number of the user in whose name the task will run."""
    as_user, owner = 0, change.owner or 0
    if change.row is not None:
        query = select(task.c.as_user_id, task.c.owner_user_id).where(task.c.task_id == change.key)
        current = change.connection.execute(query).one()
        as_user, owner = current.as_user_id, change.owner or current.owner_user_id
    if "as_user_id" in change.relations:
        given = change.relations["as_user_id"]
        as_user = 0 if given is None else given.key
    return int(as_user or owner)


TASK: Final = Entity(
    name="task",
    doc="Actions that run by themselves, at times.",
    columns=by_name(
        Column("name", default="", max_length=MAX_NAME),
        Column("action_name", is_required=True, max_length=MAX_NAME),
        Column("entity_name", is_required=True, max_length=MAX_NAME),
        Column(
            "schedule",
            is_required=True,
            max_length=MAX_NAME,
            doc="As cron, `@every 5m` or `@hourly`; in UTC.",
        ),
        Column("active", Type.BOOLEAN, default=True),
        Column("attributes", Type.JSON, default="{}", max_length=MAX_SCHEMA),
        Column("job_type", default="", max_length=MAX_NAME),
        Column("last_run_at", Type.TIMESTAMP, is_readonly=True),
        Column("next_run_at", Type.TIMESTAMP, is_readonly=True),
        Column("last_error", default="", is_readonly=True, doc="Empty: the last run went well."),
    ),
    relations=relations(
        Relation("as_user_id", "user_account", doc="In whose name it runs; empty: its owner's.")
    ),
    source=_TASKS,
    create=_create_task,
    update=_update_task,
    delete=_TASKS.delete,
    fresh_table_permission=WITHOUT_GUESTS,
    labels=("name", "action_name"),
)

ENTITIES: Final = (WORLD, ACTION, TASK)
