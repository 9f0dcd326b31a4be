"""What systemd is told of this process (sd_notify(3)); nothing where it does not ask."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

_SOCKET: Final = "NOTIFY_SOCKET"


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
