"""``mailtwist project``: developers' inboxes with a login of their own."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from mailtwist.cli.commands.account import chosen_login, password_options, tell
from mailtwist.cli.context import Context, json_option, print_json, print_rows
from mailtwist.errors import NotFound

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from mailtwist.store.accounts import Account
    from mailtwist.store.projects import Project


@click.group()
def project() -> None:
    """Add, list and remove projects, set passwords."""


@project.command("add")
@click.argument("name")
@password_options
@click.option("--owner", metavar="EMAIL", default="", help="The user whose project it is.")
@json_option
@click.pass_obj
def add(
    context: Context,
    name: str,
    password: str | None,
    password_stdin: bool,
    owner: str,
    as_json: bool,
) -> None:
    """Make a project with a login; all that is sent with it is captured.

    Without a password option one is made up and printed. Without an owner it is administrators'.
    """
    from mailtwist.store import accounts, projects
    from mailtwist.store.ids import now_us

    folded = projects.folded(name)
    new_password, verifiers = chosen_login(context, password, password_stdin)
    with context.store() as engine, engine.write() as connection:
        user_id = _owner(connection, owner) if owner else 0
        made = projects.add(connection, folded, verifiers, owner_user_id=user_id, now=now_us())
        result = _row(made, accounts.get(connection, made.account_id))
    _tell("added", result, new_password, as_json)


def _owner(connection: Connection, email: str) -> int:
    from mailtwist.store import identities

    found = identities.active(connection, email.lower())
    if found is None:
        raise NotFound(f"no user {email}")
    return found.account_id


def _row(found: Project, login: Account) -> dict[str, Any]:
    return {
        "name": found.name,
        "username": login.username,
        "messages": login.messages,
        "reference_id": found.reference_id,
    }


def _tell(what: str, result: dict[str, Any], new_password: str, as_json: bool) -> None:
    lines = [f"{what} {result['name']}", f"username {result['username']}"]
    tell(lines, result, new_password, as_json)


@project.command("list")
@json_option
@click.pass_obj
def list_(context: Context, as_json: bool) -> None:
    """List all projects with their logins and what they hold."""
    from mailtwist.store import accounts, projects

    with context.store() as engine, engine.read() as connection:
        rows = [
            _row(each, accounts.get(connection, each.account_id))
            for each in projects.list(connection)
        ]
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, ("name", "username", "messages"))


@project.command("passwd")
@click.argument("name")
@password_options
@json_option
@click.pass_obj
def passwd(
    context: Context, name: str, password: str | None, password_stdin: bool, as_json: bool
) -> None:
    """Set a new password of the login; the old one stops at once.

    Without a password option one is made up and printed.
    """
    from mailtwist.store import accounts

    new_password, verifiers = chosen_login(context, password, password_stdin)
    with context.store() as engine, engine.write() as connection:
        found = _existing(connection, name)
        accounts.set_secrets(connection, found.account_id, verifiers)
        result = _row(found, accounts.get(connection, found.account_id))
    _tell("changed", result, new_password, as_json)


def _existing(connection: Connection, name: str) -> Project:
    from mailtwist.store import projects

    found = projects.find(connection, name.strip().lower())
    if found is None:
        raise NotFound(f"no project {name}")
    return found


@project.command("remove")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_obj
def remove(context: Context, name: str, yes: bool, as_json: bool) -> None:
    """Remove a project, its login and all its mail."""
    from mailtwist.store import accounts, projects

    with context.store() as engine:
        with engine.read() as connection:
            found = _existing(connection, name)
            held = accounts.get(connection, found.account_id).messages
        if not yes and sys.stdin.isatty():
            click.confirm(f"Remove {found.name} and {held} messages?", abort=True)
        with engine.write() as connection:
            projects.remove(connection, found.project_id)
        is_finished = False
        while not is_finished:
            # Step by step, so that a large account never holds the writer for long.
            with engine.write() as connection:
                is_finished = accounts.remove_step(connection, found.account_id)
    if as_json:
        print_json({"name": found.name, "messages": held})
    else:
        click.echo(f"removed {found.name}")
