"""Tasks as whoever runs them needs them: which are due, and what came of them."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection

from mailtwist.errors import ProtocolViolation
from mailtwist.store.schedules import read_schedule
from mailtwist.store.sql import Statement

KIND: Final = "task"
MAX_ERROR: Final = 1_000
# More than a server has. Those beyond are never run, which the log says.
MAX_TASKS: Final = 10_000

_UNPLANNED = Statement(
    "SELECT task_id, schedule FROM task WHERE active <> 0 AND next_run_at IS NULL LIMIT ?"
)
_PLAN = Statement("UPDATE task SET next_run_at = ? WHERE task_id = ?")
_FAIL = Statement("UPDATE task SET next_run_at = ?, last_error = ? WHERE task_id = ?")
_DUE = Statement(
    """
    SELECT task_id, name, entity_name, action_name, schedule, attributes,
           CASE WHEN as_user_id <> 0 THEN as_user_id ELSE owner_user_id END
    FROM task WHERE active <> 0 AND next_run_at <= ? ORDER BY next_run_at, task_id LIMIT ?
    """
)
_BEGIN = Statement("UPDATE task SET last_run_at = ?, next_run_at = ? WHERE task_id = ?")
_END = Statement("UPDATE task SET last_error = ? WHERE task_id = ?")
_ANY = Statement("SELECT 1 FROM task WHERE active <> 0 LIMIT 1")
_NEXT = Statement("SELECT min(next_run_at) FROM task WHERE active <> 0")

# Of a schedule that an older version took: not looked at again for long.
_NEVER: Final = 2**62


@dataclass(frozen=True, slots=True)
class Task:
    """``user_id``: in whose name it runs; 0: a guest's."""

    task_id: int
    name: str
    entity: str
    action: str
    attributes: dict[str, Any]
    user_id: int


def are_there(connection: Connection) -> bool:
    """Whether anything is to be run at any time."""
    return _ANY(connection).first() is not None


def plan(connection: Connection, now: int) -> None:
    """Work out when tasks that are new or changed run for the first time."""
    for task_id, schedule in _UNPLANNED(connection, (MAX_TASKS,)).all():
        try:
            _PLAN(connection, (read_schedule(schedule).after(now), task_id))
        except ProtocolViolation as error:
            _FAIL(connection, (_NEVER, f"schedule: {error.text}", task_id))


def claim(connection: Connection, now: int, running: Collection[int], limit: int) -> list[Task]:
    """Begin tasks that are due and not ``running``; their next run is that after ``now``.

    However many runs were missed, it is one that is made up for.
    """
    found: list[Task] = []
    for row in _DUE(connection, (now, limit + len(running))).all():
        task_id, name, entity, action, schedule, attributes, user_id = row
        if task_id in running or len(found) >= limit:
            continue
        _BEGIN(connection, (now, _after(schedule, now), task_id))
        found.append(Task(task_id, name, entity, action, _object(attributes), user_id))
    return found


def _after(schedule: str, now: int) -> int:
    try:
        return read_schedule(schedule).after(now)
    except ProtocolViolation:
        return _NEVER


def _object(text: str) -> dict[str, Any]:
    found = json.loads(text or "{}")
    return found if isinstance(found, dict) else {}


def end(connection: Connection, task_id: int, error: str) -> None:
    """Note what came of a run; ``error`` empty: it went well."""
    _END(connection, (error[:MAX_ERROR], task_id))


def next_due(connection: Connection) -> int | None:
    """When the first task is due; None: there is none."""
    found: int | None = _NEXT(connection).scalar()
    return found
