"""What works by itself on rows: tasks at their times, and deliveries to webhooks."""

from __future__ import annotations

from typing import Any

from mailtwist.actions.tasks import Tasks
from mailtwist.actions.webhooks import Webhooks
from mailtwist.config import Settings
from mailtwist.control.rest import Rest
from mailtwist.net.dns import Resolver
from mailtwist.net.web import Web
from mailtwist.store.database import Database
from mailtwist.store.secrets import Secrets


class Background:
    """One in a process; which process works, leases in the store say."""

    def __init__(
        self,
        database: Database,
        rest: Rest,
        *,
        settings: Settings,
        secrets: Secrets,
        resolver: Resolver,
        reactor: Any,
    ) -> None:
        self._database = database
        self.web = Web(reactor, resolver, allow=settings.http_client.allow)
        self._tasks = Tasks(database, rest.operations, rest.identities, clock=reactor)
        self._webhooks = Webhooks(database, self.web, secrets, clock=reactor)

    def start(self) -> None:
        self._tasks.start()
        self._webhooks.start()

    def configure(self, settings: Settings) -> None:
        """Take other settings."""
        self.web.allow(settings.http_client.allow)

    async def stop(self) -> None:
        """Break off what is under way; its rows say that it is to be done again."""
        await self._tasks.stop()
        await self._webhooks.stop()
