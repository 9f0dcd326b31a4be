"""The command group: global options, the table of commands, and how a failure ends.

Commands are imported when they are called, because most of them need only a
part of the server.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from typing import Any

import click

from mailtwist import __version__
from mailtwist.cli.context import Context
from mailtwist.errors import MailError

# Name -> (module, attribute, line of help).
COMMANDS: dict[str, tuple[str, str, str]] = {
    "account": ("account", "account", "Add, list and remove accounts, set passwords."),
    "cert": ("cert", "cert", "List, order, import, export and renew certificates."),
    "config": ("config", "config", "Show, check and explain the configuration."),
    "db": ("db", "db", "Upgrade and check the database."),
    "dev": ("dev", "dev", "Run a ready sandbox server in the foreground."),
    "dkim": ("dkim", "dkim", "List and rotate the keys that sign outgoing mail."),
    "dns": ("dns", "dns", "Print the DNS records of a domain, each with its reason."),
    "doctor": ("doctor", "doctor", "Look at the whole installation and say what is wrong."),
    "domain": ("domain", "domain", "Add, list and remove local domains."),
    "import": ("importing", "import_", "Import a Maildir, an mbox or a folder of .eml files."),
    "init": ("init", "init", "Make the data folder and the database."),
    "listeners": ("listeners", "listeners", "Show what is bound, and apply rows and keys."),
    "project": ("project", "project", "Add, list and remove projects, set passwords."),
    "queue": ("queue", "queue", "Look at outgoing mail, retry it, hold it, delete it."),
    "send-test": ("send_test", "send_test", "Send a test message and wait for the outcome."),
    "serve": ("serve", "serve", "Run the server in the foreground."),
    "upgrade-in-place": ("upgrade", "upgrade", "Replace the running server without a gap."),
}


class Commands(click.Group):
    """Finds a command in the table above."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        found = getattr(importlib.import_module(f"mailtwist.cli.commands.{module}"), attribute)
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # The table has the help, so that --help imports no command.
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][2]) for name in self.list_commands(ctx)])


HELP = {"help_option_names": ["-h", "--help"]}


@click.command(cls=Commands, context_settings=HELP)
@click.option("-c", "--config", metavar="FILE", help="The configuration, YAML or TOML.")
@click.option("--data-dir", metavar="DIR", help="The folder of the database and the keys.")
@click.option("--database-url", metavar="URL", help="The database, where it is not in the folder.")
@click.option("--env-file", metavar="FILE", help="Variables, as in .env; the environment wins.")
@click.version_option(__version__, prog_name="mailtwist")
@click.pass_context
def cli(context: click.Context, /, env_file: str | None, **given: str | None) -> None:
    """Run and look after a mailtwist mail server."""
    context.obj = _context(env_file, **given)


def _context(env_file: str | None, config: str | None, **options: str | None) -> Context:
    if env_file:
        from mailtwist.cli import env_file as files

        files.take(env_file, os.environ)
    return Context(config, options, env_file=env_file or "")


def alone(name: str) -> click.Command:
    """One command as a program of its own, which takes the global options too."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    names = {each.name for each in cli.params} - {"version"}
    shared = [each for each in cli.params if each.name in names]

    @click.pass_context
    def call(context: click.Context, /, **given: Any) -> None:
        context.obj = _context(**{each: given.pop(each) for each in names if each})
        context.invoke(command, **given)

    return click.Command(
        name,
        params=[*command.params, *shared],
        callback=call,
        help=command.help,
        context_settings=HELP,
    )


def run(
    arguments: list[str] | None = None, command: click.Command = cli, name: str = "mailtwist"
) -> None:
    """Run one command line and exit."""
    # Alembic and SQLAlchemy would otherwise print their progress between our lines.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        sys.exit(command.main(arguments, prog_name=name, standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        fail("stopped")
    except MailError as error:
        _tell_predecessor(error)
        fail(_text_of(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        fail(f"{where}{error.strerror or error}")


def _tell_predecessor(error: MailError) -> None:
    """Tell the server that this process was to replace why it will not."""
    if "_MAILTWIST_HANDOVER" in os.environ:
        from mailtwist.control import handover

        handover.tell_failure(error)


def _text_of(error: MailError) -> str:
    # Before an administrator, the reason that a peer is not told is what helps.
    return f"{error.text}: {error.detail}" if error.detail else error.text


def fail(text: str) -> Any:
    """End with one line on standard error and status 1."""
    print(f"mailtwist: {' '.join(text.split())}", file=sys.stderr)  # noqa: T201
    sys.exit(1)
