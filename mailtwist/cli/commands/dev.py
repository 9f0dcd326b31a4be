"""``mailtwist dev``: a sandbox server that is ready at once, in the foreground.

It makes what is missing (data folder, database, certificate, an administrator, an
account with a readable message), keeps what is there, and prints lines to paste. Nothing
leaves the machine unless ``--send`` allows it.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mailtwist.cli import sandbox
from mailtwist.cli.archives import Archived
from mailtwist.cli.commands.account import generated_password
from mailtwist.cli.commands.serve import bound
from mailtwist.cli.context import Context, json_option
from mailtwist.cli.filing import Filing, inline
from mailtwist.cli.letters import WELCOME_SUBJECT, WELCOME_TEXT, letter

if TYPE_CHECKING:
    from mailtwist.config import Settings
    from mailtwist.control.runtime import Runtime
    from mailtwist.store.engine import Engine

# Kept in the data folder, so that a second run prints the same credentials.
CREDENTIALS = "sandbox.json"
LOCAL_PART = "demo"
ADMINISTRATOR = "admin"
DOMAIN = "sandbox.test"
# All interfaces are bound: what a line to paste says instead.
_ON_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


@dataclass(frozen=True, slots=True)
class Credentials:
    """The account of the sandbox, and who administers it; "" where somebody else does.

    ``inbox_key`` opens `/emails`, "" where the configuration has keys of its own.
    """

    address: str
    password: str
    administrator: str = ""
    administrator_password: str = ""
    inbox_key: str = ""

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = {"account": {"address": self.address, "password": self.password}}
        if self.administrator:
            found["administrator"] = {
                "email": self.administrator,
                "password": self.administrator_password,
            }
        if self.inbox_key:
            found["inbox_key"] = self.inbox_key
        return found


@click.command()
@click.option("--send", is_flag=True, help="Let mail to other domains leave.")
@json_option
@click.pass_obj
def dev(context: Context, send: bool, as_json: bool) -> None:
    """Run a ready sandbox server in the foreground until Ctrl-C.

    With --json one line holds the listeners and the credentials.
    """
    options: dict[str, Any] = {"dev_mode": not send, "log_format": "text"}
    settings = context.load(**options)
    context.options.update(options)
    with context.store(upgrades=True) as engine:
        credentials = _prepared(engine, settings)
    if credentials.inbox_key:
        settings = replace(
            settings, inbox=replace(settings.inbox, api_keys=(credentials.inbox_key,))
        )
    sandbox.mark(Path(settings.data_dir), is_on=settings.dev_mode)
    from twisted.internet import reactor

    from mailtwist.control.services import serve

    def ready(runtime: Runtime) -> None:
        rows = bound(runtime)
        if as_json:
            click.echo(json.dumps({"listeners": rows, **credentials.document}))
        else:
            click.echo(_banner(settings, credentials, rows))

    serve(settings, reactor, ready=ready)


# -- what is made before the server starts --------------------------------------------------


def _prepared(engine: Engine, settings: Settings) -> Credentials:
    from mailtwist.cli import administrator

    path = Path(settings.data_dir) / CREDENTIALS
    known = _read(path)
    wanted = known or Credentials(f"{LOCAL_PART}@{_domain(settings)}", generated_password())
    if not wanted.administrator:
        email, password = f"{ADMINISTRATOR}@{_domain(settings)}", generated_password()
        wanted = replace(wanted, administrator=email, administrator_password=password)
    if not wanted.inbox_key:
        wanted = replace(wanted, inbox_key=generated_password())
    if wanted != known:
        # First the file: a crash between the two leaves no account with an unknown password.
        _write(path, wanted)
    _ensure_account(engine, settings, wanted)
    email, password = wanted.administrator, wanted.administrator_password
    if settings.inbox.api_keys:
        wanted = replace(wanted, inbox_key="")
    if administrator.ensure(engine, settings, email, password):
        return wanted
    return replace(wanted, administrator="", administrator_password="")


def _domain(settings: Settings) -> str:
    return next(iter(settings.domains), DOMAIN)


def _read(path: Path) -> Credentials | None:
    try:
        return Credentials(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _write(path: Path, credentials: Credentials) -> None:
    new = path.with_suffix(".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(credentials), file)
    new.replace(path)


def _ensure_account(engine: Engine, settings: Settings, wanted: Credentials) -> None:
    from mailtwist.policy import passwords
    from mailtwist.store import accounts

    with engine.write() as connection:
        found = accounts.find(connection, wanted.address)
        known = accounts.secrets(connection, found.account_id) if found else []
        if found and passwords.check(known, wanted.password):
            return
        verifiers = passwords.make_verifiers(wanted.password, cost=settings.auth.bcrypt_cost)
        if found:
            accounts.set_secrets(connection, found.account_id, verifiers)
            return
        account_id = accounts.add(connection, wanted.address, verifiers).account_id
    _welcome(engine, settings, wanted, account_id)


def _welcome(engine: Engine, settings: Settings, wanted: Credentials, account_id: int) -> None:
    from mailtwist.mail.address import Address, parse_address

    recipient = parse_address(wanted.address)
    text = letter(
        sender=Address("postmaster", recipient.domain),
        recipient=recipient,
        subject=WELCOME_SUBJECT,
        text=WELCOME_TEXT,
        hostname=settings.hostname,
    )
    with inline(engine) as database:
        filing = Filing(database, account_id, "INBOX", settings.max_message_size)
        filing.add(Archived(text, "the welcome message", 0))
        filing.flush()


# -- what is printed ------------------------------------------------------------------------


def _banner(settings: Settings, credentials: Credentials, rows: list[dict[str, Any]]) -> str:
    """The ports, the credentials, and lines to paste."""
    places = _places(rows)
    width = max((len(name) for name in places), default=0)
    lines = ["", "mailtwist is up.", ""]
    lines += [f"  {name.ljust(width)}  {place}" for name, place in places.items()]
    lines += [
        "",
        f"  account   {credentials.address}",
        f"  password  {credentials.password}",
        f"  data      {settings.data_dir}",
        "",
        *_administrator(credentials),
        *_inbox_key(credentials),
        *_examples(credentials, places),
    ]
    return "\n".join(lines)


def _administrator(credentials: Credentials) -> list[str]:
    if not credentials.administrator:
        return []
    return [
        f"  administrator  {credentials.administrator}",
        f"  password       {credentials.administrator_password}",
        "",
    ]


def _inbox_key(credentials: Credentials) -> list[str]:
    return [f"  inbox key  {credentials.inbox_key}", ""] if credentials.inbox_key else []


def _places(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Where a client on this machine finds each protocol: the first address that is bound."""
    places: dict[str, str] = {}
    for row in rows:
        host = _ON_LOOPBACK.get(row["address"], row["address"])
        host = f"[{host}]" if ":" in host else host
        places.setdefault(row["protocol"], f"{host}:{row['port']}")
    return places


def _examples(credentials: Credentials, places: dict[str, str]) -> list[str]:
    address, password = credentials.address, credentials.password
    lines = []
    if "smtp" in places:
        lines += [
            "Send a message:",
            "",
            f"  swaks --server {places['smtp']} --to {address} --from you@example.com",
            "",
            "  printf 'Subject: hello\\r\\n\\r\\nHello!\\r\\n' | curl -sS "
            f"smtp://{places['smtp']} --mail-from you@example.com --mail-rcpt {address} -T -",
            "",
        ]
    if "imaps" in places:
        lines += [
            "Read the newest one:",
            "",
            f"  curl -sSk --user '{address}:{password}' 'imaps://{places['imaps']}/INBOX;MAILINDEX=*'",
            "",
        ]
        host, _, port = places["imaps"].rpartition(":")
        host = host.strip("[]")
        lines += [
            "The same in Python:",
            "",
            '  python3 -c "import imaplib, ssl; c = ssl._create_unverified_context(); '
            f"m = imaplib.IMAP4_SSL('{host}', {port}, ssl_context=c); "
            f"m.login('{address}', '{password}'); m.select('INBOX'); "
            "print(m.fetch('*', '(BODY.PEEK[])')[1][0][1].decode())\"",
            "",
        ]
    if "http" in places:
        lines += _mail_requests(f"http://{places['http']}", credentials)
    if "http" in places and credentials.administrator:
        lines += _requests(f"http://{places['http']}", credentials)
    return [*lines, "Ctrl-C ends it; the data stays."]


def _mail_requests(url: str, credentials: Credentials) -> list[str]:
    mail = {"to": "bob@example.com", "subject": "Your code", "body": "It is 482913."}
    lines = [
        "Send one by HTTP:",
        "",
        f"  curl -sS {url}/send -d '{json.dumps(mail)}'",
        "",
    ]
    if credentials.inbox_key:
        ask = f"curl -sS -H 'X-API-KEY: {credentials.inbox_key}'"
        lines += [
            "Read what came for bob@example.com, or wait for it:",
            "",
            f"  {ask} {url}/emails/bob",
            f"  {ask} '{url}/emails/bob/wait?timeout=30'",
            "",
        ]
    return lines


def _requests(url: str, credentials: Credentials) -> list[str]:
    signin = {
        "attributes": {
            "email": credentials.administrator,
            "password": credentials.administrator_password,
        }
    }
    value = 'import json, sys; print(json.load(sys.stdin)[0]["Attributes"]["value"])'
    return [
        "Get a token, and ask for the e-mails:",
        "",
        f"  TOKEN=$(curl -sS {url}/action/user_account/signin"
        f" -H 'Content-Type: application/json' -d '{json.dumps(signin)}'"
        f" | python3 -c '{value}')",
        "",
        f'  curl -sS -H "Authorization: Bearer $TOKEN" {url}/api/mail',
        "",
    ]
