"""``mailtwist send-test``: does mail to this address arrive?"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from mailtwist.cli.context import Context, json_option, print_json
from mailtwist.cli.filing import inline, run_now
from mailtwist.cli.letters import TEST_TEXT, letter
from mailtwist.errors import MailError, NotFound, Refusal

if TYPE_CHECKING:
    from mailtwist.config import Settings
    from mailtwist.mail.address import Address
    from mailtwist.store.database import Inline
    from mailtwist.store.directory import Target


@click.command("send-test")
@click.argument("address")
@click.option("--from", "sender", metavar="ADDRESS", help="The sender; default: postmaster.")
@json_option
@click.pass_obj
def send_test(context: Context, address: str, sender: str | None, as_json: bool) -> None:
    """Send a test message to ADDRESS; status 0 says that it was accepted."""
    from mailtwist.mail.address import parse_address

    recipient = parse_address(address)
    settings = context.settings
    reverse_path = parse_address(sender or f"postmaster@{_own_domain(settings)}")
    with context.store() as engine, inline(engine) as database:
        targets = _targets(database, settings, recipient)
        _deliver(database, settings, reverse_path, recipient, targets)
    if as_json:
        print_json({"recipient": str(recipient), "accepted": True, "mailboxes": len(targets)})
    else:
        click.echo(f"accepted for {recipient}")


def _own_domain(settings: Settings) -> str:
    return next(iter(settings.domains), settings.hostname)


def _targets(database: Inline, settings: Settings, recipient: Address) -> tuple[Target, ...]:
    """Who gets it. Raises ``MailError`` with the reply that an SMTP client would have had."""
    from mailtwist.store.directory import Directory

    directory = Directory(database, settings)
    if not run_now(directory.is_local(recipient.domain)):
        raise Refusal(f"{recipient.domain} is not local, and this version relays no mail yet")
    targets = run_now(directory.resolve(recipient))
    if not targets:
        raise NotFound(f"550 5.1.1 User unknown: {recipient}")
    return targets


def _deliver(
    database: Inline,
    settings: Settings,
    reverse_path: Address,
    recipient: Address,
    targets: tuple[Target, ...],
) -> None:
    from mailtwist.mail.trace import return_path
    from mailtwist.store.content import Spool, Spooled
    from mailtwist.store.deliver import Acceptance, Entry, deliver

    text = letter(
        sender=reverse_path,
        recipient=recipient,
        subject="A test message",
        text=TEST_TEXT,
        hostname=settings.hostname,
    )

    async def spooled() -> Spooled:
        spool = Spool(database, limit=settings.max_message_size)
        await spool.write(text)
        return await spool.finish()

    now = time.time_ns() // 1000
    prefix = return_path(reverse_path)
    entries = tuple(
        Entry(
            target.account_id,
            target.mailbox,
            prefix=prefix,
            internaldate=now,
            return_path=str(reverse_path),
            recipient=str(recipient),
        )
        for target in targets
    )
    acceptance = Acceptance(run_now(spooled()), entries, database.ids.next(), now)
    accounts = [target.account_id for target in targets]
    answer = run_now(database.write_set(deliver, acceptance, accounts=accounts))
    if isinstance(answer, MailError):
        raise answer
