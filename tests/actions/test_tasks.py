"""Tasks run at their times, in the name of their user, and never beside themselves."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred

from mailtwist.actions.tasks import AT_ONCE, EVERY_S, LEASE, RUN_S, Tasks
from mailtwist.errors import ProtocolViolation, Refusal
from mailtwist.mail.permissions import NOBODY
from mailtwist.store import lease
from mailtwist.store.entities.model import AccessDenied, Ref
from tests.store.making import another_node
from tests.support.now import now

TASK = {"name": "t", "entity_name": "world", "action_name": "do", "schedule": "@every 60s"}


class Operations:
    """Notes what is run."""

    def __init__(self):
        self.calls = []
        self.answer = None

    async def execute(self, viewer, entity, name, attributes):
        self.calls.append((viewer, entity, name, attributes))
        if callable(self.answer):
            return await self.answer()
        if self.answer is not None:
            raise self.answer
        return ()


@pytest.fixture
def operations():
    return Operations()


@pytest.fixture
def tasks(server, operations):
    made = Tasks(server.database, operations, server.identities, clock=server.clock)
    made.start()
    yield made
    now(made.stop())
    assert server.clock.getDelayedCalls() == []


def run(server, seconds):
    server.clock.pump([0.1] * int(seconds * 10))


def row(server, task):
    return server.get(task).attributes


def test_a_task_runs_at_its_time_and_again(server, tasks, operations):
    server.create("task", TASK)
    run(server, 59)
    assert operations.calls == []
    run(server, 2)
    assert len(operations.calls) == 1
    run(server, 60)
    assert len(operations.calls) == 2


def test_its_row_tells_when(server, tasks, operations):
    task = server.create("task", TASK | {"schedule": "0 * * * *"})
    assert row(server, task)["next_run_at"] is None
    run(server, 1)
    before = row(server, task)
    assert before["last_run_at"] is None
    run(server, 3601)
    after = row(server, task)
    assert before["next_run_at"] == "2027-01-15T09:00:00Z"
    assert after["last_run_at"].startswith("2027-01-15T09:00:00")
    assert after["next_run_at"] == "2027-01-15T10:00:00Z"
    assert len(operations.calls) == 1


def test_it_gets_its_attributes(server, tasks, operations):
    server.create("task", TASK | {"schedule": "@every 1s", "attributes": {"a": [1], "b": "c"}})
    run(server, 2)
    assert operations.calls[0][1:] == ("world", "do", {"a": [1], "b": "c"})


def test_it_runs_as_its_user_else_as_its_owner_else_as_a_guest(server, tasks, operations):
    anna, admin = server.user("anna@x.org"), server.administrator()
    every = TASK | {"schedule": "@every 1s"}
    server.create("task", every | {"entity_name": "1"}, admin)
    server.create(
        "task",
        every | {"entity_name": "2"},
        admin,
        as_user_id=Ref("user_account", anna.reference_id),
    )
    server.create("task", every | {"entity_name": "3"})
    run(server, 2)
    viewers = {entity: viewer for viewer, entity, _, _ in operations.calls}
    assert viewers["1"].email == "admin@x.org"
    assert viewers["1"].is_admin
    assert viewers["2"].email == "anna@x.org"
    assert not viewers["2"].is_admin
    assert viewers["3"] == NOBODY


def test_a_task_of_a_user_who_is_gone_says_so(server, tasks, operations):
    anna, admin = server.user("anna@x.org"), server.administrator()
    task = server.create("task", TASK, admin, as_user_id=Ref("user_account", anna.reference_id))
    now(server.resources.delete(admin, "user_account", anna.reference_id))
    run(server, 61)
    assert operations.calls == []
    assert "is no more" in row(server, task)["last_error"]


@pytest.mark.parametrize(
    ("error", "said"),
    [(Refusal("not you"), "not you"), (ValueError("a secret"), "Internal error")],
    ids=["refusal", "bug"],
)
def test_what_fails_is_said_in_the_row(server, tasks, operations, error, said):
    operations.answer = error
    task = server.create("task", TASK)
    run(server, 61)
    assert row(server, task)["last_error"] == said
    operations.answer = None
    run(server, 61)
    assert row(server, task)["last_error"] == ""


def test_it_never_runs_beside_itself(server, tasks, operations):
    waiting: Deferred[None] = Deferred()

    async def answer():
        await waiting

    operations.answer = answer
    server.create("task", TASK | {"schedule": "@every 1s"})
    run(server, 20)
    assert len(operations.calls) == 1
    operations.answer = None
    waiting.callback(None)
    run(server, 0.5)
    # What was missed is made up for once.
    assert len(operations.calls) == 2
    run(server, 2)
    assert len(operations.calls) in {3, 4}


def test_one_that_does_not_end_is_cut_off(server, tasks, operations):
    async def answer():
        await Deferred()

    operations.answer = answer
    task = server.create("task", TASK | {"schedule": "0 * * * *"})
    run(server, 3601 + RUN_S)
    assert row(server, task)["last_error"] == "It did not end within 60 s"
    assert len(operations.calls) == 1


def test_others_run_meanwhile_and_not_too_many(server, tasks, operations):
    async def answer():
        await Deferred()

    operations.answer = answer
    for _ in range(AT_ONCE + 3):
        server.create("task", TASK)
    run(server, 62)
    assert len(operations.calls) == AT_ONCE
    run(server, RUN_S)
    assert len(operations.calls) >= AT_ONCE + 3


def test_a_run_that_was_missed_is_made_up_for_once(server, operations):
    task = server.create("task", TASK)
    first = Tasks(server.database, operations, server.identities, clock=server.clock)
    first.start()
    run(server, 1)
    now(first.stop())
    server.clock.advance(3600)
    second = Tasks(server.database, operations, server.identities, clock=server.clock)
    second.start()
    run(server, 50)
    assert len(operations.calls) == 1
    now(second.stop())
    assert row(server, task)["last_run_at"]


@pytest.mark.parametrize("change", [{"active": False}, None], ids=["inactive", "deleted"])
def test_a_task_that_is_withdrawn_runs_no_more(server, tasks, operations, change):
    task = server.create("task", TASK)
    run(server, 30)
    if change:
        server.update(task, change)
    else:
        now(server.resources.delete(server.administrator(), "task", task.id))
    run(server, 120)
    assert operations.calls == []


def test_a_new_schedule_counts_at_once(server, tasks, operations):
    task = server.create("task", TASK | {"schedule": "@yearly"})
    run(server, 1)
    server.update(task, {"schedule": "@every 2s"})
    run(server, 3)
    assert len(operations.calls) == 1


def test_only_who_holds_the_lease_runs_them(server, operations):
    def take(connection):
        another_node(connection, 700)
        moment = int(server.clock.seconds() * 1e6)
        return lease.take(connection, LEASE, 700, now=moment, seconds=60)

    assert now(server.database.write(take))
    server.create("task", TASK | {"schedule": "@every 1s"})
    tasks = Tasks(server.database, operations, server.identities, clock=server.clock)
    tasks.start()
    run(server, 50)
    assert operations.calls == []
    run(server, 10 + EVERY_S + 1)
    assert operations.calls
    now(tasks.stop())
    assert (
        now(
            server.database.read(
                lambda c: lease.holder(c, LEASE, int(server.clock.seconds() * 1e6))
            )
        )
        is None
    )


@pytest.mark.parametrize(
    ("attributes", "named"),
    [
        ({"schedule": "0 0 30 2 *"}, "schedule"),
        ({"schedule": "@every 0s"}, "schedule"),
        ({"schedule": "@every 10ms"}, "schedule"),
        ({"schedule": "soon"}, "schedule"),
        ({"attributes": "[1]"}, "attributes"),
        ({"attributes": "{"}, "attributes"),
    ],
)
def test_a_task_that_cannot_run_is_refused(server, attributes, named):
    with pytest.raises(ProtocolViolation, match=f"invalid value for {named}"):
        server.create("task", TASK | attributes)
    task = server.create("task", TASK)
    with pytest.raises(ProtocolViolation, match=f"invalid value for {named}"):
        server.update(task, attributes)


def test_nobody_runs_tasks_in_the_name_of_another(server):
    admin, anna, bert = (
        server.user("root@x.org"),
        server.user("anna@x.org"),
        server.user("bert@x.org"),
    )
    # As long as nobody administers the server, whoever signed in may make rows.
    own = server.create("task", TASK, anna)
    with pytest.raises(AccessDenied):
        server.create("task", TASK, anna, as_user_id=Ref("user_account", bert.reference_id))
    with pytest.raises(AccessDenied):
        now(
            server.resources.update(
                anna, "task", own.id, {}, {"as_user_id": Ref("user_account", admin.reference_id)}
            )
        )
    with pytest.raises(AccessDenied):
        server.update(own, {"action_name": "signup"}, bert)
    server.update(own, {"action_name": "signup"}, anna)


def test_nothing_is_written_where_there_are_no_tasks(server, tasks, operations):
    server.create("task", TASK | {"active": False})
    run(server, 60)
    moment = int(server.clock.seconds() * 1e6)
    assert now(server.database.read(lambda c: lease.holder(c, LEASE, moment))) is None
