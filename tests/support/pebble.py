"""Pebble, a real ACME authority for tests, and its DNS server whose records tests set.

Both are programs of Debian's package ``pebble``.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.authority import Authority
from tests.support.ports import free_ports

START_S = 30
NAMES = ("pebble", "pebble-challtestsrv")


def absence() -> str:
    """Why it cannot run here; "" when it can."""
    import shutil

    missing = [name for name in NAMES if shutil.which(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""


class Pebble:
    """An authority that looks for HTTP answers at ``http_port`` of 127.0.0.1.

    ``reject``: of so many hundred nonces it refuses one that is good; ``life_s``: of the
    certificates; ``customers``: key identifier to HMAC key, when it binds accounts.
    """

    def __init__(
        self,
        folder: Path,
        *,
        reject: int = 20,
        life_s: int = 90 * 86400,
        customers: dict[str, str] | None = None,
        blocked: tuple[str, ...] = (),
    ) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._authority = Authority(folder)
        self.ca_file = str(self._authority.file)
        self._reject = reject
        self._life_s = life_s
        self._customers = customers or {}
        self._blocked = blocked
        self._processes: list[subprocess.Popen[bytes]] = []
        self.log_path = folder / "pebble.log"
        ports = free_ports(6)
        self.port, self._management, self.dns_port, self._records, self.http_port, _ = ports
        self.directory_url = f"https://127.0.0.1:{self.port}/dir"

    # -- the processes ----------------------------------------------------------------------

    def start(self) -> Pebble:
        self._run(
            "pebble-challtestsrv",
            *("-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""),
            *("-dns01", f"127.0.0.1:{self.dns_port}"),
            *("-management", f"127.0.0.1:{self._records}"),
            *("-http01", "", "-https01", "", "-tlsalpn01", ""),
        )
        self._configure()
        self._run(
            "pebble",
            *("-config", str(self._folder / "pebble.json")),
            *("-dnsserver", f"127.0.0.1:{self.dns_port}"),
        )
        self._wait_for(self._records)
        self._wait_for(self.port)
        return self

    def _configure(self) -> None:
        certificate = self._authority.issue("127.0.0.1", "localhost")
        settings: dict[str, Any] = {
            "listenAddress": f"127.0.0.1:{self.port}",
            "managementListenAddress": f"127.0.0.1:{self._management}",
            "certificate": str(certificate),
            "privateKey": str(certificate),
            "httpPort": self.http_port,
            "tlsPort": 1,
            "ocspResponderURL": "",
            "certificateValidityPeriod": self._life_s,
            "externalAccountBindingRequired": bool(self._customers),
            "externalAccountMACKeys": self._customers,
            "domainBlocklist": list(self._blocked),
        }
        (self._folder / "pebble.json").write_text(json.dumps({"pebble": settings}))

    def _run(self, *command: str) -> None:
        environment = {
            **os.environ,
            "PEBBLE_VA_NOSLEEP": "1",
            "PEBBLE_AUTHZREUSE": "0",
            "PEBBLE_WFE_NONCEREJECT": str(self._reject),
        }
        with self.log_path.open("ab") as log:
            self._processes.append(
                subprocess.Popen(
                    command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
            )

    def _wait_for(self, port: int) -> None:
        deadline = time.monotonic() + START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                dead = [each for each in self._processes if each.poll() is not None]
                if dead or time.monotonic() > deadline:
                    raise AssertionError(f"no start: {self.log[-4000:]}") from None
                time.sleep(0.02)

    def stop(self) -> None:
        for each in self._processes:
            each.terminate()
        for each in self._processes:
            each.wait(30)
        self._processes.clear()

    def __enter__(self) -> Pebble:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    # -- what it knows ----------------------------------------------------------------------

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def new_accounts(self) -> int:
        """How many times somebody asked for an account, nonces refused not counted."""
        return self.log.count(" accounts in memory")

    @property
    def settings(self) -> dict[str, Any]:
        """What a server needs to know of it."""
        return {"directory_url": self.directory_url, "ca_file": self.ca_file}

    def root(self) -> str:
        """The root of the certificates it issues, PEM."""
        return self._get(f"https://127.0.0.1:{self._management}/roots/0")

    def directory(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._get(self.directory_url))
        return found

    def _get(self, url: str) -> str:
        context = ssl.create_default_context(cafile=self.ca_file)
        with urllib.request.urlopen(url, context=context, timeout=30) as answer:
            text: str = answer.read().decode("utf-8")
        return text

    # -- its DNS ----------------------------------------------------------------------------

    def tell(self, path: str, **values: Any) -> None:
        """Change a record: ``set-txt``, ``clear-txt``, ``set-cname``, ``add-a``..."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._records}/{path}", json.dumps(values).encode("ascii")
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            answer.read()


@contextmanager
def running(folder: Path, **more: Any) -> Iterator[Pebble]:
    """A running authority; skips where there is none, unless the real thing is required."""
    import pytest

    reason = absence()
    if reason and os.environ.get("MAILTWIST_REQUIRE_REAL"):
        pytest.fail(f"pebble is required: {reason}")
    if reason:
        pytest.skip(reason)
    with Pebble(folder, **more) as pebble:
        yield pebble
