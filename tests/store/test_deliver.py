from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event

from mailtwist.errors import MailError, NotFound, OverQuota
from mailtwist.store import accounts, content, keywords, ledger, mailboxes
from mailtwist.store import deliver as deliver_module
from mailtwist.store.database import Inline
from mailtwist.store.engine import Engine
from mailtwist.store.messages import Acceptance, Delivered, Entry, deliver
from mailtwist.store.sql import Answer, Statement
from tests.store.making import NOW, acceptance, account, put, spooled
from tests.support.now import now

ROW = """
    SELECT m.uid, m.flags, m.octets, m.internaldate, m.saved_at, e.prefix, e.octets,
           d.return_path, d.recipient, d.client_address, d.is_tls, d.received_as, d.subject
    FROM message AS m JOIN email AS e
      ON e.email_id = m.email_id
    JOIN email_detail AS d ON d.email_id = m.email_id
"""


def refusals(answers: list[tuple[Delivered, ...] | MailError]) -> list[type | None]:
    return [type(answer) if isinstance(answer, MailError) else None for answer in answers]


def test_what_is_delivered_is_what_was_given(engine: Engine) -> None:
    data = b"Subject: hello\r\n\r\n\x00\xff body\r\n"
    entry = Entry(
        1,
        "InBox",
        prefix=b"Return-Path: <a@b>\r\n",
        flags=1,
        internaldate=NOW - 5,
        return_path="a@b",
        recipient="anna@example.com",
        client_address="192.0.2.1",
        is_tls=True,
    )
    with engine.write() as connection:
        assert account(connection) == 1
        accepted = Acceptance(spooled(data), (entry,), 77, NOW)
        ((delivered,),) = deliver(connection, [accepted])  # type: ignore[misc]
        inbox = mailboxes.get(connection, 1, "INBOX")
        assert delivered == Delivered(1, inbox.mailbox_id, inbox.uidvalidity, 1, delivered.modseq)
        row = tuple(connection.exec_driver_sql(ROW).one())
        assert row == (
            1, 1, 20 + len(data), NOW - 5, NOW, b"Return-Path: <a@b>\r\n", len(data),
            "a@b", "anna@example.com", "192.0.2.1", 1, 77, "hello",
        )  # fmt: skip
        assert content.read(connection, accepted.content.content_id, 0, 10_000) == data


@pytest.mark.mission("DAP-103", "ADG-13")
def test_several_recipients_share_the_octets(engine: Engine) -> None:
    with engine.write() as connection:
        anna, bert = account(connection), account(connection, "bert@example.com")
        entries = (Entry(anna, "INBOX", b"a"), Entry(bert, "INBOX", b"bb"), Entry(anna, "Spam"))
        (delivered,) = deliver(connection, [Acceptance(spooled(), entries, 1, NOW)])
        assert isinstance(delivered, tuple)
        assert [(d.account_id, d.mailbox_id, d.uid) for d in delivered] == [
            (anna, 1, 1),
            (bert, 1, 1),
            (anna, 5, 1),
        ]
        assert connection.exec_driver_sql("SELECT count(*) FROM content").scalar() == 1
        assert connection.exec_driver_sql("SELECT count(*) FROM email").scalar() == 3


@pytest.mark.mission("DAP-116")
def test_uids_ascend_in_the_order_of_acceptance(engine: Engine) -> None:
    with engine.write() as connection:
        anna, bert = account(connection), account(connection, "bert@example.com")
        turns = [anna, bert, anna, anna, bert]
        answers = deliver(connection, [acceptance(who) for who in turns])
        got = [(d.account_id, d.uid) for answer in answers for d in answer]
        assert got == [(anna, 1), (bert, 1), (anna, 2), (anna, 3), (bert, 2)]
        assert [d.uid for d in put(connection, anna, count=3)] == [4, 5, 6]
        assert len({d.modseq for d in put(connection, anna, count=3)}) == 1


# quota_octets, quota_messages, what happens to four messages of 25 octets
QUOTAS: list[tuple[int, int, list[type | None]]] = [
    (0, 0, [None, None, None, None]),
    (75, 0, [None, None, None, OverQuota]),
    (74, 0, [None, None, OverQuota, OverQuota]),
    (24, 0, [OverQuota] * 4),
    (0, 2, [None, None, OverQuota, OverQuota]),
]


@pytest.mark.parametrize(("octets", "messages", "expected"), QUOTAS)
def test_quota_refuses_what_does_not_fit_and_nothing_else(
    engine: Engine, octets: int, messages: int, expected: list[type | None]
) -> None:
    with engine.write() as connection:
        anna = account(connection, quota_octets=octets, quota_messages=messages)
        bert = account(connection, "bert@example.com")
        batch = [acceptance(anna) for _ in range(4)] + [acceptance(bert)]
        assert refusals(deliver(connection, batch)) == [*expected, None]


def test_an_acceptance_is_whole_or_not_at_all(engine: Engine) -> None:
    with engine.write() as connection:
        anna = account(connection, quota_messages=2)
        bert = account(connection, "bert@example.com")
        both = (Entry(bert, "INBOX"), Entry(anna, "INBOX"))
        twice = (Entry(anna, "INBOX"), Entry(anna, "Spam"))
        nobody = (Entry(bert, "INBOX"), Entry(99, "INBOX"))
        batch = [
            Acceptance(spooled(), entries, 1, NOW) for entries in (both, twice, nobody, both, both)
        ]
        answers = deliver(connection, batch)
        assert refusals(answers) == [None, OverQuota, NotFound, None, OverQuota]
        assert mailboxes.status(connection, bert, 1).messages == 2
        assert mailboxes.status(connection, anna, 1).messages == 2
        assert connection.exec_driver_sql("SELECT count(*) FROM content").scalar() == 2


def test_mail_falls_into_inbox_where_its_mailbox_is_missing(engine: Engine) -> None:
    with engine.write() as connection:
        anna = account(connection)
        mailboxes.delete(connection, anna, "Spam")
        (delivered,) = put(connection, anna, "Spam", received_as=5)
        assert delivered.mailbox_id == 1
        (refused,) = deliver(connection, [acceptance(anna, "Spam", received_as=None)])
        assert isinstance(refused, NotFound)
        assert refused.imap_code == "TRYCREATE"


def test_an_account_under_removal_gets_nothing(engine: Engine) -> None:
    with engine.write() as connection:
        anna = account(connection)
        accounts.remove_step(connection, anna)
        (refused,) = deliver(connection, [acceptance(anna, received_as=1)])
        assert isinstance(refused, NotFound)
        assert (refused.code, refused.status) == (550, "5.1.1")


def test_keywords_find_bits_and_those_without_room_are_left_out(engine: Engine) -> None:
    with engine.write() as connection:
        anna, bert = account(connection), account(connection, "bert@example.com")
        put(connection, anna, keywords=("$Work", "$work", "Later"), flags=2)
        put(connection, anna, keywords=("later", "bad atom", "x" * 101))
        put(connection, bert, keywords=tuple(f"k{n}" for n in range(60)))
        put(connection, bert, keywords=("k0", "k59"))
        rows = connection.exec_driver_sql("SELECT account_id, flags FROM message").all()
        assert sorted(tuple(row) for row in rows) == [
            (anna, 2 << 8),
            (anna, (3 << 8) + 2),
            (bert, 1 << 8),
            (bert, (1 << 63) - (1 << 8)),
        ]
        assert keywords.load(connection, anna).spelled(3 << 8) == ["$Work", "Later"]
        assert keywords.load(connection, bert).is_full


@pytest.fixture
def statements(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """What is executed, by Statement and by SQLAlchemy."""
    executed: list[object] = []

    class Counted(Statement):
        def __call__(self, *arguments: Any) -> Answer:
            executed.append(self)
            return super().__call__(*arguments)

        def each(self, *arguments: Any) -> None:
            executed.append(self)
            super().each(*arguments)

    for module in (deliver_module, keywords, ledger):
        for name, value in list(vars(module).items()):
            if isinstance(value, Statement):
                counted = Counted("")
                counted._sqlite, counted._postgresql = value._sqlite, value._postgresql
                monkeypatch.setattr(module, name, counted)

    def note(connection: object, cursor: object, statement: str, *rest: object) -> None:
        if "content" in statement.split()[:3] or "upload" in statement.split()[:3]:
            executed.append(statement)

    event.listen(engine.writing, "before_cursor_execute", note)
    yield executed
    event.remove(engine.writing, "before_cursor_execute", note)


def test_a_batch_costs_as_many_statements_as_one_message(
    engine: Engine, statements: list[object]
) -> None:
    with engine.write() as connection:
        accounts_of = [account(connection, f"u{n}@example.com") for n in range(10)]
        counts = []
        for batch in ([accounts_of[0]], accounts_of * 6):
            statements.clear()
            deliver(connection, [acceptance(who, keywords=("k",)) for who in batch])
            counts.append(len(statements))
        assert 7 <= counts[0] == counts[1] <= 10


def test_an_empty_batch_is_nothing(engine: Engine) -> None:
    with engine.write() as connection:
        assert deliver(connection, []) == []


def test_it_is_a_set_writer(database: Inline) -> None:
    with database.engine.write() as connection:
        anna = account(connection, quota_messages=1)
    heard: list[tuple[int, int]] = []
    database.changes.subscribe(anna, lambda mailbox_id, modseq: heard.append((mailbox_id, modseq)))
    (delivered,) = now(database.write_set(deliver, acceptance(anna), accounts=[anna]))
    assert heard == [(delivered.mailbox_id, delivered.modseq)]
    with pytest.raises(OverQuota):
        now(database.write_set(deliver, acceptance(anna), accounts=[anna]))
    assert len(heard) == 1
