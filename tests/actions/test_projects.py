"""Projects as rows: who makes, sees and changes them, and the keys that are for one."""

from __future__ import annotations

import pytest

from mailtwist.errors import Conflict, MailError, NotFound, ProtocolViolation, Refusal
from mailtwist.mail.permissions import NOBODY, SYSTEM
from mailtwist.policy.auth import Authenticator
from mailtwist.store import accounts, project_access, projects
from mailtwist.store.entities.model import AccessDenied
from mailtwist.store.entities.projects import MAX_OF_USER
from tests.support.now import now

CLEAR = "open sesame"
LOGIN = "shop@projects.invalid"


def make(server, viewer, name="shop", **more):
    return server.create("project", {"name": name, "password": CLEAR, **more}, viewer)


def login(server, password=CLEAR):
    checks = Authenticator(server.database, clock=server.clock, cost=4)
    return now(checks.login(LOGIN, password, peer="192.0.2.1", service="smtp"))


def key_of(server, viewer, *scopes):
    row = server.create("api_key", {"name": "a key", "scopes": list(scopes)}, viewer)
    return row, server.viewer(row.attributes["key"])


def usable(server, viewer, name=""):
    return now(
        server.database.read(lambda connection: project_access.usable(connection, viewer, name))
    )


@pytest.fixture
def people(server):
    """An administrator, and two users without rights."""
    administrator = server.administrator()
    for name in ("ann", "ben"):
        given = {"name": name, "email": f"{name}@x.org", "password": "adminadmin"}
        server.create("user_account", given)
    return administrator, *(
        server.viewer(server.sign_in(f"{name}@x.org")) for name in ("ann", "ben")
    )


def test_a_project_is_a_row_with_a_login_and_belongs_to_who_made_it(server, people):
    _, ann, _ = people
    made = make(server, ann, name=" Shop ")
    assert made.attributes["name"] == "shop"
    assert made.attributes["username"] == LOGIN
    assert made.attributes["password"] == ""
    assert made.attributes["messages"] == 0
    assert login(server).username == LOGIN
    account = made.relations["mail_account_id"]
    (row,) = server.rows("mail_account", ann)
    assert (row.id, row.attributes["username"]) == (account.id, LOGIN)
    boxes = server.rows("mail_box", ann)
    assert "INBOX" in {box.attributes["name"] for box in boxes}


def test_a_password_that_was_made_up_is_seen_once(server, people):
    _, ann, _ = people
    made = server.create("project", {"name": "shop"}, ann)
    made_up = made.attributes["password"]
    assert len(made_up) == 16
    assert login(server, made_up).username == LOGIN
    assert server.get(made, ann).attributes["password"] == ""
    server.update(made, {"password": CLEAR}, ann)
    with pytest.raises(MailError):
        login(server, made_up)
    assert login(server).username == LOGIN


def test_projects_of_others_are_unknown(server, people):
    administrator, ann, ben = people
    made = make(server, ann)
    for viewer in (ben, NOBODY):
        assert (server.rows("project", viewer) if viewer is ben else ()) == ()
        for work in (
            lambda v=viewer: server.get(made, v),
            lambda v=viewer: server.update(made, {"password": "taken over"}, v),
            lambda v=viewer: now(server.resources.delete(v, "project", made.id)),
        ):
            with pytest.raises((AccessDenied, NotFound)):
                work()
    assert login(server).username == LOGIN
    assert [row.id for row in server.rows("project", administrator)] == [made.id]
    with pytest.raises(AccessDenied):
        make(server, NOBODY, "other")


def test_an_administrator_gives_a_project_and_its_mail_to_somebody_else(server, people):
    administrator, ann, ben = people
    made = make(server, ann)
    server.update(made, {"user_account_id": ben.reference_id}, administrator)
    assert server.rows("project", ann) == server.rows("mail_account", ann) == ()
    assert [row.id for row in server.rows("project", ben)] == [made.id]
    assert server.rows("mail_account", ben)[0].attributes["username"] == LOGIN
    with pytest.raises(AccessDenied):
        server.update(made, {"user_account_id": ann.reference_id}, ben)


NOT_NAMES = [
    "", " ", "a b", "-a", "a-", "a.b", "a@b", "ä", "x" * 64, "a\0", "../a", 7,
    "0199c1d0-6f2a-7000-8000-000000000001",
]  # fmt: skip


def test_names_and_passwords_that_are_none(server):
    for name in NOT_NAMES:
        with pytest.raises(ProtocolViolation, match="name"):
            make(server, SYSTEM, name)
    for password in (7, ["a"], "x" * 2000):
        with pytest.raises(ProtocolViolation, match="password"):
            make(server, SYSTEM, password=password)
    assert server.rows("project") == ()


def test_a_name_is_taken_once_and_stays(server, people):
    _, ann, ben = people
    made = make(server, ann)
    with pytest.raises(Conflict, match="exists already"):
        make(server, ben, "SHOP")
    assert server.update(made, {"name": "other"}, ann).attributes["name"] == "shop"


def test_a_user_has_some_projects_and_an_administrator_any_number(server, people):
    administrator, ann, _ = people
    for n in range(MAX_OF_USER):
        make(server, ann, f"p{n}")
    with pytest.raises(Conflict):
        make(server, ann, "more")
    make(server, administrator, "more")


def test_a_deleted_project_leaves_neither_login_nor_account(server, people):
    _, ann, _ = people
    made = make(server, ann)
    now(server.resources.delete(ann, "project", made.id))
    with pytest.raises(MailError):
        login(server)
    assert server.rows("project") == server.rows("mail_account") == ()
    assert make(server, ann).id != made.id


def test_an_account_of_a_project_keeps_its_name_and_takes_the_project_with_it(server, people):
    administrator, ann, _ = people
    make(server, ann)
    (account,) = server.rows("mail_account", ann)
    with pytest.raises(Conflict):
        server.update(account, {"username": "ann@x.org"}, administrator)
    now(server.resources.delete(administrator, "mail_account", account.id))
    assert server.rows("project") == ()


# -- keys -----------------------------------------------------------------------------------


def test_a_key_for_a_project_needs_an_owner_who_may_use_it(server, people):
    administrator, ann, ben = people
    scope = f"project:{make(server, ann).id}"
    for viewer in (ann, administrator):
        row, key = key_of(server, viewer, scope)
        found = usable(server, key)
        assert found is not None
        assert found.name == "shop"
        assert row.attributes["scopes"] == [scope]
    with pytest.raises(ProtocolViolation, match="no such project"):
        key_of(server, ben, scope)
    with pytest.raises(ProtocolViolation, match="no such project"):
        key_of(server, ben, "project:0199c1d0-6f2a-7000-8000-000000000001")
    plain, _ = key_of(server, ben, "send:*")
    with pytest.raises(ProtocolViolation, match="no such project"):
        server.update(plain, {"scopes": [scope]}, ben)


def test_a_key_for_a_project_reaches_no_table(server, people):
    _, ann, _ = people
    made = make(server, ann)
    _, key = key_of(server, ann, f"project:{made.id}")
    for entity in ("project", "mail", "mail_box", "mail_account", "api_key", "user_account"):
        with pytest.raises(AccessDenied):
            server.rows(entity, key)
    with pytest.raises(AccessDenied):
        make(server, key, "other")


def test_what_a_viewer_may_use(server, people):
    administrator, ann, ben = people
    shop, other = make(server, ann), make(server, ben, "other")
    _, key = key_of(server, ann, f"project:{shop.id}")
    _, sender = key_of(server, ann, "send:*")
    _, whole = key_of(server, ann, "admin")
    table = [
        (administrator, "shop", "shop"),
        (administrator, other.id, "other"),
        (administrator, "", None),
        (administrator, "none", None),
        (ann, "shop", "shop"),
        (ann, "SHOP", "shop"),
        (ann, shop.id, "shop"),
        (ann, "other", None),
        (ann, "", None),
        (key, "", "shop"),
        (key, "shop", "shop"),
        (key, shop.id, "shop"),
        (key, "other", None),
        (sender, "shop", None),
        (whole, "shop", "shop"),
        (whole, "other", None),
        (NOBODY, "shop", None),
        (NOBODY, "", None),
    ]
    for viewer, name, expected in table:
        found = usable(server, viewer, name)
        assert (found.name if found else None) == expected, (viewer, name)


def test_a_key_ends_with_its_project_or_when_that_is_given_away(server, people):
    administrator, ann, ben = people
    made = make(server, ann)
    _, key = key_of(server, ann, f"project:{made.id}")
    server.update(made, {"user_account_id": ben.reference_id}, administrator)
    assert usable(server, key) is None
    server.update(made, {"user_account_id": ann.reference_id}, administrator)
    assert usable(server, key) is not None
    now(server.resources.delete(ann, "project", made.id))
    assert usable(server, key) is None


def test_a_user_who_goes_leaves_his_project_to_administrators(server, people, engine):
    administrator, ann, _ = people
    make(server, ann)
    now(server.resources.delete(administrator, "user_account", ann.reference_id))
    with engine.read() as connection:
        (left,) = projects.list(connection)
        assert left.owner_user_id == 0
        assert accounts.find(connection, LOGIN) is not None
    assert usable(server, administrator, "shop") is not None


def test_a_viewer_of_a_project_that_is_gone_sends_nothing(server, people):
    from mailtwist.actions.sending import captured_in

    _, ann, _ = people
    made = make(server, ann)
    _, key = key_of(server, ann, f"project:{made.id}", "send:*", "admin")
    assert now(captured_in(server.database, key)) > 0
    assert now(captured_in(server.database, ann)) == 0
    now(server.resources.delete(ann, "project", made.id))
    with pytest.raises(Refusal, match="gone"):
        now(captured_in(server.database, key))
