"""A server for measuring: started as a user would, on free ports, with a temporary folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"
DOMAIN = "bench.test"
PASSWORD = "correct horse"
START_S = 60.0
STOP_S = 30.0


class Server:
    """One mailtwist process; a context manager that stops it and removes its folder."""

    def __init__(
        self,
        *,
        accounts: int = 10,
        database_url: str = "",
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mailtwist-bench-"))
        self.accounts = [f"user{n}@{DOMAIN}" for n in range(accounts)]
        self.ports: dict[str, int] = {}
        self._bin = Path(sys.executable).parent
        self._config = self.folder / "mailtwist.yaml"
        data_dir = self.folder / "data"
        self.url = database_url or f"sqlite:///{data_dir}/mailtwist.db"
        given = {
            "hostname": "mx.bench.test",
            "domains": [DOMAIN],
            "data_dir": str(data_dir),
            "database_url": database_url,
            "listeners": [
                {"protocol": protocol, "address": f"{HOST}:0"}
                for protocol in ("smtp", "imap", "http")
            ],
            "auth": {"allow_plaintext": True},
            "max_message_size": 64 << 20,
            "limits": {"connections_per_address": 20000},
            **(settings or {}),
        }
        self._config.write_text(json.dumps(given))  # JSON is YAML
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        for account in self.accounts:
            self.command("account", "add", account, "--password", PASSWORD)
        log = (self.folder / "server.log").open("wb")
        self._process = subprocess.Popen(
            [self._bin / "twistd", "-n", "--pidfile=", "mailtwist", "--config", self._config],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            cwd=self.folder,
        )
        self._wait()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        process = self._process
        if process is not None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def command(self, *words: str) -> None:
        """Run the console script on the server's database."""
        subprocess.run(
            [self._bin / "mailtwist", "--config", self._config, *words],
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def cpu_s(self) -> float:
        """Processor seconds that the server and its processes used so far, ended ones too."""
        ticks = sum(
            int(field)
            for process in self._processes()
            for field in (process / "stat").read_text().rpartition(")")[2].split()[11:15]
        )
        return ticks / os.sysconf("SC_CLK_TCK")

    def resident_kb(self) -> int:
        """Resident memory of the server and its processes."""
        return sum(
            int(line.split()[1])
            for process in self._processes()
            for line in (process / "status").read_text().splitlines()
            if line.startswith("VmRSS:")
        )

    def _processes(self) -> list[Path]:
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [Path(f"/proc/{number}") for number in (pid, *children)]

    def _wait(self) -> None:
        assert self._process is not None
        listeners = self.folder / "data" / "listeners.json"
        end = time.monotonic() + START_S
        while not listeners.exists():
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError((self.folder / "server.log").read_text()[-2000:])
            time.sleep(0.02)
        self.ports = {row["protocol"]: row["port"] for row in json.loads(listeners.read_text())}
