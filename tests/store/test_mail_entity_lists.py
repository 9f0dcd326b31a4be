"""Lists of mails, mailboxes, accounts and outgoing mail: who sees what, in which order."""

from __future__ import annotations

import base64
import random
from typing import Any

import pytest
from sqlalchemy import Connection

from mailtwist.errors import ProtocolViolation, Refusal
from mailtwist.mail.permissions import MAIL_READ, NOBODY, SYSTEM, Scope, Viewer
from mailtwist.store import mailboxes, messages
from mailtwist.store.engine import Engine
from mailtwist.store.entities import contents, ids, mail_lists
from mailtwist.store.entities import engine as rest
from mailtwist.store.entities.ids import Kind
from mailtwist.store.entities.model import AccessDenied, Ref
from mailtwist.store.tables import message
from tests.store.mail_rows import LETTER, Holder, Statements, arrive, holder, query, uids
from tests.store.making import NOW
from tests.store.people import change, listed, locked, make, rows, user
from tests.store.queued import conclude, deferred, delivered, enqueue, failed, queued

SECOND = 1_000_000


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("key", [(1, 1), (2**63 - 1, 2**56 - 1), (0, 0), (2**62 + 5, 7)])
def test_an_id_is_read_back_by_its_own_kind_only(kind: Kind, key: tuple[int, int]) -> None:
    text = ids.pack(kind, *key)
    assert ids.unpack(kind, text) == key
    assert ids.unpack(kind, text.upper()) == key
    assert text[14] == "8"
    assert text[19] in "89ab"
    assert [other for other in Kind if ids.unpack(other, text)] == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "20000000-0000-8000-8100-00000000000", "20000000000080008100000000000001",
        "{0000000-0000-8000-8100-000000000001", "2000_000-0000-8000-8100-000000000001",
        "20000000-0000-7000-8100-000000000001", "20000000-0000-8000-c100-000000000001",
        "２0000000-0000-8000-8100-000000000001",
    ],
)  # fmt: skip
def test_what_is_no_id_is_none(text: str) -> None:
    assert [kind for kind in Kind if ids.unpack(kind, text)] == []


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


# -- who sees what --------------------------------------------------------------------------


@pytest.mark.mission("DAP-017", "DAP-024")
def test_everyone_sees_his_own(store: Connection, anna: Holder, bob: Holder) -> None:
    for number in range(3):
        arrive(store, anna.account_id, now=NOW + number)
    arrive(store, bob.account_id)
    enqueue(store, queued("x@far.test", account_id=anna.account_id), queued("y@far.test"))
    for entity, own, others, all_ in (
        ("mail", 3, 1, 4),
        ("mail_box", 6, 6, 12),
        ("mail_account", 1, 1, 2),
        ("outbox", 1, 0, 2),
    ):
        for who, total in ((anna.who, own), (bob.who, others), (SYSTEM, all_)):
            page = listed(store, who, entity, size=1000)
            assert page.total == len(page.items) == total, entity
        nobody = listed(store, NOBODY, entity)
        assert (nobody.items, nobody.total) == ((), 0)
        for item in rows(store, anna.who, entity):
            assert item.relations["user_account_id"] == Ref("user_account", anna.who.reference_id)
            with pytest.raises(AccessDenied):
                rest.get_row(store, bob.who, entity, item.id)


@pytest.mark.mission("DAP-017")
def test_a_group_sees_the_mail_of_an_account_shared_with_it(
    store: Connection, anna: Holder
) -> None:
    arrive(store, anna.account_id)
    clerk = user(store, "clerk@home.test", "users")
    group = next(
        item for item in rows(store, SYSTEM, "usergroup") if item.attributes["name"] == "users"
    )
    assert rows(store, clerk, "mail") == ()
    change(store, SYSTEM, anna.account, {}, usergroup_id=[group.id])
    assert rows(store, clerk, "mail") == (), "the permission gives nothing to groups yet"
    change(store, SYSTEM, anna.account, {"permission": 16256 | 3 << 14})
    (mail,) = rows(store, clerk, "mail")
    assert len(rows(store, clerk, "mail_box")) == 6
    rest.get_row(store, clerk, "mail", mail.id)
    with pytest.raises(AccessDenied):
        change(store, clerk, mail, {"seen": True})


def test_a_key_for_one_mailbox_sees_nothing_else(store: Connection, anna: Holder) -> None:
    arrive(store, anna.account_id)
    arrive(store, anna.account_id, "Sent")
    key = Viewer(anna.who.user_id, anna.who.reference_id, scopes=(Scope(MAIL_READ, anna.box(2)),))
    assert uids(store, key) == [(2, 1)]
    assert [item.id for item in rows(store, key, "mail_box")] == [anna.box(2)]
    with pytest.raises(AccessDenied):
        rows(store, key, "outbox")


def test_a_mailbox_that_is_being_emptied_is_gone(store: Connection, anna: Holder) -> None:
    mailboxes.create(store, anna.account_id, "big", now=NOW)
    for _ in range(3):
        arrive(store, anna.account_id, "big")
    (box,) = rows(store, anna.who, "mail_box", filter=query(("name", "is", "big")))
    (mail, *_) = rows(store, anna.who, "mail")
    store.exec_driver_sql("UPDATE mailbox SET name = '\x01' WHERE name = 'big'")
    assert listed(store, anna.who, "mail").total == 0
    assert listed(store, anna.who, "mail_box").total == 6
    for entity, row in (("mail_box", box), ("mail", mail)):
        with pytest.raises(Refusal):
            rest.get_row(store, anna.who, entity, row.id)
    store.exec_driver_sql("UPDATE mailbox SET name = 'big' WHERE name = '\x01'")


# -- in which order -------------------------------------------------------------------------


def _filled(store: Connection, anna: Holder) -> list[tuple[int, int]]:
    """Mails in several mailboxes, with clocks that disagree; their places, the newest first."""
    chance = random.Random(4)
    names = ("INBOX", "Sent", "Trash")
    for number in range(60):
        moment = NOW + number * SECOND - chance.randrange(3) * 2 * SECOND
        arrive(store, anna.account_id, names[number * number % 7 % 3], now=moment)
    query = message.select().where(message.c.account_id == anna.account_id)
    found = [(row.mailbox_id, row.uid, row.saved_at) for row in store.execute(query)]
    moments: dict[tuple[int, int], int] = {}
    for box in {box for box, _, _ in found}:
        low = 2**62
        for uid, saved_at in sorted(((u, s) for b, u, s in found if b == box), reverse=True):
            low = min(low, saved_at)
            moments[box, uid] = low
    return sorted(moments, key=lambda place: (moments[place], place), reverse=True)


@pytest.mark.mission("DAP-036")
@pytest.mark.parametrize("size", [1, 7, 25, 100])
@pytest.mark.parametrize("deep", [20_000, 0])
def test_pages_neither_miss_nor_repeat(
    store: Connection, anna: Holder, size: int, deep: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail_lists, "_DEEP", deep)
    expected = _filled(store, anna)
    found = []
    for number in range(1, 60 // size + 2):
        page = uids(store, anna.who, size=size, number=number)
        assert len(page) == len(expected[(number - 1) * size : number * size])
        found += page
    if deep:
        assert found == expected
    assert sorted(found) == sorted(expected)


def test_the_oldest_come_first_when_asked_so(store: Connection, anna: Holder) -> None:
    for number in range(20):
        arrive(store, anna.account_id, ("INBOX", "Sent")[number % 2], now=NOW + number)
    up = uids(store, anna.who, sort=(("created_at", False),))
    assert up == [(1 + number % 2, 1 + number // 2) for number in range(20)]
    assert uids(store, anna.who) == up[::-1]
    assert uids(store, anna.who, sort=(("uid", True), ("created_at", False)))[:2] == up[-2:]


@pytest.mark.parametrize("is_descending", [True, False])
@pytest.mark.parametrize("size", [1, 4, 9])
def test_pages_of_one_mailbox(
    store: Connection, anna: Holder, size: int, is_descending: bool
) -> None:
    for number in range(23):
        arrive(store, anna.account_id, now=NOW + number)
    wanted = list(range(23, 0, -1) if is_descending else range(1, 24))
    inbox = ("mail_box_id", "is", anna.box())
    for number in range(1, 26):
        page = uids(
            store, anna.who, inbox, size=size, number=number, sort=(("created_at", is_descending),)
        )
        assert [uid for _, uid in page] == wanted[(number - 1) * size : number * size]


@pytest.mark.mission("DAP-046")
@pytest.mark.parametrize("in_one", [True, False])
def test_a_cursor_tells_later_from_earlier(store: Connection, anna: Holder, in_one: bool) -> None:
    for number in range(20):
        arrive(store, anna.account_id, ("INBOX", "Sent")[number % 2], now=NOW + number)
    inbox = [("mail_box_id", "is", anna.box())] if in_one else []
    order = [item.id for item in rows(store, anna.who, "mail", filter=query(*inbox))][::-1]
    for at in (0, 3, len(order) - 1):
        request: dict[str, Any] = {"filter": query(*inbox), "size": 2}
        later = rows(store, anna.who, "mail", after=order[at], **request)
        assert [item.id for item in later] == order[at + 1 : at + 3]
        earlier = rows(store, anna.who, "mail", before=order[at], **request)
        assert [item.id for item in earlier] == order[:at][::-1][:2]
        page = listed(store, anna.who, "mail", after=order[at], **request)
        assert page.total == len(order)
    for text in ("x", anna.box(), anna.mail(999)):
        with pytest.raises(ProtocolViolation, match="page"):
            rows(store, anna.who, "mail", after=text)


def test_a_cursor_tells_nothing_of_the_mail_of_others(
    store: Connection, anna: Holder, bob: Holder
) -> None:
    for each in (anna, bob):
        arrive(store, each.account_id)
        enqueue(store, queued("x@far.test", account_id=each.account_id))
    for entity in ("mail", "mail_box", "outbox"):
        (own, *_), (others, *_) = (rows(store, each.who, entity) for each in (anna, bob))
        listed(store, anna.who, entity, after=own.id)
        for request in ({"after": others.id}, {"before": others.id}):
            with pytest.raises(ProtocolViolation, match="page"):
                rows(store, anna.who, entity, **request)


def test_the_same_list_shows_what_came_meanwhile(store: Connection, anna: Holder) -> None:
    """Statements are kept; what they give is not."""
    for count in range(1, 5):
        arrive(store, anna.account_id, now=NOW + count)
        for items in ([], [("mail_box_id", "is", anna.box())], [("subject", "is", "Café")]):
            tree = query(*items) if items else None
            page = listed(store, anna.who, "mail", filter=tree, size=3, number=1)
            assert page.total == count
            assert page.items[0].attributes["uid"] == count
        page = listed(store, anna.who, "mail", filter=query(("mail_box_id", "is", anna.box())),
                      size=1, number=count)  # fmt: skip
        assert [item.attributes["uid"] for item in page.items] == [1]


# -- filters --------------------------------------------------------------------------------

FILTERS: list[tuple[tuple[str, str, Any], list[int]]] = [
    (("subject", "is", "Café"), [1, 2, 3]),
    (("subject", "begins with", "caf%"), [1, 2, 3]),
    (("subject", "is", "other"), [4]),
    (("subject", "is not", "other"), [1, 2, 3]),
    (("subject", "in", ["other", "nothing"]), [4]),
    (("subject", "none of", ["other", "nothing"]), [1, 2, 3]),
    (("seen", "is true", None), [2]),
    (("seen", "is false", None), [1, 3, 4]),
    (("seen", "is", "yes"), [2]),
    (("seen", "is not", 1), [1, 3, 4]),
    (("deleted", "is", True), [3]),
    (("spam", "is", True), [3]),
    (("spam", "is false", None), [1, 2, 4]),
    (("recent", "is", True), [1, 2, 3, 4]),
    (("uid", "more than", "2"), [3, 4]),
    (("uid", "in", [1, 3, 9]), [1, 3]),
    (("size", "less than", 1), []),
    (("from_address", "is", "envelope@far.test"), [4]),
    (("from_address", "contains", "%ANNA@far%"), [1, 2, 3]),
    (("to_address", "is", "bob+x@example.com"), [4]),
    (("message_id", "is", "<one@far.test>"), [1, 2, 3]),
    (("mail_id", "is", "77"), [1, 2, 3, 4]),
    (("hash", "is empty", None), []),
    (("ip_addr", "is", "192.0.2.7"), [4]),
    (("is_tls", "is true", None), [4]),
    (("return_path", "is empty", None), [1, 2, 3]),
    (("internal_date", "after", NOW // SECOND + 2), [4]),
    (("created_at", "before", NOW // SECOND + 2), [1, 2]),
    (("has_attachment", "is true", None), []),
    (("permission", "is", 16256), [1, 2, 3, 4]),
    (("spam_score", "less than", 50), [1, 2, 3, 4]),
    (("mail_box_id", "is", "nonsense"), []),
    (("mail_box_id", "is not", "nonsense"), [1, 2, 3, 4]),
    (("mail_box_id", "is not empty", None), [1, 2, 3, 4]),
    (("mail_box_id", "is empty", None), []),
]


OTHER = LETTER.replace(b"=?utf-8?q?Caf=C3=A9?=", b"other").replace(b"one@", b"two@")


def _filtered(store: Connection, anna: Holder) -> None:
    arrive(store, anna.account_id, now=NOW)
    arrive(store, anna.account_id, now=NOW + SECOND, flags=1)
    arrive(store, anna.account_id, now=NOW + 2 * SECOND, flags=8, keywords=("Junk",))
    arrive(
        store, anna.account_id, now=NOW + 3 * SECOND, data=OTHER,
        return_path="envelope@far.test", recipient="bob+x@example.com",
        client_address="192.0.2.7", is_tls=True,
    )  # fmt: skip


@pytest.mark.mission("DAP-039", "DAP-040")
def test_filters(store: Connection, anna: Holder, bob: Holder) -> None:
    _filtered(store, anna)
    _filtered(store, bob)
    own_box = (("mail_box_id", "none of", [anna.box()]), list[int]())
    for item, wanted in (*FILTERS, own_box):
        for extra in ([], [("mail_box_id", "is", anna.box())]):
            for sort in ((), (("subject", False),), (("uid", True), ("created_at", True))):
                tree = query(item, *extra)
                page = listed(store, anna.who, "mail", filter=tree, sort=sort, size=1000)
                found = sorted(each.attributes["uid"] for each in page.items)
                assert found == wanted, (item, extra, sort)
                assert page.total == len(wanted), (item, extra, sort)


@pytest.mark.mission("DAP-038", "DAP-068")
def test_mailboxes_of_an_account(store: Connection, anna: Holder, bob: Holder) -> None:
    tree = query(("mail_account_id", "is", anna.account.id))
    found = rows(store, SYSTEM, "mail_box", filter=tree, sort=(("name", False),))
    names = [item.attributes["name"] for item in found]
    assert names == ["Archive", "Draft", "INBOX", "Sent", "Spam", "Trash"]
    assert {item.attributes["mail_account_id"] for item in found} == {anna.account.id}
    by_id = query(("reference_id", "in", [found[2].id, bob.box(), "x"]))
    assert [item.id for item in rows(store, anna.who, "mail_box", filter=by_id)] == [found[2].id]


@pytest.mark.mission("DAP-042")
@pytest.mark.parametrize(
    ("name", "word", "value"),
    [
        ("body", "is", "x"), ("mail", "is", "x"), ("nothing", "is", "x"),
        ("content_type", "is", "x"), ("#account", "is", 1), ("mail_box_id", "contains", "%x%"),
        ("mail_box_id", "more than", "x"), ("uid", "is", "many"), ("seen", "is", "perhaps"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_named(
    store: Connection, anna: Holder, name: str, word: str, value: Any
) -> None:
    with pytest.raises(ProtocolViolation, match=name):
        rows(store, anna.who, "mail", filter=query((name, word, value)))


def test_a_text_is_looked_for_in_subject_and_addresses(store: Connection, anna: Holder) -> None:
    _filtered(store, anna)
    for text, wanted in (("CAF", 3), ("envelope@", 1), ("anna@FAR", 3), ("%", 0), ("nobody", 0)):
        page = listed(store, anna.who, "mail", text=text)
        assert page.total == len(page.items) == wanted, text


# -- what a row shows -----------------------------------------------------------------------


@pytest.mark.mission("DAP-069")
def test_a_mail_shows_what_its_delivery_knew(store: Connection, anna: Holder) -> None:
    arrive(
        store, anna.account_id, return_path="envelope@far.test", recipient="anna+x@example.com",
        client_address="127.0.0.1", is_tls=True, keywords=("todo",), flags=4,
    )  # fmt: skip
    (mail,) = rows(store, anna.who, "mail")
    shown = mail.attributes
    wanted = {
        "subject": "Café", "from_address": "envelope@far.test",
        "to_address": "anna+x@example.com", "recipient": "anna+x@example.com",
        "message_id": "<one@far.test>", "mail_id": "77", "hash": "77", "uid": 1, "seen": False,
        "recent": True, "deleted": False, "spam": False, "is_tls": True, "ip_addr": "127.0.0.1",
        "has_attachment": False, "spam_score": 0.0, "size": len(LETTER),
        "flags": "\\Flagged,todo", "return_path": "envelope@far.test",
        "sender_address": "anna@far.test", "reply_to_address": "desk@far.test",
        "content_type": "text/plain", "internal_date": "2027-01-15T08:00:00Z",
        "mail_box_id": anna.box(), "permission": 16256, "__type": "mail",
    }  # fmt: skip
    assert {name: shown[name] for name in wanted} == wanted
    assert "mail" not in shown
    assert "body" not in shown


@pytest.mark.mission("DAP-070")
@pytest.mark.parametrize("size", [0, 70_000, 900_000])
def test_the_whole_message_is_there_when_asked_for(
    store: Connection, anna: Holder, size: int
) -> None:
    data = LETTER + b"x" * 70 * (size // 72) + b"\r\n"
    arrive(store, anna.account_id, data=data, prefix=b"Received: here\r\n")
    (mail,) = rows(store, anna.who, "mail")
    found = rest.find_row(store, anna.who, "mail", mail.id, includes=["mail"]).items[0]
    assert base64.b64decode(found.attributes["mail"]) == b"Received: here\r\n" + data
    (one,) = rows(store, anna.who, "mail", columns=frozenset({"body"}))
    assert one.attributes["body"].startswith("hello\r\nx" if size else "hello")
    assert len(one.attributes["body"]) <= contents.MAX_BODY
    assert "subject" not in one.attributes


def test_a_list_of_whole_messages_has_a_bound(
    store: Connection, anna: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        arrive(store, anna.account_id)
    monkeypatch.setattr(contents, "MAX_RAW", 2 * len(LETTER))
    wanted = {"columns": frozenset({"mail"})}
    assert len(rows(store, anna.who, "mail", size=2, **wanted)) == 2
    with pytest.raises(Refusal, match="fewer"):
        rows(store, anna.who, "mail", size=3, **wanted)
    monkeypatch.setattr(contents, "MAX_RAW", 1)
    assert len(rows(store, anna.who, "mail", size=1, **wanted)) == 1


@pytest.mark.mission("DAP-071")
def test_nextuid_follows_deliveries(store: Connection, anna: Holder) -> None:
    for _ in range(2):
        arrive(store, anna.account_id)
    inbox = rest.get_row(store, anna.who, "mail_box", anna.box()).attributes
    assert inbox["nextuid"] == 3 == mailboxes.status(store, anna.account_id, 1).uidnext
    assert inbox["uidvalidity"] == mailboxes.status(store, anna.account_id, 1).uidvalidity
    assert inbox["subscribed"] is True
    assert inbox["attributes"] == "\\HasNoChildren"
    sent = rest.get_row(store, anna.who, "mail_box", anna.box(2)).attributes
    assert sent["attributes"] == "\\HasNoChildren \\Sent"


@pytest.mark.mission("DAP-137", "DAP-140")
def test_the_outbox_shows_what_became_of_each_recipient(store: Connection, anna: Holder) -> None:
    server = make(store, SYSTEM, "mail_server", {"hostname": "mx.example.com"})
    enqueue(
        store,
        queued("a@far.test", "b@other.test", account_id=anna.account_id, hostname="mx.example.com"),
    )
    first = {"columns": None, "sort": (("to_address", False),)}
    a, _ = rows(store, anna.who, "outbox", **first)
    assert a.attributes["from_address"] == "anna@example.com"
    assert (a.attributes["to_address"], a.attributes["to_host"]) == ("a@far.test", "far.test")
    assert (a.attributes["sent"], a.attributes["retry_count"]) == (False, 0)
    assert a.attributes["mail_server_id"] == server.id
    assert a.attributes["last_error"] == ""
    assert conclude(store, deferred(NOW + 120 * SECOND)) == 2
    a, _ = rows(store, anna.who, "outbox", **first)
    assert a.attributes["retry_count"] == 1
    assert a.attributes["last_error"] == "451 4.7.1 try later"
    assert a.attributes["next_retry_at"] == "2027-01-15T08:02:00Z"
    assert conclude(store, delivered(), now=NOW + 200 * SECOND) == 2
    a, _ = rows(store, anna.who, "outbox", **first)
    assert (a.attributes["sent"], a.attributes["retry_count"]) == (True, 1)
    assert (a.attributes["last_error"], a.attributes["next_retry_at"]) == ("", None)
    for item, wanted in (
        (("sent", "is true", None), 2),
        (("sent", "is", False), 0),
        (("to_host", "is", "far.test"), 1),
        (("retry_count", "is", 1), 2),
        (("last_error", "is empty", None), 2),
        (("next_retry_at", "is empty", None), 2),
        (("mail_server_id", "is", server.id), 2),
        (("reference_id", "is", a.id), 1),
        (("reference_id", "is not", a.id), 1),
    ):
        assert listed(store, anna.who, "outbox", filter=query(item)).total == wanted, item


def test_what_failed_for_good_has_no_next_attempt(store: Connection, anna: Holder) -> None:
    enqueue(store, queued("a@far.test", account_id=anna.account_id, data=LETTER))
    conclude(store, failed())
    (row,) = rows(
        store,
        anna.who,
        "outbox",
        columns=frozenset({"last_error", "sent", "mail", "next_retry_at"}),
    )
    assert row.attributes["last_error"] == "550 5.1.1 no such user"
    assert row.attributes["sent"] is False
    assert row.attributes["next_retry_at"] is None
    assert base64.b64decode(row.attributes["mail"]) == b"Received: x\r\n" + LETTER


def test_pages_of_the_outbox(store: Connection, anna: Holder) -> None:
    enqueue(store, *(queued("a@x.test", "b@x.test", account_id=anna.account_id) for _ in range(5)))
    all_ = [item.id for item in rows(store, anna.who, "outbox")]
    assert all_ == sorted(all_, reverse=True)
    assert len(all_) == 10
    pages = [
        item.id
        for number in (1, 2, 3, 4)
        for item in rows(store, anna.who, "outbox", size=3, number=number)
    ]
    assert pages == all_
    later = rows(store, anna.who, "outbox", after=all_[4], size=2)
    assert [item.id for item in later] == [all_[3], all_[2]]


# -- what it costs --------------------------------------------------------------------------


def test_a_list_takes_the_same_statements_however_long(store: Connection, anna: Holder) -> None:
    counts: dict[str, set[int]] = {}
    for _ in range(2):
        for number in range(10):
            arrive(store, anna.account_id, ("INBOX", "Sent")[number % 2], now=NOW + number)
            enqueue(store, queued("a@x.test", account_id=anna.account_id))
        for entity, includes in (
            ("mail", ("mail_box_id",)),
            ("mail_box", ("mail_account_id",)),
            ("mail_account", ()),
            ("outbox", ()),
        ):
            for size in (1, 1000):
                with Statements(store) as seen:
                    rows(store, anna.who, entity, size=size, includes=includes)
                counts.setdefault(entity, set()).add(seen.count)
    assert all(len(each) == 1 for each in counts.values()), counts
    assert max(counts["mail"]) <= 10


def test_two_users_never_see_each_other(store: Connection, anna: Holder, bob: Holder) -> None:
    """Whatever they ask, in whatever order."""
    chance = random.Random(11)
    for holder_ in (anna, bob):
        for number in range(25):
            arrive(
                store, holder_.account_id, chance.choice(("INBOX", "Sent", "Trash")),
                now=NOW + number, flags=chance.choice((0, 1, 8)),
            )  # fmt: skip
            enqueue(store, queued("a@x.test", account_id=holder_.account_id))
    own = {
        entity: {
            item.id for item in rows(store, SYSTEM, entity) if _owner(item) == anna.who.reference_id
        }
        for entity in ("mail", "mail_box", "mail_account", "outbox")
    }
    names = {
        "mail": ["seen", "created_at", "subject", "uid", "mail_box_id", "recent"],
        "mail_box": ["name", "created_at", "mail_account_id", "nextuid"],
        "mail_account": ["username", "created_at"],
        "outbox": ["to_address", "created_at", "sent"],
    }
    conditions: dict[str, list[Any]] = {
        "mail": [("seen", "is false", None), ("mail_box_id", "in", [anna.box(), bob.box()]),
                 ("user_account_id", "is", bob.who.reference_id), ("uid", "more than", 3)],
        "mail_box": [("mail_account_id", "is", bob.account.id), ("name", "is", "INBOX")],
        "mail_account": [("username", "contains", "%bob%")],
        "outbox": [("sent", "is false", None), ("user_account_id", "is", bob.who.reference_id)],
    }  # fmt: skip
    for _ in range(150):
        entity = chance.choice(list(own))
        chosen = chance.sample(conditions[entity], chance.randrange(len(conditions[entity]) + 1))
        page = listed(
            store, anna.who, entity, filter=query(*chosen) if chosen else None,
            sort=tuple((name, chance.random() < 0.5) for name in chance.sample(names[entity], 1)),
            size=chance.choice((1, 5, 1000)), number=chance.choice((1, 2)),
        )  # fmt: skip
        assert {item.id for item in page.items} <= own[entity]
        assert page.total <= len(own[entity])


def _owner(item: Any) -> Any:
    return item.attributes["user_account_id"]


def test_moved_mail_keeps_its_id(store: Connection, anna: Holder) -> None:
    arrive(store, anna.account_id)
    (before,) = rows(store, anna.who, "mail")
    messages.move(store, anna.account_id, 1, [1], "Trash", now=NOW + 5)
    (after,) = rows(store, anna.who, "mail")
    assert after.id == before.id
    assert after.attributes["mail_box_id"] == anna.box(4)
