from __future__ import annotations

import pytest
from sqlalchemy import insert

from mailtwist.policy import passwords
from mailtwist.store import accounts, identities, projects
from mailtwist.store.engine import Engine
from mailtwist.store.entities.tables import user_account
from tests.cli.conftest import Mailtwist


def opens(store: Engine, name: str, password: str) -> bool:
    with store.read() as connection:
        found = projects.find(connection, name)
        assert found is not None
        return passwords.check(accounts.secrets(connection, found.account_id), password)


def test_a_project_is_made_without_a_server_and_has_a_login(
    mailtwist: Mailtwist, store: Engine
) -> None:
    ended = mailtwist("project", "add", "Shop", "--password", "sesame open", "--json")
    assert (ended.status, ended.err) == (0, "")
    assert ended.json["name"] == "shop"
    assert ended.json["username"] == "shop@projects.invalid"
    assert "password" not in ended.json
    assert opens(store, "shop", "sesame open")
    assert mailtwist("project", "list", "--json").json == [ended.json]
    lines = mailtwist("project", "list").out.splitlines()
    assert [line.split() for line in lines] == [
        ["name", "username", "messages"],
        ["shop", "shop@projects.invalid", "0"],
    ]


def test_a_project_may_be_a_users(mailtwist: Mailtwist, store: Engine) -> None:
    mailtwist("project", "add", "first", "--password", "x")
    row = {"name": "Ann", "email": "ann@x.org", "reference_id": "r", "permission": 0}
    with store.write() as connection:
        connection.execute(insert(user_account).values(**row, created_at=1, updated_at=1))
    ended = mailtwist("project", "add", "shop", "--password", "x", "--owner", "Ann@x.org")
    assert (ended.status, ended.err) == (0, "")
    with store.read() as connection:
        found = {each.name: each.owner_user_id for each in projects.list(connection)}
        assert found == {"first": 0, "shop": identities.active(connection, "ann@x.org").account_id}


@pytest.mark.parametrize("command", ["add", "passwd"])
def test_a_projects_password_comes_from_stdin_or_is_made_up(
    mailtwist: Mailtwist, store: Engine, command: str
) -> None:
    if command == "passwd":
        mailtwist("project", "add", "shop", "--password", "old")
    ended = mailtwist("project", command, "shop", "--password-stdin", stdin="from stdin\n")
    assert ended.status == 0
    assert opens(store, "shop", "from stdin")
    assert not opens(store, "shop", "old")
    made_up = mailtwist("project", "passwd", "SHOP", "--json").json["password"]
    assert len(made_up) == 20
    assert opens(store, "shop", made_up)
    lines = mailtwist("project", "passwd", "shop").out.splitlines()
    assert lines[:2] == ["changed shop", "username shop@projects.invalid"]
    assert opens(store, "shop", lines[2].removeprefix("password "))


def test_a_removed_project_leaves_nothing(mailtwist: Mailtwist, store: Engine) -> None:
    mailtwist("project", "add", "shop", "--password", "x")
    assert mailtwist("project", "remove", "shop").out == "removed shop\n"
    assert mailtwist("project", "list", "--json").json == []
    with store.read() as connection:
        assert accounts.find(connection, "shop@projects.invalid") is None
    assert mailtwist("project", "add", "shop", "--password", "x").status == 0


@pytest.mark.parametrize(
    "words, said",
    [
        (("add", "a b"), "A project's name"),
        (("add", "a-"), "A project's name"),
        (("add", "x" * 64), "A project's name"),
        (("add", "0199c1d0-6f2a-7000-8000-000000000001"), "like an id"),
        (("add", "shop"), "exists already"),
        (("add", "other", "--owner", "nobody@example.com"), "no user nobody@example.com"),
        (("passwd", "other"), "no project other"),
        (("remove", "other"), "no project other"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    mailtwist: Mailtwist, words: tuple[str, ...], said: str
) -> None:
    mailtwist("project", "add", "shop", "--password", "x")
    command, *rest = words
    options = [] if command == "remove" else ["--password", "x"]
    ended = mailtwist("project", command, *rest, *options)
    assert ended.status == 1
    assert said in ended.err
    assert ended.err.count("\n") == 1
    assert [row["name"] for row in mailtwist("project", "list", "--json").json] == ["shop"]
