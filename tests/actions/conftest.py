"""A server's operations over a real store, with what lies outside stood in for."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from twisted.internet.task import Clock

from mailtwist.actions.builtin import OPERATIONS
from mailtwist.actions.execution import Operations
from mailtwist.actions.mailing import Mailing
from mailtwist.actions.registry import Services
from mailtwist.actions.resources import Resources
from mailtwist.config import Settings
from mailtwist.mail.permissions import NOBODY, SYSTEM
from mailtwist.policy import passwords
from mailtwist.policy.hashing import Inline as Here
from mailtwist.policy.identities import Identities
from mailtwist.policy.keyring import Keyring
from mailtwist.queue.intake import Intake
from mailtwist.store import administration, entities
from mailtwist.store.directory import Directory
from mailtwist.store.entities.model import Facts, ListRequest
from mailtwist.store.ids import now_us
from mailtwist.store.secrets import Secrets
from tests.support.now import now
from tests.support.values import Values

START = 1_800_000_000
PASSWORD = "adminadmin"


@pytest.fixture(autouse=True)
def few_iterations(monkeypatch):
    monkeypatch.setattr(passwords, "SCRAM_ITERATIONS", 4096)


@dataclass
class Listeners:
    """Stands for what brings listeners in line."""

    error: Exception | None = None
    calls: list = field(default_factory=list)

    async def apply(self):
        self.calls.append("apply")
        if self.error:
            raise self.error

    def restart(self):
        self.calls.append("restart")


class Runner:
    def __init__(self):
        self.runs = 0

    async def run_once(self, queue_id=None):
        self.runs += 1


class Server:
    """All that operations need, and short forms of what tests ask for."""

    def __init__(self, database, **settings):
        clock = Clock()
        clock.advance(START)
        self.clock, self.database = clock, database
        self.settings = Settings(hostname="mail.x.org", domains=("x.org",), **settings)
        self.secrets = Secrets(b"k" * 32)
        self.values = Values()
        self.listeners, self.runner = Listeners(), Runner()
        self.identities = Identities(database, values=self.values, clock=clock, cost=4)
        self.resources = Resources(
            database,
            secrets=self.secrets,
            derivation=Here(),
            cost=4,
            now=now_us,
            facts=lambda: Facts(("x.org",), "mail.x.org", "d1"),
            keyring=lambda: Keyring(database, self.secrets, Here(), self.settings.dkim),
        )
        directory = Directory(database, self.settings)
        self.intake = Intake(database, directory, settings=self.settings)
        self.services = Services(
            resources=self.resources,
            identities=self.identities,
            database=database,
            derivation=Here(),
            reconciliation=self.listeners,
            intake=self.intake,
            queue=self.runner,
            is_smtp_disabled=self.settings.disable_smtp,
            mailing=Mailing(
                database,
                self.intake,
                settings=lambda: self.settings,
                value=self.values.get,
                secrets=self.secrets,
                clock=clock,
            ),
        )
        self.operations = Operations(self.services)
        now(database.write(self.seed))

    @staticmethod
    def seed(connection):
        entities.seed(connection, now_us())
        rows = [each.row for each in OPERATIONS.values()]
        administration.seed_actions(connection, rows, now_us())

    def act(self, entity, name, attributes=None, viewer=NOBODY, peer="192.0.2.1"):
        """The answer as clients get it."""
        responses = now(self.operations.execute(viewer, entity, name, attributes or {}, peer=peer))
        return [each.document() for each in responses]

    def sign_up(self, email="a@x.org", **changed):
        return self.act(
            "user_account",
            "signup",
            {
                "name": email.partition("@")[0],
                "email": email,
                "password": PASSWORD,
                "passwordConfirm": PASSWORD,
                **changed,
            },
        )

    def sign_in(self, email, password=PASSWORD, **more):
        answer = self.act("user_account", "signin", {"email": email, "password": password}, **more)
        return answer[0]["Attributes"]["value"]

    def viewer(self, token):
        return now(self.identities.viewer(token))

    def user(self, email):
        """Sign somebody up; who he is now."""
        self.sign_up(email)
        return self.viewer(self.sign_in(email))

    def administrator(self, email="admin@x.org"):
        first = self.user(email)
        self.act("world", "become_an_administrator", viewer=first)
        return self.viewer(self.sign_in(email))

    def create(self, entity, attributes=None, viewer=SYSTEM, **relations):
        return now(self.resources.create(viewer, entity, attributes or {}, relations))

    def update(self, item, attributes, viewer=SYSTEM):
        return now(self.resources.update(viewer, item.entity, item.id, attributes, {}))

    def rows(self, entity, viewer=SYSTEM, **request):
        return now(self.resources.list(viewer, entity, ListRequest(**request))).items

    def get(self, item, viewer=SYSTEM):
        return now(self.resources.get(viewer, item.entity, item.id)).items[0]


@pytest.fixture
def server(database):
    return Server(database)
