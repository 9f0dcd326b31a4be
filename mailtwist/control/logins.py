"""The back-end that the settings name, and the check of passwords over it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.threads import deferToThread

from mailtwist.config import Settings
from mailtwist.net.periodic import Periodic
from mailtwist.policy.auth import Authenticator
from mailtwist.policy.backends import Backend
from mailtwist.policy.backends.sql import Accounts
from mailtwist.policy.hashing import Derivation, Turns
from mailtwist.store.database import Database
from mailtwist.store.secrets import Secrets

if TYPE_CHECKING:
    from mailtwist.policy.backends.file import File

# How soon sessions end whose users an edit took out of the file.
LOOK_EVERY_S: Final = 5.0


class Logins:
    """The authenticator of the mail protocols, and what keeps its back-end up to date.

    Raises: ConfigError for settings of a back-end that can't be used.
    """

    def __init__(
        self,
        database: Database,
        *,
        settings: Settings,
        secrets: Secrets,
        derivation: Derivation,
        turns: Turns,
        reactor: Any,
    ) -> None:
        self._watch: Periodic | None = None
        self._known = 0  # the generation of users that sessions were last compared with
        backend, turns = self._backend(settings, reactor, turns)
        self.authenticator = Authenticator(
            database,
            clock=reactor,
            derivation=derivation,
            cost=settings.auth.bcrypt_cost,
            default_domain=settings.domains[0] if settings.domains else "",
            turns=turns,
            backend=backend,
            secret=secrets.derive("unknown users"),
        )

    def _backend(self, settings: Settings, reactor: Any, turns: Turns) -> tuple[Backend, Turns]:
        if settings.auth.backend == "file":
            from mailtwist.policy.backends.file import File

            file = File(settings.auth.file_path, domain=lambda: self.authenticator.default_domain)
            file.refresh()
            look = partial(self._look, file)
            self._watch = Periodic("users", look, every_s=LOOK_EVERY_S, clock=reactor)
            return file, turns
        if settings.auth.backend == "ldap":
            from mailtwist.policy.backends.ldap import AT_ONCE, Ldap

            return Ldap(settings.ldap, reactor=reactor), Turns(AT_ONCE)
        return Accounts(), turns

    async def _look(self, file: File) -> None:
        await deferToThread(file.refresh)
        # A login may have found the edit first.
        if file.generation != self._known:
            self._known = file.generation
            self.authenticator.recheck()

    def start(self) -> None:
        if self._watch is not None:
            self._watch.start()

    async def stop(self) -> None:
        if self._watch is not None:
            await self._watch.finish()
