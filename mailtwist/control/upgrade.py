"""A new process in the place of this one, without a gap: ``mailtwist upgrade-in-place``.

The new process is started as this one was (interpreter, arguments, folder), so that it is
whatever is installed by now. It takes over the listening sockets and opens the store beside
this process. When it serves, this one accepts no more, gives up the jobs that one process does
for all, lets its sessions end, and ends. When the new one is not ready in time or ends, this
one goes on as if nothing had happened, and says why.

``upgrade.json`` in the data folder tells how the last one went.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailtwist.control import handover, systemd
from mailtwist.control.handover import Talk
from mailtwist.control.sockets import Given
from mailtwist.errors import MailError

log = Logger()

FILE_NAME: Final = "upgrade.json"
# The new process must serve within this time.
READY_S: Final = 60.0
# One that is given up may take this long to end by itself.
END_S: Final = 10.0
TOO_LATE: Final = f"the new process was not ready in {READY_S:g} s"
STOPPING: Final = "the server is being stopped"
# Of the last line on its standard error, so much is told.
MAX_WORDS: Final = 300

RUNNING: Final = "running"
DONE: Final = "done"
FAILED: Final = "failed"

# Not meant for the new process: they name this one.
_OF_THIS_PROCESS: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID")


class NotReplaced(MailError):
    default_text = "The server was not replaced"


class Server(Protocol):
    """What is replaced."""

    async def pause(self) -> tuple[Given, ...]:
        """Open and close nothing from here on; the sockets that there are."""

    def resume(self) -> None:
        """Go on as before: nobody has taken the sockets over."""

    async def retire(self, free: Callable[[], None]) -> None:
        """Accept nothing more, end jobs (then ``free`` is called) and sessions."""

    @property
    def lock(self) -> int | None:
        """The locked pid file, if this process has it."""

    def hand_on(self) -> None:
        """Pid files belong to the new process."""


class Child(Protocol):
    """The new process; as subprocess.Popen."""

    pid: int

    def wait(self, timeout: float | None = None) -> int: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What upgrade.json says. ``old`` and ``new`` are process numbers; 0: not known."""

    state: str
    old: int
    new: int = 0
    reason: str = ""
    id: str = field(default_factory=lambda: os.urandom(8).hex())

    @property
    def is_over(self) -> bool:
        return self.state != RUNNING


def write_outcome(data_dir: Path, outcome: Outcome) -> None:
    """Replace what upgrade.json says, whole or not at all. Raises: OSError."""
    path = data_dir / FILE_NAME
    temporary = path.with_name(FILE_NAME + ".new")
    temporary.write_text(json.dumps(asdict(outcome)) + "\n", encoding="utf-8")
    temporary.replace(path)


def read_outcome(data_dir: Path) -> Outcome | None:
    """How the last one went; None: there was none."""
    try:
        return Outcome(**json.loads((data_dir / FILE_NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


@dataclass(frozen=True, slots=True)
class Program:
    """How this process was started."""

    arguments: tuple[str, ...]
    folder: str

    @classmethod
    def of_this_process(cls) -> Program:
        """To be called before the working directory changes (twistd does so)."""
        try:
            folder = os.getcwd()
        except FileNotFoundError:  # it was removed under us
            folder = "/"
        return cls((sys.executable, *sys.orig_argv[1:]), folder)

    def start(
        self, environ: Mapping[str, str], descriptors: Sequence[int], errors: IO[bytes]
    ) -> Child:
        """Start it again; it inherits ``descriptors`` under their numbers. Raises: OSError."""
        return subprocess.Popen(
            self.arguments,
            cwd=self.folder,
            env=dict(environ),
            pass_fds=descriptors,
            stderr=errors,
        )


class Upgrade:
    """One in a process. ``end`` is called when the new process serves and the last session is
    gone; ``start`` starts the new one. ``own_files(False)``: see MailService.
    """

    def __init__(
        self,
        server: Server,
        *,
        reactor: Any,
        data_dir: Path,
        end: Callable[[], None],
        start: Callable[[Mapping[str, str], Sequence[int], IO[bytes]], Child],
        environ: Mapping[str, str] = os.environ,
        notify: Callable[..., object] = systemd.notify,
        own_files: Callable[[bool], None] = lambda is_ours: None,
    ) -> None:
        self._server = server
        self._reactor = reactor
        self._data_dir = data_dir
        self._end = end
        self._start = start
        self._environ = environ
        self._notify = notify
        self._own_files = own_files
        self._child: Child | None = None
        self._successor: Successor | None = None
        self._is_stopping = False
        self._replacing: Deferred[None] | None = None
        # From here on listeners.json and the pid files are the new process's.
        self.is_handed_over = False

    def begin(self) -> None:
        """Replace this process; what goes wrong is logged and told in upgrade.json."""
        if self._replacing is not None:
            log.info("an upgrade is under way already")
            return
        self._replacing = Deferred.fromCoroutine(self._run())
        self._replacing.addErrback(lambda failure: log.failure("upgrade failed", failure))
        self._replacing.addCallback(self._over)

    def _over(self, _: None) -> None:
        self._replacing = None

    async def stop(self) -> None:
        """This process ends: so does a new one that does not serve yet."""
        self._is_stopping = True
        if self._replacing is not None and not self.is_handed_over:
            if self._successor is not None:
                self._successor.give_up(STOPPING)
            await self._replacing

    # -- the steps ----------------------------------------------------------------------------

    async def _run(self) -> None:
        outcome = Outcome(RUNNING, os.getpid())
        try:
            await self._in_a_thread(write_outcome, self._data_dir, outcome)
            self._notify(*systemd.reloading())
            successor = await self._replace()
        except (MailError, OSError) as error:
            await self._go_on(_reason(error))
            return
        except Exception:
            log.failure("upgrade failed", Failure())
            await self._go_on("an internal error, see the log")
            return
        await self._leave(successor)

    async def _replace(self) -> Successor:
        """The new process, once it serves. Raises: NotReplaced, MailError, OSError."""
        if os.getpid() == 1:
            raise NotReplaced("process 1 cannot be replaced: its container would end with it")
        given = await self._server.pause()
        # Of a daemon, what is said on standard error would go to nobody.
        with tempfile.TemporaryFile() as errors:
            successor = self._successor = await self._started(given, errors)
            late = self._reactor.callLater(READY_S, successor.give_up, TOO_LATE)
            if self._is_stopping:
                successor.give_up(STOPPING)
            try:
                await successor.serves
            finally:
                self._successor = None
                if late.active():
                    late.cancel()
        return successor

    async def _started(self, given: Sequence[Given], errors: IO[bytes]) -> Successor:
        log.info("starting a new process in this one's place")
        ours, theirs = socket.socketpair()
        lock, standard_error = self._server.lock, os.dup(2)
        control = theirs.fileno()
        try:
            numbers = [control, standard_error, *(each.socket.fileno() for each in given)]
            numbers += [lock] if lock is not None else []
            environ = {k: v for k, v in self._environ.items() if k not in _OF_THIS_PROCESS}
            environ[handover.VARIABLE] = handover.described(control, lock, standard_error, given)
            self._child = await self._in_a_thread(self._start, environ, numbers, errors)
            successor = Successor(self._child.pid, errors)
            successor.talk = handover.talk(self._reactor, ours, successor.hear)
        finally:
            ours.close()
            theirs.close()
            os.close(standard_error)
        return successor

    async def _leave(self, successor: Successor) -> None:
        """The new process serves: end in peace."""
        self.is_handed_over = True
        pid = successor.pid
        log.info("process {pid} has taken over", pid=pid)
        self._server.hand_on()
        self._own_files(False)
        self._notify(f"MAINPID={pid}", "READY=1")
        await self._tell(Outcome(DONE, os.getpid(), pid))
        # It stops to accept within this very turn, before the new process hears of it.
        retiring = Deferred.fromCoroutine(self._server.retire(lambda: successor.say(handover.FREE)))
        successor.say(handover.YOURS)
        try:
            await retiring
        finally:
            self._end()

    async def _go_on(self, reason: str) -> None:
        """As if nothing had happened."""
        log.error("this process goes on: {reason}", reason=reason)
        new = self._child.pid if self._child is not None else 0
        if self._child is not None:
            child, self._child = self._child, None
            await self._in_a_thread(_end_process, child)
        self._server.resume()
        self._notify("READY=1")
        await self._tell(Outcome(FAILED, os.getpid(), new, reason))

    async def _tell(self, outcome: Outcome) -> None:
        try:
            await self._in_a_thread(write_outcome, self._data_dir, outcome)
        except OSError as error:
            log.warn("{file} stays as it is: {error}", file=FILE_NAME, error=error)

    def _in_a_thread(self, work: Callable[..., Any], *arguments: Any) -> Awaitable[Any]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), work, *arguments)


class Successor:
    """The new process as it speaks. ``serves`` fires when it does. Raises there: NotReplaced."""

    def __init__(self, pid: int, errors: IO[bytes]) -> None:
        self.pid = pid
        self._errors = errors
        self.serves: Deferred[None] = Deferred()
        self.talk: Talk | None = None
        self._reason = ""

    def hear(self, message: dict[str, Any] | None) -> None:
        if self.serves.called:
            return
        if message is None:
            self.serves.errback(NotReplaced(self._reason or self._last_words()))
        elif message.get("state") == handover.READY:
            # With twistd and the like it need not be the process that was started.
            self.pid = int(message.get("pid", self.pid))
            self.serves.callback(None)
        elif message.get("state") == handover.FAILED:
            self._reason = str(message.get("reason", self._reason))[: handover.MAX_REASON]

    def _last_words(self) -> str:
        """Why it has ended, as far as its standard error tells; all of it goes to the log."""
        told = "the new process ended before it was ready"
        with contextlib.suppress(OSError, ValueError):
            size = self._errors.seek(0, os.SEEK_END)
            self._errors.seek(max(0, size - handover.MAX_REASON))
            said = self._errors.read().decode("utf-8", "replace").strip()
            if said:
                log.error("the new process said: {said}", said=said)
                return f"{told}: {said.splitlines()[-1][:MAX_WORDS]}"
        return told

    def say(self, state: str) -> None:
        if self.talk is not None:
            self.talk.say(state)

    def give_up(self, reason: str) -> None:
        if not self.serves.called:
            self.serves.errback(NotReplaced(reason))


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError):
        return f"cannot start a new process: {error}"
    assert isinstance(error, MailError)
    return f"{error.text}: {error.detail}" if error.detail else error.text


def _end_process(child: Child) -> None:
    """End a process that is not wanted any more; it has ended on return. In a thread."""
    child.terminate()
    try:
        child.wait(END_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
