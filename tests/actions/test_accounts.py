from __future__ import annotations

import json
import threading

import pytest

from mailtwist.errors import Conflict, NotFound, ProtocolViolation, Refusal
from mailtwist.mail.permissions import ACTION_GUESTS, NOBODY, SYSTEM
from mailtwist.policy.identities import TooManyTries, Unauthorized
from mailtwist.store import administration, entities
from mailtwist.store.engine import open_engine
from mailtwist.store.entities.model import Ref
from mailtwist.store.sql import Statement
from tests.actions.conftest import PASSWORD
from tests.support.now import now


def action_row(server, name):
    (row,) = [
        row for row in server.rows("action", size=100) if row.attributes["action_name"] == name
    ]
    return row


@pytest.mark.mission("DAP-002")
def test_a_guest_signs_up_on_a_fresh_server(server):
    assert server.sign_up("a@x.org") == [
        {
            "ResponseType": "client.notify",
            "Attributes": {
                "message": "Sign-up successful. Redirecting to sign in",
                "title": "Success",
                "type": "success",
            },
        },
        {
            "ResponseType": "client.redirect",
            "Attributes": {"delay": 2000, "location": "/auth/signin", "window": "self"},
        },
    ]


@pytest.mark.mission("DAP-006")
def test_an_address_signs_up_once_in_whatever_case(server):
    server.sign_up("a@x.org")
    with pytest.raises(Conflict):
        server.sign_up("A@X.org")
    assert len(server.rows("user_account")) == 1


@pytest.mark.mission("DAP-003", "DAP-004", "DAP-005")
@pytest.mark.parametrize(
    "changed, word",
    [
        ({"password": "1234567", "passwordConfirm": "1234567"}, "password"),
        ({"passwordConfirm": "other password"}, "password"),
        ({"email": "bad"}, "invalid value for email"),
        ({"name": ""}, "name"),
    ],
)
def test_a_sign_up_that_is_wrong_makes_nobody(server, changed, word):
    with pytest.raises(ProtocolViolation, match=word):
        server.sign_up(**changed)
    assert server.rows("user_account") == ()


@pytest.mark.mission("DAP-007")
def test_a_sign_in_answers_what_dashboards_store(server):
    server.sign_up("a@x.org")
    answer = server.act("user_account", "signin", {"email": "a@x.org", "password": PASSWORD})
    token = answer[0]["Attributes"]["value"]
    assert token.count(".") == 2
    assert answer == [
        {"ResponseType": "client.store.set", "Attributes": {"key": "token", "value": token}},
        {
            "ResponseType": "client.cookie.set",
            "Attributes": {"key": "token", "value": f"{token}; SameSite=Strict"},
        },
        {
            "ResponseType": "client.notify",
            "Attributes": {"message": "Logged in", "title": "Success", "type": "success"},
        },
        {
            "ResponseType": "client.redirect",
            "Attributes": {"delay": 2000, "location": "/", "window": "self"},
        },
    ]


@pytest.mark.mission("DAP-009")
def test_a_wrong_password_is_401(server):
    server.sign_up("a@x.org")
    with pytest.raises(Unauthorized, match="Invalid username or password") as refused:
        server.sign_in("a@x.org", "wrong password")
    assert refused.value.http_status == 401


@pytest.mark.mission("DAP-019")
def test_too_many_bad_sign_ins_lock_the_user(server):
    server.sign_up("a@x.org")
    for n in range(5):
        with pytest.raises(Unauthorized):
            server.sign_in("a@x.org", "wrong password", peer=f"192.0.2.{n}")
    with pytest.raises(TooManyTries):
        server.sign_in("a@x.org", peer="198.51.100.1")


@pytest.mark.mission("DAP-012")
def test_a_token_dies_when_its_user_changes_his_password(server):
    viewer = server.user("a@x.org")
    token = server.sign_in("a@x.org")
    (row,) = server.rows("user_account", viewer)
    server.update(row, {"password": "another password"}, viewer)
    with pytest.raises(Unauthorized):
        server.viewer(token)
    with pytest.raises(Unauthorized):
        server.sign_in("a@x.org")
    assert server.viewer(server.sign_in("a@x.org", "another password")).email == "a@x.org"


def test_sending_the_row_back_as_it_was_read_changes_no_password(server):
    viewer = server.user("a@x.org")
    token = server.sign_in("a@x.org")
    (row,) = server.rows("user_account", viewer)
    assert row.attributes["password"] == ""
    server.update(row, {**row.attributes, "name": "B"}, viewer)
    assert server.viewer(token).email == "a@x.org"
    assert server.get(row, viewer).attributes["name"] == "B"


# -- the first administrator ------------------------------------------------------------------


@pytest.mark.mission("DAP-013", "DAP-016")
def test_somebody_becomes_administrator_once(server):
    first, second = server.user("a@x.org"), server.user("b@x.org")
    token = server.sign_in("a@x.org")
    assert server.act("world", "become_an_administrator", viewer=first) == [
        {
            "ResponseType": "client.redirect",
            "Attributes": {"delay": 7000, "location": "/", "window": "self"},
        },
        {"ResponseType": "Restart", "Attributes": None},
    ]
    assert server.viewer(token).is_admin
    for viewer in (second, server.viewer(token)):
        with pytest.raises(Refusal, match="Unauthorized"):
            server.act("world", "become_an_administrator", viewer=viewer)
    assert not server.viewer(server.sign_in("b@x.org")).is_admin


def test_a_guest_becomes_no_administrator(server):
    with pytest.raises(Refusal, match="Unauthorized"):
        server.act("world", "become_an_administrator")


@pytest.mark.mission("DAP-014")
def test_then_guests_may_sign_in_and_nothing_else(server):
    server.administrator()
    with pytest.raises(Refusal, match="forbidden"):
        server.sign_up("b@x.org")
    for entity, name in (("mail_server", "sync_mail_servers"), ("outbox", "process_outbox")):
        with pytest.raises(Refusal, match="forbidden") as refused:
            server.act(entity, name)
        assert refused.value.http_status == 403
    with pytest.raises(Refusal):
        server.create("mail_server", {"hostname": "mail.x.org"}, viewer=NOBODY)
    assert server.sign_in("admin@x.org")


@pytest.mark.mission("DAP-015")
def test_an_administrator_opens_sign_up_again(server):
    admin = server.administrator()
    row = action_row(server, "signup")
    assert row.attributes["permission"] == 2085120
    assert (
        server.update(row, {"permission": 2085152}, admin).attributes["permission"] == ACTION_GUESTS
    )
    server.sign_up("b@x.org")
    assert server.viewer(server.sign_in("b@x.org")).email == "b@x.org"


def test_the_permissions_after_the_lock_down_are_those_that_dashboards_expect(server):
    server.administrator()
    actions = {
        r.attributes["action_name"]: r.attributes["permission"]
        for r in server.rows("action", size=100)
    }
    assert (actions["signin"], actions["signup"]) == (561441, 2085120)
    assert actions["sync_mail_servers"] == 2085120
    worlds = {
        r.attributes["table_name"]: r.attributes["permission"]
        for r in server.rows("world", size=100)
    }
    assert worlds["mail_server"] == worlds["world"] == 561441


def test_what_was_there_before_belongs_to_the_first_administrator(server):
    theirs = server.user("b@x.org")
    server_row = server.create("mail_server", {"hostname": "mail.x.org"}, viewer=theirs)
    account = server.create("mail_account", {"username": "u@x.org", "password": "p" * 8})
    admin = server.administrator()
    for item in (server_row, account):
        found = server.get(item, admin)
        assert found.attributes["user_account_id"] == admin.reference_id
    (own,) = [r for r in server.rows("user_account") if r.attributes["email"] == "b@x.org"]
    assert own.attributes["user_account_id"] == theirs.reference_id


def test_what_was_shared_before_is_nobody_elses_any_more(server):
    theirs = server.user("b@x.org")
    group = server.create("usergroup", {"name": "pals"}, theirs)
    pals = [Ref("usergroup", group.id)]
    relate = server.resources.relate
    now(relate(theirs, "user_account", theirs.reference_id, "usergroup_id", pals))
    (world,) = (r for r in server.rows("world", size=100) if r.attributes["table_name"] == "world")
    given = {"action_name": "open", "action_schema": '{"InstanceOptional": true}'}
    action = server.create("action", given, theirs, world_id=Ref("world", world.id))
    for row in (world, action):
        now(relate(SYSTEM, row.entity, row.id, "usergroup_id", pals))
    admin = server.administrator()
    theirs = server.viewer(server.sign_in("b@x.org"))
    with pytest.raises(Refusal):
        server.act("world", "open", viewer=theirs)
    with pytest.raises(Refusal):
        server.update(action, {"label": "mine"}, theirs)
    assert server.act("world", "open", viewer=admin) == []
    # What the administrator himself shares from now on is.
    now(relate(admin, "action", action.id, "usergroup_id", pals))
    assert server.act("world", "open", viewer=theirs) == []


def test_a_task_of_somebody_else_does_not_get_the_rights_of_the_first_administrator(server):
    theirs, first = server.user("b@x.org"), server.user("admin@x.org")
    given = {"action_name": "do", "entity_name": "world", "schedule": "@every 1s"}
    others = [
        server.create("task", given, theirs),
        server.create("task", given),
        server.create("task", given, as_user_id=Ref("user_account", first.reference_id)),
    ]
    own = server.create("task", given, first)
    server.act("world", "become_an_administrator", viewer=first)
    for task in others:
        attributes = server.get(task).attributes
        assert not attributes["active"]
        assert "before there was an administrator" in attributes["last_error"]
        assert attributes["user_account_id"] == first.reference_id
    assert server.get(own).attributes["active"]


@pytest.mark.mission("DAP-013")
def test_of_two_who_ask_two_nodes_at_once_one_becomes_administrator(postgresql_url):
    engine = open_engine(postgresql_url)
    with engine.write() as connection:
        entities.seed(connection, 1)
    outcomes = {}

    def become(user_id, connection):
        outcomes[user_id] = administration.become_administrator(
            connection, user_id, tables={}, actions=[], now=1
        )

    def second():
        with engine.write() as connection:
            became.set()
            become(2, connection)

    became = threading.Event()
    thread = threading.Thread(target=second)
    with engine.write() as connection:
        become(1, connection)
        thread.start()
        became.wait(10)
        # It waits for the lock: with no answer, unless it overtakes us.
        thread.join(0.2)
        assert 2 not in outcomes
    thread.join(10)
    assert outcomes == {1: True, 2: False}
    with engine.read() as connection:
        assert Statement("SELECT user_id FROM user_group")(connection).all() == [(1,)]
    engine.dispose()


@pytest.mark.mission("DAP-152", "DAP-176")
@pytest.mark.parametrize(
    "entity, name",
    [("world", "mail.send"), ("world", "nope"), ("nope", "signin"), ("world", "a\0b"), ("", "")],
)
def test_an_action_that_is_unknown_says_so(server, entity, name):
    with pytest.raises(NotFound, match="no such action"):
        server.act(entity, name, viewer=SYSTEM)


@pytest.mark.mission("DAP-177")
def test_who_may_execute_is_read_from_the_row_each_time(server):
    server.user("b@x.org")
    admin = server.administrator()
    other = server.viewer(server.sign_in("b@x.org"))
    row = action_row(server, "sync_mail_servers")
    with pytest.raises(Refusal):
        server.act("mail_server", "sync_mail_servers", viewer=other)
    server.update(row, {"permission": 2085152}, admin)
    assert server.act("mail_server", "sync_mail_servers", viewer=other) == []
    server.update(row, {"permission": 0}, admin)
    with pytest.raises(Refusal):
        server.act("mail_server", "sync_mail_servers", viewer=other)
    assert server.act("mail_server", "sync_mail_servers", viewer=admin) == []
    now(server.resources.delete(admin, "action", row.id))
    with pytest.raises(NotFound):
        server.act("mail_server", "sync_mail_servers", viewer=admin)


def test_before_there_is_an_administrator_an_action_has_no_more_rights_than_its_caller(server):
    theirs, first = server.user("b@x.org"), server.user("admin@x.org")
    (world,) = (r for r in server.rows("world", size=100) if r.attributes["table_name"] == "world")
    forged = {
        "InstanceOptional": True,
        "OutFields": [
            {
                "Type": "api_key",
                "Method": "POST",
                "Attributes": {
                    "name": "later",
                    "scopes": ["admin"],
                    "user_account_id": first.reference_id,
                },
            }
        ],
    }
    given = {"action_name": "forge", "action_schema": json.dumps(forged)}
    server.create("action", given, theirs, world_id=Ref("world", world.id))
    with pytest.raises(Refusal):
        server.act("world", "forge", viewer=theirs)
    assert not server.rows("api_key")
    server.act("world", "become_an_administrator", viewer=first)
    # The administrator's own calls have his rights.
    first = server.viewer(server.sign_in("admin@x.org"))
    server.act("world", "forge", viewer=first)
    (key,) = server.rows("api_key")
    assert key.attributes["user_account_id"] == first.reference_id
