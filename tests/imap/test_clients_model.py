"""Several clients on one mailbox at random: what each is told adds up to what is there.

Every client keeps the model that RFC 9051 §5.2 and §7.5 let it keep: numbers move with
EXPUNGE and EXISTS alone, flags with FETCH. The store answers in any order, so commands of
different clients overlap. In the end each model must be what a fresh SELECT shows.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

import pytest

from tests.support.imap import Server
from tests.support.transcript import Peer

KINDS = (
    *("append", "append", "store", "store", "fetch", "body", "copy", "move"),
    *("expunge", "uid_expunge", "search", "idle", "noop", "status"),
)
FLAGS = ("\\Seen", "\\Flagged", "\\Deleted", "\\Answered", "blue", "Green")
LOGIN = b'LOGIN anna@example.com "se\\"cr\\\\et"'
MAIL = b"Subject: x\r\nFrom: a@example.net\r\n\r\nhello\r\n"
# RFC 9051 §7.5.1: no EXPUNGE while these are answered.
QUIET = re.compile(rb"(FETCH|STORE|SEARCH) ")

_LINE = re.compile(rb"\* (\d+) (EXPUNGE|EXISTS|FETCH)(?: \((.*))?")
_UID = re.compile(rb"UID (\d+)")
_TOLD = re.compile(rb"FLAGS \(([^)]*)\)")

Message = dict[str, object]


class Client:
    """One connection and its model: a list of messages, each what is known of it."""

    def __init__(self, server: Server) -> None:
        self.peer: Peer = server.connect()
        self.count = 0
        self.command = b""  # the one that is not answered yet
        self.idle = False
        self.model: list[Message] = []
        self.trace: list[bytes] = []

    def send(self, command: bytes) -> None:
        self.count += 1
        self.command = command
        self.say(b"%d %b\r\n" % (self.count, command))

    def say(self, data: bytes) -> None:
        self.trace.append(b"C: " + data)
        self.peer.send(data)
        self.take()

    def take(self) -> None:
        self.peer.run()
        for line in self.peer.received().splitlines():
            self.trace.append(b"S: " + line)
            self._take_line(line)

    def _take_line(self, line: bytes) -> None:
        if line.startswith(b"%d " % self.count):
            assert line.split()[1] in {b"OK", b"NO"}, self.trace[-20:]
            self.command, self.idle = b"", False
        elif found := _LINE.fullmatch(line):
            number, kind = int(found[1]), found[2]
            if kind == b"EXPUNGE":
                assert not QUIET.match(self.command), self.trace[-20:]
                del self.model[number - 1]
            elif kind == b"EXISTS":
                assert number >= len(self.model), self.trace[-20:]
                self.model += [{} for _ in range(number - len(self.model))]
            else:
                self._told(self.model[number - 1], found[3])
        assert b"SERVERBUG" not in line, self.trace[-20:]

    def _told(self, message: Message, items: bytes) -> None:
        if uid := _UID.search(items):
            assert message.setdefault("uid", int(uid[1])) == int(uid[1]), self.trace[-20:]
        if flags := _TOLD.search(items):
            message["flags"] = set(flags[1].split()) - {b"\\Recent"}

    @property
    def busy(self) -> bool:
        return self.command != b"" and not self.idle


class Play:
    """Random commands of all clients, and answers of the store in random order."""

    def __init__(self, server: Server, seed: int, clients: int) -> None:
        self.random = random.Random(seed)
        self.server = server
        self.clients = [Client(server) for _ in range(clients)]
        for client in self.clients:
            for command in (LOGIN, b"SELECT INBOX"):
                client.send(command)
                self.settle()

    def settle(self) -> None:
        self.server.settle()
        for client in self.clients:
            client.take()

    def step(self) -> None:
        delayed = self.server.delayed
        assert delayed is not None
        if delayed.waiting and self.random.random() < 0.6:
            delayed.waiting.pop(self.random.randrange(len(delayed.waiting))).callback(None)
        else:
            client = self.random.choice(self.clients)
            if client.idle:
                client.say(b"DONE\r\n")
            elif not client.busy:
                self.ask(client)
        for client in self.clients:
            client.take()

    def ask(self, client: Client) -> None:
        getattr(self, f"_{self.random.choice(KINDS)}")(client)

    def _numbers(self, client: Client) -> tuple[bytes, bytes]:
        """UID or nothing, and a set of messages that the client knows."""
        uids = [message["uid"] for message in client.model if "uid" in message]
        if uids and self.random.random() < 0.5:
            some = self.random.sample(uids, self.random.randint(1, min(3, len(uids))))
            return b"UID ", ",".join(map(str, some)).encode()
        count = len(client.model)
        if not count:
            return b"", b"1:*"
        low = self.random.randint(1, count)
        return b"", b"%d:%d" % (low, min(count, low + self.random.randint(0, 2)))

    def _append(self, client: Client) -> None:
        if len(client.model) < 12:
            client.send(b"APPEND INBOX (blue) {%d+}\r\n%b" % (len(MAIL), MAIL))

    def _store(self, client: Client) -> None:
        uid, numbers = self._numbers(client)
        op = self.random.choice(["FLAGS", "+FLAGS", "-FLAGS", "+FLAGS"])
        flags = " ".join(self.random.sample(FLAGS, self.random.randint(1, 2)))
        client.send(b"%bSTORE %b %b (%b)" % (uid, numbers, op.encode(), flags.encode()))

    def _fetch(self, client: Client) -> None:
        client.send(b"%bFETCH %b (UID FLAGS)" % self._numbers(client))

    def _body(self, client: Client) -> None:
        client.send(b"%bFETCH %b (UID FLAGS RFC822.SIZE BODY[1]<0.1>)" % self._numbers(client))

    def _copy(self, client: Client) -> None:
        if len(client.model) < 12:
            client.send(b"%bCOPY %b INBOX" % self._numbers(client))

    def _move(self, client: Client) -> None:
        if self.random.random() < 0.5:
            client.send(b"%bMOVE %b Archive" % self._numbers(client))

    def _expunge(self, client: Client) -> None:
        client.send(b"EXPUNGE")

    def _uid_expunge(self, client: Client) -> None:
        client.send(b"UID EXPUNGE 1:%d" % self.random.randint(1, 100))

    def _search(self, client: Client) -> None:
        client.send(b"SEARCH UNSEEN")

    def _idle(self, client: Client) -> None:
        client.send(b"IDLE")
        client.idle = client.command != b""

    def _noop(self, client: Client) -> None:
        client.send(b"NOOP")

    def _status(self, client: Client) -> None:
        client.send(b"STATUS Archive (MESSAGES UNSEEN)")

    def finish(self) -> None:
        self.settle()
        for client in self.clients:
            if client.idle:
                client.say(b"DONE\r\n")
        self.settle()
        fresh = Client(self.server)
        self.clients.append(fresh)
        for command in (LOGIN, b"EXAMINE INBOX"):
            fresh.send(command)
            self.settle()
        for client in self.clients:
            client.send(b"NOOP")
            self.settle()
        before = [[dict(message) for message in client.model] for client in self.clients]
        for client in self.clients:
            client.send(b"FETCH 1:* (UID FLAGS)")
            self.settle()
            assert not client.command, client.trace[-20:]
        for client, model in zip(self.clients, before, strict=True):
            assert client.model == fresh.model
            for known, truth in zip(model, fresh.model, strict=True):
                assert known == {key: truth[key] for key in known}, client.trace[-60:]


@pytest.fixture
def server(sqlite_url: str) -> Iterator[Server]:
    server = Server(sqlite_url, allow_plaintext=True, delayed=True)
    yield server
    server.close()


@pytest.mark.parametrize("seed", range(20))
def test_what_every_client_was_told_is_what_is_there(server: Server, seed: int) -> None:
    play = Play(server, seed, clients=3)
    for _ in range(600):
        play.step()
    play.finish()
