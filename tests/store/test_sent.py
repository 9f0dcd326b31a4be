"""Where the copy of a sent message belongs."""

from __future__ import annotations

import pytest

from mailtwist.mail.flags import SEEN
from mailtwist.store import accounts, mailboxes, sent
from mailtwist.store.engine import Connection, Engine
from tests.store.making import NOW, STRUCTURE, account, put

ID = STRUCTURE.message_id


def with_sent(connection: Connection, name: str = "Sent", special_use: str = "\\Sent") -> int:
    made = account(connection)
    mailboxes.delete(connection, made, "Sent")
    mailboxes.create(connection, made, name, special_use=special_use, now=NOW)
    return made


@pytest.mark.mission("DAP-133")
def test_it_belongs_where_the_special_use_is_once(engine: Engine) -> None:
    with engine.write() as connection:
        anna = with_sent(connection, "Gesendet")
        put(connection, anna)  # the same message in another mailbox
        assert sent.place(connection, anna, ID, 100) == "Gesendet"
        put(connection, anna, "Gesendet", flags=SEEN)
        assert sent.place(connection, anna, ID, 100) is None
        assert sent.place(connection, anna, "<other@b>", 100) == "Gesendet"
        assert sent.place(connection, anna, "", 100) == "Gesendet"


def test_who_has_no_such_mailbox_gets_none(engine: Engine) -> None:
    with engine.write() as connection:
        anna = with_sent(connection, special_use="")
        assert sent.place(connection, anna, ID, 100) is None
        assert sent.place(connection, anna + 1, ID, 100) is None


def test_a_full_account_gets_none(engine: Engine) -> None:
    with engine.write() as connection:
        anna = with_sent(connection)
        accounts.set_quota(connection, anna, octets=100)
        assert sent.place(connection, anna, ID, 100) == "Sent"
        assert sent.place(connection, anna, ID, 101) is None
        accounts.set_quota(connection, anna, octets=0, messages=1)
        assert sent.place(connection, anna, ID, 101) == "Sent"
        put(connection, anna)
        assert sent.place(connection, anna, "<other@b>", 101) is None
