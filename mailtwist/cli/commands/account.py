"""``mailtwist account``: mail accounts and their passwords."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from mailtwist.actions import made_up
from mailtwist.cli.context import Context, json_option, print_json, print_rows
from mailtwist.errors import NotFound

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from mailtwist.store.accounts import Account, Verifier

GENERATED_LENGTH = 20
MAX_PASSWORD_OCTETS = 4096


def password_options(command: Any) -> Any:
    from_stdin = click.option(
        "--password-stdin", is_flag=True, help="Read it as the first line of standard input."
    )
    on_line = click.option(
        "--password", metavar="VALUE", help="The password; other users see it in the process list."
    )
    return on_line(from_stdin(command))


def chosen_login(
    context: Context, password: str | None, from_stdin: bool
) -> tuple[str, list[Verifier]]:
    """The password if it was made up here and must be shown, else ""; its verifiers."""
    from mailtwist.policy.passwords import make_verifiers

    given = _given(password, from_stdin)
    new = generated_password() if given is None else ""
    wanted = new if given is None else given
    return new, make_verifiers(wanted, cost=context.settings.auth.bcrypt_cost)


def _given(password: str | None, from_stdin: bool) -> str | None:
    if password is not None and from_stdin:
        raise click.UsageError("--password and --password-stdin exclude each other")
    if from_stdin:
        line = sys.stdin.readline(MAX_PASSWORD_OCTETS).rstrip("\r\n")
        if not line:
            raise click.ClickException("standard input holds no password")
        return line
    return password


def generated_password() -> str:
    return made_up.password(GENERATED_LENGTH)


def tell(lines: Sequence[str], result: dict[str, Any], new_password: str, as_json: bool) -> None:
    """Print what was done, as lines or as data, and a password that was made up."""
    if as_json:
        print_json(result | ({"password": new_password} if new_password else {}))
        return
    for line in (*lines, *([f"password {new_password}"] if new_password else [])):
        click.echo(line)


@click.group()
def account() -> None:
    """Add, list and remove accounts, set passwords."""


@account.command("add")
@click.argument("address")
@password_options
@click.option("--quota", metavar="SIZE", default="0", help="Octets it may hold, as 500M; 0: any.")
@click.option("--quota-messages", type=click.IntRange(0), default=0, help="Messages; 0: any.")
@json_option
@click.pass_obj
def add(
    context: Context,
    address: str,
    password: str | None,
    password_stdin: bool,
    quota: str,
    quota_messages: int,
    as_json: bool,
) -> None:
    """Make an account with the default mailboxes; its domain becomes local.

    Without a password option one is made up and printed.
    """
    from mailtwist.store import accounts

    octets = _quota(quota)
    new_password, verifiers = chosen_login(context, password, password_stdin)
    with context.store() as engine, engine.write() as connection:
        made = accounts.add(
            connection, address, verifiers, quota_octets=octets, quota_messages=quota_messages
        )
    tell([f"added {made.username}"], _row(made), new_password, as_json)


def _quota(text: str) -> int:
    from mailtwist.config.kinds import Octets

    try:
        return Octets(0, 1 << 62).parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--quota") from None


def _row(found: Account) -> dict[str, Any]:
    return {
        "address": found.username,
        "state": found.state,
        "messages": found.messages,
        "octets": found.octets,
        "quota_octets": found.quota_octets,
        "quota_messages": found.quota_messages,
        "reference_id": found.reference_id,
    }


@account.command("list")
@json_option
@click.pass_obj
def list_(context: Context, as_json: bool) -> None:
    """List all accounts with what they hold."""
    from mailtwist.store import accounts

    with context.store() as engine, engine.read() as connection:
        rows = [_row(each) for each in accounts.list(connection)]
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, ("address", "state", "messages", "octets", "quota_octets"))


@account.command("passwd")
@click.argument("address")
@password_options
@json_option
@click.pass_obj
def passwd(
    context: Context, address: str, password: str | None, password_stdin: bool, as_json: bool
) -> None:
    """Set a new password; the old one stops at once.

    Without a password option one is made up and printed.
    """
    from mailtwist.store import accounts

    new_password, verifiers = chosen_login(context, password, password_stdin)
    with context.store() as engine, engine.write() as connection:
        found = _existing(connection, address)
        accounts.set_secrets(connection, found.account_id, verifiers)
    tell([f"changed {found.username}"], {"address": found.username}, new_password, as_json)


def _existing(connection: Connection, address: str) -> Account:
    from mailtwist.store import accounts

    found = accounts.find(connection, address)
    if found is None:
        raise NotFound(f"no account {address}")
    return found


@account.command("remove")
@click.argument("address")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_obj
def remove(context: Context, address: str, yes: bool, as_json: bool) -> None:
    """Remove an account and all its mail."""
    from mailtwist.store import accounts

    with context.store() as engine:
        with engine.read() as connection:
            found = _existing(connection, address)
        if not yes and sys.stdin.isatty():
            question = f"Remove {found.username} and {found.messages} messages?"
            click.confirm(question, abort=True)
        is_finished = False
        while not is_finished:
            # Step by step, so that a large account never holds the writer for long.
            with engine.write() as connection:
                is_finished = accounts.remove_step(connection, found.account_id)
    if as_json:
        print_json({"address": found.username, "messages": found.messages})
    else:
        click.echo(f"removed {found.username}")
