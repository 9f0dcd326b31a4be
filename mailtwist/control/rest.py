"""What HTTP serves beside health, built together: rows, identities, operations, ``_config``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from mailtwist.actions.builtin import OPERATIONS
from mailtwist.actions.execution import Operations
from mailtwist.actions.registry import Reconciliation, Services
from mailtwist.actions.resources import Resources
from mailtwist.config import Settings
from mailtwist.policy.hashing import Derivation, Turns
from mailtwist.policy.identities import Identities
from mailtwist.policy.keyring import configured_selector
from mailtwist.queue.assembly import Mail
from mailtwist.store import administration
from mailtwist.store.config_values import ConfigValues
from mailtwist.store.database import Database
from mailtwist.store.engine import Connection
from mailtwist.store.entities import seeding
from mailtwist.store.entities.model import Facts
from mailtwist.store.ids import now_us
from mailtwist.store.secrets import Secrets

if TYPE_CHECKING:
    from mailtwist.http.front import Front
    from mailtwist.http.ports import Health


def seed(connection: Connection) -> None:
    """Give each table and each built-in operation its row, where it has none."""
    now = now_us()
    seeding.seed(connection, now)
    administration.seed_actions(connection, [each.row for each in OPERATIONS.values()], now)


class Rest:
    """One in a process."""

    def __init__(
        self,
        database: Database,
        *,
        settings: Settings,
        values: ConfigValues,
        secrets: Secrets,
        derivation: Derivation,
        turns: Turns,
        reactor: Any,
        reconciliation: Reconciliation,
        mail: Mail,
    ) -> None:
        self._database = database
        self._settings = settings
        self._values = values
        self._reactor = reactor
        self._front: Front | None = None
        cost = settings.auth.bcrypt_cost
        self.identities = Identities(
            database, values=values, clock=reactor, derivation=derivation, cost=cost, turns=turns
        )
        self.resources = Resources(
            database,
            secrets=secrets,
            derivation=derivation,
            cost=cost,
            now=now_us,
            facts=self._facts,
            turns=turns,
            keyring=lambda: mail.signer.keyring,
        )
        self.operations = Operations(
            Services(
                resources=self.resources,
                identities=self.identities,
                database=database,
                derivation=derivation,
                reconciliation=reconciliation,
                intake=mail.intake,
                queue=mail.runner,
                is_smtp_disabled=settings.disable_smtp,
            )
        )

    def _facts(self) -> Facts:
        """What settings say, as they are now."""
        settings = self._values.settings
        selector = configured_selector(settings.dkim)
        return Facts(settings.domains, settings.hostname, selector)

    async def start(self) -> None:
        """Make the rows that there always are. Raises: MailError."""
        await self._database.write(seed)

    def front(self, health: Callable[[], Awaitable[Health]]) -> Front:
        """The front that all HTTP listeners share; what it needs is imported here at last."""
        if self._front is None:
            from mailtwist.http import actions, config
            from mailtwist.http.app import make_front
            from mailtwist.http.ports import Parts

            parts = Parts(
                health=health,
                settings=self._settings,
                identities=self.identities,
                resources=self.resources,
                values=self._values,
                routes=(*actions.routes(self.operations), *config.routes(self._values)),
            )
            self._front = make_front(parts, self._reactor)
        return self._front
