"""What HTTP serves beside health, built together: rows, identities, operations, ``_config``."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from mailtwist.actions import schema_files
from mailtwist.actions.builtin import OPERATIONS
from mailtwist.actions.execution import Operations
from mailtwist.actions.feed import Feed
from mailtwist.actions.javascript import Script
from mailtwist.actions.mailing import Mailing
from mailtwist.actions.one_time_codes import OneTimeCodes
from mailtwist.actions.passwords import PasswordResets
from mailtwist.actions.registry import Services
from mailtwist.actions.releasing import Releasing
from mailtwist.actions.rendering import Rendering
from mailtwist.actions.resources import Resources
from mailtwist.actions.schema_files import FromFile
from mailtwist.config import Settings
from mailtwist.control.reconciliation import Reconciliation
from mailtwist.net.redis import Redis
from mailtwist.policy.hashing import Derivation, Turns
from mailtwist.policy.identities import Identities
from mailtwist.policy.keyring import configured_selector
from mailtwist.queue.assembly import Mail
from mailtwist.store import administration, identities
from mailtwist.store.config_values import ConfigValues
from mailtwist.store.database import Database
from mailtwist.store.engine import Connection
from mailtwist.store.entities import seeding
from mailtwist.store.entities.model import Facts
from mailtwist.store.ids import now_us
from mailtwist.store.secrets import Secrets

if TYPE_CHECKING:
    from mailtwist.http.events import Streams
    from mailtwist.http.front import Front
    from mailtwist.http.inbox.routes import Inboxes
    from mailtwist.http.ports import Challenges, Health
    from mailtwist.tls.acme.issuance import Issuance


def seed(connection: Connection) -> None:
    """Give each table and each built-in operation its row, where it has none."""
    now = now_us()
    seeding.seed(connection, now)
    administration.seed_actions(connection, [each.row for each in OPERATIONS.values()], now)


def _environment(settings: Settings) -> dict[str, str]:
    """What expressions of actions see of the environment."""
    return {name: os.environ[name] for name in settings.actions.env if name in os.environ}


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
        challenges: Challenges | None = None,
        issuance: Issuance | None = None,
        redis: Redis | None = None,
    ) -> None:
        self._database = database
        self._settings = settings
        self._values = values
        self._reactor = reactor
        self._reconciliation = reconciliation
        self._front: Front | None = None
        self._streams: Streams | None = None
        self.inboxes: Inboxes | None = None
        self._feed = Feed(database, clock=reactor)
        self.challenges = challenges
        self.mail = mail
        self.rates = mail.rates
        self._releasing = Releasing(database, mail.intake, settings=lambda: values.settings)
        self.redis = redis
        self._schemas: tuple[FromFile, ...] = ()
        self.script = Script(reactor)
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
        self.rendering = Rendering(reactor)
        self._issuance = issuance
        self.operations = Operations(self._services(mail, derivation, secrets))

    def _services(self, mail: Mail, derivation: Derivation, secrets: Secrets) -> Services:
        database, settings, values = self._database, self._settings, self._values
        self.mailing = mailing = Mailing(
            database,
            mail.intake,
            settings=lambda: values.settings,
            value=values.get,
            secrets=secrets,
            clock=self._reactor,
        )
        codes = OneTimeCodes(database, secrets, self._reactor)
        return Services(
            resources=self.resources,
            identities=self.identities,
            database=database,
            derivation=derivation,
            reconciliation=self._reconciliation,
            intake=mail.intake,
            queue=mail.runner,
            is_smtp_disabled=settings.disable_smtp,
            script=self.script,
            environment=_environment(settings),
            clock=self._reactor,
            issuance=self._issuance,
            mailing=mailing,
            codes=codes,
            resets=PasswordResets(database, mail.intake, self.resources, mailing, codes),
            rendering=self.rendering,
        )

    def _facts(self) -> Facts:
        """What settings say, as they are now."""
        settings = self._values.settings
        selector = configured_selector(settings.dkim)
        return Facts(settings.domains, settings.hostname, selector, settings.tls.key_type)

    def prepare(self) -> None:
        """Read the files that define actions. Blocks. Raises: ConfigError."""
        self._schemas = schema_files.read(self._settings.actions.schema_folder)

    async def start(self) -> None:
        """Make the rows that there always are, and those from files. Raises: MailError."""
        await self._database.write(seed)
        if self._schemas:
            await self._database.write(
                partial(schema_files.write, actions=self._schemas, now=now_us())
            )

    def close_streams(self) -> None:
        """End answers that would go on for ever, or that wait for something."""
        if self._streams is not None:
            self._streams.close()
        if self.inboxes is not None:
            self.inboxes.close()
        if self.mail.runner is not None:
            # Who waits for first attempts is answered: his mail is safe.
            self.mail.runner.awaited.close()

    async def stop(self) -> None:
        """End the processes for expressions and templates."""
        await self._feed.stop()
        await self.rendering.stop()
        await self.script.stop()

    def front(self, health: Callable[[], Awaitable[Health]]) -> Front:
        """The front that all HTTP listeners share; what it needs is imported here at last."""
        if self._front is None:
            from mailtwist.http import actions, config, listeners
            from mailtwist.http.app import make_front
            from mailtwist.http.events import Streams
            from mailtwist.http.inbox.release import release
            from mailtwist.http.inbox.routes import FAMILY, Inboxes
            from mailtwist.http.ports import Parts
            from mailtwist.http.send import assembly

            self._streams = Streams(self._feed, clock=self._reactor)
            self._database.changes.watch(identities.KIND, self._streams.recheck)
            self._feed.start()

            send = assembly.build(
                self._database,
                mail=self.mail,
                mailing=self.mailing,
                settings=lambda: self._values.settings,
            )
            self.inboxes = Inboxes(
                self._database,
                settings=lambda: self._values.settings,
                rates=self.rates,
                clock=self._reactor,
                redis=self.redis,
                release=partial(release, self._releasing),
            )
            parts = Parts(
                health=health,
                settings=self._settings,
                identities=self.identities,
                resources=self.resources,
                values=self._values,
                challenges=self.challenges,
                routes=(
                    *actions.routes(self.operations),
                    *config.routes(self._values),
                    *listeners.routes(self._reconciliation),
                    *self._streams.routes(),
                    *send.routes(),
                    *self.inboxes.routes(),
                ),
                families=(send.family(), FAMILY),
            )
            self._front = make_front(parts, self._reactor)
        return self._front
