"""Runs the tasks that are due, on one node at a time, in the names of their users.

A task never runs beside itself, whatever its schedule; one that takes too long is cut off.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from mailtwist.actions.turns import Turn
from mailtwist.errors import MailError
from mailtwist.mail.permissions import NOBODY, Viewer
from mailtwist.store import lease, tasks
from mailtwist.store.engine import Connection
from mailtwist.store.tasks import Task

log = Logger()

LEASE: Final = "tasks"
LEASE_S: Final = 30.0
# How often the lease is renewed, or asked for; and the longest that a due task is overlooked.
EVERY_S: Final = 10.0
RUN_S: Final = 60.0
AT_ONCE: Final = 8
SECOND: Final = 1_000_000


class Operations(Protocol):
    def execute(
        self, viewer: Viewer, entity: str, name: str, attributes: Mapping[str, Any]
    ) -> Awaitable[Sequence[Any]]: ...


class People(Protocol):
    async def viewer_of(self, user_id: int) -> Viewer | None: ...


class Tasks:
    """One in a process; ``clock`` is the reactor's."""

    def __init__(
        self, database: Any, operations: Operations, people: People, *, clock: Any
    ) -> None:
        self._database = database
        self._operations = operations
        self._people = people
        self._clock = clock
        self._running: dict[int, Deferred[None]] = {}
        self._turn = Turn("tasks", self._look, every_s=EVERY_S, clock=clock)

    def start(self) -> None:
        self._database.changes.watch(tasks.KIND, self._turn.wake)
        self._turn.start()

    async def stop(self) -> None:
        """Cut off what runs and give the lease back."""
        await self._turn.stop()
        for running in list(self._running.values()):
            running.cancel()
        node = self._database.ids.node_id
        try:
            await self._database.write(lambda connection: lease.release(connection, LEASE, node))
        except MailError:
            pass  # it runs out by itself

    async def _look(self) -> float | None:
        """Begin what is due; how many seconds until the next look, None: as usual."""
        # Without tasks nothing is ever written, not even a lease.
        if not self._running and not await self._database.read(tasks.are_there):
            return None
        now = int(self._clock.seconds() * SECOND)
        begun, due = await self._database.write(partial(self._claim, now=now))
        for task in begun:
            running = Deferred.fromCoroutine(self._run(task))
            if not running.called:
                self._running[task.task_id] = running
            running.addBoth(partial(self._ended, task))
        if due is None or len(self._running) >= AT_ONCE:
            return None
        return max(0.0, float(due / SECOND - self._clock.seconds()))

    def _claim(self, connection: Connection, *, now: int) -> tuple[list[Task], int | None]:
        node = self._database.ids.node_id
        if not lease.take_over(connection, LEASE, node, now=now, seconds=LEASE_S):
            return [], None
        tasks.plan(connection, now)
        room = AT_ONCE - len(self._running)
        begun = tasks.claim(connection, now, set(self._running), room)
        due = tasks.next_due(connection)
        # Of those that run, the next is looked at when they end.
        return begun, None if due is not None and due <= now else due

    async def _run(self, task: Task) -> None:
        error = await self._outcome(task)
        if error:
            log.warn("task {name} failed: {error}", name=task.name or task.task_id, error=error)
        try:
            await self._database.write(
                lambda connection: tasks.end(connection, task.task_id, error)
            )
        except MailError as refusal:
            log.warn("the end of a task is not noted: {error}", error=refusal)

    async def _outcome(self, task: Task) -> str:
        """What went wrong, for the task's row."""
        work = Deferred.fromCoroutine(self._execute(task))
        timer = self._clock.callLater(RUN_S, work.cancel)
        try:
            await work
        except CancelledError:
            if timer.active():
                raise  # we are stopping
            return f"It did not end within {RUN_S:g} s"
        except MailError as error:
            return error.text
        except Exception:
            log.failure("task {name} failed", name=task.name or task.task_id)
            return MailError.default_text
        finally:
            if timer.active():
                timer.cancel()
        return ""

    async def _execute(self, task: Task) -> None:
        viewer: Viewer | None = NOBODY
        if task.user_id:
            viewer = await self._people.viewer_of(task.user_id)
        if viewer is None:
            raise MailError("The user in whose name it runs is no more")
        await self._operations.execute(viewer, task.entity, task.action, task.attributes)

    def _ended(self, task: Task, outcome: Any) -> None:
        self._running.pop(task.task_id, None)
        self._turn.wake()
