"""Accounts, mails and queries for the tests of the mail entities."""

from __future__ import annotations

import base64
import hashlib
import itertools
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, event

from mailtwist.mail.filters import OPERATORS, AllOf, Tree, comparison
from mailtwist.mail.permissions import SYSTEM, Viewer
from mailtwist.mail.structure import Parser
from mailtwist.store.accounts import find
from mailtwist.store.content import Spooled
from mailtwist.store.deliver import Acceptance, Entry, deliver
from mailtwist.store.entities.ids import Kind, pack
from mailtwist.store.entities.model import Item
from tests.store.making import NOW
from tests.store.people import PASSWORD, make, rows

LETTER = (
    b"From: Anna Bell <anna@far.test>\r\nTo: bob@example.com\r\nReply-To: desk@far.test\r\n"
    b"Subject: =?utf-8?q?Caf=C3=A9?=\r\nMessage-ID: <one@far.test>\r\n\r\nhello\r\n"
)
_CONTENT_IDS = itertools.count(1_000_000)


@dataclass(frozen=True)
class Holder:
    """A user with an account."""

    who: Viewer
    account: Item
    account_id: int

    def box(self, number: int = 1) -> str:
        return pack(Kind.MAIL_BOX, self.account_id, number)

    def mail(self, entry_id: int) -> str:
        return pack(Kind.MAIL, self.account_id, entry_id)


def holder(connection: Connection, who: Viewer, username: str) -> Holder:
    item = make(
        connection,
        SYSTEM,
        "mail_account",
        {"username": username, "password": PASSWORD},
        user_account_id=who.reference_id,
    )
    found = find(connection, username)
    assert found is not None
    return Holder(who, item, found.account_id)


def spooled(data: bytes) -> Spooled:
    parser = Parser()
    parser.feed(data)
    structure = parser.close()
    return Spooled(next(_CONTENT_IDS), len(data), hashlib.sha256(data).digest(), data, structure)


def arrive(
    connection: Connection,
    account_id: int,
    mailbox: str = "INBOX",
    *,
    data: bytes = LETTER,
    now: int = NOW,
    received_as: int | None = 77,
    **entry: Any,
) -> None:
    made = Entry(account_id, mailbox, **{"internaldate": now, **entry})
    (answer,) = deliver(connection, [Acceptance(spooled(data), (made,), received_as, now)])
    assert isinstance(answer, tuple), answer


def query(*items: tuple[str, str, Any]) -> Tree:
    return AllOf(tuple(comparison(name, OPERATORS[word], value) for name, word, value in items))


def uids(connection: Connection, who: Viewer, *items: tuple[str, str, Any], **request: Any) -> Any:
    """The mailbox number and uid of each mail that a list gives."""
    tree = query(*items) if items else None
    found = rows(connection, who, "mail", filter=tree, **request)
    return [(_mailbox(item), item.attributes["uid"]) for item in found]


def _mailbox(item: Item) -> int:
    return int(str(item.attributes["mail_box_id"]).rpartition("-")[2], 16)


class Statements:
    """Counts what a connection executes, whichever way."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.count = 0

    def __enter__(self) -> Statements:
        if self._connection.dialect.name == "sqlite":
            self._driver.set_trace_callback(self._traced)
        else:
            event.listen(self._connection, "before_cursor_execute", self._executed)
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection.dialect.name == "sqlite":
            self._driver.set_trace_callback(None)
        else:
            event.remove(self._connection, "before_cursor_execute", self._executed)

    @property
    def _driver(self) -> Any:
        return self._connection.connection.driver_connection

    def _traced(self, statement: str) -> None:
        self.count += not statement.startswith("--")

    def _executed(self, *_: Any) -> None:
        self.count += 1


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def with_groups(who: Viewer, *groups: int) -> Viewer:
    return replace(who, groups=frozenset(groups))
