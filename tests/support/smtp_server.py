"""An SMTP listener over a real store, built from a few words, with peers in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

from sqlalchemy import select
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock

from mailtwist.config import Listener, Settings
from mailtwist.config.settings import Auth, Limits, Tls
from mailtwist.errors import Refusal
from mailtwist.net.counters import Connections
from mailtwist.policy.passwords import Scram, unknown_scram
from mailtwist.policy.scram import Proof
from mailtwist.queue.intake import Intake
from mailtwist.smtp.service import Parts, make_factory
from mailtwist.store import accounts, content, keywords
from mailtwist.store.directory import Directory
from mailtwist.store.queue import values
from mailtwist.store.queue.tables import queue_message, queue_recipient
from mailtwist.store.queue.values import Message
from mailtwist.store.tables import account, email, email_detail, mailbox, message
from tests.support.transcript import Peer, Wire

PASSWORDS = {"alice@example.com": "secret", "bob@example.com": "hunter2"}
NOW = 1_790_000_000_000_000


@dataclass(frozen=True)
class FakeLogin:
    account_id: int
    username: str
    addresses: frozenset[str]


class FakeLogins:
    """Knows two passwords, at once."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []

    async def login(self, username: str, password: str, *, peer: str, service: str) -> FakeLogin:
        self.asked.append((username, peer, service))
        if PASSWORDS.get(username) != password:
            raise Refusal("Authentication credentials invalid", code=535, status="5.7.8")
        return FakeLogin(1, username, frozenset({username}))

    async def scram_keys(self, username: str, *, peer: str) -> Scram:
        return unknown_scram(b"", username)

    async def prove(self, username: str, proof: Proof, *, peer: str, service: str) -> FakeLogin:
        raise Refusal("Authentication credentials invalid", code=535, status="5.7.8")

    def watch(self, login: FakeLogin, gone: Callable[[], object]) -> Callable[[], None]:
        self.gone = gone
        return lambda: None


class FakeTls:
    creator = object()

    def of(self, name: str) -> object:
        return self.creator


class Server:
    """One listener. `given` are the words of a transcript's @given lines."""

    def __init__(
        self, database: Any, given: Iterable[str] = (), *, intake: Any = (), **parts: Any
    ) -> None:
        self.given = tuple(given)
        self.database = database
        self.clock = Clock()
        self.logins = FakeLogins()
        self.settings = settings_for(self.given)
        names = ["alice", "bob", "carol"]
        names += [f"user{n}" for n in range(1, int(self.value("users", 0)) + 1)]
        with database.engine.write() as connection:
            for name in names:
                accounts.add(connection, f"{name}@example.com", [], now=NOW)
            if self.value("quota", 0):
                alice = accounts.find(connection, "alice@example.com")
                assert alice is not None
                quota = int(self.value("quota", 0))
                accounts.set_quota(connection, alice.account_id, octets=quota)
        values: dict[str, Any] = {
            "intake": Intake(
                database,
                Directory(database, self.settings),
                settings=self.settings,
                **dict(intake),
            ),
            "authenticator": self.logins,
            "tls": FakeTls() if "tls" in self.given else None,
            "settings": self.settings,
            "clock": self.clock,
            "counters": Connections(int(self.value("per-address", 0))),
        }
        self.parts = Parts(**(values | parts))
        self.factory = make_factory(listener_for(self.given), self.parts)

    def value(self, name: str, default: Any) -> Any:
        return value_of(self.given, name, default)

    def connect(self, _number: int = 1, host: str = "") -> Peer:
        host = host or ("127.0.0.1" if "loopback" in self.given else "192.0.2.7")
        protocol = self.factory.buildProtocol(IPv4Address("TCP", host, 40000))
        return Peer(protocol, Wire(host))

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def stored(self, address: str) -> list[bytes]:
        """The messages of an account, whole, in the order of their arrival."""
        return stored(self.database.engine, address)

    def placed(self, address: str) -> list[tuple[str, bool, float]]:
        """Mailbox, whether it is marked as spam, and score of each message of an account."""
        with self.database.engine.read() as connection:
            found = accounts.find(connection, address)
            assert found is not None
            known = keywords.load(connection, found.account_id)
            rows = connection.execute(
                select(mailbox.c.name, message.c.flags, email_detail.c.spam_score)
                .join(
                    mailbox,
                    (mailbox.c.account_id == message.c.account_id)
                    & (mailbox.c.mailbox_id == message.c.mailbox_id),
                )
                .join(email_detail, email_detail.c.email_id == message.c.email_id)
                .where(message.c.account_id == found.account_id)
                .order_by(message.c.entry_id)
            ).all()
            return [(row.name, "Spam" in known.spelled(row.flags), row.spam_score) for row in rows]

    def hooks(self) -> dict[str, Callable[..., None]]:
        return {
            "stored": self._stored,
            "received": self._received,
            "content": self._content,
            "queued": self._queued,
        }

    def queued(self) -> list[Message]:
        """The messages in the queue, in the order of their arrival."""
        with self.database.engine.read() as connection:
            return queued(connection)

    def _queued(self, *words: str) -> None:
        found = [
            word
            for message in self.queued()
            for recipient in message.recipients
            for word in (recipient.address, recipient.destination)
        ]
        assert found == list(words)

    def _stored(self, address: str, count: str) -> None:
        assert len(self.stored(address)) == int(count), f"{address} does not have {count}"

    def _received(self, address: str, *words: str) -> None:
        text = " ".join(words).encode()
        last = b" ".join(self.stored(address)[-1].split())
        assert text in last, f"{text!r} is not in {last!r}"

    def _content(self, address: str, text: str) -> None:
        wanted = text.encode().decode("unicode_escape").encode("latin-1")
        trace = b"Delivered-To: %b\r\n" % address.encode()
        assert self.stored(address)[-1].endswith(trace + wanted)


def stored(engine: Any, address: str) -> list[bytes]:
    """The messages of an account, whole, in the order of their arrival."""
    with engine.read() as connection:
        rows = connection.execute(
            select(email.c.prefix, email.c.content_id, email.c.octets)
            .join(account, account.c.account_id == email.c.account_id)
            .where(account.c.username == address)
            .order_by(email.c.email_id)
        ).all()
        return [bytes(row.prefix) + _whole(connection, row.content_id, row.octets) for row in rows]


def queued(connection: Any) -> list[Message]:
    """Every message in the queue as it was given, whatever became of it."""
    messages = connection.execute(select(queue_message).order_by("queue_id")).mappings().all()
    recipients = connection.execute(select(queue_recipient).order_by("n")).mappings().all()
    return [
        Message(
            **{name: row[name] for name in _FIELDS if name != "recipients"},
            recipients=tuple(
                values.Recipient(**{name: each[name] for name in _RECIPIENT_FIELDS})
                for each in recipients
                if each["queue_id"] == row["queue_id"]
            ),
        )
        for row in messages
    ]


_FIELDS = [field.name for field in fields(Message)]
_RECIPIENT_FIELDS = [field.name for field in fields(values.Recipient)]


def _whole(connection: Any, content_id: int, octets: int) -> bytes:
    steps = range(0, octets, 1 << 20)
    return b"".join(content.read(connection, content_id, at, octets) for at in steps)


def value_of(given: Iterable[str], name: str, default: Any) -> Any:
    for word in given:
        key, equals, value = word.partition("=")
        if key == name and equals:
            return value
    return default


def settings_for(given: tuple[str, ...]) -> Settings:
    return replace(
        Settings(),
        hostname="mail.example.com",
        domains=("example.com",),
        auth=Auth(
            enabled="no-auth" not in given,
            required="auth-required" in given,
            methods=methods_of(given),
            allow_plaintext="plaintext" in given,
        ),
        tls=Tls(required="tls-required" in given),
        limits=Limits(session_timeout=float(value_of(given, "session", 3600))),
        max_message_size=int(value_of(given, "size", 26_214_400)),
        dev_mode="dev" in given,
    )


def methods_of(given: tuple[str, ...]) -> tuple[str, ...]:
    if "scram" in given:
        return "plain", "scram-sha-256", "scram-sha-256-plus"
    return ("plain",) if "plain-only" in given else ("plain", "login")


def listener_for(given: tuple[str, ...]) -> Listener:
    others = ("submissions", "submission", "lmtp")
    protocol = next((word for word in others if word in given), "smtp")
    return Listener(
        name="file/test",
        protocol=protocol,
        host="127.0.0.1",
        port=0,
        max_clients=int(value_of(given, "clients", 0)),
        authentication_required="listener-auth" in given,
        xclient_on="xclient" in given,
    )
