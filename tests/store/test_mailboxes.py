from __future__ import annotations

import pytest

from mailtwist.errors import Conflict, MailError, NotFound, Refusal
from mailtwist.store import mailboxes
from mailtwist.store.database import Inline
from mailtwist.store.engine import Connection, Engine
from mailtwist.store.messages import expunge, store_flags
from mailtwist.store.steps import delete_mailbox, rename_mailbox, resume
from tests.store.making import NOW, account, put
from tests.support.now import now

DEFAULTS = {"INBOX", "Sent", "Draft", "Trash", "Spam", "Archive"}


def names(connection: Connection, account_id: int) -> set[str]:
    return {mailbox.name for mailbox in mailboxes.list(connection, account_id)} - DEFAULTS


def make(connection: Connection, *wanted: str) -> int:
    account_id = account(connection)
    for name in wanted:
        mailboxes.create(connection, account_id, name, now=NOW)
    return account_id


def test_inbox_is_listed_first_and_found_in_any_case(engine: Engine) -> None:
    with engine.write() as connection:
        anna = make(connection, "Alpha", "INBOX/sub")
        assert [m.name for m in mailboxes.list(connection, anna)][:2] == ["INBOX", "Alpha"]
        for name in ("inbox", "Inbox", "INBOX"):
            assert mailboxes.get(connection, anna, name).name == "INBOX"
        assert mailboxes.get(connection, anna, "inbox/sub").name == "INBOX/sub"
        assert mailboxes.find(connection, anna, "alpha") is None


def test_create_makes_the_superiors(engine: Engine) -> None:
    with engine.write() as connection:
        anna = make(connection, "a/b/c/")
        assert names(connection, anna) == {"a", "a/b", "a/b/c"}
        with pytest.raises(Conflict):
            mailboxes.create(connection, anna, "a/b")
        with pytest.raises(Conflict):
            mailboxes.create(connection, anna, "InBox")


def test_the_number_of_mailboxes_is_bounded(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailboxes, "MAX_MAILBOXES", 8)
    with engine.write() as connection:
        anna = make(connection, "a")
        for refused in ("x/y", "x/y/z"):
            with pytest.raises(Refusal) as caught:
                mailboxes.create(connection, anna, refused)
            assert caught.value.imap_code == "LIMIT"
        mailboxes.create(connection, anna, "b")
        mailboxes.subscribe(connection, anna, "b")
        mailboxes.subscribe(connection, anna, "nowhere")
        with pytest.raises(Refusal):
            mailboxes.subscribe(connection, anna, "c")


@pytest.mark.mission("DAP-235")
def test_uidvalidity_only_rises(engine: Engine) -> None:
    with engine.write() as connection:
        anna = account(connection)
        seen = [m.uidvalidity for m in mailboxes.list(connection, anna)]
        assert len(set(seen)) == len(seen)
        last = max(seen)
        # The clock stands still, then it steps back; the mailbox is made again and again.
        for moment in (NOW, NOW, NOW - 10**9, 0):
            made = mailboxes.create(connection, anna, "again", now=moment)
            assert made.uidvalidity > last
            last = made.uidvalidity
            mailboxes.delete(connection, anna, "again")
        # An account that is made later begins above what any older one was told by then.
        later = mailboxes.create(connection, anna, "later", now=NOW + 10**12)
        assert later.uidvalidity == (NOW + 10**12) // 10**6


# before, from, to, after
RENAMES = [
    (("a",), "a", "b", {"b"}),
    (("a/b", "a/b/c", "ab"), "a", "x", {"x", "x/b", "x/b/c", "ab"}),
    (("a/b",), "a/b", "c/d/e", {"a", "c", "c/d", "c/d/e"}),
    (("a/b/b",), "a/b", "z", {"a", "z", "z/b"}),
    (("p/a/a/a",), "p/a", "q", {"p", "q", "q/a", "q/a/a"}),
]


@pytest.mark.parametrize(("before", "old", "new", "after"), RENAMES, ids=range(len(RENAMES)))
def test_rename_takes_the_inferiors_along(
    engine: Engine, before: tuple[str, ...], old: str, new: str, after: set[str]
) -> None:
    with engine.write() as connection:
        anna = make(connection, *before)
        was = mailboxes.get(connection, anna, old)
        put(connection, anna, old, 2)
        assert mailboxes.rename(connection, anna, old, new).finished
        assert names(connection, anna) == after
        now_is = mailboxes.get(connection, anna, new)
        assert (now_is.mailbox_id, now_is.uidvalidity) == (was.mailbox_id, was.uidvalidity)
        assert mailboxes.status(connection, anna, now_is.mailbox_id).messages == 2


def test_a_mailbox_may_move_up_into_the_place_of_an_implied_one(engine: Engine) -> None:
    with engine.write() as connection:
        anna = make(connection, "a/b/b/c")
        mailboxes.delete(connection, anna, "a")
        mailboxes.rename(connection, anna, "a/b", "a")
        assert names(connection, anna) == {"a", "a/b", "a/b/c"}


# from, to, error, code
REFUSED_RENAMES = [
    ("nowhere", "b", NotFound, "NONEXISTENT"),
    ("a", "c", Conflict, "ALREADYEXISTS"),
    ("a", "a", Conflict, "ALREADYEXISTS"),
    ("a", "d", Conflict, "ALREADYEXISTS"),
    ("a", "a/b/c", Refusal, "CANNOT"),
    ("a", "b//c", Refusal, "CANNOT"),
    ("a", "inbox", Conflict, "ALREADYEXISTS"),
    ("INBOX", "c", Conflict, "ALREADYEXISTS"),
    ("a", "/".join("x" * 32), Refusal, "CANNOT"),
]


@pytest.mark.parametrize(("old", "new", "error", "code"), REFUSED_RENAMES)
def test_a_rename_that_cannot_be_changes_nothing(
    engine: Engine, old: str, new: str, error: type[MailError], code: str
) -> None:
    with engine.write() as connection:
        anna = make(connection, "a/b", "c", "d/b")
        mailboxes.delete(connection, anna, "d")  # d is implied by d/b now
        before = mailboxes.list(connection, anna)
    with pytest.raises(error) as caught, engine.write() as connection:
        mailboxes.rename(connection, anna, old, new)
    assert caught.value.imap_code == code
    with engine.read() as connection:
        assert mailboxes.list(connection, anna) == before


@pytest.mark.mission("DAP-233")
def test_renaming_inbox_moves_its_messages_and_keeps_it(database: Inline) -> None:
    with database.engine.write() as connection:
        anna = make(connection, "INBOX/sub")
        put(connection, anna, count=3, flags=1)
        inbox = mailboxes.get(connection, anna, "INBOX")
    now(rename_mailbox(database, anna, "inbox", "Old/mail"))
    with database.engine.read() as connection:
        assert names(connection, anna) == {"INBOX/sub", "Old", "Old/mail"}
        assert mailboxes.get(connection, anna, "INBOX") == inbox
        left = mailboxes.status(connection, anna, inbox.mailbox_id)
        moved = mailboxes.get(connection, anna, "Old/mail")
        got = mailboxes.status(connection, anna, moved.mailbox_id)
        assert (left.messages, left.uidnext, got.messages, got.unseen) == (0, 4, 3, 0)


def test_a_large_inbox_is_renamed_in_steps(
    database: Inline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailboxes, "STEP", 10)
    with database.engine.write() as connection:
        anna = account(connection)
        put(connection, anna, count=25)
        renaming = mailboxes.rename(connection, anna, "INBOX", "Old")
        assert not renaming.finished
    steps: list[bool] = []
    while not steps or not steps[-1]:
        with database.engine.write() as connection:
            steps.append(mailboxes.rename_step(connection, anna, renaming.name, 10))
    assert steps == [False, True]
    with database.engine.read() as connection:
        old = mailboxes.get(connection, anna, "Old")
        assert mailboxes.status(connection, anna, old.mailbox_id).messages == 25


@pytest.mark.mission("DAP-233")
def test_inbox_cannot_be_deleted(engine: Engine) -> None:
    with engine.write() as connection:
        anna = account(connection)
        with pytest.raises(Refusal) as caught:
            mailboxes.delete(connection, anna, "inbox")
        assert caught.value.imap_code == "CANNOT"


def test_delete_keeps_inferiors_and_then_refuses_the_implied_name(engine: Engine) -> None:
    with engine.write() as connection:
        anna = make(connection, "a/b")
        put(connection, anna, "a", 3)
        assert mailboxes.delete(connection, anna, "a").finished
        assert names(connection, anna) == {"a/b"}
        with pytest.raises(Refusal) as caught:
            mailboxes.delete(connection, anna, "a")
        assert caught.value.imap_code == "HASCHILDREN"
        mailboxes.delete(connection, anna, "a/b")
        with pytest.raises(NotFound):
            mailboxes.delete(connection, anna, "a")
        assert connection.exec_driver_sql("SELECT messages FROM account_state").scalar() == 0


def test_a_large_mailbox_is_gone_at_once_and_emptied_in_steps(
    database: Inline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailboxes, "STEP", 10)
    with database.engine.write() as connection:
        anna = make(connection, "big")
        big = mailboxes.get(connection, anna, "big").mailbox_id
        put(connection, anna, "big", 25)
        for uid in (1, 2, 3):
            store_flags(connection, anna, big, [uid], "+", 8)
            expunge(connection, anna, big)
        deletion = mailboxes.delete(connection, anna, "big")
        assert not deletion.finished
        assert mailboxes.find(connection, anna, "big") is None
        assert mailboxes.find(connection, anna, f"\x01{big}") is None
        assert names(connection, anna) == set()
        assert big not in mailboxes.statuses(connection, anna)
        for refused in (
            lambda: mailboxes.status(connection, anna, big),
            lambda: mailboxes.delete(connection, anna, f"\x01{big}"),
            lambda: put(connection, anna, f"\x01{big}", received_as=None),
        ):
            with pytest.raises((NotFound, AssertionError)):
                refused()
        assert mailboxes.deleted(connection) == [(anna, big)]
        again = mailboxes.create(connection, anna, "big")
        assert again.mailbox_id != big
    now(resume(database))
    with database.engine.write() as connection:
        assert mailboxes.deleted(connection) == []
        assert mailboxes.remove_step(connection, anna, big)
        assert connection.exec_driver_sql("SELECT count(*) FROM message").scalar() == 0
        put(connection, anna, "big", 25)
    now(delete_mailbox(database, anna, "big"))
    with database.engine.read() as connection:
        assert mailboxes.deleted(connection) == []


def test_subscriptions_are_names_and_outlive_mailboxes(engine: Engine) -> None:
    with engine.write() as connection:
        anna = make(connection, "a")
        for name in ("a", "a", "inbox", "future/one"):
            mailboxes.subscribe(connection, anna, name)
        mailboxes.delete(connection, anna, "a")
        subscribed = set(mailboxes.subscribed(connection, anna)) - DEFAULTS
        assert subscribed == {"a", "future/one"}
        for name in ("a", "a", "InBoX", "never", "\x00"):
            mailboxes.unsubscribe(connection, anna, name)
        assert set(mailboxes.subscribed(connection, anna)) == DEFAULTS - {"INBOX"} | {"future/one"}
        with pytest.raises(Refusal):
            mailboxes.subscribe(connection, anna, "a//b")


@pytest.mark.mission("DAP-234")
def test_status_counts_without_looking_at_messages(engine: Engine) -> None:
    with engine.write() as connection:
        anna = account(connection)
        inbox = mailboxes.get(connection, anna, "INBOX")
        put(connection, anna, count=2, prefix=b"x" * 10)
        put(connection, anna, flags=1 | 8)
        state = mailboxes.status(connection, anna, inbox.mailbox_id)
        assert (state.messages, state.unseen, state.deleted, state.uidnext) == (3, 2, 1, 4)
        assert state.octets == 3 * 25 + 20
        assert state.uidvalidity == inbox.uidvalidity
        assert mailboxes.statuses(connection, anna)[inbox.mailbox_id] == state
        assert mailboxes.first_unseen(connection, anna, inbox.mailbox_id) == 1
        store_flags(connection, anna, inbox.mailbox_id, [1, 2], "+", 1)
        assert mailboxes.first_unseen(connection, anna, inbox.mailbox_id) is None
        with pytest.raises(NotFound):
            mailboxes.status(connection, anna, 99)


def test_recent_is_claimed_once(engine: Engine) -> None:
    with engine.write() as connection:
        anna = account(connection)
        put(connection, anna, count=2)
        assert mailboxes.count_recent(connection, anna, 1) == 2
        before = mailboxes.status(connection, anna, 1)
        assert mailboxes.claim_recent(connection, anna, 1) == 1
        assert mailboxes.count_recent(connection, anna, 1) == 0
        put(connection, anna)
        assert mailboxes.claim_recent(connection, anna, 1) == 3
        assert mailboxes.claim_recent(connection, anna, 1) == 4
        assert mailboxes.status(connection, anna, 1).recent_from == 4
        assert before.recent_from == 1
        with pytest.raises(NotFound):
            mailboxes.claim_recent(connection, anna, 99)


def test_changes_of_the_list_are_told_as_mailbox_0(database: Inline) -> None:
    heard: list[int] = []
    with database.engine.write() as connection:
        anna = account(connection)
    database.changes.subscribe(anna, lambda mailbox_id, modseq: heard.append(mailbox_id))
    now(database.write(lambda connection: mailboxes.create(connection, anna, "a")))
    now(database.write(lambda connection: mailboxes.rename(connection, anna, "a", "b")))
    now(database.write(lambda connection: mailboxes.subscribe(connection, anna, "b")))
    now(database.write(lambda connection: mailboxes.subscribe(connection, anna, "b")))
    now(database.write(lambda connection: mailboxes.unsubscribe(connection, anna, "b")))
    now(database.write(lambda connection: mailboxes.delete(connection, anna, "b")))
    assert heard == [0, 0, 0, 0, 0]
    now(database.write(lambda connection: put(connection, anna)))
    assert heard[5:] == [1]
