"""``mailtwist send-test``: does mail to this address arrive?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mailtwist.cli.context import Context, json_option, print_json
from mailtwist.cli.filing import inline, run_now
from mailtwist.cli.letters import TEST_TEXT, letter
from mailtwist.errors import MailError

if TYPE_CHECKING:
    from mailtwist.config import Settings
    from mailtwist.mail.address import Address
    from mailtwist.queue.assembly import Mail
    from mailtwist.store.database import Inline
    from mailtwist.store.queue.listing import Viewed


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of the message here: mailboxes that have it, and its id if it also leaves."""

    mailboxes: int
    queue_id: int
    is_captured: bool


@click.command("send-test")
@click.argument("address")
@click.option("--from", "sender", metavar="ADDRESS", help="The sender; default: postmaster.")
@json_option
@click.pass_obj
def send_test(context: Context, address: str, sender: str | None, as_json: bool) -> None:
    """Send a test message to ADDRESS; status 0 says that it was accepted.

    For an address elsewhere it waits up to 30 s until the next hop has answered. A running
    server sends it; without one the command does so itself.
    """
    from mailtwist.cli import waiting
    from mailtwist.mail.address import parse_address

    recipient = parse_address(address)
    settings = _settings(context)
    reverse_path = parse_address(sender or f"postmaster@{_own_domain(settings)}")
    with context.store() as engine, inline(engine) as database:
        mail = _mail(database, settings)
        accepted = _submit(mail, settings, reverse_path, recipient)
        found = waiting.outcome(database, mail, accepted.queue_id) if accepted.queue_id else None
    result = _result(recipient, accepted, found)
    if as_json:
        print_json(result)
    if not result["accepted"]:
        raise MailError(_reason(found))
    if not as_json:
        click.echo(_success(recipient, found, is_captured=accepted.is_captured))


def _settings(context: Context) -> Settings:
    from mailtwist.cli import sandbox

    settings = context.settings
    # Beside a sandbox that was started without a configuration file nothing must leave either.
    if not settings.dev_mode and sandbox.is_running(Path(settings.data_dir)):
        return context.load(dev_mode=True)
    return settings


def _own_domain(settings: Settings) -> str:
    return next(iter(settings.domains), settings.hostname)


def _mail(database: Inline, settings: Settings) -> Mail:
    from twisted.internet import reactor

    from mailtwist.policy.hashing import Inline as Here
    from mailtwist.queue.assembly import Mail
    from mailtwist.store import secrets
    from mailtwist.store.directory import Directory

    directory = Directory(database, settings)
    keys = secrets.load_or_make(Path(settings.data_dir))
    return Mail(
        database, directory, settings=settings, reactor=reactor, secrets=keys, threads=Here()
    )


def _submit(mail: Mail, settings: Settings, reverse_path: Address, recipient: Address) -> Accepted:
    """Take it in as the server would. Raises: MailError with an SMTP client's reply."""
    text = letter(
        sender=reverse_path,
        recipient=recipient,
        subject="A test message",
        text=TEST_TEXT,
        hostname=settings.hostname,
    )
    intake = mail.intake

    async def submit() -> Accepted:
        await intake.admit(recipient, may_relay=True, is_sandbox=settings.dev_mode)
        acceptance = await intake.prepare(text, reverse_path=reverse_path, recipients=[recipient])
        assert acceptance is not None  # it was admitted
        await intake.commit(acceptance)
        message = acceptance.queue
        # Who has an account gets his mail in dev_mode too.
        is_captured = settings.dev_mode and any(entry.inbox for entry in acceptance.entries)
        return Accepted(len(acceptance.entries), message.queue_id if message else 0, is_captured)

    try:
        return run_now(submit())
    except MailError as refusal:
        reply = f"{refusal.code} {refusal.status} {refusal.text}: {recipient}"
        raise MailError(reply, detail=refusal.detail) from refusal


# -- what is said of it -----------------------------------------------------------------------


def _result(recipient: Address, accepted: Accepted, found: Viewed | None) -> dict[str, Any]:
    from mailtwist.cli import queued

    result: dict[str, Any] = {
        "recipient": str(recipient),
        "accepted": found is None or found.listed.state == "delivered",
        "mailboxes": accepted.mailboxes,
        "captured": accepted.is_captured,
    }
    if found is not None:
        viewed = queued.viewed(found)
        result |= {key: viewed[key] for key in ("id", "state", "last_error", "attempts")}
    return result


def _success(recipient: Address, found: Viewed | None, *, is_captured: bool) -> str:
    from mailtwist.cli import queued

    if is_captured:
        return f"captured for {recipient}: dev_mode is on, nothing leaves"
    if found is None:
        return f"accepted for {recipient}"
    attempt = found.recipients[0].tried[-1].attempt
    said = queued.clean(" ".join(filter(None, (str(attempt.code), attempt.status, attempt.text))))
    return f"accepted for {recipient} by {queued.host(attempt)}: {said}"


def _reason(found: Viewed | None) -> str:
    from mailtwist.cli import queued

    assert found is not None
    line = found.listed
    error = queued.clean(line.last_error)
    if line.state == "failed":
        return f"refused: {error}"
    if not error:
        error = "no answer yet"
    return f"{error}; it stays in the queue as {line.queue_id}"
