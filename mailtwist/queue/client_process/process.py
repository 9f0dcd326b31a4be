"""The client process as the server has it: started, and ended."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import override

from mailtwist.net.transport import open_pair
from mailtwist.queue.client_process.proxy import ProxyConnector

log = Logger()

PROGRAM: Final = "mailtwist.queue.client_process.program"
# Of our environment, what the interpreter, its clock and OpenSSL go by.
ENVIRONMENT: Final = ("LANG", "LC_ALL", "PATH", "SSL_CERT_DIR", "SSL_CERT_FILE", "TZ")
MAX_COMPLAINT: Final = 2000


class ClientProcess(ProcessProtocol):
    """One process, and the way to it: ``proxy``. It ends when its channel does.

    ``connect_timeout`` in seconds. ``ready`` and ``ended`` as ProxyConnector. ``gone`` fires when
    there is no process any more.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        connect_timeout: float,
        ready: Callable[[], None],
        ended: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._connect_timeout = connect_timeout
        self._tell_ended = ended
        self.proxy = ProxyConnector(reactor, ready=ready, ended=self._ended)
        self.gone: Deferred[None] = Deferred()

    def start(self) -> None:
        """Raises: OSError."""
        ours, theirs = socket.socketpair()
        # Isolated but for the paths: a folder that somebody works in is no place for modules.
        command = [sys.executable, "-P", "-m", PROGRAM, f"{self._connect_timeout:g}"]
        try:
            self._reactor.spawnProcess(
                self,
                sys.executable,
                command,
                env=_environment(),
                childFDs={0: theirs.fileno(), 1: "r", 2: "r"},
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        open_pair(self._reactor, ours, self.proxy.channel)
        self.proxy.watch()

    def close(self) -> None:
        """End it at once."""
        self.proxy.channel.close()

    def _ended(self) -> None:
        """The channel is gone: a process that did not end by itself is ended."""
        if self.transport is not None:
            try:
                self.transport.signalProcess("KILL")
            except ProcessExitedAlready:
                pass
        self._tell_ended()

    @override
    def outReceived(self, data: bytes) -> None:
        self.errReceived(data)

    @override
    def errReceived(self, data: bytes) -> None:
        text = data[:MAX_COMPLAINT].decode("utf-8", "replace").strip()
        log.warn("the client process complains", text=text)

    @override
    def processEnded(self, reason: Failure) -> None:
        self.close()
        self.gone.callback(None)


def _environment() -> dict[str, str]:
    """What the process may know of ours: no settings and no secrets."""
    kept = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    # It finds what we have found, wherever that came from.
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
