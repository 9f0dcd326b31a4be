"""Postfix's smtp-sink, which takes mail and counts it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from typing import Self

from benchmarks.server import HOST

PROGRAM = "smtp-sink"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


class Sink:
    """Ends by itself behind the last of ``messages``; 0: with the block that it is used in."""

    def __init__(self, messages: int = 0, port: int = 0) -> None:
        found = shutil.which(PROGRAM) or shutil.which(PROGRAM, path="/usr/sbin:/sbin")
        if found is None:
            raise RuntimeError("smtp-sink is not installed (package postfix)")
        self.port = port or free_port()
        command = [found]
        if os.getuid() == 0:
            command += ["-u", "nobody"]
        if messages:
            command += ["-M", str(messages)]
        command += [f"inet:{HOST}:{self.port}", "500"]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet)
        self._wait_until_up()

    def _wait_until_up(self) -> None:
        end = time.monotonic() + 10
        while True:
            try:
                socket.create_connection((HOST, self.port), timeout=1).close()
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)
            else:
                return

    def wait(self, seconds: float) -> None:
        """Until the last message is there. Raises: subprocess.TimeoutExpired."""
        self._process.wait(seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
