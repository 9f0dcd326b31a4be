"""What a process gives to the one that replaces it, and what the two say to each other.

The new process inherits descriptors: the listening sockets, the lock of the pid file, one end
of a socket pair, and the standard error of the old one (until it serves, its own is a file that
the old process reads when it fails). The variable ``_MAILTWIST_HANDOVER`` says which is which.
Over the pair each sends lines of JSON:

- new: ``{"state": "ready", "pid": n}`` when its last listener is open, or
  ``{"state": "failed", "reason": text}`` before it ends;
- old: ``{"state": "yours"}`` when it takes no more connections, then ``{"state": "free"}`` when
  it has ended the jobs that one process does for all.

Until "yours" both accept connections, on the same sockets. The end of the old process without
a word means both.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterable, MutableMapping
from contextlib import suppress
from functools import cache
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure
from typing_extensions import override

from mailtwist.control.sockets import Given, adopt
from mailtwist.errors import ConfigError, MailError

log = Logger()

VARIABLE: Final = "_MAILTWIST_HANDOVER"
MAX_REASON: Final = 2000

READY: Final = "ready"
FAILED: Final = "failed"
YOURS: Final = "yours"
FREE: Final = "free"


class Talk(LineOnlyReceiver):
    """One end of the pair, on the reactor. ``hear`` gets messages, None at the end."""

    delimiter = b"\n"
    MAX_LENGTH = 16384

    def __init__(self, hear: Callable[[dict[str, Any] | None], None]) -> None:
        self._hear = hear

    @override
    def lineReceived(self, line: bytes) -> None:
        with suppress(ValueError):
            message = json.loads(line)
            if isinstance(message, dict):
                self._hear(message)

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._hear(None)

    def say(self, state: str, **more: Any) -> None:
        self.sendLine(_line(state, more))  # type: ignore[no-untyped-call]

    def hang_up(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()


def talk(reactor: Any, end: socket.socket, hear: Callable[[dict[str, Any] | None], None]) -> Talk:
    """Speak over one end of the pair from here on; ``end`` is used up."""
    made = Talk(hear)
    end.setblocking(False)
    factory = Factory.forProtocol(lambda: made)
    factory.noisy = False
    reactor.adoptStreamConnection(end.fileno(), socket.AF_UNIX, factory)
    end.close()
    return made


def _line(state: str, more: dict[str, Any]) -> bytes:
    return json.dumps({"state": state, **more}).encode("ascii")


# -- the process that is replaced -----------------------------------------------------------


def described(control: int, lock: int | None, errors: int, given: Iterable[Given]) -> str:
    """The value of the variable, for descriptors that keep their numbers."""
    sockets = [[each.socket.fileno(), each.name, each.is_kept] for each in given]
    return json.dumps({"control": control, "lock": lock, "errors": errors, "sockets": sockets})


# -- the process that replaces it -----------------------------------------------------------


class Takeover:
    """What this process was given by the one that it replaces."""

    def __init__(
        self,
        control: int,
        lock: int | None,
        sockets: Iterable[tuple[int, str, bool]],
        *,
        errors: int | None = None,
    ) -> None:
        self._control: socket.socket | None = socket.socket(fileno=control)
        self._control.set_inheritable(False)
        self.lock = lock
        self._sockets = list(sockets)
        self._errors = errors
        # Until the old process says so, listeners.json and the pid files are its own.
        self.is_ours = False
        self._talk: Talk | None = None
        self._yours: Deferred[None] = Deferred()

    def given(self) -> tuple[Given, ...]:
        """The sockets, once. Raises: ConfigError."""
        sockets, self._sockets = self._sockets, []
        found: tuple[Given, ...] = ()
        for is_kept in (False, True):
            chosen = [(number, name) for number, name, kept in sockets if kept is is_kept]
            numbers, names = [each[0] for each in chosen], [each[1] for each in chosen]
            found += adopt(numbers, names, is_kept=is_kept)
        return found

    def failed(self, reason: str) -> None:
        """Tell why this process is about to end. Never raises."""
        if self._control is not None:
            control, self._control = self._control, None
            with suppress(OSError):
                control.sendall(_line(FAILED, {"reason": reason[:MAX_REASON]}) + b"\n")
            control.close()

    async def ready(self, reactor: Any, free: Callable[[], None]) -> None:
        """Tell that this process serves; on return it is the only one that accepts.

        ``free`` is called when the jobs that one process does for all can be had.
        """
        if self._control is None:
            return
        control, self._control = self._control, None
        self._take_standard_error()

        def hear(message: dict[str, Any] | None) -> None:
            state = message.get("state") if message is not None else FREE
            if state in (YOURS, FREE) and not self._yours.called:
                self.is_ours = True
                self._yours.callback(None)
            if state == FREE and self.is_ours:
                free()

        self._talk = talk(reactor, control, hear)
        self._talk.say(READY, pid=os.getpid())
        await self._yours

    def _take_standard_error(self) -> None:
        errors, self._errors = self._errors, None
        if errors is not None:
            os.dup2(errors, 2)
            os.close(errors)

    def let_go(self) -> None:
        """This process ends: wait for nothing any more, and be given nothing."""
        control, self._control = self._control, None
        if control is not None:
            control.close()
        if not self._yours.called:
            self._yours.callback(None)


def announced(environ: MutableMapping[str, str]) -> Takeover | None:
    """What the process before this one has left; None: there was none.

    The variable is removed: it is not meant for our children. Raises: ConfigError.
    """
    text = environ.pop(VARIABLE, "")
    if not text:
        return None
    try:
        found = json.loads(text)
        sockets = [(int(number), str(name), bool(kept)) for number, name, kept in found["sockets"]]
        return Takeover(int(found["control"]), found["lock"], sockets, errors=found.get("errors"))
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ConfigError(f"{VARIABLE} is not what a running server has set: {error}") from error


@cache
def current() -> Takeover | None:
    """What this very process was given. Raises: ConfigError, the first time."""
    return announced(os.environ)


def tell_failure(error: MailError) -> None:
    """Tell the process that this one was to replace why it does not start."""
    takeover = current()
    if takeover is not None:
        takeover.failed(f"{error.text}: {error.detail}" if error.detail else error.text)
