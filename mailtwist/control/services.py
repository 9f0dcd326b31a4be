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
from mailtwist.control import handover, signals, systemd
from mailtwist.control.logs import make_observer, open_stream
from mailtwist.control.runtime import Runtime
from mailtwist.control.upgrade import Program, Upgrade
from mailtwist.errors import ConfigError, MailError

log = Logger()

Ready = Callable[[Runtime], None]


class MailService(Service):
    """Starts and stops a :class:`Runtime`; ``ready`` is called when the last listener is up.

    ``program``: how this process was started, and with it another in its place.
    ``own_files(True)`` is called when files of the caller that name this process are to do so,
    with False when they name another now.
    """

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        *,
        ready: Ready | None = None,
        program: Program | None = None,
        own_files: Callable[[bool], None] = lambda is_ours: None,
    ) -> None:
        self._takeover = handover.current()
        self.runtime = Runtime(settings, reactor, takeover=self._takeover)
        self._ready = ready
        self._own_files = own_files
        self._starting: Deferred[None] | None = None
        self._stopping = False
        program = program or Program.of_this_process()
        self.upgrade = Upgrade(
            self.runtime,
            reactor=reactor,
            data_dir=self.runtime.data_dir,
            end=self._end,
            start=program.start,
            own_files=own_files,
        )
        self._watchdog = systemd.Watchdog(reactor, is_main=lambda: not self.upgrade.is_handed_over)
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
        signals.follow(self.runtime.reactor, upgrade=self.upgrade.begin, reload=self.runtime.reload)
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
        await self._own()
        self._watchdog.start()
        for warning in self.runtime.settings.warnings:
            log.warn("configuration: {text}", text=warning)
        log.info("ready", hostname=self.runtime.settings.hostname)
        if self._ready is not None:
            self._ready(self.runtime)

    async def _own(self) -> None:
        """Be the one server, from the moment in which the process before this one lets go."""
        if self._takeover is None:
            systemd.notify("READY=1")
            return
        await self._takeover.ready(self.runtime.reactor, self._take_jobs)
        if not self._stopping:
            self.runtime.own()
            self._own_files(True)

    def _take_jobs(self) -> None:
        if not self._stopping:
            taking = Deferred.fromCoroutine(self.runtime.take_jobs())
            taking.addErrback(lambda failure: log.failure("jobs were not taken over", failure))

    def _end(self) -> None:
        """Another process serves, and the last session is gone."""
        if not self._stopping:
            self.runtime.reactor.stop()

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
        self._stopping = True
        signals.stop_once()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        is_main = self._takeover is None or self._takeover.is_ours
        if is_main and not self.upgrade.is_handed_over:
            systemd.notify("STOPPING=1")
        if self._takeover is not None:
            self._takeover.let_go()
        await self.upgrade.stop()
        if self._starting is not None:
            await self._starting
        await self.runtime.stop()
        self._watchdog.stop()
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
    """Say in one line on the real standard error why the server does not run.

    A process that this one was to replace hears it too.
    """
    handover.tell_failure(error)
    text = f"{error.text}: {error.detail}" if error.detail else error.text
    print("mailtwist:", " ".join(text.split()), file=sys.__stderr__, flush=True)
