"""``/emails`` as it is read: lists, one message, its octets, and who may."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from mailtwist.config.outgoing import Inbox
from mailtwist.errors import StoreUnavailable
from mailtwist.http.exchange import json_answer
from mailtwist.http.inbox import documents
from mailtwist.http.inbox.content import STUCK_S
from mailtwist.mail.permissions import PROJECT, Scope, Viewer
from mailtwist.net.redis import RedisAway
from mailtwist.policy.identities import Unauthorized
from mailtwist.policy.rates import Event
from mailtwist.store import inbox, projects
from mailtwist.store.database import Inline
from mailtwist.store.engine import open_engine
from tests.http.asking import read
from tests.http.inboxes import KEY, NOW_S, PREFIX, Desk
from tests.support.now import now
from tests.support.stores import SqliteStores, violations

HELLO = "From: Ann <ann@example.net>\nSubject: Hello\n\nhello\n"
RICH = """From: =?utf-8?q?J=C3=B6rg?= <joerg@example.net>
Reply-To: help@example.net
Subject: =?UTF-8?B?WW91ciBjb2RlIPCfjok=?=
Message-ID: <m1@example.net>
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="outer"

--outer
Content-Type: multipart/alternative; boundary="inner"

--inner
Content-Type: text/plain; charset=iso-8859-2
Content-Transfer-Encoding: quoted-printable

Za=BF=F3=B3=E6, your code is 482913: https://example.net/verify?t=3D1.
--inner
Content-Type: text/html; charset=utf-8

<p>Your code is <b>482913</b></p><a href="https://example.net/verify?t=1">x</a>
<a href="https://example.net/help">help</a>
--inner--
--outer
Content-Type: application/pdf; name="a b.pdf"
Content-Transfer-Encoding: base64
Content-Disposition: attachment; filename="a b.pdf"

JVBERi0xLjQK
--outer
Content-Type: text/html; name="evil.html"
Content-Disposition: attachment; filename*=utf-8''%C3%A4%22.html

<script>alert(1)</script>
--outer--
"""
EIGHT = [
    "id", "from", "to", "subject", "body_text", "body_html", "attachments", "received_at",
]  # fmt: skip


@pytest.fixture(scope="module")
def shared(sqlite_stores: SqliteStores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """One for the tables of requests that change nothing."""
    engine = open_engine(sqlite_stores.fresh(tmp_path_factory.mktemp("inboxes")))
    database = Inline(engine)
    yield Desk(database)
    assert violations(engine) == []
    database.release()


@pytest.fixture(scope="module")
def named(shared: Desk) -> Desk:
    for subject, address in {
        "bob": "Bob@inbox.example",
        "tag": "bob+Tag@inbox.example",
        "slash": "a/b@inbox.example",
        "utf8": "Jörg@inbox.example",
    }.items():
        shared.capture(f"Subject: {subject}\n\n", address)
    return shared


@pytest.fixture(scope="module")
def searched(shared: Desk) -> tuple[Desk, dict[str, str]]:
    names = {
        shared.capture(RICH, "found@inbox.example"): "code",
        shared.capture(HELLO, "found@inbox.example"): "plain",
        shared.capture("To: the-list@example.net\n\n", "found@inbox.example"): "list",
    }
    shared.capture(RICH, "other@inbox.example")
    return shared, names


# -- lists ------------------------------------------------------------------------------------


def test_an_inbox_that_nobody_wrote_to_is_an_empty_list(desk):
    answer = desk.get("/emails/bob")
    assert (answer.status, answer.body) == (200, b"[]")


def test_a_message_is_listed_with_exactly_eight_members(desk):
    number = desk.capture(RICH, "Bob@Inbox.Example")
    (item,) = desk.json("/emails/bob")
    assert list(item) == EIGHT
    assert item == {
        "id": number,
        "from": "ann@example.net",
        "to": "Bob@Inbox.Example",
        "subject": "Your code 🎉",
        "body_text": "Zażółć, your code is 482913: https://example.net/verify?t=1.",
        "body_html": '<p>Your code is <b>482913</b></p><a href="https://example.net/verify?t=1">'
        'x</a>\n<a href="https://example.net/help">help</a>',
        "attachments": ["a b.pdf", 'ä".html'],
        "received_at": NOW_S,
    }


def test_a_bounce_comes_from_nobody(desk):
    desk.capture(HELLO, "bob@inbox.example", sender="")
    assert desk.json("/emails/bob")[0]["from"] == ""


def test_each_address_of_one_message_sees_itself(desk):
    desk.capture(HELLO, "a@inbox.example", "b@inbox.example")
    assert [desk.json(f"/emails/{name}")[0]["to"] for name in "ab"] == [
        "a@inbox.example",
        "b@inbox.example",
    ]
    assert len(desk.json("/emails")) == 1


def test_the_newest_fifty_come_first_and_the_rest_behind_them(desk):
    numbers = [desk.capture(f"Subject: {n}\n\n", "bob@inbox.example") for n in range(55)]
    answer = desk.get("/emails/bob")
    assert [each["id"] for each in answer.json] == numbers[:4:-1]
    last = answer.json[-1]["id"]
    assert answer.headers["link"] == f'</emails/bob?before={last}>; rel="next"'
    rest = desk.get("/emails/bob", before=last)
    assert [each["id"] for each in rest.json] == numbers[4::-1]
    assert "link" not in rest.headers
    assert len(desk.json("/emails/bob", limit=7)) == 7
    assert len(desk.json("/emails/bob", limit=1000)) == 50


def test_what_is_too_old_is_not_told_of_before_it_is_swept(desk):
    desk.capture(HELLO, "bob@inbox.example")
    desk.passed_s = 86_399
    young = desk.capture(HELLO, "bob@inbox.example")
    assert len(desk.json("/emails/bob")) == 2
    desk.passed_s = 86_401
    assert [each["id"] for each in desk.json("/emails/bob")] == [young]


NAMES = [
    ("/emails/bob", ["bob"]),
    ("/emails/BOB", ["bob"]),
    ("/emails/bob@inbox.example", ["bob"]),
    ("/emails/bob%40INBOX.example", ["bob"]),
    ("/emails/bob@other.example", []),
    ("/emails/bob%2Btag", ["tag"]),
    ("/emails/bob+tag", ["tag"]),
    ("/emails/a%2Fb", ["slash"]),
    ("/emails/j%C3%B6rg", ["utf8"]),
    ("/emails/J%C3%96RG", ["utf8"]),
    ("/emails/..", []),
    ("/emails/%2e%2e", []),
    ("/emails/%25", []),
    ("/emails/bo", []),
    ("/emails/" + "x" * 64, []),
]


@pytest.mark.mission("ADG-33")
@pytest.mark.mission("ADG-15")
@pytest.mark.parametrize(("path", "subjects"), NAMES)
def test_a_name_is_one_name_however_it_is_spelled(named, path, subjects):
    assert [each["subject"] for each in named.json(path)] == subjects


def test_of_long_texts_a_list_has_as_many_as_fit(desk, monkeypatch):
    monkeypatch.setattr(documents, "MAX_ANSWER", 5000)
    text = "Subject: x\n\n" + "x" * 2000
    numbers = [desk.capture(text, "bob@inbox.example") for _ in range(5)]
    seen = []
    path = "/emails/bob"
    while path:
        answer = desk.get(path)
        assert answer.json
        seen += [each["id"] for each in answer.json]
        path = answer.headers.get("link", "").partition(">")[0][1:]
    assert seen == numbers[::-1]


QUERIES = [
    ("from:jörg", ["code"]),
    ("to:list", ["list"]),
    ('subject:"code"', ["code"]),
    ("body:zażółć", ["code"]),
    ("has:attachment", ["code"]),
    ("-has:attachment", ["list", "plain"]),
    ("hello OR zażółć", ["plain", "code"]),
    ("larger:500", ["code"]),
    ("smaller:500 -list", ["plain"]),
    ("before:2027-01-01", []),
    ("after:2027-01-01", ["list", "plain", "code"]),
    ("", ["list", "plain", "code"]),
]


@pytest.mark.parametrize(("query", "subjects"), QUERIES)
def test_a_search_finds_what_a_reader_sees(searched, query, subjects):
    desk, names = searched
    assert [names[each["id"]] for each in desk.json("/emails/found", query=query)] == subjects


def test_a_search_over_all_inboxes_goes_on_where_it_stopped(desk):
    numbers = [desk.capture(HELLO, f"u{n}@inbox.example") for n in range(6)]
    desk.capture("Subject: other\n\n", "u9@inbox.example")
    first = desk.get("/emails", query="subject:hello", limit=4)
    assert [each["id"] for each in first.json] == numbers[:1:-1]
    link = first.headers["link"]
    assert link.startswith("</emails?query=subject%3Ahello&limit=4&before=")
    rest = desk.json(link.partition(">")[0][1:])
    assert [each["id"] for each in rest] == numbers[1::-1]


# -- one message ------------------------------------------------------------------------------


def test_a_single_message_has_what_is_worth_copying_out_of_it(desk):
    number = desk.capture(RICH, "bob@inbox.example")
    single = desk.json(f"/emails/bob/{number}")
    (item,) = desk.json("/emails/bob")
    assert {name: single[name] for name in EIGHT} == item
    assert single["codes"] == ["482913"]
    assert single["links"] == ["https://example.net/verify?t=1", "https://example.net/help"]
    assert single["message_id"] == "<m1@example.net>"
    assert single["reply_to"] == "help@example.net"
    assert single["size"] == len(PREFIX + RICH.replace("\n", "\r\n").encode())
    assert single["headers"][:4] == [
        ["Received", "by us"],
        ["From", "Jörg <joerg@example.net>"],
        ["Reply-To", "help@example.net"],
        ["Subject", "Your code 🎉"],
    ]
    assert single["attachment_details"] == [
        {"filename": "a b.pdf", "content_type": "application/pdf", "size": 9,
         "url": f"/emails/bob/{number}/attachments/1"},
        {"filename": 'ä".html', "content_type": "text/html", "size": 25,
         "url": f"/emails/bob/{number}/attachments/2"},
    ]  # fmt: skip


def test_codes_and_links_of_a_message_without_text_are_those_of_its_html(desk):
    html = "Content-Type: text/html\n\n<td>1</td><td>2</td><td>3</td><td>4</td><p>is your code</p>"
    number = desk.capture(html + "https://example.net/x", "bob@inbox.example")
    single = desk.json(f"/emails/bob/{number}")
    assert (single["codes"], single["links"]) == (["1234"], ["https://example.net/x"])


def test_the_raw_message_is_what_was_stored(desk):
    number = desk.capture(HELLO, "bob@inbox.example")
    answer = desk.get(f"/emails/bob/{number}/raw")
    assert answer.body == PREFIX + HELLO.replace("\n", "\r\n").encode()
    assert answer.headers["content-type"] == "message/rfc822"
    assert int(answer.headers["content-length"]) == len(answer.body)


@pytest.mark.parametrize("name", ["2", "%C3%A4%22.html"])
def test_an_attachment_is_saved_and_never_shown(desk, name):
    number = desk.capture(RICH, "bob@inbox.example")
    answer = desk.get(f"/emails/bob/{number}/attachments/{name}")
    assert answer.body == b"<script>alert(1)</script>"
    assert answer.headers["content-type"] == "text/html"
    assert answer.headers["content-disposition"] == (
        "attachment; filename=\"__.html\"; filename*=UTF-8''%C3%A4%22.html"
    )
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("sandbox;")


@pytest.mark.parametrize(
    ("name", "saved"),
    [("../../etc/passwd", ".._.._etc_passwd"), ("c\\\\d", "c_d"), ("a\u202egpj.exe", "a_gpj.exe")],
)
def test_an_attachment_is_saved_under_a_name_of_its_own(desk, name, saved):
    part = f'--b\nContent-Disposition: attachment; filename="{name}"\n\nx\n'
    mail = f"Content-Type: multipart/mixed; boundary=b\n\n{part}--b--\n"
    number = desk.capture(mail, "bob@inbox.example")
    answer = desk.get(f"/emails/bob/{number}/attachments/1")
    assert answer.headers["content-disposition"] == f'attachment; filename="{saved}"'


def test_a_number_that_no_attachment_has_is_a_name(desk):
    part = '--b\nContent-Disposition: attachment; filename="{}"\n\n{}\n'
    parts = part.format("first", "x") + part.format("00012", "y")
    mail = f"Content-Type: multipart/mixed; boundary=b\n\n{parts}--b--\n"
    number = desk.capture(mail, "bob@inbox.example")
    assert desk.get(f"/emails/bob/{number}/attachments/00012").body == b"y"
    assert desk.get(f"/emails/bob/{number}/attachments/00013").status == 404


def test_a_long_attachment_comes_whole(desk):
    data = bytes(range(256)) * 16_000  # 4 MB, several reads
    header = "Content-Type: image/png; name=x.png\nContent-Transfer-Encoding: base64\n\n"
    number = desk.capture(header.encode() + base64.encodebytes(data), "bob@inbox.example")
    assert desk.get(f"/emails/bob/{number}/attachments/x.png").body == data
    assert desk.json(f"/emails/bob/{number}")["attachment_details"][0]["size"] == len(data)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("//emails/bob", 200),
        ("/%65mails/bob", 200),
        ("/emails%2Fbob", 404),
        ("/%2Femails/bob", 404),
    ],
)
def test_the_path_is_taken_apart_where_it_was_parted(desk, path, status):
    desk.capture(HELLO, "bob@inbox.example")
    desk.capture(HELLO, "carl@inbox.example")
    answer = desk.get(path)
    assert answer.status == status
    if status == 200:
        assert [each["to"] for each in answer.json] == ["bob@inbox.example"]


@pytest.mark.parametrize("path", ["", "/{id}", "/{id}/raw", "/{id}/attachments/1"])
def test_head_answers_as_get_does_without_the_body(desk, path):
    number = desk.capture(RICH, "bob@inbox.example")
    path = "/emails/bob" + path.format(id=number)
    head, get = desk.ask("HEAD", path), desk.ask("GET", path)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]


def _asked_for_raw(desk: Desk) -> Any:
    """A connection on which a message of 3 MB was asked for, and nothing more was done."""
    number = desk.capture(b"Subject: x\n\n" + b"x" * 3_000_000, "bob@inbox.example")
    head = f"GET /emails/bob/{number}/raw HTTP/1.1\r\nHost: x.example\r\nX-API-KEY: {KEY}\r\n\r\n"
    transport = desk.server.connect()
    taken = transport.write

    def write(data: bytes) -> None:
        taken(data)
        if len(data) > 100_000 and transport.producer is not None:
            transport.producer.pauseProducing()

    transport.write = write
    transport.protocol.dataReceived(head.encode())
    return transport


def test_a_message_is_sent_as_fast_as_the_client_takes_it(desk):
    transport = _asked_for_raw(desk)
    assert 1_000_000 < len(transport.value()) < 1_200_000
    for _ in range(4):
        transport.producer.resumeProducing()
    assert len(transport.value()) > 3_000_000
    assert not transport.aborted


def test_who_takes_nothing_is_cut_off(desk):
    transport = _asked_for_raw(desk)
    desk.clock.advance(STUCK_S + 1)
    assert transport.aborted
    assert len(transport.value()) < 1_200_000


def test_an_answer_that_cannot_be_ended_is_cut_off(desk, monkeypatch):
    transport = _asked_for_raw(desk)

    async def fail(work, **more):
        raise StoreUnavailable(detail="locked")

    monkeypatch.setattr(desk.database, "read", fail)
    transport.producer.resumeProducing()
    assert transport.aborted


# -- taking away ------------------------------------------------------------------------------


def test_an_inbox_is_cleared_and_the_others_are_not(desk):
    desk.capture(HELLO, "bob@inbox.example", "carl@inbox.example")
    for _ in range(3):
        desk.capture(HELLO, "bob@inbox.example")
    answer = desk.ask("DELETE", "/emails/B%6Fb")
    assert answer.status == 200
    assert answer.json == {"message": "All messages for Bob have been cleared"}
    assert desk.json("/emails/bob") == []
    assert len(desk.json("/emails/carl")) == 1


def test_clearing_ends_though_mail_comes_as_fast_as_it_goes(desk, monkeypatch):
    removed = iter([inbox.STEP, 1, 1])
    monkeypatch.setattr(inbox, "delete", lambda *_, **__: next(removed))
    assert desk.ask("DELETE", "/emails/bob").status == 200
    assert list(removed) == [1]


def test_one_message_is_deleted_once(desk):
    number = desk.capture(HELLO, "bob@inbox.example")
    other = desk.capture(HELLO, "bob@inbox.example")
    answer = desk.ask("DELETE", f"/emails/bob/{number}")
    assert (answer.status, answer.json) == (
        200,
        {"message": f"Message {number} has been deleted"},
    )
    assert desk.error("DELETE", f"/emails/bob/{number}") == (404, "No such message")
    assert [each["id"] for each in desk.json("/emails/bob")] == [other]


# -- what is refused --------------------------------------------------------------------------

REFUSED = [
    ("GET", "/emails/", 404, "Not found"),
    ("GET", "/emails/bob/1/2", 404, "Not found"),
    ("GET", "/emails/bob/1/attachments", 404, "Not found"),
    ("POST", "/emails/bob/1/release", 404, "Not found"),
    ("GET", "/emails/bob/1", 404, "No such message"),
    ("GET", "/emails/bob/one", 404, "No such message"),
    ("GET", f"/emails/bob/{2**63}", 404, "No such message"),
    ("GET", f"/emails/bob/{'9' * 400}", 404, "No such message"),
    ("GET", "/emails/bob/{id}/attachments/2", 404, "No such attachment"),
    ("GET", "/emails/bob/{id}/attachments/0", 404, "No such attachment"),
    ("GET", "/emails/carl/{id}", 404, "No such message"),
    ("GET", "/emails/bob/wait?timeout=0&subject=nothing", 404, "No such message"),
    ("POST", "/emails/bob", 405, "Method Not Allowed"),
    ("PUT", "/emails/bob/1", 405, "Method Not Allowed"),
    ("DELETE", "/emails", 405, "Method Not Allowed"),
    ("OPTIONS", "/emails/bob", 405, "Method Not Allowed"),
    ("GET", "/emails/%00", 400, "The name of an inbox has no control characters"),
    ("GET", "/emails/a%0D%0Ab", 404, "Not found"),
    ("GET", "/emails/a%C2%85", 400, "The name of an inbox has no control characters"),
    ("GET", "/emails/%FF", 400, "The path is not UTF-8"),
    ("GET", "/emails/" + "x" * 65, 400, "The name of an inbox has at most 64 octets"),
    ("GET", "/emails/" + "x" * 300, 400, "The name of the inbox is too long"),
    ("GET", "/emails/@inbox.example", 400, "The name of an inbox begins with its local part"),
    ("GET", "/emails/bob?limit=0", 400, "limit: a number from 1 to 50 is expected"),
    ("GET", "/emails/bob?limit=-1", 400, "limit: a number from 1 to 50 is expected"),
    ("GET", "/emails/bob?before=x", 400, "before: the id of a message is expected"),
    ("GET", "/emails/bob?query=foo:x", 400, 'query: unknown key foo; write "foo:" in quotes to '
     "search for it as text"),
    ("GET", "/emails/bob/wait?timeout=301", 400, "timeout: seconds from 0 to 300 are expected"),
    ("GET", "/emails/bob/wait?timeout=x", 400, "timeout: seconds from 0 to 300 are expected"),
    ("GET", "/emails/bob/wait?after=x", 400, "after: the id of a message, or seconds since 1970, "
     "are expected"),
    ("GET", "/emails/bob/wait?subject=" + "x" * 1001, 400, "subject: at most 1000 characters are "
     "taken"),
]  # fmt: skip


@pytest.mark.mission("ADG-26")
@pytest.mark.parametrize(("method", "path", "status", "reason"), REFUSED)
def test_what_makes_no_sense_is_refused_in_the_shape_of_the_family(
    named, method, path, status, reason
):
    number = named.json("/emails/bob")[0]["id"]
    assert named.error(method, path.replace("{id}", number)) == (status, reason)


def test_a_wrong_method_is_told_the_right_ones(desk):
    assert desk.ask("PUT", "/emails/bob").headers["allow"] == "GET, DELETE, HEAD"


# -- Redis ------------------------------------------------------------------------------------


class Redis:
    """What is kept there, and what happens to it."""

    def __init__(self) -> None:
        self.is_up = True
        self.values: dict[str, bytes] = {}
        self.lasts: dict[str, int] = {}
        self.asked = 0
        self.fails = False

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        self.asked += 1
        if self.fails:
            raise RedisAway()
        return [self.values.get(key) for key in keys]

    async def set_many(self, items: Sequence[tuple[str, bytes, int]]) -> None:
        if self.fails:
            raise RedisAway()
        for key, value, lasts in items:
            self.values[key], self.lasts[key] = value, lasts


@pytest.mark.mission("ADG-24")
def test_what_one_node_decoded_another_one_finds(database):
    redis = Redis()
    one, other = Desk(database, redis=redis), Desk(database, redis=redis)
    one.capture(RICH, "bob@inbox.example", "carl@inbox.example")
    listed = one.json("/emails/bob")
    ((key, value),) = redis.values.items()
    assert redis.lasts[key] == 86_400_000
    changed = value[4:].replace(b"Your code is", b"My code is")
    redis.values[key] = zlib.crc32(changed).to_bytes(4, "big") + changed
    assert "My code is" in other.json("/emails/bob")[0]["body_html"]
    assert other.json("/emails/carl")[0]["to"] == "carl@inbox.example"
    assert redis.asked == 2
    # Who decoded it himself asks nobody.
    assert one.json("/emails/bob") == listed
    assert redis.asked == 2
    one.ask("DELETE", "/emails/bob")
    assert other.json("/emails/bob") == []


def test_a_list_begins_with_its_first_message_whatever_redis_has(database, monkeypatch):
    monkeypatch.setattr(documents, "MAX_ANSWER", 3000)
    redis = Redis()
    desk = Desk(database, redis=redis)
    numbers = [desk.capture("Subject: x\n\n" + "x" * 2000, "bob@inbox.example") for _ in range(3)]
    for before in (numbers[1], numbers[2]):
        desk.json("/emails/bob", before=before)
    found = Desk(database, redis=redis).json("/emails/bob")
    assert [each["id"] for each in found] == numbers[:1:-1]


def test_redis_gets_no_text_that_would_hold_up_others(database):
    redis = Redis()
    desk = Desk(database, redis=redis)
    desk.capture(
        "Subject: long\n\n" + "\x01" * 60_000, "bob@inbox.example"
    )  # 6 octets each in JSON
    desk.capture(HELLO, "bob@inbox.example")
    assert len(desk.json("/emails/bob")) == 2
    assert len(redis.values) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda redis: redis.values.update(dict.fromkeys(redis.values, b"")),
        lambda redis: redis.values.update(dict.fromkeys(redis.values, b"nonsense, long enough")),
        lambda redis: redis.values.update({k: v[:-1] for k, v in redis.values.items()}),
        lambda redis: redis.values.clear(),
        lambda redis: setattr(redis, "fails", True),
        lambda redis: setattr(redis, "is_up", False),
    ],
)
def test_whatever_happens_to_redis_the_answer_is_the_same(database, damage):
    redis = Redis()
    desk = Desk(database, redis=redis)
    for n in range(3):
        desk.capture(f"Subject: {n}\n\n", "bob@inbox.example")
    listed = desk.json("/emails/bob")
    damage(redis)
    assert Desk(database, redis=redis).json("/emails/bob") == listed


# -- who may ----------------------------------------------------------------------------------


@pytest.mark.mission("ADG-31")
@pytest.mark.mission("ADG-07")
def test_several_keys_open_the_inbox_and_no_other_does(desk):
    assert desk.ask("GET", "/emails/bob", key="another").status == 200
    for wrong in ("", "wrong", KEY[:-1], KEY + "x", "ANOTHER", "another,", "\xff"):
        assert desk.error("GET", "/emails/bob", key=wrong) == (401, "invalid API key")
    assert desk.error("GET", "/emails/bob/1/2/3", key="wrong") == (401, "invalid API key")


@pytest.mark.mission("ADG-08")
@pytest.mark.parametrize("keys", [(), ("",)])
def test_without_keys_no_key_opens_it(desk, keys):
    desk.settings = replace(desk.settings, inbox=Inbox(api_keys=keys))
    for key in ("", " ", KEY):
        assert desk.error("GET", "/emails/bob", key=key) == (401, "invalid API key")


def test_keys_are_those_of_the_settings_as_they_are_now(desk):
    desk.settings = replace(desk.settings, inbox=Inbox(api_keys=("new",)))
    assert desk.ask("GET", "/emails/bob", key="new").status == 200
    assert desk.ask("GET", "/emails/bob").status == 401


def test_too_many_requests_are_told_when_to_come_back(desk):
    desk.rates.limits[Event.INBOX_REQUEST] = 2
    assert [desk.get("/emails/bob").status for _ in range(3)] == [200, 200, 429]
    answer = desk.get("/emails/bob")
    assert answer.json == {"error": "rate limit exceeded"}
    assert answer.headers["retry-after"] == "42"
    assert desk.error("GET", "/emails/bob", key="wrong") == (401, "invalid API key")


def test_who_guesses_keys_is_counted_apart(desk):
    desk.rates.limits[Event.WRONG_KEY] = 2
    wrong = [desk.ask("GET", "/emails/bob", key="wrong").status for _ in range(4)]
    assert wrong == [401, 401, 429, 429]
    assert desk.get("/emails/bob").status == 200


class Identities:
    """Tokens by name."""

    def __init__(self, **viewers: Viewer) -> None:
        self.viewers = viewers

    async def viewer(self, token: str) -> Viewer:
        if token not in self.viewers:
            raise Unauthorized()
        return self.viewers[token]


@pytest.fixture
def shop(database: Inline) -> projects.Project:
    from tests.store.people import seeded, user

    def work(connection: Any) -> projects.Project:
        seeded(connection)
        owner = user(connection, "owner@example.com").user_id
        return projects.add(connection, "shop", (), owner_user_id=owner, now=1)

    return now(database.write(work))


def test_a_token_opens_the_inbox_or_the_projects_of_its_user(database, shop):
    owner = shop.owner_user_id
    scope = Scope(PROJECT, shop.reference_id)
    desk = Desk(
        database,
        identities=Identities(
            admin=Viewer(user_id=owner + 1, is_admin=True),
            owner=Viewer(user_id=owner),
            key=Viewer(user_id=owner, scopes=(scope,)),
            other=Viewer(user_id=owner + 2),
            reader=Viewer(user_id=owner + 1, is_admin=True, scopes=(Scope("send", "*"),)),
        ),
    )
    desk.capture("Subject: inbox\n\n", "bob@inbox.example")
    desk.capture("Subject: shop\n\n", "bob@example.net", account_id=shop.account_id)

    def seen(token: str, query: str = "") -> Any:
        answer = desk.ask("GET", f"/emails/bob{query}", key="", Authorization=f"Bearer {token}")
        if answer.status != 200:
            return answer.status, answer.json["error"]
        return [each["subject"] for each in answer.json]

    assert seen("admin") == ["inbox"]
    assert seen("admin", "?project=shop") == ["shop"]
    assert seen("owner") == (403, "Name a project of yours in ?project=")
    assert seen("owner", "?project=SHOP") == ["shop"]
    assert seen("key") == ["shop"]
    assert seen("key", "?project=shop") == ["shop"]
    assert seen("key", "?project=other") == (404, "No such project")
    assert seen("other", "?project=shop") == (404, "No such project")
    assert seen("reader")[0] == 403
    assert seen("nobody") == (401, "invalid API key")
    assert desk.error("GET", "/emails/bob?project=shop") == (403, "This key opens no project")


@pytest.mark.parametrize("becomes", [None, Viewer(user_id=999)])
def test_a_key_that_is_revoked_while_it_waits_sees_nothing(database, shop, becomes):
    identities = Identities(owner=Viewer(user_id=shop.owner_user_id))
    desk = Desk(database, identities=identities)
    path, header = b"/emails/bob/wait?project=shop", b"Authorization: Bearer owner"
    waiting = desk.server.ask(b"GET %b HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n" % (path, header))
    assert len(desk.inboxes.waiting) == 1
    identities.viewers = {"owner": becomes} if becomes else {}
    desk.capture("Subject: secret\n\n", "bob@example.net", account_id=shop.account_id)
    answer = read(waiting.value())
    assert answer.status == (404 if becomes else 401)
    assert "secret" not in answer.body.decode()


def test_letting_go_is_asked_of_who_is_there_for_it(database):
    asked = []

    async def release(exchange, viewer, captured):
        asked.append((viewer, captured.queue_id))
        return json_answer({"message": "gone"}, 202)

    desk = Desk(database, release=release)
    number = desk.capture(HELLO, "bob@inbox.example")
    assert desk.ask("POST", f"/emails/bob/{number}/release").status == 202
    assert asked == [(Viewer(), int(number))]
    assert desk.error("POST", "/emails/bob/1/release") == (404, "No such message")


@pytest.mark.mission("ADG-25")
def test_a_store_that_does_not_answer_is_the_servers_fault(desk, monkeypatch):
    desk.get("/emails/bob")

    async def fail(work, **more):
        raise StoreUnavailable(detail="locked")

    monkeypatch.setattr(desk.database, "read", fail)
    assert desk.error("GET", "/emails/bob") == (500, StoreUnavailable.default_text)
