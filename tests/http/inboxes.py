"""Inboxes over HTTP on a store of one's own: mail is captured as the intake does it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from twisted.internet.task import Clock

from mailtwist.config import Settings
from mailtwist.config.outgoing import Inbox
from mailtwist.http.inbox.routes import FAMILY, Inboxes
from mailtwist.policy.rates import Client, Event
from mailtwist.store import inbox
from mailtwist.store.content import Spool
from mailtwist.store.database import Inline
from mailtwist.store.deliver import Acceptance, Entry, deliver
from mailtwist.store.ids import EPOCH_MS
from tests.http.asking import Answer, Server, Transport, read
from tests.support.now import now

KEY = "the key of the inbox"
NOW_S = 1_800_000_000
PREFIX = b"Received: by us\r\n"

_numbers = itertools.count(1)


class Rates:
    """Lets in as many as it is told; what was refused is not counted."""

    def __init__(self) -> None:
        self.limits: dict[Event, int] = {}
        self.taken: list[tuple[Event, str]] = []

    async def take(self, event: Event, client: Client) -> bool:
        count = sum(each == (event, client.address) for each in self.taken)
        is_over = count >= self.limits.get(event, 1000)
        if not is_over:
            self.taken.append((event, client.address))
        return not is_over

    def ends_in(self, event: Event, client: Client) -> float:
        return 41.2


@dataclass
class Waiting:
    """One that waits; called, what it was answered, None as long as it was not."""

    transport: Transport

    def __call__(self) -> Answer | None:
        octets = self.transport.value()
        return read(octets) if octets else None


class Desk:
    """One server, its clock, and the mail that is captured in it."""

    def __init__(self, database: Inline, **parts: Any) -> None:
        self.database = database
        self.rates = Rates()
        self.settings = Settings(inbox=Inbox(api_keys=("another", KEY)))
        self.passed_s = 0.0
        given: dict[str, Any] = {
            name: parts.pop(name) for name in ("redis", "release") if name in parts
        }
        self.clock = Clock()
        self.inboxes = Inboxes(
            database,
            settings=lambda: self.settings,
            rates=self.rates,
            clock=self.clock,
            now=self.now,
            **given,
        )
        self.server = Server(
            clock=self.clock,
            settings=self.settings,
            routes=self.inboxes.routes(),
            families=(FAMILY,),
            **parts,
        )

    def now(self) -> int:
        return int((NOW_S + self.passed_s) * 1_000_000)

    def account(self) -> int:
        return now(self.database.write(inbox.ensure_account))

    def capture(
        self,
        message: str | bytes,
        *addresses: str,
        sender: str | None = "ann@example.net",
        account_id: int = 0,
        number: int = 0,
    ) -> str:
        """Store a message for addresses; its id."""
        octets = message if isinstance(message, bytes) else message.encode()
        octets = octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        spool = Spool(self.database, limit=64 << 20)
        now(spool.write(octets))
        queue_id = number or ((self.now() // 1000 - EPOCH_MS) << 22) + next(_numbers)
        entry = Entry(
            account_id or self.account(),
            "INBOX",
            prefix=PREFIX,
            internaldate=self.now(),
            return_path=sender,
            recipient=addresses[0],
            inbox=addresses,
        )
        acceptance = Acceptance(now(spool.finish()), (entry,), queue_id, self.now())

        def work(connection: Any) -> None:
            (answer,) = deliver(connection, [acceptance])
            assert isinstance(answer, tuple), answer

        now(self.database.write(work))
        return str(queue_id)

    # -- requests -----------------------------------------------------------------------------

    def ask(
        self, method: str, path: str, body: Any = None, *, key: str = KEY, **more: Any
    ) -> Answer:
        return self.server.answer(method, path, body, X_API_KEY=key, **more)

    def get(self, path: str, **query: Any) -> Answer:
        return self.ask("GET", path + ("?" + urlencode(query) if query else ""))

    def json(self, path: str, **query: Any) -> Any:
        answer = self.get(path, **query)
        assert answer.status == 200, (answer.status, answer.body)
        assert answer.headers["content-type"] == "application/json"
        return answer.json

    def error(self, method: str, path: str, **more: Any) -> tuple[int, str]:
        answer = self.ask(method, path, **more)
        assert list(answer.json) == ["error"]
        return answer.status, answer.json["error"]

    def wait(self, path: str, **query: Any) -> Waiting:
        """A client that waits."""
        target = f"{path}/wait?{urlencode({'timeout': 30} | query)}"
        head = f"GET {target} HTTP/1.1\r\nHost: x.example\r\nX-API-KEY: {KEY}\r\n\r\n"
        return Waiting(self.server.ask(head.encode()))

    def hang_up(self, client: Waiting) -> None:
        self.server.hang_up(client.transport)
