"""Expressions of actions: asked for here, evaluated by processes that can be killed.

A process serves one request at a time. One more than work at once is kept ready, so that
after a bomb the next request finds a process. Requests wait in a bounded line, where those
of one user give way to those of others, and those of users who took long get one process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred

from mailtwist.actions.javascript.line import Lanes
from mailtwist.actions.javascript.processes import Processes
from mailtwist.actions.javascript.request import Request
from mailtwist.actions.javascript.worker import Ended, Limits, Worker
from mailtwist.errors import ExpressionLimit, TemporaryFailure

WAIT_S: Final = 10.0
ALLOWANCE_S: Final = 2.0
TOO_LONG: Final = "takes too long"
CRASHED: Final = "ended its process, perhaps for want of memory"


class Script:
    """All processes for expressions; one in a server. The first request starts them."""

    def __init__(
        self,
        reactor: Any,
        *,
        processes: int = 2,
        time_s: float = 0.5,
        memory: int = 16 << 20,
        stack: int = 256 << 10,
    ) -> None:
        self._reactor = reactor
        self._room = processes
        limits = Limits(time_s, time_s + 0.3, memory, stack)
        self._slow_s = time_s / 2
        self._processes = Processes(reactor, limits, processes + 1, self._dispatch)
        self._lanes: Lanes[Request] = Lanes()
        self._is_stopped = False

    async def evaluate(
        self, expressions: Sequence[str], scope: Mapping[str, Any], *, who: str = ""
    ) -> list[Any]:
        """The JSON values of the expressions, which share one fresh engine.

        ``scope`` holds JSON values only. Raises: ExpressionError (the text says which and
        why), at the latest 1 s after a process took it; TemporaryFailure when too many wait.
        """
        return await self.run(Request(who, tuple(expressions), scope))

    def allowance(self, who: str = "", seconds: float = ALLOWANCE_S) -> Allowance:
        """What one call of an action evaluates with: so long in all."""
        return Allowance(self, who, seconds)

    async def run(self, request: Request) -> list[Any]:
        """The same as ``evaluate``, which also tells the request how long it took."""
        if not request.expressions:
            return []
        frames = request.frames()
        worker = await self._turn(request)
        began = self._reactor.seconds()
        try:
            answer = await worker.ask(*frames)
        except Ended as ended:
            raise request.failed(TOO_LONG if ended.is_late else CRASHED) from None
        finally:
            now = self._reactor.seconds()
            request.used_s = now - began
            self._lanes.done(request, request.used_s > self._slow_s, now)
            self._room += 1
            self._dispatch()
        return request.values(answer)

    async def stop(self) -> None:
        """End all processes; who waits is refused."""
        self._is_stopped = True
        self._refuse_all("JavaScript is stopped")
        await self._processes.stop()

    async def _turn(self, request: Request) -> Worker:
        now = self._reactor.seconds()
        if self._is_stopped or self._lanes.is_full_for(request.who, now):
            raise _not_now(f"{len(self._lanes)} requests wait")
        # Who asked may give up while he waits.
        request.turn = Deferred(lambda _: self._leave(request))
        self._lanes.add(request, now)
        request.timer = self._reactor.callLater(WAIT_S, self._refuse, request, "waited too long")
        self._dispatch()
        return await request.turn

    def _dispatch(self) -> None:
        self._processes.staff()
        if not self._processes:
            self._refuse_all("no process starts")
        while self._room and self._processes.has_idle:
            request = self._lanes.pop()
            if request is None:
                break
            self._room -= 1
            request.stop_waiting()
            request.turn.callback(self._processes.take())

    def _refuse(self, request: Request, why: str) -> None:
        self._leave(request)
        request.turn.errback(_not_now(why))

    def _leave(self, request: Request) -> None:
        self._lanes.remove(request)
        request.stop_waiting()

    def _refuse_all(self, why: str) -> None:
        for request in tuple(self._lanes):
            self._refuse(request, why)


class Allowance:
    """Evaluates as Script does, for one caller and for so many seconds in all."""

    def __init__(self, script: Script, who: str, seconds: float) -> None:
        self._script, self._who, self._left = script, who, seconds

    async def evaluate(self, expressions: Sequence[str], scope: Mapping[str, Any]) -> list[Any]:
        """The same; raises ExpressionLimit also when the time of the whole call is over."""
        if self._left <= 0:
            raise ExpressionLimit("The expressions of this call take too long")
        request = Request(self._who, tuple(expressions), scope)
        try:
            return await self._script.run(request)
        finally:
            self._left -= request.used_s


def _not_now(detail: str) -> TemporaryFailure:
    return TemporaryFailure("Too many expressions at once, try again later", detail=detail)
