"""What tests of outgoing mail share: clients that submit, commands, bounces taken apart."""

from __future__ import annotations

import email
import email.policy
import json
import os
import re
import smtplib
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from email.message import EmailMessage
from pathlib import Path
from typing import Any, TypeVar

from mailtwist.cli import queued
from mailtwist.store.engine import open_engine
from mailtwist.store.queue import listing
from tests.e2e import mails
from tests.e2e.server import PASSWORD, ROOT, Server, trusting
from tests.support.sink import Mail, Sink

T = TypeVar("T")

FAR = "far.example"
# A message is tried again at once, so that no test has to wait.
QUICK = {"retry_schedule": ["1s"]}


def going_to(sink: object, **outbound: Any) -> dict[str, Any]:
    """The key ``outbound`` of a server whose foreign mail all goes to one address."""
    return {"mx_override": {"*": str(sink)}, **outbound}


def command(server: Server, *words: str, status: int = 0) -> str:
    """What ``mailtwist`` prints beside the running server."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MAILTWIST_")}
    done = subprocess.run(
        [Path(sys.executable).with_name("mailtwist"), "--config", str(server.config), *words],
        env={**clean, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, (words, done.stdout, done.stderr, server.log[-2000:])
    return done.stdout or done.stderr


def ask(server: Server, *words: str) -> Any:
    return json.loads(command(server, *words, "--json"))


def submit(
    server: Server,
    sender: str,
    recipients: str | Sequence[str],
    message: bytes,
    *,
    mail_options: Sequence[str] = (),
    rcpt_options: Sequence[str] = (),
    login: str = "",
    protocol: str = "submissions",
) -> str:
    """Send as a user does; the queue id."""
    with server.smtp(protocol) as client:
        if protocol != "submissions":
            client.starttls(context=trusting())
        client.login(login or sender, PASSWORD)
        return transact(client, sender, recipients, message, mail_options, rcpt_options)


def transact(
    client: smtplib.SMTP,
    sender: str,
    recipients: str | Sequence[str],
    message: bytes,
    mail_options: Sequence[str] = (),
    rcpt_options: Sequence[str] = (),
) -> str:
    client.ehlo_or_helo_if_needed()
    if "smtputf8" in [option.lower() for option in mail_options]:
        client.command_encoding = "utf-8"
    code, text = client.mail(sender, mail_options)
    assert code == 250, text
    for each in [recipients] if isinstance(recipients, str) else recipients:
        code, text = client.rcpt(each, rcpt_options)
        assert code == 250, text
    code, text = client.data(message)
    assert code == 250, text
    return text.split()[-1].decode()


def sent_by(sink: Sink, sender: str) -> Mail:
    """The one mail that came from this sender, when it is there."""

    def found() -> list[Mail]:
        return [mail for mail in sink.taken if mail.reverse_path == sender]

    sink.wait(found)
    (mail,) = found()
    return mail


def letter(server: Server, text: str, to: str = f"bob@{FAR}", **more: Any) -> tuple[str, bytes]:
    """A new account, and a message of its user's."""
    sender = server.account()
    message = mails.simple(text, to=to, **more)
    return sender, message.replace(b"sender@elsewhere.example", sender.encode(), 1)


def until(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """What the condition yields as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "did not come to pass"
        time.sleep(0.05)
    return found


def arrived(server: Server, address: str, mailbox: str = "INBOX") -> bytes:
    """The only message of a mailbox, when it is there."""
    found = until(lambda: server.mails(address, mailbox))
    (message,) = found.values()
    return bytes(message)


# What the commands print, read without starting a process each time.


def view(server: Server, queue_id: str) -> dict[str, Any]:
    return _read(server, lambda c: queued.viewed(listing.view(c, int(queue_id))))


def listed(server: Server) -> list[dict[str, Any]]:
    return _read(server, lambda c: [queued.listed(each) for each in listing.list(c, limit=1000)])


def stats(server: Server) -> dict[str, int]:
    return _read(server, listing.stats)


def _read(server: Server, work: Callable[[Any], T]) -> T:
    engine = open_engine(server.url)
    try:
        with engine.read() as connection:
            return work(connection)
    finally:
        engine.dispose()


def tried(server: Server, queue_id: str, times: int = 1) -> dict[str, Any]:
    """``queue view``, as soon as there were so many attempts."""

    def enough() -> dict[str, Any] | None:
        found = view(server, queue_id)
        return found if len(found["attempts"]) >= times else None

    found = until(enough)
    assert isinstance(found, dict)
    return found


# -- bounces ------------------------------------------------------------------------------------


class Dsn:
    """A delivery status notification, read with the standard library."""

    def __init__(self, stored: bytes) -> None:
        parsed = email.message_from_bytes(stored, policy=email.policy.default)
        assert isinstance(parsed, EmailMessage)
        self.message = parsed
        assert parsed.get_content_type() == "multipart/report"
        assert parsed.get_param("report-type") == "delivery-status"
        text, status, returned = parsed.iter_parts()
        self.text: str = text.get_content()
        # The fields of the message, then those of each recipient.
        groups: Any = status.get_payload()
        self.fields: EmailMessage = groups[0]
        self.recipients: list[EmailMessage] = groups[1:]
        self.returned_type = returned.get_content_type()
        content: Any = returned.get_payload()
        self.returned: bytes = (
            content[0].as_bytes() if isinstance(content, list) else content.encode()
        )
        assert not [part.defects for part in parsed.walk() if part.defects]

    @property
    def action(self) -> str:
        (recipient,) = self.recipients
        return str(recipient["Action"])

    @property
    def status(self) -> str:
        (recipient,) = self.recipients
        return str(recipient["Status"])

    def __str__(self) -> str:
        return re.sub(r"\s+", " ", self.message.as_string())


def bounce(server: Server, address: str) -> Dsn:
    """The only message in someone's INBOX, which is a DSN."""
    stored = arrived(server, address)
    assert stored.startswith(b"Return-Path: <>\r\n"), stored[:200]
    return Dsn(stored)
