"""What systemd is told of this process (sd_notify(3)); nothing where it does not ask."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from mailtwist.net.periodic import Periodic

_SOCKET: Final = "NOTIFY_SOCKET"
_WATCHDOG: Final = "WATCHDOG_USEC"
_WATCHED: Final = "WATCHDOG_PID"


def notify(*lines: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Send ``READY=1`` and the like; False when nobody listens. Never raises."""
    address = environ.get(_SOCKET, "")
    if not address.startswith(("/", "@")):
        return False
    # "@" stands for the NUL of an abstract name.
    where = "\0" + address[1:] if address.startswith("@") else address
    with (
        suppress(OSError, ValueError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender,
    ):
        # A full queue must not hold the reactor up.
        sender.setblocking(False)
        sender.sendto("\n".join(lines).encode("utf-8"), where)
        return True
    return False


def reloading() -> tuple[str, str]:
    """A reload has begun, and when by the monotonic clock, as ``Type=notify-reload`` asks."""
    return "RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}"


def watchdog_s(environ: Mapping[str, str] = os.environ) -> float:
    """How long systemd waits for a sign of life of this process, in seconds; 0: it does not.

    See sd_watchdog_enabled(3).
    """
    text, pid = environ.get(_WATCHDOG, ""), environ.get(_WATCHED, "")
    is_ours = not pid or pid == str(os.getpid())
    is_number = text.isascii() and text.isdigit() and len(text) < 19
    return int(text) / 1_000_000 if is_ours and is_number else 0.0


class Watchdog:
    """Tells systemd that the reactor turns; when it does not, systemd starts the server anew.

    ``is_main``: whether this process is the one that systemd watches.
    """

    def __init__(
        self,
        clock: Any,
        *,
        is_main: Callable[[], bool] = lambda: True,
        environ: Mapping[str, str] = os.environ,
        notify: Callable[[str], object] = notify,
    ) -> None:
        self._is_main = is_main
        self._notify = notify
        self._job: Periodic | None = None
        if seconds := watchdog_s(environ):
            # sd_watchdog_enabled(3): half of the time is what is asked for.
            self._job = Periodic("watchdog", self._say, every_s=seconds / 2, clock=clock)

    def start(self) -> None:
        if self._job is not None:
            self._job.start(now=True)

    def stop(self) -> None:
        if self._job is not None:
            self._job.cancel()

    async def _say(self) -> None:
        if self._is_main():
            self._notify("WATCHDOG=1")
