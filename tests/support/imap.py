"""An IMAP server in memory, over a real store: for transcripts and for tests that look inside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from mailtwist.config import Listener, load
from mailtwist.errors import Refusal
from mailtwist.imap.protocol import MailIMAP4
from mailtwist.imap.service import IMAPFactory, Parts, make_factory
from mailtwist.net.counters import Connections
from mailtwist.policy.auth import Login
from mailtwist.policy.passwords import Scram, unknown_scram
from mailtwist.policy.scram import Proof
from mailtwist.store import accounts, expunge, flags, mailboxes
from mailtwist.store.database import Inline
from mailtwist.store.engine import open_engine
from mailtwist.store.snapshot import Snapshots
from tests.store.making import NOW, put
from tests.support.delayed import Delayed
from tests.support.now import now
from tests.support.stores import violations
from tests.support.transcript import Peer, Wire

USER = "anna@example.com"
PASSWORD = 'se"cr\\et'  # needs escapes in a quoted string


class Logins:
    """Knows one password; the real thing is slow on purpose."""

    def __init__(self, login: Login) -> None:
        self._login = login
        self.attempts: list[tuple[str, str, str, str]] = []

    async def login(self, username: str, password: str, *, peer: str, service: str) -> Login:
        self.attempts.append((username, password, peer, service))
        if username == USER and password == PASSWORD:
            return self._login
        raise Refusal(
            "Authentication credentials invalid", imap_code="AUTHENTICATIONFAILED", code=535
        )

    async def scram_keys(self, username: str, *, peer: str) -> Scram:
        return unknown_scram(b"", username)

    async def prove(self, username: str, proof: Proof, *, peer: str, service: str) -> Login:
        raise Refusal(
            "Authentication credentials invalid", imap_code="AUTHENTICATIONFAILED", code=535
        )

    def watch(self, login: Login, gone: Callable[[], object]) -> Callable[[], None]:
        self.gone = gone
        return lambda: None


@dataclass
class Tls:
    creator: object = field(default_factory=object)

    def of(self, name: str) -> object:
        return self.creator


class Server:
    """One listener, one account, and the means to change the mailboxes behind its back."""

    def __init__(
        self,
        url: str,
        *,
        protocol: str = "imap",
        allow_plaintext: bool = False,
        methods: tuple[str, ...] = ("plain", "login"),
        has_tls: bool = True,
        delayed: bool = False,
    ) -> None:
        defaults = load(None, {})
        settings = replace(
            defaults,
            auth=replace(defaults.auth, allow_plaintext=allow_plaintext, methods=methods),
        )
        self.engine = open_engine(url)
        self.database = Inline(self.engine)
        # What the sessions see; its answers wait for `settle`.
        self.delayed = Delayed(self.database) if delayed else None
        database: Any = self.delayed or self.database
        self.clock = Clock()
        self.snapshots = Snapshots(database)
        with self.engine.write() as connection:
            account = accounts.find(connection, USER) or accounts.add(connection, USER, [], now=NOW)
        self.account_id = account.account_id
        self.logins = Logins(Login(account.account_id, USER, frozenset({USER})))
        self.parts = Parts(
            database=database,
            snapshots=self.snapshots,
            authenticator=self.logins,  # type: ignore[arg-type]
            tls=Tls() if has_tls else None,  # type: ignore[arg-type]
            settings=settings,
            clock=self.clock,
            counters=Connections(),
        )
        self.listener = Listener("test", protocol, "127.0.0.1", 0)
        self.factory: IMAPFactory = make_factory(self.listener, self.parts)

    def connect(self, *lines: bytes, wire: Wire | None = None) -> Peer:
        """A new connection; it has sent the lines and got its answers."""
        protocol: MailIMAP4 = self.factory.buildProtocol(IPv4Address("TCP", "192.0.2.7", 40000))
        peer = Peer(protocol, wire)
        for line in lines:
            peer.send(line + b"\r\n")
            self.settle()
        if lines:
            peer.received()
        return peer

    def login(self, *lines: bytes, wire: Wire | None = None) -> Peer:
        """A connection that has logged in, and sent the lines."""
        peer = self.connect(wire=wire)
        assert b"OK [CAPABILITY" in peer.ask(b'0 LOGIN %b "se\\"cr\\\\et"' % USER.encode())
        for line in lines:
            peer.send(line + b"\r\n")
            self.settle()
        peer.received()
        return peer

    def close(self) -> None:
        """Hang up on everybody; the store must be in order."""
        for session in list(self.factory.sessions):
            session.connectionLost(Failure(ConnectionDone()))
        self.settle()
        assert violations(self.engine) == []
        self.database.release()

    def settle(self) -> None:
        """Let all answers of the store come that are waited for."""
        if self.delayed is not None:
            self.delayed.release_all()

    def advance(self, seconds: float) -> None:
        """Let time pass, second by second."""
        for _ in range(int(seconds)):
            self.clock.advance(1)

    # -- behind the sessions' backs -----------------------------------------------------------

    def deliver(self, count: int | str = 1, mailbox: str = "INBOX", **entry: Any) -> None:
        now(
            self.database.write(
                lambda connection: put(
                    connection, self.account_id, mailbox, int(count), internaldate=NOW, **entry
                )
            )
        )

    def mailbox_id(self, name: str = "INBOX") -> int:
        with self.engine.read() as connection:
            return mailboxes.get(connection, self.account_id, name).mailbox_id

    def flag(self, uids: str, bits: int | str, mailbox: str = "INBOX", op: str = "+") -> None:
        box = self.mailbox_id(mailbox)
        now(
            self.database.write(
                lambda connection: flags.store_flags(
                    connection,
                    self.account_id,
                    box,
                    [int(u) for u in uids.split(",")],
                    op,
                    int(bits),
                    (),
                )
            )
        )

    def expunge(self, uids: str, mailbox: str = "INBOX") -> None:
        self.flag(uids, 8, mailbox)
        box = self.mailbox_id(mailbox)
        now(
            self.database.write(
                lambda connection: expunge.expunge(
                    connection, self.account_id, box, [int(u) for u in uids.split(",")]
                )
            )
        )

    def make(self, name: str, use: str = "") -> None:
        now(
            self.database.write(
                lambda connection: mailboxes.create(connection, self.account_id, name, use)
            )
        )

    def remove(self, name: str) -> None:
        now(
            self.database.write(
                lambda connection: mailboxes.delete(connection, self.account_id, name)
            )
        )

    def subscribe(self, name: str) -> None:
        now(
            self.database.write(
                lambda connection: mailboxes.subscribe(connection, self.account_id, name)
            )
        )

    @property
    def hooks(self) -> dict[str, Any]:
        """For transcripts: ``@deliver 3``, ``@expunge 2,3``, ``@flag 1 4``, ``@make a/b``."""
        return {
            "deliver": self.deliver,
            "expunge": self.expunge,
            "flag": self.flag,
            "make": self.make,
            "remove": self.remove,
            "subscribe": self.subscribe,
        }
