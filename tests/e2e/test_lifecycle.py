"""Start, stop, restart; what the process says, holds and refuses."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.e2e import mails
from tests.e2e.server import ROOT, Server, content_of, tool

pytestmark = pytest.mark.real

TWISTD = str(Path(sys.executable).with_name("twistd"))


def twistd(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MAILTWIST_")}
    return subprocess.run(
        [TWISTD, "-n", "--pidfile=", "mailtwist", *arguments],
        check=False,
        cwd=folder,
        env={**clean, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.mission("GEN-01")
def test_the_plug_in_lists_its_options(tmp_path: Path):
    done = twistd("--help", folder=tmp_path)
    assert done.returncode == 0
    for option in ("--config", "-c,", "--data-dir", "--database-url"):
        assert option in done.stdout


def ask(server: Server, path: str) -> tuple[int, str]:
    client = http.client.HTTPConnection("127.0.0.1", server.ports["http"], timeout=10)
    try:
        client.request("GET", path)
        response = client.getresponse()
        return response.status, response.read().decode()
    finally:
        client.close()


def test_ping_and_health_answer(server: Server):
    assert ask(server, "/ping") == (200, "pong")
    status, body = ask(server, "/health")
    assert status == 200
    assert json.loads(body)["success"] is True


def test_listeners_json_lists_what_is_bound_and_goes_at_the_stop(make_server):
    server = make_server(listeners=[{"protocol": "smtp", "address": ":0"}]).start()
    path = server.data_dir / "listeners.json"
    entries = json.loads(path.read_text())
    assert {entry["protocol"] for entry in entries} == {"smtp"}
    with socket.create_connection(("127.0.0.1", server.ports["smtp"])):
        pass
    server.stop()
    assert not path.exists()


def test_the_data_folder_is_private(make_server):
    server = make_server().start()
    assert stat.S_IMODE(server.data_dir.stat().st_mode) == 0o700
    for name in ("mailtwist.db", "self-signed.key"):
        assert stat.S_IMODE((server.data_dir / name).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("listenrs: []", "listenrs"),
        ("max_message_size: lots", "max_message_size"),
        ("tls: {cert_file: /nowhere/c.pem, key_file: /nowhere/k.pem}", "tls.cert_file"),
        ("listeners: [{protocol: smtp, address: '192.0.2.1:2525'}]", "192.0.2.1:2525"),
        ("data_dir: /proc/nowhere", "data_dir"),
        ("database_url: 'postgresql+psycopg://127.0.0.1:1/x'", "Store unavailable"),
    ],
)
def test_a_start_that_fails_says_why_in_one_line_and_exits_1(tmp_path: Path, text, said):
    config = tmp_path / "c.yaml"
    values = text if "listeners" in text or "listenrs" in text else f"{text}\nlisteners: []"
    config.write_text(values if "data_dir" in text else f"{values}\ndata_dir: {tmp_path}/var\n")
    done = twistd("-c", str(config), folder=tmp_path)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert said in lines[0]
    assert "Traceback" not in done.stdout


def test_an_address_in_use_is_named_and_nothing_is_left_behind(tmp_path: Path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        config = tmp_path / "c.yaml"
        config.write_text(
            f"data_dir: {tmp_path}/var\n"
            f"listeners: [{{protocol: imap, address: '127.0.0.1:{port}'}}]\n"
        )
        done = twistd("-c", str(config), folder=tmp_path)
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr
    assert "imap" in done.stderr
    assert not (tmp_path / "var/listeners.json").exists()


def test_what_a_killed_process_had_bound_is_not_said_of_the_next(tmp_path: Path):
    data_dir = tmp_path / "var"
    data_dir.mkdir()
    left_over = data_dir / "listeners.json"
    left_over.write_text('[{"name": "file/smtp", "protocol": "smtp", "port": 1}]')
    # This start gets past its addresses and no further: nothing is bound when it ends.
    (data_dir / "mailtwist.db").write_bytes(b"no database " * 1000)
    config = tmp_path / "c.yaml"
    config.write_text(f"data_dir: {data_dir}\nlisteners: []\n")
    done = twistd("-c", str(config), folder=tmp_path)
    assert done.returncode == 1
    assert not left_over.exists()


@pytest.mark.mission("ELE-41")
def test_a_local_domain_takes_mail_from_anybody_without_a_login(make_server):
    server = make_server(
        domains=None,
        local_domains=["One.test", "two.test"],
        aliases={"*": "alice@example.com"},
        allowed_relays=[],
    )
    alice = server.account("alice")
    server.start()
    for n, domain in enumerate(("one.test", "TWO.test"), start=1):
        server.send(f"whoever@{domain}", mails.simple(f"to {domain}"))
        assert len(server.mails(alice)) == n
    with server.smtp() as client:
        client.helo()
        client.mail("stranger@foreign.test")
        assert client.rcpt("alice@three.test")[0] == 554


@pytest.mark.mission("DAP-235")
def test_a_restart_keeps_uidvalidity_and_uids(make_server):
    server = make_server().start()
    alice = server.account()
    for n in range(3):
        server.send(alice, mails.simple(f"before {n}"))

    def numbers() -> tuple[bytes, bytes]:
        client = server.imap(alice)
        try:
            _, (status,) = client.status("INBOX", "(UIDVALIDITY UIDNEXT)")
            return tuple(re.findall(rb"UID(?:VALIDITY|NEXT) (\d+)", status))
        finally:
            client.logout()

    before, kept = numbers(), server.mails(alice)
    server.restart()
    assert numbers() == before
    assert server.mails(alice) == kept
    server.send(alice, mails.simple("after"))
    assert sorted(server.mails(alice)) == [1, 2, 3, 4]


@pytest.mark.mission("ELE-38", "DAP-117", "DAP-222")
def test_a_lock_out_holds_on_every_protocol_and_over_a_restart(make_server):
    server = make_server().start()
    alice, bob = server.account(), server.account()
    for _ in range(5):
        client = server.imap()
        with pytest.raises(client.error):
            client.login(alice, "wrong")
        client.logout()
    server.restart()
    client = server.imap()
    with pytest.raises(client.error):
        client.login(alice, "correct horse")
    client.logout()
    with server.smtp("submissions") as smtp:
        smtp.ehlo()
        code, _ = smtp.docmd("AUTH PLAIN", _plain(alice))
        assert code == 454
    server.imap(bob).logout()


def _plain(address: str) -> str:
    import base64

    return base64.b64encode(f"\0{address}\0correct horse".encode()).decode()


@pytest.mark.mission("GEN-04")
def test_it_runs_without_root():
    # Not pytest's folder: another user may not enter that one.
    folder = Path(tempfile.mkdtemp(prefix="mailtwist-nobody-"))
    try:
        server = Server(folder / "server", prefix=_as_nobody() if os.getuid() == 0 else ())
        alice = server.account()
        if os.getuid() == 0:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, NOBODY, NOBODY)
        with server:
            status = Path(f"/proc/{server.server_pid}/status").read_text()
            assert not re.search(r"^Uid:(\s+\d+)*\s+0\b", status, re.MULTILINE)
            server.send(alice, mails.simple("as nobody"))
            assert len(server.mails(alice)) == 1
        server.check()
    finally:
        shutil.rmtree(folder)


NOBODY = 65534


def _as_nobody() -> tuple[str, ...]:
    prefix = (tool("setpriv"), f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    if subprocess.run([*prefix, sys.executable, "-c", ""], check=False).returncode:
        pytest.skip("another user may not read this interpreter")
    return prefix


# -- SIGTERM --------------------------------------------------------------------------------


@pytest.mark.mission("ELE-63")
def test_at_sigterm_idle_sessions_hear_it_and_a_mail_in_flight_ends(make_server):
    server = make_server().start()
    alice = server.account()
    sent = mails.simple("in flight", octets=500_000)
    idle_smtp, idle_imap, sending = server.raw("smtp"), server.raw("imap"), server.raw("smtp")
    idle_smtp.line()
    idle_imap.line()
    sending.reply()
    sending.say(b"EHLO client.example")
    sending.say(b"MAIL FROM:<x@elsewhere.example>")
    sending.say(b"RCPT TO:<%s>" % alice.encode())
    assert sending.say(b"DATA").startswith(b"354")
    sending.send(sent[:250_000])

    server.terminate()
    assert idle_smtp.line().startswith(b"421 ")
    assert idle_imap.line().startswith(b"* BYE ")
    assert idle_smtp.line() == b""
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", server.ports["imap"]), timeout=10)
    sending.send(sent[250_000:] + b".\r\n")
    assert sending.reply().startswith(b"250 2.0.0 Message accepted")
    assert sending.line().startswith(b"421 ")
    server.wait()
    for each in (idle_smtp, idle_imap, sending):
        each.close()

    server.start()
    assert [content_of(mail) for mail in server.mails(alice).values()] == [sent]


def test_a_peer_that_never_ends_its_mail_holds_the_stop_up_for_a_bounded_time(make_server):
    server = make_server().start()
    alice = server.account()
    talk = server.raw("smtp")
    talk.reply()
    talk.say(b"EHLO client.example")
    talk.say(b"MAIL FROM:<x@elsewhere.example>")
    talk.say(b"RCPT TO:<%s>" % alice.encode())
    talk.say(b"DATA")
    begin = time.monotonic()
    server.terminate()
    server.wait()
    assert time.monotonic() - begin < 20
    talk.close()


# -- what an idle process holds -------------------------------------------------------------


def test_an_idle_process_is_small_and_has_imported_nothing_heavy(make_server):
    server = make_server().start()
    server.stop()
    # On the second start there is no migration to run.
    server.environment["PYTHONVERBOSE"] = "1"
    server.log_path.unlink()
    server.start()
    imported = set(re.findall(r"^import '?([\w.]+)'?", server.log, re.MULTILINE))
    assert "mailtwist.control.runtime" in imported
    heavy = {"boto3", "botocore", "acme", "josepy", "alembic", "rich", "treq", "requests", "mako"}
    heavy |= {"pydantic", "psycopg", "hypothesis", "pytest", "click", "ldaptor", "dkim", "jinja2"}
    assert not {name.partition(".")[0] for name in imported} & heavy
    status = Path(f"/proc/{server.server_pid}/status").read_text()
    (resident,) = map(int, re.findall(r"VmRSS:\s+(\d+)", status))
    assert resident < 100 * 1024, f"{resident} KiB"


@pytest.mark.mission("GEN-05")
def test_no_secret_is_in_the_process_list_or_the_log(make_server):
    server = make_server(relay={"host": "", "password": "relay-hunter2"}).start()
    shown = Path(f"/proc/{server.server_pid}/cmdline").read_bytes()
    assert b"hunter2" not in shown
    assert "hunter2" not in server.log
    assert "PRIVATE KEY" not in server.log
