"""A server whose process is replaced by another one, and clients that must not notice."""

from __future__ import annotations

import http.client
import os
import signal
import smtplib
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mailtwist.control import pid_file
from mailtwist.control.upgrade import read_outcome
from tests.e2e import mails
from tests.e2e.server import STOP_S, Server


class Replaced(Server):
    """Started, its process is the child of this one; replaced, it is nobody's."""

    def start(self) -> Replaced:
        super().start()
        self.until(lambda: self.pid is not None)
        return self

    @property
    def pid(self) -> int | None:
        """The process that serves now."""
        return pid_file.running(self.data_dir)

    @property
    def server_pid(self) -> int:
        assert self.pid is not None
        return self.pid

    def order(self) -> None:
        """SIGUSR2, and don't wait."""
        os.kill(self.server_pid, signal.SIGUSR2)

    def stop(self) -> None:
        """SIGTERM to whichever process serves, and to the first one if it is there still."""
        if self.pid is not None:
            os.kill(self.server_pid, signal.SIGTERM)
            self.until(lambda: self.pid is None)
        if self.process is not None:
            try:
                # It may be about to end by itself, and a second order would be one too many.
                self.wait(2)
            except subprocess.TimeoutExpired:
                self.process.terminate()
                self.wait()

    def until(self, holds: Callable[[], bool], seconds: float = STOP_S) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, self.log[-6000:]
            time.sleep(0.02)

    def until_ended(self, *processes: int) -> None:
        self.until(lambda: all(map(has_ended, processes)))

    def replaced(self) -> tuple[int, int]:
        """Order it by a signal; (the old process, the new one), which serves alone now."""
        old = self.server_pid
        before = read_outcome(self.data_dir)
        self.order()
        self.until(lambda: _is_over(self.data_dir, before), 90)
        outcome = read_outcome(self.data_dir)
        assert outcome is not None
        assert outcome.state == "done", outcome
        self.until(lambda: self.pid == outcome.new)
        return old, outcome.new


def _is_over(data_dir: Path, before: Any) -> bool:
    outcome = read_outcome(data_dir)
    return outcome is not None and outcome != before and outcome.is_over


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or only waits for somebody to ask how it ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state in "ZX"


class Load:
    """Clients of all kinds, each with one session after the other."""

    def __init__(self, server: Server, address: str) -> None:
        self.server = server
        self.address = address
        self.sessions: Counter[str] = Counter()
        self.faults: list[str] = []
        self._is_over = threading.Event()

    @contextmanager
    def running(self, each: int) -> Iterator[Load]:
        """``each`` clients of each kind, for as long as the block lasts."""
        kinds = {"smtp": self._smtp, "imap": self._imap, "http": self._http}
        threads = [
            threading.Thread(target=self._repeat, args=(name, session))
            for name, session in kinds.items()
            for _ in range(each)
        ]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._is_over.set()
            for thread in threads:
                thread.join()

    def is_past(self, before: Counter[str], *, by: int) -> bool:
        """Whether each kind has ended so many sessions more, or one has failed."""
        kinds = ("smtp", "imap", "http")
        return bool(self.faults) or all(self.sessions[kind] > before[kind] + by for kind in kinds)

    def _repeat(self, name: str, session: Callable[[], None]) -> None:
        while not self._is_over.is_set():
            try:
                session()
            except Exception as error:
                self.faults.append(f"{name}: {error!r}")
                return
            self.sessions[name] += 1

    def _smtp(self) -> None:
        with smtplib.SMTP("127.0.0.1", self.server.ports["smtp"], timeout=60) as client:
            client.sendmail("sender@elsewhere.example", [self.address], mails.simple("under load"))

    def _imap(self) -> None:
        client = self.server.imap(self.address)
        assert client.select("INBOX")[0] == "OK"
        client.logout()

    def _http(self) -> None:
        client = http.client.HTTPConnection("127.0.0.1", self.server.ports["http"], timeout=60)
        try:
            client.request("GET", "/health")
            answer = client.getresponse()
            # All come from one address here: some are told to come more slowly.
            assert answer.status in (200, 429), answer.read()
        finally:
            client.close()
