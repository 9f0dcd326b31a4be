"""Templates of actions: rendered by a process of their own that can be killed.

Jinja2's sandbox keeps a template from objects that it was not given; what it costs, in time and
memory, only the process's bounds can limit. One process renders one template.
"""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import override

from mailtwist.errors import ExpressionError, ProtocolViolation, TemporaryFailure

log = Logger()

PROGRAM: Final = Path(__file__).with_name("child.py")
# What the process may import beside the standard library.
PACKAGES: Final = ("jinja2", "markupsafe")
ENVIRONMENT: Final = {"TZ": "UTC0", "LC_ALL": "C.UTF-8"}
MAX_TEMPLATE: Final = 64 << 10
MAX_SCOPE: Final = 1 << 20
MAX_RESULT: Final = 1 << 20
MAX_COMPLAINT: Final = 2048
# Of processor time, and by the clock once the process has begun to render.
TIME_S: Final = 0.5
WALL_S: Final = 0.9
# On an idle machine it has begun in 0.15 s.
START_S: Final = 20.0
PROCESSES: Final = 2
MAX_WAITING: Final = 64


class Rendering:
    """All such processes; one in a server."""

    def __init__(self, reactor: Any, *, processes: int = PROCESSES) -> None:
        self._reactor = reactor
        self._free = processes
        self._waiting: deque[Deferred[None]] = deque()
        self._renderers: set[_Renderer] = set()

    async def render(
        self, template: str, scope: Mapping[str, Any], *, is_html: bool = False
    ) -> str:
        """The text that a template makes of JSON values; ``is_html``: values are escaped.

        Raises: ExpressionError, whose text says why; ProtocolViolation for one that is too long;
        TemporaryFailure when too many wait.
        """
        given = json.dumps([template, dict(scope), is_html]).encode()
        if len(template) > MAX_TEMPLATE or len(given) > MAX_TEMPLATE * 6 + MAX_SCOPE:
            raise ProtocolViolation("The template is too long, or what it is given")
        await self._turn()
        try:
            kind, text = await self._rendered(given)
        finally:
            self._pass_on()
        if kind != "=":
            raise ExpressionError(f"template: {text}")
        return text

    async def _rendered(self, given: bytes) -> tuple[str, str]:
        renderer = _Renderer(self._reactor, given)
        ended = renderer.start()
        self._renderers.add(renderer)
        renderer.gone.addCallback(lambda _: self._renderers.discard(renderer))
        answer = await ended
        try:
            kind, text = json.loads(answer)
        except ValueError:
            return "!", "it takes too long, or too much memory"
        return kind, text

    async def _turn(self) -> None:
        if self._free:
            self._free -= 1
            return
        if len(self._waiting) >= MAX_WAITING:
            raise TemporaryFailure("Too many templates at once, try again later")
        mine: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(mine)
        await mine

    def _pass_on(self) -> None:
        if self._waiting:
            self._waiting.popleft().callback(None)
        else:
            self._free += 1

    async def stop(self) -> None:
        """End all processes."""
        for renderer in tuple(self._renderers):
            renderer.kill()
            await renderer.gone


class _Renderer(ProcessProtocol):
    """One process, from its start to its end."""

    def __init__(self, reactor: Any, given: bytes) -> None:
        self._reactor = reactor
        self._given = given
        self._answer = bytearray()
        self._complaint = b""
        # Whoever gives up waiting has no use for the process.
        self._ended: Deferred[bytes] = Deferred(lambda _: self.kill())
        self._timer: Any = None
        self.gone: Deferred[None] = Deferred()

    def start(self) -> Deferred[bytes]:
        """Fires with what the process wrote, when it has ended. Raises: TemporaryFailure."""
        bounds = json.dumps([TIME_S, WALL_S, MAX_RESULT])
        arguments = [sys.executable, "-I", "-S", str(PROGRAM), bounds, *_folders()]
        self._timer = self._reactor.callLater(START_S, self.kill)
        try:
            self._reactor.spawnProcess(self, sys.executable, arguments, env=ENVIRONMENT)
        except OSError as error:
            self._timer.cancel()
            raise TemporaryFailure(detail=f"no process for templates: {error}") from error
        return self._ended

    @override
    def connectionMade(self) -> None:
        """Give it all that it needs."""
        assert self.transport is not None
        self.transport.write(self._given)
        self.transport.closeStdin()

    @override
    def outReceived(self, data: bytes) -> None:
        """Take octets of its answer; the first one says that it has begun."""
        if not self._answer and self._timer.active():
            self._timer.reset(WALL_S)
        self._answer += data
        if len(self._answer) > MAX_RESULT * 6 + 64:
            self.kill()

    @override
    def errReceived(self, data: bytes) -> None:
        """Keep the beginning of what it complains about, for the log."""
        self._complaint = (self._complaint + data)[:MAX_COMPLAINT]

    @override
    def processEnded(self, _reason: Failure) -> None:
        """Tell who waits."""
        if self._timer.active():
            self._timer.cancel()
        if self._complaint:
            text = self._complaint.decode("utf-8", "replace")
            log.warn("a template's process ended: {text}", text=text)
        if not self._ended.called:
            self._ended.callback(bytes(self._answer))
        self.gone.callback(None)

    def kill(self) -> None:
        """End it at once."""
        assert self.transport is not None
        try:
            self.transport.signalProcess("KILL")
        except ProcessExitedAlready:
            pass


def _folders() -> list[str]:
    """Where the packages lie, found without importing them."""
    found = [find_spec(name) for name in PACKAGES]
    return sorted({
        str(Path(spec.origin).parent.parent)
        for spec in found
        if spec is not None and spec.origin is not None
    })  # fmt: skip
