"""Releasing captured mail: who may, what leaves, and for whom."""

from __future__ import annotations

import pytest

from mailtwist.actions.releasing import MAX_RECIPIENTS, Releasing, read_recipients
from mailtwist.config.outgoing import Inbox
from mailtwist.errors import Conflict, ProtocolViolation, Refusal
from mailtwist.mail.address import parse_address
from mailtwist.mail.permissions import NOBODY
from mailtwist.store import content, inbox, projects
from mailtwist.store.deliver import Acceptance, Entry, deliver
from mailtwist.store.ids import now_us
from mailtwist.store.queue import listing
from tests.actions.conftest import Server
from tests.store.making import spooled
from tests.support.now import now

LETTER = b"From: Ann <ann@x.org>\r\nSubject: hello\r\n\r\nNobody got this.\r\n"
TRACE = b"Return-Path: <ann@x.org>\r\nReceived: from a by b\r\nDelivered-To: bob@far.example\r\n"
FAR = ("Bob@far.example", "eve@far.example")
CLEAR = "adminadmin"


class Shop:
    """A project of ann's, who has the account ann@x.org."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.administrator = server.administrator()
        given = {"name": "ann", "email": "ann@x.org", "password": CLEAR}
        server.create("user_account", given)
        self.ann = server.viewer(server.sign_in("ann@x.org"))
        server.create(
            "mail_account",
            {"username": "ann@x.org", "password": CLEAR, "user_account_id": self.ann.reference_id},
            self.administrator,
        )
        self.project = server.create("project", {"name": "shop"}, self.ann)
        self.releasing = Releasing(server.database, server.intake, settings=lambda: server.settings)

    def captured(self, letter=LETTER, *, sender="ann@x.org", recipients=FAR):
        """A message as the project's login has sent it."""
        database = self.server.database
        queue_id = database.ids.next()

        def work(connection):
            project = projects.find(connection, "shop")
            entry = Entry(
                project.account_id, "INBOX", prefix=TRACE, return_path=sender,
                recipient=recipients[0], inbox=tuple(recipients),
            )  # fmt: skip
            deliver(connection, [Acceptance(spooled(letter), (entry,), queue_id, now_us())])
            return inbox.find(connection, project.account_id, None, queue_id, since=0)

        return now(database.write(work))

    def key(self, *scopes, **more):
        given = {"name": "a key", "scopes": [f"project:{self.project.id}", *scopes], **more}
        row = self.server.create("api_key", given, self.ann)
        return self.server.viewer(row.attributes["key"])

    def release(self, captured, viewer=None, *to):
        recipients = [parse_address(each) for each in to]
        return now(self.releasing.release(viewer or self.ann, captured, recipients))

    def queued(self):
        return now(self.server.database.read(lambda c: listing.list(c, limit=100)))


@pytest.fixture
def shop(server):
    return Shop(server)


def test_a_released_message_leaves_as_it_was_written_for_all_it_was_for(shop):
    captured = shop.captured()
    released = shop.release(captured)
    assert [(each.address, each.state) for each in released.recipients] == [
        (address, "queued") for address in FAR
    ]
    (queued,) = shop.queued()
    assert released.queue_id == str(queued.queue_id)
    assert queued.sender == "ann@x.org"
    assert set(queued.recipients) == set(FAR)
    database = shop.server.database
    octets = now(database.read(lambda c: listing_content(c, queued.queue_id)))
    assert octets == LETTER
    again = shop.release(captured)
    assert again.queue_id != released.queue_id
    found = now(
        database.read(lambda c: inbox.find(c, captured.account_id, "bob", captured.queue_id,
                                           since=0))
    )  # fmt: skip
    assert found is not None


def listing_content(connection, queue_id):
    from mailtwist.store.queue.tables import queue_message

    row = connection.execute(
        queue_message.select().where(queue_message.c.queue_id == queue_id)
    ).one()
    assert row.prefix == b""
    return content.read(connection, row.content_id, 0, 1 << 20)


def test_it_may_go_to_others_instead(shop):
    shop.release(shop.captured(), None, "me@else.example")
    (queued,) = shop.queued()
    assert queued.recipients == ("me@else.example",)


def test_a_local_recipient_gets_it_as_mail(shop):
    released = shop.release(shop.captured(), None, "ann@x.org", "nobody@x.org")
    assert shop.queued() == ()
    assert [(each.address, each.state, each.reply[:9]) for each in released.recipients] == [
        ("ann@x.org", "delivered", ""),
        ("nobody@x.org", "refused", "550 5.1.1"),
    ]
    account = shop.server.rows("mail_account", shop.ann, text="ann@x.org")[0]
    (mail,) = (
        each
        for each in shop.server.rows("mail", shop.ann)
        if each.attributes["mail_id"] == released.queue_id
    )
    assert mail.attributes["to_address"] == "ann@x.org"
    assert account.attributes["username"] == "ann@x.org"
    with pytest.raises(Refusal, match="unknown"):
        shop.release(shop.captured(), None, "nobody@x.org")


OTHERS = [
    (LETTER.replace(b"ann@", b"ben@"), "ann@x.org"),
    (LETTER.replace(b"ann@", b"ben@"), ""),
    (LETTER, "ben@x.org"),
    (LETTER.replace(b"<ann@x.org>", b"<ann@x.org>, ben@x.org"), "ann@x.org"),
    (b"From: ben@x.org\r\n" + LETTER, "ann@x.org"),
    (LETTER.replace(b"\r\n\r\n", b"\r\nFROM : ben@far.example\r\n\r\n"), "ann@x.org"),
]


def test_who_is_named_as_sender_must_be_the_viewers(shop):
    key = shop.key("send:*")
    for letter, sender in OTHERS:
        captured = shop.captured(letter, sender=sender)
        for viewer in (shop.ann, key):
            with pytest.raises(Refusal, match="not yours"):
                shop.release(captured, viewer)
        assert shop.queued() == ()
    for n, (letter, sender) in enumerate(OTHERS):
        shop.release(shop.captured(letter, sender=sender), shop.administrator)
        assert (len(shop.queued()), shop.queued()[0].sender) == (n + 1, sender)


def test_the_login_of_a_project_is_nobodys_sender(shop):
    login = "shop@projects.invalid"
    captured = shop.captured(LETTER.replace(b"ann@x.org", login.encode()), sender=login)
    with pytest.raises(Refusal, match="is captured"):
        shop.release(captured)


def test_a_message_of_nobody_is_released_by_nobody(shop):
    captured = shop.captured(b"Subject: no author\r\n\r\nx\r\n")
    for viewer in (shop.ann, shop.administrator):
        with pytest.raises(ProtocolViolation, match="From"):
            shop.release(captured, viewer)


@pytest.mark.parametrize(
    "letter",
    [
        LETTER.replace(b"Subject", b"X: y\nFrom: ben@bank.example\r\nSubject"),
        LETTER + b"\n.\nMAIL FROM:<ben@bank.example>\r\n",
        LETTER + b"\r",
    ],
)
def test_bare_line_ends_stay_here(shop, letter):
    # A login may send them as BINARYMIME.
    captured = shop.captured(letter)
    for viewer in (shop.ann, shop.administrator):
        with pytest.raises(Conflict, match="bare CR or LF"):
            shop.release(captured, viewer)
    assert shop.queued() == ()


def test_a_key_needs_a_scope_to_send_and_must_be_live(shop):
    captured = shop.captured()
    for viewer in (
        NOBODY,
        shop.key(),
        shop.key("send:far.example"),
        shop.key("send:*", is_test=True),
        shop.key("admin", is_test=True),
    ):
        with pytest.raises(Refusal):
            shop.release(captured, viewer)
    assert shop.queued() == ()
    shop.release(captured, shop.key("send:x.org"))
    assert len(shop.queued()) == 1


def test_nothing_leaves_a_server_in_dev_mode(database):
    shop = Shop(Server(database, dev_mode=True))
    captured = shop.captured()
    for viewer in (shop.ann, shop.administrator):
        with pytest.raises(Conflict, match="dev_mode"):
            shop.release(captured, viewer)


def test_words_beyond_ascii_ask_for_smtputf8(shop):
    shop.release(shop.captured(LETTER.replace(b"hello", "héllo".encode())))
    shop.release(shop.captured(), None, "jö@far.example")
    shop.release(shop.captured(LETTER.replace(b"Nobody", "Nobödy".encode())))
    database = shop.server.database

    def utf8(connection):
        from mailtwist.store.queue.tables import queue_message

        query = queue_message.select().order_by(queue_message.c.queue_id)
        return [bool(row.smtputf8) for row in connection.execute(query)]

    assert now(database.read(utf8)) == [True, True, False]


def test_a_large_message_is_released_whole(shop):
    large = LETTER + b"A line of the text.\r\n" * 150_000
    captured = shop.captured(large[: 1 << 20])
    shop.release(captured)
    assert shop.queued()[0].octets == 1 << 20


# -- what a client gives --------------------------------------------------------------------


@pytest.mark.parametrize(
    "given, expected",
    [
        ({}, []),
        ({"to": None}, []),
        ({"to": "a@b.example"}, ["a@b.example"]),
        ({"to": [" a@b.example ", "A@B.example", "c@d.example"]}, ["A@b.example", "c@d.example"]),
    ],
)
def test_recipients_are_read(given, expected):
    assert [str(each) for each in read_recipients(given)] == expected


@pytest.mark.parametrize(
    "given",
    [[], "a@b.example", 7, {"to": []}, {"to": 7}, {"to": {}}, {"to": [7]}, {"to": [["a@b"]]},
     {"to": ""}, {"to": "nobody"}, {"to": "a@"}, {"to": "@b.example"}, {"to": "postmaster"},
     {"to": "a@b.example\r\nRCPT TO:<c@d.example>"}, {"To": "a@b.example"},
     {"to": ["a@b.example"] * (MAX_RECIPIENTS + 1)}, {"to": "a@b.example, c@d.example"}],
)  # fmt: skip
def test_recipients_that_make_no_sense(given):
    with pytest.raises(ProtocolViolation):
        read_recipients(given)


def test_mail_for_an_inbox_is_not_captured_once_more(database):
    server = Server(database, inbox=Inbox(domain="inbox.example"))
    shop = Shop(server)
    captured = shop.captured(recipients=("bob@inbox.example",))
    with pytest.raises(Conflict, match="captured again"):
        shop.release(captured)
