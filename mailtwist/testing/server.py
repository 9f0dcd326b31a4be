"""A whole server inside this process, for the length of a test run.

It is the server that ``mailtwist serve`` runs, in ``dev_mode`` (every recipient is taken, nothing
leaves), on free ports of loopback and with a new database in a temporary folder.
:class:`AsyncMailServer` belongs to the reactor; :class:`mailtwist.testing.blocking.MailServer` is
for everybody else.
"""

from __future__ import annotations

import gc
import json
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from mailtwist.testing.arrivals import Arrivals
from mailtwist.testing.inbox import AsyncInbox

if TYPE_CHECKING:
    import ssl

    from mailtwist.control.runtime import Runtime

ADDRESS: Final = "user@mail.test"
PROTOCOLS: Final = ("smtp", "submission", "submissions", "imap", "imaps", "http")
HOST: Final = "127.0.0.1"
HOSTNAME: Final = "localhost"
# Nothing is guarded here, and a test makes five accounts: as cheap as bcrypt gets.
BCRYPT_COST: Final = 4
# Python 3.12 counts what it never frees itself among what is frozen.
MAX_IMMORTAL: Final = 1000


@dataclass(frozen=True, slots=True)
class Place:
    """Where a protocol is spoken."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class AsyncMailServer:
    """One server, in a reactor that runs. ``settings``: as in the configuration file.

    ``address`` and ``password`` are those of the account that there is from the start; a password
    is made up where none is given. Nothing is made before :meth:`start`.
    """

    smtp: Place
    submission: Place
    submissions: Place
    imap: Place
    imaps: Place
    http: Place
    inbox: AsyncInbox
    runtime: Runtime

    def __init__(
        self,
        settings: Mapping[str, Any] | None = None,
        *,
        address: str = ADDRESS,
        password: str = "",
        reactor: Any = None,
    ) -> None:
        from twisted.internet.defer import DeferredLock

        for key in ("data_dir", "database_url", "dev_mode"):
            if key in (settings or {}):
                raise ValueError(f"{key}: is not to be chosen here")
        self.address = address
        self.password = password or secrets.token_urlsafe(12)
        self.api_key = secrets.token_urlsafe(12)
        """Opens ``/emails``, as ``X-API-KEY``."""
        self._given = settings or {}
        self._reactor = reactor
        self._folder: Path | None = None
        self._added: set[int] = set()
        self._chaos: tuple[Any, ...] = ()
        self._turn = DeferredLock()  # who stops it while it starts waits for the end of that

    # -- life -------------------------------------------------------------------------------

    async def start(self) -> Self:
        """Serve on return. Raises: ConfigError for settings that cannot be used."""
        async with self._turn:
            await self._start()
        return self

    async def _start(self) -> None:
        from mailtwist.control.runtime import Runtime
        from mailtwist.store import fresh

        if self._folder is not None:
            raise RuntimeError("it runs already")
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        self._folder = Path(tempfile.mkdtemp(prefix="mailtwist-"))
        try:
            settings = self._settings(self._folder)
            fresh.make(settings.database_url)
            self.runtime = Runtime(settings, self._reactor)
            with _same_process():
                self.runtime.reserve()
                self.runtime.prepare()
            fresh.hurry(self.runtime.engine)
            had_frozen = gc.get_freeze_count() > MAX_IMMORTAL
            await self.runtime.start()
            if not had_frozen:
                gc.unfreeze()  # most of what is there is not the server's
            await self._move_in()
        except BaseException:
            await self._stop()
            raise

    def _settings(self, folder: Path) -> Any:
        from mailtwist.config import load
        from mailtwist.errors import ConfigError
        from mailtwist.tls import selfsigned

        selfsigned.load_or_make(folder, [HOSTNAME], datetime.now(UTC))
        defaults = {
            "hostname": HOSTNAME,
            "domains": [self.address.rpartition("@")[2]],
            "listeners": [{"protocol": each, "address": f"{HOST}:0"} for each in PROTOCOLS],
            "auth": {"allow_plaintext": True},
            # Files that lie about in the working folder are not meant.
            "tls": {
                "cert_file": str(folder / selfsigned.CERT_FILE),
                "key_file": str(folder / selfsigned.KEY_FILE),
                # Many clients begin TLS where it is offered, and then know no such authority.
                "enabled": False,
            },
            # Nothing may ask the DNS of the machine.
            "dkim": {"verify": False},
            # A suite sends and asks faster than any client.
            "limits": {"connections_per_address": 10_000},
            "inbox": {"api_keys": [self.api_key], "smtp_rate": 0, "api_rate": 0},
            "send": {"rate": 0},
        }
        ours = {"data_dir": str(folder), "dev_mode": True}
        path = folder / "mailtwist.yaml"
        path.write_text(json.dumps({**_merged(defaults, self._given), **ours}))
        # No variable of the machine counts.
        settings = load(path, {})
        if not settings.events.retention:
            raise ConfigError("events.retention: is needed here; 0 leaves the inbox empty")
        return settings

    async def _move_in(self) -> None:
        runtime = self.runtime
        for running in runtime.listeners.running:
            if running.listener.protocol in PROTOCOLS:
                place = next(iter(running.sockets))
                setattr(self, running.listener.protocol, Place(place.host, place.port))
        self.inbox = AsyncInbox(Arrivals(runtime.database, self._reactor))
        await self._add(self.address, self.password)
        runtime.values.watch(self._use_chaos)

    async def stop(self) -> None:
        """End all sessions, and remove the folder. A second call does nothing."""
        async with self._turn:
            await self._stop()

    async def _stop(self) -> None:
        folder, self._folder = self._folder, None
        if folder is None:
            return
        try:
            if hasattr(self, "runtime"):
                await self.runtime.stop()
                del self.runtime
        finally:
            self._added, self._chaos = set(), ()
            shutil.rmtree(folder, ignore_errors=True)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *exception: object) -> None:
        await self.stop()

    async def reset(self) -> None:
        """Be as after the start: no mail, no accounts added, no refusals, no bad logins."""
        from mailtwist.store import accounts

        self._set_chaos(())
        while self._added:
            account_id = next(iter(self._added))
            if await self._write(lambda c, n=account_id: accounts.remove_step(c, n)):
                self._added.discard(account_id)
        await self.inbox.clear()
        await self.runtime.authenticator.forgive_all()

    # -- what there is ----------------------------------------------------------------------

    @property
    def http_url(self) -> str:
        """Where HTTP is served, without a slash at the end."""
        return f"http://{self.http}"

    def tls_context(self) -> ssl.SSLContext:
        """A context for clients, which trusts the certificate of this server alone."""
        import ssl

        from mailtwist.tls import selfsigned

        assert self._folder is not None, "started"
        return ssl.create_default_context(cafile=str(self._folder / selfsigned.CERT_FILE))

    async def add_account(self, address: str, password: str) -> None:
        """Make an account, with its default mailboxes. Raises: Conflict when there is one."""
        self._added.add(await self._add(address, password))

    async def _add(self, address: str, password: str) -> int:
        from twisted.internet.threads import deferToThreadPool

        from mailtwist.policy.passwords import make_verifiers
        from mailtwist.store import accounts

        has_scram = any("scram" in name for name in self.runtime.settings.auth.methods)
        make = partial(make_verifiers, password, cost=BCRYPT_COST, has_scram=has_scram)
        pool = self._reactor.getThreadPool()
        verifiers = await deferToThreadPool(self._reactor, pool, make)
        added = await self._write(lambda connection: accounts.add(connection, address, verifiers))
        return int(added.account_id)

    async def _write(self, work: Any) -> Any:
        return await self.runtime.database.write(work)

    # -- what goes wrong on purpose -----------------------------------------------------------

    def refuse(self, recipient: str, reply: str, *, at: str = "rcpt") -> None:
        """Answer RCPT of an address, or with ``at="data"`` the message, with a reply.

        ``reply`` is such as ``550 5.1.1 User unknown``; ``recipient`` may have ``*`` and ``?`` in
        it. It holds for connections that are opened from now on. Raises: ValueError.
        """
        self._add_chaos(recipient=recipient, reply=reply, at=at)

    def delay(self, recipient: str, seconds: float, *, at: str = "rcpt") -> None:
        """Keep an answer back."""
        self._add_chaos(recipient=recipient, delay=seconds, at=at)

    def drop(self, recipient: str, *, at: str = "rcpt") -> None:
        """Cut the connection in place of an answer."""
        self._add_chaos(recipient=recipient, drop=True, at=at)

    def _add_chaos(self, **values: Any) -> None:
        from mailtwist.config.chaos import ChaosItem
        from mailtwist.config.declare import settings_of

        kinds = {each.key: each.kind for each in settings_of(ChaosItem)}
        checked = {name: kinds[name].parse(value) for name, value in values.items()}
        # The first that fits acts: what was said last.
        self._set_chaos((ChaosItem(**checked), *self._chaos))

    def _set_chaos(self, items: tuple[Any, ...]) -> None:
        if items != self._chaos:
            self._chaos = items
            self._use_chaos()

    def _use_chaos(self) -> None:
        runtime = self.runtime
        given = runtime.values.settings
        runtime.settings = replace(given, chaos_given=(*self._chaos, *given.chaos_given))
        runtime.listeners.refresh()


def _merged(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Groups key by key; of the rest what is given."""
    merged = dict(defaults)
    for key, value in given.items():
        known = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(known, Mapping)
        merged[key] = _merged(known, value) if both else value  # type: ignore[arg-type]
    return merged


@contextmanager
def _same_process() -> Iterator[None]:
    """Take back what a server changes in a process that it takes for its own."""
    import resource

    interval = sys.getswitchinterval()
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        resource.setrlimit(resource.RLIMIT_NOFILE, files)
