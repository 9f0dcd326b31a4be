"""A real Redis on a free port, or on a socket: started, killed, stopped for a while, asked."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from tests.support.ports import HOST, free_port

SERVER = "redis-server"
START_S = 20


def is_installed() -> bool:
    return shutil.which(SERVER) is not None


class RedisServer:
    """``options``: further ones of its configuration, such as ``--requirepass x``."""

    def __init__(self, folder: Path, *options: str, port: int | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.options = options
        self.port = free_port() if port is None else port
        self.socket = folder / "s"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()

    def start(self) -> None:
        """It is empty then: nothing is kept on disk."""
        assert self.process is None, "is running"
        command = [SERVER, "--port", str(self.port), "--bind", HOST]
        command += ["--unixsocket", str(self.socket), "--dir", str(self.folder)]
        command += ["--save", "", "--appendonly", "no", *self.options]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_S
        while not self._listens():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, "redis-server does not start"
            time.sleep(0.01)

    def _listens(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(self.socket))
        except OSError:
            return False
        return True

    def kill(self) -> None:
        if self.process is not None:
            self.resume()
            self.process.kill()
            self.process.wait(START_S)
            self.process = None

    def pause(self) -> None:
        """It accepts connections and says nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def ask(self, *words: str, password: str = "") -> str:
        """What ``redis-cli`` prints."""
        login = ["--pass", password, "--no-auth-warning"] if password else []
        done = subprocess.run(
            ["redis-cli", "-s", str(self.socket), *login, *words],
            check=True,
            capture_output=True,
            timeout=START_S,
        )
        return done.stdout.decode().strip()
