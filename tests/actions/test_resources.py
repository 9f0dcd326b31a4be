from __future__ import annotations

import json
from base64 import b64decode, b64encode

import pytest

from mailtwist.errors import NotFound, ProtocolViolation, Refusal
from mailtwist.mail.permissions import NOBODY, SYSTEM
from mailtwist.policy import passwords
from mailtwist.policy.auth import Authenticator
from mailtwist.policy.identities import Unauthorized
from mailtwist.store.entities.model import ListRequest, MethodNotAllowed, Ref
from mailtwist.store.sql import Statement
from mailtwist.tls import issuing, pem
from tests.support.now import now

CLEAR = "open sesame"
KEY = pem.key_pem(issuing.make_key(issuing.ECDSA))
LETTER = b"From: a@x.org\r\nSubject: hi\r\n\r\nhello\r\n"


def dump(engine, table):
    with engine.read() as connection:
        return repr(Statement(f"SELECT * FROM {table}")(connection).all())


def account(server, username="u@x.org", viewer=SYSTEM, **more):
    return server.create("mail_account", {"username": username, "password": CLEAR, **more}, viewer)


def login(server, username="u@x.org", password=CLEAR):
    checks = Authenticator(server.database, clock=server.clock, cost=4)
    return now(checks.login(username, password, peer="192.0.2.1", service="smtp"))


# -- secrets ----------------------------------------------------------------------------------


@pytest.mark.mission("DAP-061", "DAP-062")
def test_a_password_becomes_verifiers_and_never_leaves(server, engine):
    made = account(server)
    for item in (made, server.get(made), *server.rows("mail_account")):
        assert item.attributes["password"] == ""
        text = json.dumps(dict(item.attributes))
        assert CLEAR not in text
        assert "$2" not in text
    rows = dump(engine, "account_secret")
    assert CLEAR not in rows
    assert "$2b$04$" in rows
    assert "SCRAM-SHA-256" in rows
    assert login(server).username == "u@x.org"


@pytest.mark.mission("DAP-060", "DAP-064")
def test_password_md5_is_taken_and_kept_nowhere(server, engine):
    made = account(server, password_md5="md5 in clear")
    server.update(made, {"password_md5": "another in clear"})
    for table in ("account", "account_secret"):
        assert "in clear" not in dump(engine, table)
    assert login(server)


@pytest.mark.mission("DAP-063")
def test_a_changed_password_counts_at_once(server):
    made = account(server)
    server.update(made, {"password": "a new one"})
    assert login(server, password="a new one")
    with pytest.raises(Refusal):
        login(server)


def test_a_user_has_no_keys_that_nobody_asks_for(server, engine):
    server.sign_up("a@x.org")
    rows = dump(engine, "user_secret")
    assert "$2b$04$" in rows
    assert "SCRAM" not in rows


@pytest.mark.mission("DAP-062", "DAP-202", "DAP-203")
@pytest.mark.parametrize(
    "entity, attributes, column",
    [
        ("credential", {"name": "ses", "content": CLEAR}, "content"),
        ("certificate", {"hostname": "h.x.org", "private_key_pem": KEY}, "private_key_pem"),
    ],
)
def test_a_secret_is_sealed_and_never_leaves(server, engine, entity, attributes, column):
    clear = attributes[column]
    line = max(clear.splitlines(), key=len)
    made = server.create(entity, attributes)
    for item in (made, server.get(made), *server.rows(entity)):
        assert column not in item.attributes
        assert line not in json.dumps(dict(item.attributes))
    assert line not in dump(engine, entity)
    with engine.read() as connection:
        sealed = Statement(f"SELECT {column} FROM {entity}")(connection).scalar()
    assert server.secrets.open(sealed, f"{entity}.{column}") == clear
    server.update(made, {column: ""})
    with engine.read() as connection:
        assert Statement(f"SELECT {column} FROM {entity}")(connection).scalar() == sealed


@pytest.mark.parametrize(
    "value", [7, True, ["x"], {"a": "b"}, "p" * 1025, "é" * 600, "p" * 100_000]
)
def test_a_password_that_is_none_is_refused_by_name(server, value):
    with pytest.raises(ProtocolViolation, match="password") as refused:
        account(server, password=value)
    assert refused.value.http_status == 400
    assert server.rows("mail_account") == ()


@pytest.mark.parametrize("value", [None, ""])
def test_an_account_needs_a_password(server, value):
    with pytest.raises(ProtocolViolation, match="password"):
        account(server, password=value)


def test_who_may_not_write_costs_no_derivation(server, monkeypatch):
    admin = server.administrator()
    made = account(server, viewer=admin)

    def derive(*_, **__):
        raise AssertionError("a derivation for somebody who may not")

    monkeypatch.setattr(passwords, "make_verifiers", derive)
    with pytest.raises(Refusal):
        account(server, "v@x.org", viewer=NOBODY)
    with pytest.raises((Refusal, NotFound)):
        server.update(made, {"password": "mine now"}, NOBODY)


# -- API keys -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "is_test, prefix", [(False, "mt_live_"), ("true", "mt_test_"), (0, "mt_live_")]
)
def test_a_key_is_shown_once_and_works(server, engine, is_test, prefix):
    owner = server.user("a@x.org")
    made = server.create("api_key", {"name": "k", "scopes": "admin", "is_test": is_test}, owner)
    text = made.attributes["key"]
    assert text.startswith(prefix)
    assert made.attributes["scopes"] == ["admin"]
    assert text.startswith(made.attributes["prefix"])
    for item in (server.get(made, owner), *server.rows("api_key", owner)):
        assert "key" not in item.attributes
        assert "hash" not in item.attributes
    assert text not in dump(engine, "api_key")
    viewer = server.viewer(text)
    assert (viewer.user_id, viewer.is_test) == (owner.user_id, prefix == "mt_test_")


def test_a_withdrawn_key_is_refused_at_once(server):
    owner = server.user("a@x.org")
    made = server.create("api_key", {"scopes": ["admin"]}, owner)
    text = made.attributes["key"]
    assert server.viewer(text)
    now(server.resources.delete(owner, "api_key", made.id))
    with pytest.raises(Unauthorized):
        server.viewer(text)


def test_scopes_change_at_once_and_a_test_key_stays_one(server):
    owner = server.user("a@x.org")
    made = server.create("api_key", {"scopes": ["admin"], "is_test": True}, owner)
    viewer = server.viewer(made.attributes["key"])
    changed = {"scopes": ["send:x.org"], "is_test": False, "prefix": "mt_live_", "hash": "h"}
    server.update(made, changed, owner)
    viewer = server.viewer(made.attributes["key"])
    assert [(scope.kind, scope.target) for scope in viewer.scopes] == [("send", "x.org")]
    assert viewer.is_test


@pytest.mark.parametrize(
    "scopes",
    [None, "", [], "everything", ["admin", 7], {"a": 1}, 7, "[", "[1]", "[" * 10_000, ["x"] * 1000],
)
def test_a_key_for_nothing_we_know_is_refused_by_name(server, scopes):
    owner = server.user("a@x.org")
    with pytest.raises(ProtocolViolation, match="scopes"):
        server.create("api_key", {"scopes": scopes}, owner)
    assert server.rows("api_key", owner) == ()


def test_nobody_gives_himself_the_key_of_another(server):
    server.user("b@x.org")
    admin = server.administrator()
    other = server.viewer(server.sign_in("b@x.org"))
    them = Ref("user_account", admin.reference_id)
    with pytest.raises(Refusal):
        server.create("api_key", {"scopes": ["admin"]}, other, user_account_id=them)
    given = {"scopes": ["admin"], "user_account_id": admin.reference_id}
    with pytest.raises(Refusal):
        server.create("api_key", given, other)
    own = server.create("api_key", {"scopes": ["admin"]}, other)
    with pytest.raises(Refusal):
        server.update(own, {"user_account_id": admin.reference_id}, other)
    assert not server.viewer(own.attributes["key"]).is_admin
    with pytest.raises((Refusal, NotFound)):
        server.get(server.create("api_key", {"scopes": ["admin"]}, admin), other)


def test_a_key_to_read_one_mailbox_reads_nothing_else(server):
    owner = server.user("a@x.org")
    server.administrator("root@x.org")
    mine = account(server, "a@x.org", user_account_id=owner.reference_id)
    boxes = {box.attributes["name"]: box for box in server.rows("mail_box", size=50)}
    for name in ("INBOX", "Sent"):
        append(server, boxes[name])
    scope = f"mail:read:{boxes['INBOX'].id}"
    key = server.create("api_key", {"scopes": [scope]}, owner).attributes["key"]
    viewer = server.viewer(key)
    assert [box.id for box in server.rows("mail_box", viewer)] == [boxes["INBOX"].id]
    (mail,) = server.rows("mail", viewer)
    assert mail.attributes["mail_box_id"] == boxes["INBOX"].id
    assert len(server.rows("mail", owner)) == 2
    includes = ("mail_account_id", "user_account_id")
    for entity in ("mail", "mail_box"):
        for name in includes:
            try:
                page = now(server.resources.list(viewer, entity, ListRequest(includes=(name,))))
            except (Refusal, ProtocolViolation):
                continue
            assert page.included == ()
    for act in (
        lambda: server.get(boxes["Sent"], viewer),
        lambda: server.update(mail, {"seen": True}, viewer),
        lambda: append(server, boxes["INBOX"], viewer),
        lambda: server.rows("mail_account", viewer),
        lambda: server.get(mine, viewer),
        lambda: server.rows("api_key", viewer),
        lambda: server.create("api_key", {"scopes": ["admin"]}, viewer),
        lambda: server.act("mail_box", "status", viewer=viewer),
    ):
        with pytest.raises((Refusal, NotFound)):
            act()


# -- mail ---------------------------------------------------------------------------------------


def append(server, box, viewer=SYSTEM, text=None):
    given = {"mail": b64encode(LETTER).decode() if text is None else text}
    return server.create("mail", given, viewer, mail_box_id=Ref("mail_box", box.id))


def inbox(server):
    return next(
        box for box in server.rows("mail_box", size=50) if box.attributes["name"] == "INBOX"
    )


def test_a_whole_message_becomes_a_mail(server):
    account(server)
    made = append(server, inbox(server))
    assert (made.attributes["subject"], made.attributes["uid"]) == ("hi", 1)
    page = now(server.resources.get(SYSTEM, "mail", made.id, columns=frozenset({"mail"})))
    assert b64decode(page.items[0].attributes["mail"]) == LETTER


@pytest.mark.parametrize("text", ["", "not base64!", "====", 7, None])
def test_what_is_no_message_is_refused_by_name(server, text):
    account(server)
    with pytest.raises(ProtocolViolation, match="mail"):
        server.create("mail", {"mail": text}, SYSTEM, mail_box_id=Ref("mail_box", inbox(server).id))


def test_who_may_not_append_spools_nothing(server, engine):
    server.administrator()
    account(server)
    large = b64encode(LETTER + b"x" * 2_000_000).decode()
    with pytest.raises(Refusal):
        append(server, inbox(server), NOBODY, large)
    assert dump(engine, "content_chunk") == "[]"


@pytest.mark.mission("DAP-074")
def test_a_removed_account_is_gone_with_all_it_held(server):
    made = account(server)
    append(server, inbox(server))
    now(server.resources.delete(SYSTEM, "mail_account", made.id))
    for entity in ("mail_account", "mail_box", "mail"):
        assert server.rows(entity) == ()
    with pytest.raises(Refusal):
        login(server)


# -- mail servers -------------------------------------------------------------------------------


@pytest.mark.mission("DAP-124")
def test_a_mail_server_shows_the_key_of_its_domain(server):
    made = server.create("mail_server", {"hostname": "mx.x.org"})
    shown = made.attributes
    assert shown["dkim_selector"] == "d1"
    assert len(b64decode(shown["dkim_public_key"], validate=True)) > 250
    assert "d1._domainkey.x.org" in shown["dkim_dns_record"]
    assert f"v=DKIM1; k=rsa; p={shown['dkim_public_key'][:100]}" in shown["dkim_dns_record"]
    again = server.get(made).attributes
    assert again["dkim_public_key"] == shown["dkim_public_key"]


def test_a_relation_can_be_added_to_and_replaced(server):
    admin = server.administrator()
    group = server.create("usergroup", {"name": "friends"}, admin)
    row = server.create("mail_server", {"hostname": "mx.x.org"}, admin)
    refs = (Ref("usergroup", group.id),)

    def groups():
        return server.get(row).relations["usergroup_id"]

    resources = server.resources
    now(resources.relate(admin, "mail_server", row.id, "usergroup_id", refs))
    assert groups() == refs
    now(resources.unrelate(admin, "mail_server", row.id, "usergroup_id", refs))
    assert groups() == ()
    now(resources.replace(admin, "mail_server", row.id, "usergroup_id", refs))
    assert groups() == refs
    with pytest.raises(Refusal):
        now(resources.relate(NOBODY, "mail_server", row.id, "usergroup_id", refs))


def test_what_is_unknown_or_cannot_be_done_says_so(server):
    for act in (
        lambda: server.rows("nope"),
        lambda: server.create("nope"),
        lambda: now(server.resources.get(SYSTEM, "mail_server", "nope")),
        lambda: now(server.resources.delete(SYSTEM, "nope", "x")),
    ):
        with pytest.raises(NotFound):
            act()
    with pytest.raises(MethodNotAllowed):
        server.create("world", {"table_name": "x"})
