"""API keys: what each may do and no more, and test keys whose mail stays here."""

from __future__ import annotations

import re

import pytest

from tests.e2e import mails
from tests.support.rest import Rest

pytestmark = [pytest.mark.real]


def make_key(who, *scopes: str, **more) -> tuple[str, Rest]:
    """The row's id, and a client that shows the key."""
    row = who.make("api_key", {"name": "a key", "scopes": list(scopes), **more})
    (text,) = re.findall(r"mt_(?:live|test)_[\w-]{30,}", str(row))
    return row["id"], Rest(who.port, text)


def test_a_key_is_seen_once(admin, server):
    id, key = make_key(admin, "admin")
    assert key.get("/_config").status == 200
    shown = Rest(admin.port, **{"X-API-Key": key.token})
    assert shown.get("/_config").status == 200
    assert key.token not in admin.get(f"/api/api_key/{id}").text
    assert key.token not in admin.get("/api/api_key").text
    assert key.token not in server.log
    for path in server.data_dir.glob("mailtwist.db*"):
        assert key.token.encode() not in path.read_bytes()
    assert admin.remove("api_key", id).status == 200
    assert key.get("/_config").status == 401


@pytest.mark.parametrize("token", ["mt_live_", "mt_live_" + "x" * 43, "mt_test_" + "é" * 9])
def test_a_key_of_nobody(admin, token):
    rest = admin.guest
    answer = rest.get("/api/mail_server", {"token": token})
    assert answer.status == 401


def test_a_key_reads_one_mailbox(admin, server):
    alice = admin.user()
    account, address = alice.account()
    server.send(address, mails.simple("for the key"))
    boxes = alice.boxes(account)
    _, key = make_key_for(admin, alice, f"mail:read:{boxes['INBOX']}")
    assert key.get("/api/mail").column("subject") == ["for the key"]
    (mail,) = key.get("/api/mail").ids
    assert key.get("/api/mail_box").ids == [boxes["INBOX"]]
    for answer in (
        key.get(f"/api/mail_box/{boxes['Sent']}"),
        key.patch("mail", mail, {"seen": True}),
        key.remove("mail", mail),
        key.get(f"/api/mail_account/{account}"),
        key.get("/_config"),
        key.create("credential", {"name": "x", "content": "x"}),
    ):
        assert answer.status in {403, 404}, answer
    assert alice.get("/api/mail").column("seen") == [False]


def make_key_for(admin, user, *scopes: str, **more) -> tuple[str, Rest]:
    """A key of the user's, made by himself where he may, else by the administrator."""
    if user.create("api_key", {"name": "probe", "scopes": list(scopes)}).status == 201:
        return make_key(user, *scopes, **more)
    return make_key(admin, *scopes, user_account_id=user.id, **more)


def test_a_key_does_not_outgrow_its_owner(admin):
    alice = admin.user()
    _, key = make_key_for(admin, alice, "admin")
    assert key.get("/_config").status == 403
    assert key.create("mail_server", {"hostname": "grown.example"}).status == 403


@pytest.mark.parametrize(
    "scopes", [[], ["everything"], ["mail:read:x"], ["send:"], [7], "admin\x00", ["admin"] * 500]
)
def test_scopes_that_make_no_sense(admin, scopes):
    answer = admin.create("api_key", {"name": "bad", "scopes": scopes})
    assert answer.status == 400 or scopes == ["admin"] * 500
    if answer.status != 201:
        assert answer.error


def test_a_key_comes_to_its_end(admin):
    gone = {"expires_at": "2020-01-01T00:00:00Z"}
    answer = admin.create("api_key", {"name": "late", "scopes": ["admin"], **gone})
    if answer.status == 201:
        (text,) = re.findall(r"mt_live_[\w-]{30,}", answer.text)
        assert Rest(admin.port, text).get("/_config").status == 401
    else:
        assert answer.status == 400
