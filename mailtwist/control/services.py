"""The server as a Twisted service, and as a program of its own.

``twistd mailtwist`` and ``mailtwist serve`` run the same :class:`MailService`. A start that
fails says why in one line on standard error and ends the process with status 1.
"""

# mypy: disable-error-code="no-untyped-call"
# (the methods of Service that are overridden here have no annotations)

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, Logger, globalLogBeginner
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from mailtwist.config import Settings
from mailtwist.control.logs import make_observer, open_stream
from mailtwist.control.runtime import Runtime
from mailtwist.errors import ConfigError, MailError

log = Logger()

Ready = Callable[[Runtime], None]


class MailService(Service):
    """Starts and stops a :class:`Runtime`; ``ready`` is called when the last listener is up."""

    def __init__(self, settings: Settings, reactor: Any, *, ready: Ready | None = None) -> None:
        self.runtime = Runtime(settings, reactor)
        self._ready = ready
        self._starting: Deferred[None] | None = None
        self.setName("mailtwist")

    def setServiceParent(self, parent: Any) -> None:  # noqa: N802
        # twistd asks the application for its log observer before it starts to log.
        if isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, open_log(self.runtime.settings))
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:  # noqa: N802
        super().privilegedStartService()
        with_one_line(self.runtime.reserve)

    def startService(self) -> None:  # noqa: N802
        super().startService()
        with_one_line(self.runtime.prepare)
        self._starting = Deferred.fromCoroutine(self._start())

    async def _start(self) -> None:
        try:
            await self.runtime.start()
        except Exception as error:
            if isinstance(error, MailError):
                complain(error)
            else:
                log.failure("start failed", Failure())
                complain(MailError(f"start failed: {error}"))
            self._end_with_failure()
            return
        for warning in self.runtime.settings.warnings:
            log.warn("configuration: {text}", text=warning)
        log.info("ready", hostname=self.runtime.settings.hostname)
        if self._ready is not None:
            self._ready(self.runtime)

    def _end_with_failure(self) -> None:
        reactor = self.runtime.reactor

        def end() -> None:
            # twistd knows no status of its own for this.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)

        reactor.addSystemEventTrigger("after", "shutdown", end)
        reactor.callWhenRunning(reactor.stop)

    def stopService(self) -> Deferred[None]:  # noqa: N802
        super().stopService()
        log.info("stopping")
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._starting is not None:
            await self._starting
        await self.runtime.stop()
        log.info("stopped")


def open_log(settings: Settings) -> Any:
    try:
        return make_observer(settings, open_stream(settings))
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"log_file: cannot open {settings.log_file}: {reason}") from error


def serve(settings: Settings, reactor: Any, *, ready: Ready | None = None) -> None:
    """Run in the foreground until SIGTERM or SIGINT. Ends the process with status 1 on failure.

    Raises: ConfigError.
    """
    globalLogBeginner.beginLoggingTo([open_log(settings)], redirectStandardIO=False)
    service = MailService(settings, reactor, ready=ready)
    service.privilegedStartService()
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()


def with_one_line(step: Callable[[], None]) -> None:
    """Run a step of the start; end the process with one line when it is refused."""
    try:
        step()
    except MailError as error:
        complain(error)
        raise SystemExit(1) from error


def complain(error: MailError) -> None:
    """Say in one line on the real standard error why the server does not run."""
    text = f"{error.text}: {error.detail}" if error.detail else error.text
    print("mailtwist:", " ".join(text.split()), file=sys.__stderr__, flush=True)
