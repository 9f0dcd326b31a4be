"""``mailtwist import``: bring mail from files into a mailbox."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click

from mailtwist.cli.archives import Archive, open_archive
from mailtwist.cli.context import Context, json_option, print_json
from mailtwist.cli.filing import Filing, inline
from mailtwist.errors import MailError, NotFound

if TYPE_CHECKING:
    from mailtwist.store.engine import Engine


class Advance(Protocol):
    def __call__(self, octets: int) -> None: ...


@click.command("import")
@click.argument("address")
@click.argument("mailbox")
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@json_option
@click.pass_obj
def import_(
    context: Context, address: str, mailbox: str, paths: tuple[Path, ...], as_json: bool
) -> None:
    """Import a Maildir, an mbox, .eml files or folders of them into MAILBOX of ADDRESS.

    The mailbox is made where it is missing. Flags and dates of the archive are kept.
    """
    archives = [open_archive(path) for path in paths]
    started = time.monotonic()
    with context.store() as engine:
        filing = _filled(context, engine, address, mailbox, archives, quiet=as_json)
    seconds = time.monotonic() - started
    if as_json:
        print_json(
            {
                "address": address,
                "mailbox": filing.mailbox,
                "messages": filing.messages,
                "octets": filing.octets,
                "seconds": round(seconds, 3),
            }
        )
        return
    size = f"{filing.octets / 1_000_000:.1f} MB"
    click.echo(
        f"imported {filing.messages} messages ({size}) into {filing.mailbox} in {seconds:.1f} s"
    )


def _filled(
    context: Context,
    engine: Engine,
    address: str,
    mailbox: str,
    archives: list[Archive],
    *,
    quiet: bool,
) -> Filing:
    account_id, name = _place(engine, address, mailbox)
    limit = max(context.settings.max_message_size, 1 << 30)
    with inline(engine) as database, _progress(archives, quiet=quiet) as advance:
        filing = Filing(database, account_id, name, limit)
        try:
            for archive in archives:
                for message in archive.messages():
                    filing.add(message)
                    advance(message.octets_read)
            filing.flush()
        except MailError as error:
            done = f"{filing.messages} messages were imported before"
            raise MailError(f"{error.text}; {done}", detail=error.detail) from error
    return filing


def _place(engine: Engine, address: str, mailbox: str) -> tuple[int, str]:
    """The account and the mailbox, which is made where it is missing."""
    from mailtwist.store import accounts, mailboxes

    with engine.write() as connection:
        account = accounts.find(connection, address)
        if account is None:
            raise NotFound(f"no account {address}")
        found = mailboxes.find(connection, account.account_id, mailbox)
        if found is None:
            found = mailboxes.create(connection, account.account_id, mailbox)
            mailboxes.subscribe(connection, account.account_id, found.name)
        return account.account_id, found.name


@contextmanager
def _progress(archives: list[Archive], *, quiet: bool) -> Iterator[Advance]:
    """A bar on a terminal, silence elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield lambda octets: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("import", total=sum(each.octets for each in archives))
        yield lambda octets: bar.advance(task, octets)
