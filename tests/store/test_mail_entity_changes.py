"""Accounts, mailboxes, mails and outgoing mail changed through their rows."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection

from mailtwist.errors import Conflict, NotFound, OverQuota, ProtocolViolation, Refusal
from mailtwist.mail.permissions import SYSTEM
from mailtwist.store import accounts, changes, keywords, mailboxes, messages, snapshot
from mailtwist.store.accounts import Verifier
from mailtwist.store.database import Inline
from mailtwist.store.engine import Engine
from mailtwist.store.entities import appending, mail_writing
from mailtwist.store.entities import engine as rest
from mailtwist.store.entities.mails import ENTITY
from mailtwist.store.entities.model import (
    AccessDenied,
    Change,
    Facts,
    Item,
    MethodNotAllowed,
    Prepared,
    Reading,
)
from mailtwist.store.queue import control, listing
from mailtwist.store.queue.destinations import find as find_destination
from mailtwist.store.queue.outcomes import record
from mailtwist.store.removal import remove_step
from tests.store.mail_rows import (
    LETTER,
    Holder,
    arrive,
    encoded,
    holder,
    query,
    spooled,
    uids,
)
from tests.store.making import NOW
from tests.store.people import PASSWORD, change, locked, make, remove, rows, seeded, user
from tests.store.queued import claim, conclude, deferred, delivered, enqueue, outcome, queued
from tests.support.now import now

MINUTE = 60_000_000


@pytest.fixture
def store(engine: Engine) -> Any:
    with engine.write() as connection:
        locked(connection)
        yield connection


@pytest.fixture
def anna(store: Connection) -> Holder:
    return holder(store, user(store, "anna@home.test"), "anna@example.com")


@pytest.fixture
def bob(store: Connection) -> Holder:
    return holder(store, user(store, "bob@home.test"), "bob@example.com")


def _mail(store: Connection, anna: Holder) -> Item:
    (mail,) = rows(store, anna.who, "mail")
    return mail


# -- mails ----------------------------------------------------------------------------------


@pytest.mark.mission("DAP-018")
def test_sessions_hear_that_a_row_was_marked(store: Connection, anna: Holder) -> None:
    arrive(store, anna.account_id)
    before = snapshot.current(store, anna.account_id, 1)
    changes.forget(store)
    seen = change(store, anna.who, _mail(store, anna), {"seen": True})
    assert seen.attributes["seen"] is True
    after = snapshot.current(store, anna.account_id, 1, before)
    assert snapshot.changes_between(before, after).changed == [(1, 1)]
    assert (anna.account_id, 1) in changes.pending(store).modseqs
    assert mailboxes.status(store, anna.account_id, 1).unseen == 0
    assert rest.get_row(store, anna.who, "mail", seen.id).attributes["seen"] is True


MARKS: list[tuple[dict[str, Any], str]] = [
    ({"seen": "yes"}, "\\Seen,\\Flagged,todo"),
    ({"deleted": 1, "seen": False}, "\\Flagged,\\Deleted,todo"),
    ({"flags": "\\Seen"}, "\\Seen"),
    ({"flags": ""}, ""),
    ({"flags": None}, ""),
    ({"flags": "\\seen \\Recent,$Label1", "seen": False}, "$Label1"),
    ({"flags": "a b", "seen": True, "spam": True}, "\\Seen,a,b,$Junk"),
    ({"spam": True}, "\\Flagged,todo,$Junk"),
    ({"spam": False}, "\\Flagged,todo"),
    ({}, "\\Flagged,todo"),
]


@pytest.mark.mission("DAP-018")
def test_marks(store: Connection, anna: Holder) -> None:
    for given, wanted in MARKS:
        arrive(store, anna.account_id, flags=4, keywords=("todo",))
        mail = _mail(store, anna)
        found = change(store, anna.who, mail, given).attributes["flags"]
        assert sorted(found.split(",")) == sorted(wanted.split(",")), given
        remove(store, anna.who, mail)


def test_spam_is_any_of_its_keywords(store: Connection, anna: Holder) -> None:
    arrive(store, anna.account_id, keywords=("JUNK",))
    mail = _mail(store, anna)
    assert mail.attributes["spam"] is True
    assert change(store, anna.who, mail, {"spam": False}).attributes["flags"] == ""


@pytest.mark.parametrize(
    "given",
    [{"flags": "\\Never"}, {"flags": "a(b"}, {"seen": "perhaps"}, {"flags": 7}, {"color": "red"}],
)
def test_bad_marks_are_named_and_change_nothing(
    store: Connection, anna: Holder, given: dict[str, Any]
) -> None:
    arrive(store, anna.account_id)
    mail = _mail(store, anna)
    (name,) = given
    with pytest.raises(ProtocolViolation, match=name):
        change(store, anna.who, mail, given)
    assert _mail(store, anna) == mail


def test_no_more_keywords_than_fit(store: Connection, anna: Holder) -> None:
    arrive(store, anna.account_id)
    keywords.add(store, anna.account_id, [f"k{n}" for n in range(keywords.CAPACITY)])
    with pytest.raises(Conflict, match="flags"):
        change(store, anna.who, _mail(store, anna), {"flags": "another"})


@pytest.mark.mission("DAP-048")
def test_the_whole_row_may_be_sent_back(store: Connection, anna: Holder) -> None:
    arrive(store, anna.account_id, flags=1)
    mail = _mail(store, anna)
    again = change(store, anna.who, mail, {**mail.attributes, "meta": {}})
    assert again == mail
    box = rest.get_row(store, anna.who, "mail_box", anna.box())
    assert change(store, anna.who, box, dict(box.attributes)) == box
    shown = {name: anna.account.attributes[name] for name in ("username", "password", "permission")}
    again = change(store, SYSTEM, anna.account, dict(anna.account.attributes))
    assert {name: again.attributes[name] for name in shown} == shown


def test_a_mail_is_moved_by_its_relation(store: Connection, anna: Holder, bob: Holder) -> None:
    arrive(store, anna.account_id)
    mail = _mail(store, anna)
    moved = change(store, anna.who, mail, {"seen": True}, mail_box_id=anna.box(4))
    assert moved.id == mail.id
    assert moved.attributes["mail_box_id"] == anna.box(4)
    assert uids(store, anna.who) == [(4, 1)]
    assert mailboxes.status(store, anna.account_id, 1).messages == 0
    with pytest.raises(AccessDenied):
        change(store, anna.who, moved, {}, mail_box_id=bob.box())
    with pytest.raises(Conflict, match="mail_box_id"):
        change(store, SYSTEM, moved, {}, mail_box_id=bob.box())
    with pytest.raises(Conflict, match="user_account_id"):
        change(store, SYSTEM, moved, {}, user_account_id=bob.who.reference_id)
    with pytest.raises(Conflict, match="permission"):
        change(store, SYSTEM, moved, {"permission": 1})


@pytest.mark.mission("DAP-018")
def test_a_mail_is_deleted(store: Connection, anna: Holder, bob: Holder) -> None:
    for _ in range(3):
        arrive(store, anna.account_id, flags=8)
    mail = rest.get_row(store, anna.who, "mail", anna.mail(2))
    with pytest.raises(AccessDenied):
        remove(store, bob.who, mail)
    before = snapshot.current(store, anna.account_id, 1)
    remove(store, anna.who, mail)
    after = snapshot.current(store, anna.account_id, 1)
    assert snapshot.changes_between(before, after).expunged_uids == [2]
    with pytest.raises(NotFound):
        remove(store, anna.who, mail)


def test_what_another_session_moved_is_still_the_same_mail(store: Connection, anna: Holder) -> None:
    """The row was read before the lock; where the mail is counts from then on."""
    arrive(store, anna.account_id)
    mail = _mail(store, anna)
    (row,) = ENTITY.source.rows(Reading(store, anna.who, ENTITY), [mail.id]).values()
    messages.move(store, anna.account_id, 1, [1], "Trash", now=NOW)
    mail_writing.change(Change(store, anna.who, ENTITY, NOW, values={"seen": 1}, row=row))
    assert _mail(store, anna).attributes["seen"] is True
    mail_writing.remove(Change(store, anna.who, ENTITY, NOW, row=row))
    assert rows(store, anna.who, "mail") == ()


def test_a_mail_is_appended(store: Connection, anna: Holder) -> None:
    given = {
        "mail": Prepared(spooled(LETTER)), "seen": True, "flags": "todo",
        "internal_date": "2020-02-03T04:05:06Z",
    }  # fmt: skip
    made = make(store, SYSTEM, "mail", given, mail_box_id=anna.box(2))
    assert made.attributes["user_account_id"] == anna.who.reference_id
    assert made.attributes["flags"] == "\\Seen,todo"
    assert made.attributes["internal_date"] == "2020-02-03T04:05:06Z"
    assert made.attributes["subject"] == "Café"
    assert uids(store, anna.who) == [(2, 1)]
    with pytest.raises(ProtocolViolation, match="mail"):
        make(store, SYSTEM, "mail", {}, mail_box_id=anna.box())
    with pytest.raises(ProtocolViolation, match="mail"):
        make(store, SYSTEM, "mail", {"mail": encoded(LETTER)}, mail_box_id=anna.box())
    with pytest.raises(ProtocolViolation, match="mail_box_id"):
        make(store, SYSTEM, "mail", given)
    accounts.set_quota(store, anna.account_id, messages=1)
    with pytest.raises(OverQuota):
        make(store, SYSTEM, "mail", given, mail_box_id=anna.box())


@pytest.mark.parametrize("size", [0, 3 << 20])
def test_a_message_in_base64_is_spooled(database: Inline, size: int) -> None:
    data = LETTER + b"x" * 70 + b"\r\n" * (size // 2)
    spool = now(appending.spool(database, encoded(data)))
    assert spool.octets == len(data)
    assert spool.structure.subject == "Café"

    def work(connection: Connection) -> str:
        seeded(connection)
        anna = holder(connection, user(connection, "a@home.test"), "anna@example.com")
        given = {"mail": Prepared(spool)}
        made = make(connection, SYSTEM, "mail", given, mail_box_id=anna.box())
        page = rest.find_row(connection, anna.who, "mail", made.id, includes=["mail"])
        return str(page.items[0].attributes["mail"])

    assert now(database.write(work)) == encoded(data)


@pytest.mark.parametrize("text", ["", "\n", "x", "äöü", "QUJD*", "QUI", "QUJD=QUJD"])
def test_what_is_no_base64_is_no_message(database: Inline, text: str) -> None:
    with pytest.raises(ProtocolViolation, match="mail"):
        now(appending.spool(database, text))


def test_line_ends_become_those_of_mail(database: Inline) -> None:
    spool = now(appending.spool(database, encoded(b"Subject: x\n\nhello\n")))
    assert spool.data == b"Subject: x\r\n\r\nhello\r\n"


# -- mailboxes ------------------------------------------------------------------------------


@pytest.mark.mission("DAP-066", "DAP-067")
def test_a_mailbox_is_made(store: Connection, anna: Holder) -> None:
    plain = make(store, SYSTEM, "mail_box", {"name": "plain"}, mail_account_id=anna.account.id)
    assert plain.attributes["subscribed"] is True
    assert plain.attributes["nextuid"] == 1
    assert plain.attributes["uidvalidity"] > 1
    assert plain.attributes["permanent_flags"].endswith("\\*")
    assert plain.attributes["user_account_id"] == anna.who.reference_id
    given = {
        "name": "Work/Ä", "subscribed": False, "uidvalidity": 1, "nextuid": 1,
        "attributes": "\\HasNoChildren", "flags": "\\Seen \\Draft", "permanent_flags": "\\Seen \\*",
        "mail_account_id": anna.account.id,
    }  # fmt: skip
    made = make(store, SYSTEM, "mail_box", given)
    wanted = {"name", "subscribed", "attributes", "flags", "permanent_flags", "mail_account_id"}
    assert {name: made.attributes[name] for name in wanted} == {n: given[n] for n in wanted}
    assert made.attributes["uidvalidity"] != 1
    assert [box.name for box in mailboxes.list(store, anna.account_id)][-3:] == [
        "Work", "Work/Ä", "plain",
    ]  # fmt: skip
    with pytest.raises(Conflict, match="name"):
        make(store, SYSTEM, "mail_box", given)


def test_a_default_mailbox_is_answered_with_the_one_there(store: Connection, anna: Holder) -> None:
    before = mailboxes.status(store, anna.account_id, 1)
    given = {
        "name": "inbox", "subscribed": False, "uidvalidity": 1, "nextuid": 7,
        "flags": "\\Seen \\Answered",
    }  # fmt: skip
    made = make(store, SYSTEM, "mail_box", given, mail_account_id=anna.account.id)
    assert made.id == anna.box()
    assert made.attributes["name"] == "INBOX"
    assert made.attributes["flags"] == "\\Seen \\Answered"
    assert made.attributes["subscribed"] is False
    after = mailboxes.status(store, anna.account_id, 1)
    assert (after.uidvalidity, after.uidnext) == (before.uidvalidity, before.uidnext)


def test_attributes_give_a_special_use_once(store: Connection, anna: Holder) -> None:
    (trash,) = (box for box in mailboxes.list(store, anna.account_id) if box.name == "Trash")
    mailboxes.delete(store, anna.account_id, "Trash", now=NOW)
    for name in ("Bin", "Bin2"):
        given = {"name": name, "attributes": "\\HasNoChildren \\trash"}
        make(store, SYSTEM, "mail_box", given, mail_account_id=anna.account.id)
    uses = {box.name: box.special_use for box in mailboxes.list(store, anna.account_id)}
    assert (uses["Bin"], uses["Bin2"]) == (trash.special_use, "")


@pytest.mark.mission("DAP-053")
@pytest.mark.parametrize("name", [None, "", "a//b", "x" * 1001, "a\tb", "\x00", 7, "/", "a" * 256])
def test_bad_names_of_mailboxes(store: Connection, anna: Holder, name: Any) -> None:
    with pytest.raises(ProtocolViolation, match="name"):
        make(store, SYSTEM, "mail_box", {"name": name}, mail_account_id=anna.account.id)
    with pytest.raises(ProtocolViolation, match="mail_account_id"):
        make(store, SYSTEM, "mail_box", {"name": "x"})


def test_a_mailbox_is_changed(store: Connection, anna: Holder, bob: Holder) -> None:
    box = rest.get_row(store, anna.who, "mail_box", anna.box(2))
    given = {"name": "Old/Sent", "subscribed": False, "attributes": "\\Marked"}
    made = change(store, anna.who, box, given)
    assert made.id == box.id
    assert {name: made.attributes[name] for name in given} == given
    names = [each.name for each in mailboxes.list(store, anna.account_id)]
    assert "Old" in names
    assert "Old/Sent" in names
    assert "Sent" not in names
    shared = change(store, anna.who, made, {"permission": 16256 | 3 << 14 | 3})
    assert shared.attributes["permission"] == 16256 | 3 << 14, "nothing for guests"
    for who, bad, error, word in (
        (anna.who, {"name": "Trash"}, Conflict, "exists"),
        (anna.who, {"name": "a//b"}, ProtocolViolation, "name"),
        (SYSTEM, {"mail_account_id": bob.account.id}, Conflict, "mail_account_id"),
        (SYSTEM, {"user_account_id": bob.who.reference_id}, Conflict, "user_account_id"),
    ):
        with pytest.raises(error, match=word):
            change(store, who, made, dict(bad))
    with pytest.raises(AccessDenied):
        change(store, bob.who, made, {"subscribed": True})
    inbox = rest.get_row(store, anna.who, "mail_box", anna.box())
    with pytest.raises(Conflict, match="INBOX"):
        change(store, anna.who, inbox, {"name": "other"})


def test_a_mailbox_is_deleted_with_its_mails(store: Connection, anna: Holder) -> None:
    for _ in range(3):
        arrive(store, anna.account_id, "Trash")
    box = rest.get_row(store, anna.who, "mail_box", anna.box(4))
    remove(store, anna.who, box)
    assert rows(store, anna.who, "mail") == ()
    with pytest.raises(NotFound):
        rest.get_row(store, anna.who, "mail_box", box.id)
    with pytest.raises(Refusal):
        remove(store, anna.who, rest.get_row(store, anna.who, "mail_box", anna.box()))


# -- accounts -------------------------------------------------------------------------------


@pytest.mark.mission("DAP-051", "DAP-060", "DAP-061", "DAP-062")
def test_an_account_is_made(store: Connection, anna: Holder) -> None:
    server = make(store, SYSTEM, "mail_server", {"hostname": "mx.example.com"})
    given = {
        "username": "New@Example.com", "password": PASSWORD, "password_md5": "clear text",
        "mail_server_id": server.id, "user_account_id": anna.who.reference_id, "permission": 0,
    }  # fmt: skip
    made = make(store, SYSTEM, "mail_account", given)
    shown = made.attributes
    assert shown["username"] == "new@example.com"
    assert shown["password"] == ""
    assert not shown.get("password_md5")
    assert shown["mail_server_id"] == server.id
    assert shown["user_account_id"] == anna.who.reference_id
    assert shown["permission"] == 16256
    found = accounts.find(store, "new@example.com")
    assert found is not None
    assert [each.verifier for each in accounts.secrets(store, found.account_id)] == ["$2b$a", "b"]
    assert len(mailboxes.list(store, found.account_id)) == 6
    dump = "".join(map(str, store.exec_driver_sql("SELECT * FROM account").all()))
    assert "clear text" not in dump


@pytest.mark.mission("DAP-065")
def test_user_names_are_unique_in_any_case(store: Connection, anna: Holder) -> None:
    with pytest.raises(Conflict):
        make(store, SYSTEM, "mail_account", {"username": "ANNA@example.com", "password": PASSWORD})
    accounts.add_alias(store, "alias@example.com", ["anna@example.com"], now=NOW)
    with pytest.raises(Conflict):
        make(store, SYSTEM, "mail_account", {"username": "alias@example.com", "password": PASSWORD})


def test_a_name_without_domain_is_in_the_first(engine: Engine) -> None:
    with engine.write() as connection:
        seeded(connection)
        given = {"username": "short", "password": PASSWORD}
        with pytest.raises(ProtocolViolation, match="username"):
            make(connection, SYSTEM, "mail_account", given)
        facts = Facts(local_domains=("first.test", "second.test"))
        made = rest.create_row(connection, SYSTEM, "mail_account", given, {}, now=NOW, facts=facts)
        assert made.attributes["username"] == "short@first.test"
        other = make(connection, SYSTEM, "mail_account", {**given, "username": "other"})
        assert other.attributes["username"] == "other@first.test"


@pytest.mark.parametrize(
    "username", ["", None, 7, "@x.test", "a@", "a b@x.test", "a@x@y", "x" * 255]
)
def test_bad_user_names(store: Connection, username: Any) -> None:
    with pytest.raises(ProtocolViolation, match="username"):
        make(store, SYSTEM, "mail_account", {"username": username, "password": PASSWORD})
    assert accounts.count(store) == 0


def test_an_account_is_renamed(store: Connection, anna: Holder) -> None:
    arrive(store, anna.account_id)
    before = accounts.get(store, anna.account_id)
    made = change(store, SYSTEM, anna.account, {"username": "Bell@other.test"})
    assert made.id == anna.account.id
    assert made.attributes["username"] == "bell@other.test"
    assert accounts.find(store, "anna@example.com") is None
    found = accounts.find(store, "bell@other.test")
    assert found is not None
    assert (found.account_id, found.messages) == (anna.account_id, 1)
    assert found.auth_version > before.auth_version
    assert accounts.addresses(store, anna.account_id) == {"bell@other.test"}
    holder(store, anna.who, "anna@example.com")
    with pytest.raises(Conflict):
        change(store, SYSTEM, made, {"username": "anna@example.com"})


@pytest.mark.mission("DAP-063", "DAP-064")
def test_a_password_is_replaced(store: Connection, anna: Holder) -> None:
    before = accounts.get(store, anna.account_id)
    fresh = Prepared((Verifier("bcrypt", "$2b$fresh"),))
    assert change(store, SYSTEM, anna.account, {"password": fresh}).attributes["password"] == ""
    assert accounts.secrets(store, anna.account_id) == [Verifier("bcrypt", "$2b$fresh")]
    assert accounts.get(store, anna.account_id).auth_version == before.auth_version + 1
    change(store, SYSTEM, anna.account, {"password_md5": "clear", "password": ""})
    assert accounts.secrets(store, anna.account_id) == [Verifier("bcrypt", "$2b$fresh")]


def test_only_an_administrator_gives_accounts_away(
    store: Connection, anna: Holder, bob: Holder
) -> None:
    arrive(store, anna.account_id)
    with pytest.raises(AccessDenied):
        change(store, anna.who, anna.account, {}, user_account_id=bob.who.reference_id)
    given = change(store, SYSTEM, anna.account, {}, user_account_id=bob.who.reference_id)
    assert given.attributes["user_account_id"] == bob.who.reference_id
    assert rows(store, anna.who, "mail") == ()
    assert len(rows(store, bob.who, "mail")) == 1


@pytest.mark.mission("DAP-074")
def test_an_account_is_removed_at_once_and_whole(store: Connection, anna: Holder) -> None:
    for _ in range(3):
        arrive(store, anna.account_id)
    changes.forget(store)
    remove(store, SYSTEM, anna.account)
    assert {"account", "address"} <= changes.pending(store).kinds
    assert accounts.find(store, "anna@example.com") is None
    assert accounts.secrets(store, anna.account_id) == []
    for entity in ("mail", "mail_box", "mail_account"):
        assert rows(store, SYSTEM, entity) == (), entity
    for entity, reference in (("mail", anna.mail(1)), ("mail_box", anna.box())):
        with pytest.raises(NotFound):
            rest.get_row(store, SYSTEM, entity, reference)
    while not remove_step(store, anna.account_id):
        pass
    holder(store, anna.who, "anna@example.com")


# -- the outbox -----------------------------------------------------------------------------


def test_an_administrator_says_when_to_try_again(store: Connection, anna: Holder) -> None:
    enqueue(store, queued("a@x.test", account_id=anna.account_id))
    conclude(store, deferred(NOW + 60 * MINUTE))
    (row,) = rows(store, SYSTEM, "outbox")
    later = change(store, SYSTEM, row, {"next_retry_at": "2027-01-15T09:30:00Z"})
    assert later.attributes["next_retry_at"] == "2027-01-15T09:30:00Z"
    sooner = change(store, SYSTEM, row, {"next_retry_at": NOW / 1_000_000})
    assert sooner.attributes["next_retry_at"] == "2027-01-15T08:00:00Z"
    destination = find_destination(store, "x.test")
    assert destination is not None
    assert destination.suspended_until == 0
    assert [message.recipients[0].address for message in claim(store, now=NOW + 1)] == ["a@x.test"]
    (row,) = rows(store, SYSTEM, "outbox")
    with pytest.raises(Conflict, match="next_retry_at"):
        change(store, SYSTEM, row, {"next_retry_at": "2027-01-15T09:30:00Z"})
    with pytest.raises(AccessDenied):
        change(store, anna.who, row, {"next_retry_at": "2027-01-15T09:30:00Z"})
    with pytest.raises(MethodNotAllowed):
        make(store, SYSTEM, "outbox", {})


def test_a_recipient_is_taken_out_of_the_queue(store: Connection, anna: Holder) -> None:
    (queue_id,) = enqueue(store, queued("a@x.test", "b@x.test", account_id=anna.account_id))
    first, second = rows(store, SYSTEM, "outbox")
    with pytest.raises(AccessDenied):
        remove(store, anna.who, first)
    remove(store, SYSTEM, first)
    (left,) = listing.list(store)
    assert left.recipient_count == 1
    (message,) = claim(store)
    with pytest.raises(Conflict):
        remove(store, SYSTEM, second)
    assert record(store, [outcome(message, deferred())]) == [True]
    control.hold(store, queue_id)
    remove(store, SYSTEM, second)
    assert listing.list(store) == ()
    with pytest.raises(NotFound):
        remove(store, SYSTEM, second)


def test_a_message_whose_others_are_delivered_is_finished(store: Connection) -> None:
    enqueue(store, queued("a@x.test", "b@y.test"))
    messages = {each.recipients[0].address: each for each in claim(store)}
    record(store, [outcome(messages["a@x.test"], delivered())])
    record(store, [outcome(messages["b@y.test"], deferred())])
    (waiting,) = rows(store, SYSTEM, "outbox", filter=query(("sent", "is false", None)))
    remove(store, SYSTEM, waiting)
    (finished,) = listing.list(store, state=listing.DELIVERED)
    assert finished.finished_at == NOW
