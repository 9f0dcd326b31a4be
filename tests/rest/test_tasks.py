"""Tasks of a running server."""

from __future__ import annotations

import time

import pytest

from tests.support.rest import Rest

pytestmark = [pytest.mark.real]

PATIENCE_S = 30.0
TASK = {"action_name": "process_outbox", "entity_name": "outbox", "schedule": "@every 1s"}


def ran(rest, task, count=1):
    """The task's attributes as soon as it ran so many times."""
    seen, deadline = set[str](), time.monotonic() + PATIENCE_S
    while len(seen) < count:
        assert time.monotonic() < deadline, seen
        attributes = rest.row("task", task["id"])["attributes"]
        # Between the beginning of a run and its end the row tells of the one before.
        if attributes["last_run_at"]:
            seen.add(attributes["last_run_at"])
        time.sleep(0.05)
    return attributes


def test_a_task_runs_by_itself_in_the_name_of_its_owner(admin):
    task = admin.make("task", TASK | {"name": "mine"})
    attributes = ran(admin, task, 2)
    assert attributes["last_error"] == ""
    assert attributes["next_run_at"] > attributes["last_run_at"]
    admin.remove("task", task["id"])


def test_a_task_has_the_rights_of_its_user(admin):
    user = admin.user()
    task = admin.make("task", TASK, {"as_user_id": ("user_account", user.id)})
    deadline = time.monotonic() + PATIENCE_S
    while not (said := admin.row("task", task["id"])["attributes"]["last_error"]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "forbidden" in said
    admin.remove("task", task["id"])


def test_an_unknown_action_is_said_in_the_row(admin):
    task = admin.make("task", TASK | {"action_name": "no_such"})
    deadline = time.monotonic() + PATIENCE_S
    while not (said := admin.row("task", task["id"])["attributes"]["last_error"]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert said == "no such action"
    admin.remove("task", task["id"])


@pytest.mark.parametrize(
    "schedule", ["0 0 30 2 *", "@every 0s", "@every 1ms", "* * *", "whenever", "@every -1s"]
)
def test_a_schedule_that_never_comes_or_never_ends_is_refused(admin, schedule):
    answer = admin.create("task", TASK | {"schedule": schedule})
    assert answer.status == 400
    assert "schedule" in answer.error


def test_a_task_goes_on_after_a_restart(make_fresh):
    server = make_fresh().start()
    admin = Rest(server.ports["http"]).become_administrator()
    task = admin.make("task", TASK)
    before = ran(admin, task)["last_run_at"]
    server.kill()
    server.start()
    again = Rest(server.ports["http"], admin.token)
    deadline = time.monotonic() + 90
    while again.row("task", task["id"])["attributes"]["last_run_at"] <= before:
        assert time.monotonic() < deadline
        time.sleep(0.2)
