"""Stock `imap4.IMAP4Server` and `IMAP4Client` against each other, over our store."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
import twisted.internet
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.mail import imap4
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailtwist.imap.adapter import MailboxInfo, StoreAccount
from mailtwist.imap.adapter_message import StoredMessage
from mailtwist.store.database import Inline
from mailtwist.store.snapshot import Snapshots
from tests.imap.making import new_account
from tests.support.now import now

PLAIN = b"From: a@example.com\r\nSubject: first\r\n\r\nhello\r\n"
PARTS = (
    b"Subject: =?utf-8?q?=C3=A4?=\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n"
    b"--x\r\nContent-Type: text/plain\r\n\r\none\r\n"
    b"--x\r\nContent-Type: text/html\r\n\r\ntwo\r\n--x--\r\n"
)


@implementer(IRealm)
class Realm:
    def __init__(self, account: StoreAccount) -> None:
        self.account = account

    def requestAvatar(self, name: Any, mind: Any, *interfaces: Any) -> Any:
        return imap4.IAccount, self.account, lambda: None


class Loop:
    """The two stock ends, octets carried by hand until both are silent."""

    def __init__(self, account: StoreAccount, clock: Clock) -> None:
        self.clock = clock
        checker = InMemoryUsernamePasswordDatabaseDontUse(user=b"secret")
        self.server: Any = imap4.IMAP4Server()
        self.server.portal = Portal(Realm(account), [checker])  # type: ignore[assignment]
        self.client: Any = imap4.IMAP4Client()
        self.ends: list[tuple[Any, StringTransport]] = [
            (self.server, StringTransport()),
            (self.client, StringTransport()),
        ]
        for protocol, transport in reversed(self.ends):
            protocol.makeConnection(transport)
        self.carry()

    def carry(self) -> None:
        (server, to_client), (client, to_server) = self.ends
        moved = True
        while moved:
            due = self.clock.getDelayedCalls()
            moved = any(call.getTime() <= self.clock.seconds() for call in due)
            self.clock.advance(0)
            for source, target in ((to_client, client), (to_server, server)):
                while source.producer is not None and not source.streaming:
                    source.producer.resumeProducing()
                if data := source.value():
                    source.clear()
                    target.dataReceived(data)
                    moved = True

    def ask(self, asked: Deferred[Any]) -> Any:
        answers: list[Any] = []
        asked.addBoth(answers.append)
        self.carry()
        assert answers, "no answer"
        if hasattr(answers[0], "raiseException"):
            answers[0].raiseException()
        return answers[0]


@pytest.fixture
def account(database: Inline) -> StoreAccount:
    return StoreAccount(database, Snapshots(database), new_account(database))


@pytest.fixture
def loop(account: StoreAccount, monkeypatch: pytest.MonkeyPatch) -> Loop:
    # The stock server takes a turn of the reactor for each item of a FETCH.
    clock = Clock()
    monkeypatch.setattr(twisted.internet, "reactor", clock, raising=False)
    made = Loop(account, clock)
    for protocol, _ in made.ends:
        protocol.setTimeout(None)
    made.ask(made.client.login(b"user", b"secret"))
    return made


def test_the_objects_have_what_the_interfaces_name(account: StoreAccount) -> None:
    mailbox = now(account.select("INBOX"))
    assert verifyObject(imap4.IAccount, account)
    assert verifyObject(imap4.INamespacePresenter, account)
    assert verifyObject(imap4.IMailbox, mailbox)
    assert verifyObject(imap4.ISearchableMailbox, mailbox)
    assert verifyObject(imap4.IMessageCopier, mailbox)
    assert verifyObject(imap4.IMailboxInfo, MailboxInfo(""))
    now(mailbox.addMessage(BytesIO(PARTS)))
    [(number, message)] = now(mailbox.fetch(imap4.MessageSet(1), uid=False))
    assert number == 1
    assert verifyObject(imap4.IMessage, message)
    assert verifyObject(imap4.IMessageFile, message)
    assert verifyObject(imap4.IMessagePart, message.getSubPart(0))


def test_a_stock_session_appends_reads_flags_searches_and_expunges(loop: Loop) -> None:
    client = loop.client
    loop.ask(
        client.append("INBOX", BytesIO(PLAIN), (r"\Seen", "$Work"), "17-Jul-1996 02:44:25 -0700")
    )
    loop.ask(client.append("INBOX", BytesIO(PARTS)))
    state = loop.ask(client.select("INBOX"))
    assert state["EXISTS"] == 2
    assert state["UIDVALIDITY"] > 0

    messages = loop.ask(client.fetchMessage("1:2"))
    assert {n: m["RFC822"] for n, m in messages.items()} == {1: PLAIN.decode(), 2: PARTS.decode()}
    assert loop.ask(client.fetchFlags("1"))[1]["FLAGS"] == ["\\Seen", "$Work", "\\Recent"]
    sizes = loop.ask(client.fetchSize("1:*"))
    assert [m["RFC822.SIZE"] for m in sizes.values()] == [str(len(PLAIN)), str(len(PARTS))]
    structure = loop.ask(client.fetchBodyStructure("2"))[2]["BODYSTRUCTURE"]
    assert [part[:2] for part in structure[:2]] == [["text", "plain"], ["text", "html"]]

    assert loop.ask(client.search(imap4.Query(subject="FIRST"))) == [1]
    assert loop.ask(client.search(imap4.Query(unseen=True), uid=True)) == [2]
    assert loop.ask(client.search(imap4.Or(imap4.Query(body="two"), imap4.Query(seen=1)))) == [1, 2]

    flags = loop.ask(client.addFlags("1", (r"\Deleted",), silent=False))
    assert flags[1]["FLAGS"] == ["\\Seen", "\\Deleted", "$Work"]
    loop.ask(client.copy("1:2", "Archive", uid=False))
    assert loop.ask(client.expunge()) == [1]
    assert loop.ask(client.status("INBOX", "MESSAGES", "UNSEEN")) == {"MESSAGES": 1, "UNSEEN": 1}
    assert loop.ask(client.status("Archive", "MESSAGES")) == {"MESSAGES": 2}


def test_a_stock_session_makes_lists_and_removes_mailboxes(loop: Loop) -> None:
    client = loop.client
    loop.ask(client.create("Work/Ä"))
    loop.ask(client.subscribe("Work"))
    names = {name for _, _, name in loop.ask(client.list("", "*"))}
    assert {"INBOX", "Sent", "Work", "Work/Ä"} <= names
    assert "Work" in {name for _, _, name in loop.ask(client.lsub("", "W*"))}
    loop.ask(client.rename("Work", "Play"))
    loop.ask(client.delete("Play/Ä"))
    with pytest.raises(imap4.IMAP4Exception, match="exists"):
        loop.ask(client.create("Sent"))
    with pytest.raises(imap4.IMAP4Exception):
        loop.ask(client.select("Play/Ä"))
    assert loop.ask(client.namespace())[0] == [["", "/"]]


def test_new_mail_is_told_to_a_stock_listener(account: StoreAccount) -> None:
    heard: list[Any] = []

    class Listener:
        def newMessages(self, exists: int, recent: int) -> None:
            heard.append((exists, recent))

        def flagsChanged(self, flags: dict[int, list[str]]) -> None:
            heard.append(flags)

    listener = Listener()
    mailbox, other = now(account.select("INBOX")), now(account.select("INBOX"))
    mailbox.addListener(listener)
    now(other.addMessage(BytesIO(PLAIN)))
    now(other.store(imap4.MessageSet(1), ["\\Seen"], 1, uid=False))
    assert heard == [(1, 1), {1: ["\\Seen"]}]
    mailbox.removeListener(listener)
    now(other.addMessage(BytesIO(PLAIN)))
    assert len(heard) == 2
    with pytest.raises(ValueError):
        mailbox.removeListener(listener)


def test_a_message_copied_within_the_account_keeps_its_octets(account: StoreAccount) -> None:
    inbox, archive = now(account.select("INBOX")), now(account.select("Archive"))
    now(inbox.addMessage(BytesIO(PLAIN), ["\\Flagged"]))
    [(_, message)] = now(inbox.fetch(imap4.MessageSet(1, None), uid=False))
    assert now(archive.copy(message)) == 1
    [(_, copied)] = now(archive.fetch(imap4.MessageSet(1), uid=True))
    assert isinstance(copied, StoredMessage)
    assert copied.open().read() == PLAIN
    assert copied.getFlags() == ["\\Flagged", "\\Recent"]


def test_an_examined_mailbox_refuses_changes(account: StoreAccount) -> None:
    mailbox = now(account.select("INBOX", False))
    for change in (
        mailbox.expunge,
        lambda: mailbox.addMessage(BytesIO(PLAIN)),
        lambda: mailbox.store(imap4.MessageSet(1), [], 0, uid=False),
    ):
        with pytest.raises(imap4.ReadOnlyMailbox):
            change()
