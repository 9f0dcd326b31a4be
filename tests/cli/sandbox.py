"""``mailtwist dev`` as a process of its own, for tests that need a whole server."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

LISTENERS = "smtp=127.0.0.1:0,imap=127.0.0.1:0,imaps=127.0.0.1:0,http=127.0.0.1:0"


class Sandbox:
    """``mailtwist dev`` as a process of its own; ``announced`` is its JSON line."""

    def __init__(self, data_dir: Path, *arguments: str, listeners: str = LISTENERS) -> None:
        self._lines: queue.Queue[str] = queue.Queue()
        environ = {
            name: value for name, value in os.environ.items() if not name.startswith("MAILTWIST_")
        }
        environ |= {"MAILTWIST_DATA_DIR": str(data_dir), "MAILTWIST_LISTENERS": listeners}
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from mailtwist.cli import main; main()", "dev", *arguments],
            cwd=data_dir.parent,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)

    def until(self, start: str) -> tuple[str, list[str]]:
        """The first line that begins so, and those before it."""
        before: list[str] = []
        while True:
            try:
                line = self._lines.get(timeout=30)
            except queue.Empty:
                pytest.fail(f"no line {start!r}:\n{''.join(before)}")
            if line.startswith(start):
                return line, before
            before.append(line)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()
            self._reader.join(10)
            assert self.process.stdout is not None
            self.process.stdout.close()


def announced_by(running: Sandbox) -> dict[str, Any]:
    """The line of ``dev --json``: the listeners and the account."""
    found: dict[str, Any] = json.loads(running.until("{")[0])
    return found
