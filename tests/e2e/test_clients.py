"""Programs and libraries that people use, unchanged: swaks, curl, smtplib, nodemailer, msmtp,
mbsync.
"""

from __future__ import annotations

import email
import email.policy
import itertools
import json
import mailbox
import os
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

import pytest

from mailtwist.store import accounts
from mailtwist.store.engine import open_engine
from tests.e2e import mails
from tests.e2e.server import DOMAIN, PASSWORD, ROOT, Server, content_of, run, tool, trusting

pytestmark = pytest.mark.real


@pytest.mark.mission("DAP-100", "ELE-29")
@pytest.mark.parametrize("pipeline", [False, True])
def test_swaks_delivers_to_the_mx(server: Server, tmp_path: Path, pipeline):
    alice = server.account()
    data = tmp_path / "mail"
    sent = mails.mime(octets=5000)
    data.write_bytes(sent.replace(b"\r\n", b"\n"))
    address = f"127.0.0.1:{server.ports['smtp']}"
    command = ["--server", address, "--to", alice, "--from", "x@elsewhere.example"]
    more = ["--pipeline"] if pipeline else []
    done = run(tool("swaks"), *command, "--data", f"@{data}", *more)
    assert b"queued as" in done.stdout
    (stored,) = server.mails(alice).values()
    # swaks ends what it sends with one line end more.
    assert content_of(stored).rstrip() == sent.rstrip()


@pytest.mark.mission("DAP-097", "ELE-31", "ELE-32", "ELE-10")
@pytest.mark.parametrize("method", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("protocol", ["submission", "submissions"])
def test_swaks_submits_with_a_login(server: Server, protocol, method):
    alice, bob = server.account(), server.account()
    done = run(
        tool("swaks"),
        *("--server", "127.0.0.1", "--port", str(server.ports[protocol])),
        *("--to", bob, "--from", alice, "--auth", method),
        *("--auth-user", alice, "--auth-password", PASSWORD),
        "--tls" if protocol == "submission" else "--tls-on-connect",
    )
    assert b"235 2.7.0" in done.stdout
    assert len(server.mails(bob)) == 1


@pytest.mark.mission("DAP-098", "DAP-101", "DAP-102")
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--to", "nobody@example.com"], b"550 5.1.1"),
        (["--to", "x@gmail.test"], b"554 5.7.1"),
        (["--to", "x@example.com", "--auth-user", "x", "--auth-password", "y"], b"not advertise"),
    ],
)
def test_swaks_is_refused_where_it_must_be(make_server, arguments, code):
    server = make_server(allowed_relays=[]).start()
    with pytest.raises(AssertionError) as caught:
        run(tool("swaks"), "--server", f"127.0.0.1:{server.ports['smtp']}", *arguments)
    assert code.decode() in str(caught.value)


def test_curl_sends_and_reads(server: Server, tmp_path: Path):
    alice = server.account()
    curl = tool("curl")
    sent = mails.mime(octets=200_000)
    data = tmp_path / "mail"
    data.write_bytes(sent)
    smtp = f"smtp://127.0.0.1:{server.ports['smtp']}/client.example"
    run(curl, "-sS", smtp, "--mail-from", "x@y.example", "--mail-rcpt", alice, "-T", str(data))
    imaps = f"imaps://127.0.0.1:{server.ports['imaps']}"
    login = ["-sSk", "--user", f"{alice}:{PASSWORD}"]
    listed = run(curl, *login, f"{imaps}/").stdout
    assert b'"INBOX"' in listed or b" INBOX" in listed
    got = run(curl, *login, f"{imaps}/INBOX;MAILINDEX=1").stdout
    assert content_of(got) == sent
    run(curl, *login, f"{imaps}/Archive", "-T", str(data))
    assert server.mails(alice, "Archive") == {1: sent}
    found = run(curl, *login, f"{imaps}/INBOX?SUBJECT%20rather").stdout
    assert found.strip() == b"* SEARCH 1"


def test_curl_upgrades_to_tls_on_both(server: Server, tmp_path: Path):
    alice, bob = server.account(), server.account()
    curl = tool("curl")
    data = tmp_path / "mail"
    data.write_bytes(mails.simple("upgraded"))
    login = ["-sSk", "--ssl-reqd", "--user", f"{alice}:{PASSWORD}"]
    smtp = f"smtp://127.0.0.1:{server.ports['submission']}"
    run(curl, *login, smtp, "--mail-from", alice, "--mail-rcpt", bob, "-T", str(data))
    imap = f"imap://127.0.0.1:{server.ports['imap']}"
    login[-1] = f"{bob}:{PASSWORD}"
    assert b"EXISTS" in run(curl, *login, imap, "-X", "EXAMINE INBOX").stdout


# -- a login, TLS and words beyond ASCII, with each of them ---------------------------------

SUBJECT = "Größe, naïve café — 漢字"
BODY = "Grüße aus Köln\n.\n..\n漢字 🙂\n"

_aliases = itertools.count(1)


def beyond_ascii(server: Server, target: str) -> str:
    """An alias whose name is not ASCII; imaplib cannot log in as such a user."""
    name = f"jürgen漢{next(_aliases)}@{DOMAIN}"
    engine = open_engine(server.url)
    try:
        with engine.write() as connection:
            accounts.add_alias(connection, name, [target])
    finally:
        engine.dispose()
    return name


def written(folder: Path, sender: str, to: str) -> Path:
    """A message in UTF-8 throughout, its header too (RFC 6532)."""
    path = folder / "mail"
    head = f"From: <{sender}>\r\nTo: Jürgen <{to}>\r\nSubject: {SUBJECT}\r\n"
    mime = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
    text = f"{head}{mime}Content-Transfer-Encoding: 8bit\r\n\r\n{BODY}"
    path.write_bytes(text.replace("\r\n", "\n").replace("\n", "\r\n").encode())
    return path


def by_swaks(server: Server, port: str, sender: str, to: str, folder: Path) -> None:
    data = written(folder, sender, to)
    data.write_bytes(data.read_bytes().replace(b"\r\n", b"\n"))
    run(
        tool("swaks"),
        *("--server", "127.0.0.1", "--port", str(server.ports[port])),
        *("--to", to, "--from", sender, "--data", f"@{data}"),
        *("--auth", "PLAIN", "--auth-user", sender, "--auth-password", PASSWORD),
        "--tls" if port == "submission" else "--tls-on-connect",
    )


def by_curl(server: Server, port: str, sender: str, to: str, folder: Path) -> None:
    scheme = "smtp" if port == "submission" else "smtps"
    run(
        tool("curl"),
        *("-sSk", "--ssl-reqd", "--user", f"{sender}:{PASSWORD}"),
        f"{scheme}://127.0.0.1:{server.ports[port]}/client.example",
        *("--mail-from", sender, "--mail-rcpt", to),
        *("-T", str(written(folder, sender, to))),
    )


def by_smtplib(server: Server, port: str, sender: str, to: str, folder: Path) -> None:
    message = EmailMessage(policy=email.policy.SMTPUTF8)
    message["From"], message["To"], message["Subject"] = sender, to, SUBJECT
    message.set_content(BODY, cte="8bit")
    with server.smtp(port) as client:
        if port == "submission":
            client.starttls(context=trusting())
        client.login(sender, PASSWORD)
        client.send_message(message)


NODEMAILER = """
const options = JSON.parse(process.argv[1]);
const transport = require('nodemailer').createTransport(options.transport);
transport.sendMail(options.mail)
  .then(info => { console.log(info.response); transport.close(); })
  .catch(error => { console.error(error); process.exit(1); });
"""


def by_nodemailer(server: Server, port: str, sender: str, to: str, folder: Path) -> None:
    # Where Debian keeps libraries, and where `npm install` puts them here.
    node = ["env", f"NODE_PATH=/usr/share/nodejs:{ROOT}/node_modules", tool("node")]
    options = {
        "transport": {
            "host": "127.0.0.1",
            "port": server.ports[port],
            "secure": port == "submissions",
            "requireTLS": True,
            "auth": {"user": sender, "pass": PASSWORD},
            "tls": {"rejectUnauthorized": False},
        },
        "mail": {"from": sender, "to": to, "subject": SUBJECT, "text": BODY},
    }
    try:
        run(*node, "-e", "require('nodemailer')")
    except AssertionError:
        if os.environ.get("MAILTWIST_REQUIRE_REAL"):
            raise
        pytest.skip("nodemailer is not installed")
    done = run(*node, "-e", NODEMAILER, json.dumps(options))
    assert b"queued as" in done.stdout


def by_msmtp(server: Server, port: str, sender: str, to: str, folder: Path) -> None:
    certificate = server.data_dir / "self-signed.crt"
    config = folder / "msmtprc"
    config.write_text(
        f"""
account default
host localhost
port {server.ports[port]}
auth plain
user {sender}
password "{PASSWORD}"
from {sender}
tls on
tls_starttls {"on" if port == "submission" else "off"}
tls_trust_file {certificate}
"""
    )
    config.chmod(0o600)
    data = written(folder, sender, to).read_bytes().replace(b"\r\n", b"\n")
    run(tool("msmtp"), "-C", str(config), to, input=data)


Send = Callable[[Server, str, str, str, Path], None]
# Those that can put SMTPUTF8 behind MAIL (RFC 6531).
CLIENTS: list[tuple[Send, bool]] = [
    (by_swaks, False),
    (by_curl, True),
    (by_smtplib, True),
    (by_nodemailer, True),
    (by_msmtp, False),
]


@pytest.mark.parametrize("port", ["submission", "submissions"])
@pytest.mark.parametrize(("send", "is_utf8"), CLIENTS, ids=[send.__name__ for send, _ in CLIENTS])
def test_each_client_logs_in_under_tls_and_sends_beyond_ascii(
    server: Server, tmp_path: Path, send: Send, is_utf8: bool, port: str
) -> None:
    alice, bob = server.account(), server.account()
    send(server, port, alice, beyond_ascii(server, bob) if is_utf8 else bob, tmp_path)
    (stored,) = server.mails(bob).values()
    message = email.message_from_bytes(stored, policy=email.policy.default)
    assert str(message["Subject"]) == SUBJECT
    body = message.get_body()
    assert body is not None
    assert body.get_content().replace("\r\n", "\n").rstrip() == BODY.rstrip()
    how = " ".join(str(message["Received"]).split())
    assert f" with {'UTF8SMTPSA' if is_utf8 else 'ESMTPSA'} " in how


# -- mbsync ---------------------------------------------------------------------------------


class Mbsync:
    """A Maildir kept equal to the account's mailboxes."""

    def __init__(self, server: Server, address: str, folder: Path) -> None:
        self.program = tool("mbsync")
        self.maildir = folder / "maildir"
        self.maildir.mkdir()
        self.config = folder / "mbsyncrc"
        # TLS by the self-signed certificate, as a careful user would have it.
        certificate = server.data_dir / "self-signed.crt"
        self.config.write_text(
            f"""
IMAPStore far
Host localhost
Port {server.ports["imaps"]}
User {address}
Pass "{PASSWORD}"
SSLType IMAPS
SystemCertificates no
CertificateFile {certificate}

MaildirStore near
Path {self.maildir}/
Inbox {self.maildir}/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns *
Create Both
Expunge Both
SyncState *
"""
        )

    def sync(self) -> None:
        run(self.program, "-c", str(self.config), "-a")

    def box(self, name: str = "INBOX") -> mailbox.Maildir:
        return mailbox.Maildir(self.maildir / name, create=False)


@pytest.mark.mission("DAP-239")
def test_mbsync_keeps_both_sides_equal(server: Server, tmp_path: Path):
    alice = server.account()
    for n in range(3):
        server.send(alice, mails.simple(f"mail {n}"))
    near = Mbsync(server, alice, tmp_path)

    near.sync()
    box = near.box()
    assert len(box) == 3
    assert near.box("Archive") is not None

    # Flags go up, new mail goes up, and what is deleted here is expunged there.
    by_subject = {message["Subject"]: key for key, message in box.iteritems()}
    flagged = box.get_message(by_subject["mail 0"])
    flagged.set_subdir("cur")
    flagged.set_flags("FS")
    box[by_subject["mail 0"]] = flagged
    deleted = box.get_message(by_subject["mail 1"])
    deleted.set_subdir("cur")
    deleted.set_flags("ST")
    box[by_subject["mail 1"]] = deleted
    box.add(mailbox.MaildirMessage(mails.simple("from here").replace(b"\r\n", b"\n")))
    near.sync()
    client = server.imap(alice)
    try:
        client.select("INBOX")
        _, found = client.fetch("1:*", "(FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
        flags = {item[1].strip(): item[0] for item in found if isinstance(item, tuple)}
        assert set(flags) == {b"Subject: mail 0", b"Subject: mail 2", b"Subject: from here"}
        assert b"\\Flagged" in flags[b"Subject: mail 0"]
        assert b"\\Seen" in flags[b"Subject: mail 0"]

        # And down: flags, an expunge, a new mailbox.
        client.store("2", "+FLAGS", "(\\Answered)")
        client.store("1", "+FLAGS", "(\\Deleted)")
        client.expunge()
        client.create("Projects")
        client.append("Projects", "", None, mails.simple("planned"))
    finally:
        client.logout()
    near.sync()
    near.sync()  # the local trash goes with the second one
    box = near.box()
    left = {message["Subject"]: message.get_flags() for message in box}
    assert left == {"mail 2": "R", "from here": ""}
    assert [message["Subject"] for message in near.box("Projects")] == ["planned"]
