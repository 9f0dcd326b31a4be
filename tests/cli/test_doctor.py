"""What the doctor finds, in an installation that is well and in ones that are not."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mailtwist.cli.doctor import installation, leaving, published, running
from mailtwist.cli.doctor.examination import Check, Finding, Status, examine, ok
from mailtwist.config import Settings, load
from mailtwist.errors import MailError
from mailtwist.policy.dns_records import Record
from mailtwist.store import domains
from mailtwist.store.engine import Engine
from mailtwist.store.queue import destinations
from mailtwist.store.queue.destinations import DestinationState
from tests.cli.conftest import Ended, Mailtwist
from tests.cli.sandbox import Sandbox, announced_by
from tests.e2e.relaying import until
from tests.e2e.server import tool
from tests.store.making import NOW
from tests.store.queued import claim, enqueue, queued
from tests.support import chains
from tests.support.dns import DnsServer
from tests.support.ports import free_port
from tests.support.sink import Sink

EVERY = "smtp submission submissions imap imaps http https http-redirect"


def by_name(found: list[Finding]) -> dict[str, tuple[str, str]]:
    return {each.name: (each.status.value, each.reason) for each in found}


def settings(**environ: str) -> Settings:
    return load(None, environ)


# -- the examination ------------------------------------------------------------------------


def test_checks_run_side_by_side_and_keep_their_order() -> None:
    both = threading.Barrier(2, timeout=20)

    def meet(name: str) -> Iterator[Finding]:
        both.wait()
        yield ok(name, "met")
        yield ok(f"{name}2", "too")

    found = examine([Check(name, partial(meet, name)) for name in ("a", "b")])
    assert [each.name for each in found] == ["a", "a2", "b", "b2"]


@pytest.mark.parametrize(
    "error, reason",
    [
        (MailError("It is so", detail="because"), "It is so: because"),
        (MailError("Away", detail="no server\n\tIs it running?"), "Away: no server Is it running?"),
        (PermissionError(13, "Permission denied", "/etc/x"), "/etc/x: Permission denied"),
        (ValueError("odd"), "the check broke off: ValueError: odd"),
    ],
)
def test_a_check_that_breaks_fails_and_hides_no_other(error: Exception, reason: str) -> None:
    def breaks() -> Iterator[Finding]:
        yield ok("before", "lost")
        raise error

    found = examine([Check("breaks", breaks), Check("well", lambda: [ok("well", "fine")])])
    assert [(each.name, each.status.value, each.reason) for each in found] == [
        ("breaks", "fail", reason),
        ("well", "ok", "fine"),
    ]


def test_a_check_that_hangs_fails_at_its_deadline() -> None:
    until = threading.Event()

    def hangs() -> Iterator[Finding]:
        until.wait(60)
        yield ok("hangs", "never said")

    begin = time.monotonic()
    (found,) = examine([Check("hangs", hangs, deadline_s=0.2)])
    assert time.monotonic() - begin < 10
    until.set()
    assert found == Finding("hangs", Status.FAIL, "no answer within 0.2 s")


def test_a_certificate_without_which_no_server_starts_is_missed(tmp_path: Path) -> None:
    given = {"TLS_CERT_FILE": f"{tmp_path}/c.pem", "TLS_KEY_FILE": f"{tmp_path}/k.pem"}
    named = settings(**{f"MAILTWIST_{name}": path for name, path in given.items()})
    (found,) = examine([Check("tls", partial(installation.tls, named))])
    assert found.status is Status.FAIL
    assert found.reason.startswith(f"tls.cert_file: cannot read {tmp_path}/c.pem")


# -- a whole installation -------------------------------------------------------------------


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data folder of a sandbox that runs."""
    folder = tmp_path_factory.mktemp("doctor") / "data"
    listeners = ",".join(f"{protocol}=127.0.0.1:0" for protocol in EVERY.split())
    running = Sandbox(folder, "--json", listeners=listeners)
    announced_by(running)
    yield folder
    assert running.stop() == 0


def doctor(*arguments: str, **environ: str) -> Ended:
    """As a process: some of what it looks at is kept for the life of one."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MAILTWIST_")}
    program = "from mailtwist.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "doctor", *arguments],
        env={**clean, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def test_nothing_is_wrong_with_a_sandbox_that_runs(sandbox: Path) -> None:
    with DnsServer({}) as dns:
        environ = {"MAILTWIST_OUTBOUND_RESOLVER": dns.address}
        ended = doctor("--json", MAILTWIST_DATA_DIR=str(sandbox), **environ)
    assert (ended.status, ended.err) == (0, "")
    assert ended.json["ok"] is True
    found = {each["name"].split(" 127.0.0.1:")[0]: each for each in ended.json["checks"]}
    for name in ("database", "queue", "server", "dns", "delivery", *EVERY.split()):
        assert found[name]["status"] == "ok", found[name]
    assert found["smtp"]["reason"].startswith("220 ")
    assert found["https"]["reason"] == "/health: Mail API service is running"
    assert found["delivery"]["reason"] == "dev_mode is on: nothing leaves"
    assert not [each for each in ended.json["checks"] if each["status"] == "fail"]


def test_without_a_server_it_fails_and_says_what_to_do(
    mailtwist: Mailtwist, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAILTWIST_DEV_MODE", "true")
    with DnsServer({}) as dns:
        monkeypatch.setenv("MAILTWIST_OUTBOUND_RESOLVER", dns.address)
        nothing = mailtwist("doctor")
        assert nothing.status == 1
        assert not data_dir.exists()
        data_dir.mkdir()
        with_records = mailtwist("doctor", "example.com")
        assert re.search("fail  MX example.com +not published", with_records.out)
        assert not list(data_dir.iterdir())
        mailtwist("init")
        stopped = mailtwist("doctor")
    assert stopped.status == 1
    assert re.fullmatch(r"mailtwist: 1 of \d+ checks failed\n", stopped.err)
    lines = stopped.out.splitlines()
    (line,) = (n for n, text in enumerate(lines) if text.startswith("fail  "))
    assert re.match(f"fail  server +none runs on {data_dir}", lines[line])
    assert lines[line + 1].strip() == "-> run: mailtwist serve"


def test_a_wrong_configuration_is_all_that_is_said(
    mailtwist: Mailtwist, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAILTWIST_QUEUE_MAX_WORKERS", "many")
    ended = mailtwist("doctor", "--json")
    assert ended.status == 1
    assert [each["name"] for each in ended.json["checks"]] == ["configuration"]
    assert "MAILTWIST_QUEUE_MAX_WORKERS" in ended.json["checks"][0]["reason"]


# -- settings and files ---------------------------------------------------------------------


def test_placeholders_of_an_example_file_are_named() -> None:
    environ = {
        "MAIL_DOMAIN": "yourdomain.com",
        "MAIL_HOSTNAME": "mail.yourdomain.com",
        "DEFAULT_FROM": "noreply@example.com",
        "SMTP_RELAY_HOST": "smtp.gmail.com",
        "SMTP_RELAY_USERNAME": "your-gmail-address@gmail.com",
        "SMTP_RELAY_PASSWORD": "your-16-character-app-password",
    }
    found = [each.reason for each in installation.configuration(settings(**environ))]
    assert [text for text in found if "placeholder" in text] == [
        f"{key} still holds a placeholder"
        for key in ("hostname", "domains", "relay.username", "relay.password")
    ]


def test_a_file_of_variables_that_was_not_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (right,) = installation.configuration(settings())
    (tmp_path / ".env").touch()
    named, same = installation.configuration(settings())
    assert (named.status, named.reason) == ("warn", ".env lies here and was not read")
    assert same == right
    assert list(installation.configuration(settings(), ".env")) == [right]


def test_domains_that_never_send_need_no_key(mailtwist: Mailtwist, store: Engine) -> None:
    mailtwist("init")
    with store.write() as connection:
        for kind in ("relay", "inbox"):
            domains.add(connection, f"{kind}.example", kind)
        (found,) = installation.signatures(settings(), connection)
        assert found.status == "ok"
        domains.add(connection, "example.com")
        (found,) = installation.signatures(settings(), connection)
    assert (found.status, found.reason) == ("warn", "no key yet for example.com")


def test_a_domain_without_postmaster_is_named(
    mailtwist: Mailtwist, store: Engine, data_dir: Path
) -> None:
    mailtwist("account", "add", "anna@example.com", "--password", "x")
    mailtwist("domain", "add", "example.org")

    def missing(**environ: str) -> list[str]:
        given = settings(MAILTWIST_DATA_DIR=str(data_dir), **environ)
        found = installation.postmasters(given, store, ["example.com", "example.org"])
        return [each.reason.rpartition("@")[2] for each in found]

    assert missing() == ["example.com", "example.org"]
    assert missing(MAILTWIST_DEV_MODE="true") == []
    mailtwist("account", "add", "postmaster@example.com", "--password", "x")
    assert missing() == ["example.org"]
    assert missing(MAILTWIST_ALIASES="postmaster=anna@example.com") == []


@pytest.mark.parametrize("keys, warned", [("", True), ("a-key", False)])
def test_an_inbox_that_nobody_can_read_is_named(keys: str, warned: bool) -> None:
    found = installation.configuration(settings(DOMAIN="inbox.example", API_KEY=keys))
    assert any("nobody can read" in each.reason for each in found) == warned


@pytest.mark.parametrize(
    "mode, name, status",
    [(0o600, "secret.key", "ok"), (0o640, "secret.key", "ok"), (0o644, "secret.key", "fail")],
)
def test_secrets_that_everybody_may_read_are_found(
    tmp_path: Path, mode: int, name: str, status: str
) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / name).write_bytes(b"x")
    (tmp_path / name).chmod(mode)
    (found,) = installation.secrets(settings(MAILTWIST_DATA_DIR=str(tmp_path)))
    assert found.status == status
    if status == "fail":
        assert found.advice == f"run: chmod o-rwx {tmp_path / name}"
        # Nobody gets at what lies in a closed folder.
        tmp_path.chmod(0o700)
        (found,) = installation.secrets(settings(MAILTWIST_DATA_DIR=str(tmp_path)))
        assert found.status == "ok"


def test_a_configuration_with_passwords_is_nobody_elses(tmp_path: Path) -> None:
    path = tmp_path / "mailtwist.yaml"
    path.write_text("relay: {password: secret}\n")
    path.chmod(0o644)
    (found,) = installation.secrets(load(path, {"MAILTWIST_DATA_DIR": str(tmp_path / "none")}))
    assert (found.status, found.reason) == ("warn", f"everybody may read {path}")
    path.write_text("hostname: mx.example.com\n")
    (found,) = installation.secrets(load(path, {"MAILTWIST_DATA_DIR": str(tmp_path / "none")}))
    assert found.status == "ok"


@pytest.mark.parametrize(
    "free, files, status",
    [(5 << 30, 10_000, "ok"), (900 << 20, 10_000, "warn"), (9 << 20, 10_000, "fail"),
     (5 << 30, 10, "fail")],
)  # fmt: skip
def test_a_disk_that_fills_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, files: int, status: str
) -> None:
    class Found:
        f_frsize, f_bavail, f_files, f_favail = 4096, free // 4096, 100_000, files

    monkeypatch.setattr(os, "statvfs", lambda _: Found)
    *_, found = installation.data_folder(settings(MAILTWIST_DATA_DIR=str(tmp_path)))
    assert (found.name, found.status) == ("disk", status)


MINUTE = 60_000_000


def test_the_queue_tells_of_mail_that_waits_and_of_hosts_that_are_away(
    mailtwist: Mailtwist, store: Engine
) -> None:
    mailtwist("init")

    def looked(now: int) -> list[tuple[str, str]]:
        with store.read() as connection:
            found = list(installation.queue(connection, now))
        assert {each.name for each in found} == {"queue"}
        return [(each.status.value, each.reason) for each in found]

    assert looked(NOW) == [("ok", "empty")]
    with store.write() as connection:
        enqueue(connection, queued("bob@far.example"))
    assert looked(NOW + MINUTE) == [("ok", "1 active, the oldest 1m old")]
    # Nobody takes it up.
    ((status, reason),) = looked(NOW + 6 * MINUTE)
    assert (status, reason.partition("; ")[2]) == (
        "fail",
        "1 recipients are due for more than 5 minutes",
    )
    with store.write() as connection:
        claim(connection, now=NOW + 6 * MINUTE)
        enqueue(connection, queued("carol@far.example"))
    ((status, _),) = looked(NOW + 6 * MINUTE + 1)
    assert status == "warn"
    with store.write() as connection:
        until = NOW + 48 * 60 * MINUTE
        away = DestinationState("far.example", until, 7, "421 not\x1b[2J today")
        destinations.note(connection, [away], NOW)
    waiting, suspended = looked(NOW + 25 * 60 * MINUTE)
    assert waiting == ("warn", "2 active, the oldest 25h old")
    assert suspended == (
        "warn",
        "far.example is left alone after 7 failures: 421 not?[2J today",
    )


def test_a_database_that_cannot_be_opened_fails(tmp_path: Path) -> None:
    (tmp_path / "mailtwist.db").write_bytes(b"no database at all" * 1000)
    check = Check(
        "database", lambda: installation.database(settings(**{"MAILTWIST_DATA_DIR": str(tmp_path)}))
    )
    (found,) = examine([check])
    assert (found.name, found.status) == ("database", Status.FAIL)
    assert "not a database" in found.reason


# -- listeners ------------------------------------------------------------------------------


@contextlib.contextmanager
def answering(said: bytes) -> Iterator[int]:
    """A port on which somebody says this and nothing else."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    link, _ = server.accept()
                    with link:
                        link.sendall(said)
                        link.shutdown(socket.SHUT_WR)
                        # With something unread the end would be a reset.
                        while link.recv(4096):
                            pass

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        # A connection that wakes it up, to find that the port is gone.
        server.shutdown(socket.SHUT_RDWR)
    thread.join(10)


@pytest.mark.parametrize(
    "protocol, tls, said, reason",
    [
        ("smtp", False, b"554 go away\r\n", "it greets with: 554 go away"),
        ("smtp", False, b"", "the connection was closed"),
        ("smtp", False, b"\x1b[2J" * 3, "it greets with: ?[2J?[2J?[2J"),
        ("imap", False, b"* BYE full\r\n", "it greets with: * BYE full"),
        ("imaps", True, b"* OK in clear\r\n", "no TLS: WRONG_VERSION_NUMBER"),
        ("http", False, b"HTTP/1.1 503 no\r\nContent-Length: 41\r\n\r\n"
         b'{"success":false,"message":"no database"}', "/health answers 503: no database"),
        ("http", False, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "/health answers 200"),
        ("http-redirect", False, b"HTTP/1.1 404 no\r\nContent-Length: 0\r\n\r\n",
         "answers 404 where it should redirect"),
    ],
)  # fmt: skip
def test_a_listener_that_answers_wrong_fails(
    protocol: str, tls: bool, said: bytes, reason: str
) -> None:
    with answering(said) as port:
        bound = running.Bound(protocol, "127.0.0.1", port, tls, "mx.example.com")
        found, certificate = running._examined(bound, settings())
    assert (found.status, certificate) == (Status.FAIL, None)
    assert found.reason.startswith(reason)


def test_a_listener_that_is_gone_fails() -> None:
    bound = running.Bound("smtp", "127.0.0.1", free_port(), False, "mx.example.com")
    found, _ = running._examined(bound, settings())
    assert (found.status, found.reason) == (
        Status.FAIL,
        "cannot be reached: [Errno 111] Connection refused",
    )


@pytest.mark.parametrize(
    "names, begins, ends, status, reason",
    [
        (["mx.example.com"], -10, 60, "ok", "certificate for mx.example.com until 20"),
        (["*.example.com"], -10, 60, "ok", "certificate for *.example.com until 20"),
        (["mx.example.com"], -10, -1, "fail", "expired: "),
        (["mx.example.com"], 1, 60, "fail", "not valid yet: "),
        (["mx.example.com"], -10, 13, "warn", "ends soon: "),
        (["www.example.com"], -10, 60, "warn", "not for mx.example.com: "),
    ],
)
def test_a_certificate_is_judged_as_clients_do(
    names: list[str], begins: int, ends: int, status: str, reason: str
) -> None:
    signed = chains.sign(
        names[0],
        chains.sign("authority", is_authority=True),
        names=tuple(names),
        since=timedelta(days=begins),
        until=timedelta(days=ends, hours=1),
    )
    found = running.judged(signed.certificate, "mx.example.com", datetime.now(UTC))
    assert found.status == status
    assert found.reason.startswith(reason)


@pytest.mark.parametrize("is_sandbox, status", [(False, "warn"), (True, "ok")])
def test_a_certificate_signed_by_itself_will_do_for_a_sandbox(
    is_sandbox: bool, status: str
) -> None:
    certificate = chains.sign("mx.example.com", names=("mx.example.com",)).certificate
    now = datetime.now(UTC)
    found = running.judged(certificate, "mx.example.com", now, is_sandbox=is_sandbox)
    assert found.status == status


# -- mail that leaves -----------------------------------------------------------------------


def delivery(tmp_path: Path, probe: str = "far.test", **environ: str) -> dict[str, tuple[str, str]]:
    given = {"MAILTWIST_DATA_DIR": str(tmp_path / "none"), **environ}
    return by_name(examine(list(leaving.delivery(settings(**given), probe))))


LOGIN = {"SMTP_RELAY_USERNAME": "me", "SMTP_RELAY_PASSWORD": "app password"}


@pytest.mark.parametrize(
    "hop, given, status, reason",
    [
        ({}, {"USE_TLS": "no"}, "ok", "answers"),
        ({"logins": {"me": "apppassword"}}, {"USE_TLS": "no", **LOGIN}, "ok", "answers (login)"),
        ({"logins": {"me": "other"}}, {"USE_TLS": "no", **LOGIN}, "fail",
         "the login is refused: 535"),
        ({}, {}, "fail", "it offers no STARTTLS, and TLS is insisted on"),
        ({"tls": True}, {}, "fail", "its certificate does not hold: self-signed certificate"),
        ({"tls": True}, {"TLS_VERIFY": "no"}, "ok", "answers (STARTTLS)"),
        ({"tls": True, "logins": {"me": "apppassword"}}, {"TLS_VERIFY": "no", **LOGIN}, "ok",
         "answers (STARTTLS, login)"),
        ({"replies": {"GREETING": "554 5.7.1 not you\x1b[2J"}}, {"USE_TLS": "no"}, "fail",
         "it answers 554 5.7.1 not you?[2J"),
        ({"replies": {"GREETING": "!close"}}, {"USE_TLS": "no"}, "fail",
         "Connection unexpectedly closed"),
    ],
)  # fmt: skip
def test_the_smart_host_is_called_and_nothing_is_sent(
    tmp_path: Path, hop: dict[str, Any], given: dict[str, str], status: str, reason: str
) -> None:
    if "tls" in hop:
        signed = chains.sign("127.0.0.1", names=("smart.test",))
        (tmp_path / "pem").write_text(signed.pem + signed.key_pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "pem")
        hop = {**hop, "tls": context}
    with Sink(**hop) as sink:
        relay = {"SMTP_RELAY_HOST": "127.0.0.1", "SMTP_RELAY_PORT": str(sink.port)}
        found = delivery(tmp_path, **relay, **given)
        assert sink.mails == []
        name = f"delivery 127.0.0.1:{sink.port}"
    assert list(found) == [name]
    assert found[name][0] == status
    assert found[name][1].startswith(reason)


def test_a_smart_host_that_is_away_fails(tmp_path: Path) -> None:
    port = free_port()
    relay = {"SMTP_RELAY_HOST": "127.0.0.1", "SMTP_RELAY_PORT": str(port)}
    assert delivery(tmp_path, **relay) == {
        f"delivery 127.0.0.1:{port}": ("fail", "cannot be reached: Connection refused")
    }


def test_every_transport_is_called_once_and_the_lmtp_server_too(tmp_path: Path) -> None:
    with Sink() as one, Sink(is_lmtp=True) as two:
        found = delivery(
            tmp_path,
            MAILTWIST_TRANSPORTS=f"a.test=smtp://127.0.0.1:{one.port}?tls=none,"
            f".b.test=smtp://127.0.0.1:{one.port}?tls=none,*=smtp://127.0.0.1:{one.port}?tls=none",
            MAILTWIST_DELIVERY_MODE="lmtp",
            MAILTWIST_DELIVERY_HOST="127.0.0.1",
            MAILTWIST_DELIVERY_PORT=str(two.port),
        )
        assert found == {
            f"delivery 127.0.0.1:{each.port}": ("ok", "answers") for each in (one, two)
        }
        assert [each.split()[0].upper() for each in two.commands] == ["LHLO", "QUIT"]


@pytest.mark.parametrize(
    "zone, status, reason",
    [
        ({"far.test": {"MX": ["10 mx.far.test."]}, "mx.far.test": {"A": ["127.0.0.1"]}}, "ok",
         "open: mx.far.test says 220 sink.example.net"),
        ({"far.test": {"MX": ["10 gone.far.test.", "20 mx.far.test."]},
          "mx.far.test": {"A": ["127.0.0.1"]}}, "ok", "open: mx.far.test says 220"),
        ({"far.test": {"MX": ["10 mx.far.test."]}, "mx.far.test": {"A": ["127.0.0.9"]}}, "fail",
         "no mail host of far.test could be reached (mx.far.test: "),
        ({}, "fail", "no mail host of far.test to try: far.test does not exist"),
    ],
)  # fmt: skip
def test_without_a_smart_host_the_port_of_others_is_tried(
    tmp_path: Path, zone: dict[str, Any], status: str, reason: str
) -> None:
    with DnsServer(zone) as dns, Sink() as sink:
        outbound = {"RESOLVER": dns.address, "PORT": str(sink.port)}
        given = {f"MAILTWIST_OUTBOUND_{name}": value for name, value in outbound.items()}
        found = delivery(tmp_path, **given)
        name = f"delivery port {sink.port}"
        assert sink.mails == []
    assert list(found) == [name]
    assert found[name][0] == status
    assert found[name][1].startswith(reason)


def test_a_dns_server_that_does_not_answer_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "TRY_S", 0.1)
    with DnsServer({"example.com": {"MX": ["10 mx.example.com."]}}) as dns:
        given = {"MAILTWIST_OUTBOUND_RESOLVER": dns.address, "MAIL_DOMAIN": "example.com"}
        (found,) = leaving.resolver(settings(**given))
        assert (found.status, found.reason) == ("ok", f"{dns.address} answers")
        dns.silent.add("example.com")
        (found,) = leaving.resolver(settings(**given))
    assert (found.status, found.reason) == ("fail", f"{dns.address}: example.com MX: timed out")


@pytest.mark.parametrize(
    "said, status, reason",
    [
        (b"+PONG\r\n", "ok", "answers"),
        (b"-NOAUTH Authentication required.\r\n", "warn", "it says: -NOAUTH"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "warn", "it says: -LOADING"),
        (b"", "warn", "it says: nothing"),
    ],
)
def test_redis_is_asked(said: bytes, status: str, reason: str) -> None:
    with answering(said) as port:
        (found,) = leaving.redis(settings(REDIS_ADDR=f"127.0.0.1:{port}"))
    assert found.status == status
    assert found.reason.startswith(reason)


def test_a_redis_that_is_away_is_no_failure_and_its_password_is_not_shown() -> None:
    port = free_port()
    url = f"redis://user:hunter2@127.0.0.1:{port}/0"
    (found,) = leaving.redis(settings(MAILTWIST_REDIS_URL=url))
    assert found.status == "warn"
    assert "hunter2" not in str(found)
    assert list(leaving.redis(settings())) == []


def test_a_redis_that_repeats_the_password_does_not_show_it() -> None:
    with answering(b"-ERR unknown command 'AUTH', with args beginning with: 'hunter2'\r\n") as port:
        url = f"redis://:hunter2@127.0.0.1:{port}"
        (found,) = leaving.redis(settings(MAILTWIST_REDIS_URL=url))
    assert found.reason.endswith("with args beginning with: '********'")


def test_a_redis_that_the_server_cannot_ask_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (found,) = leaving.redis(settings(REDIS_ADDR="127.0.0.1:1"))
    assert (found.status, "txredisapi is not installed" in found.reason) == ("warn", True)


@pytest.mark.real
def test_a_real_redis_with_a_password_answers(tmp_path: Path) -> None:
    path = tmp_path / "redis"
    options = ["--port", "0", "--unixsocket", str(path), "--requirepass", "p@ss word"]
    process = subprocess.Popen(
        [tool("redis-server"), *options, "--save", "", "--dir", str(tmp_path)],
        stdout=subprocess.DEVNULL,
    )
    try:
        until(path.exists)
        (found,) = leaving.redis(settings(MAILTWIST_REDIS_URL=f"unix://:p%40ss%20word@{path}"))
        assert (found.status, found.reason) == ("ok", "answers")
        (found,) = leaving.redis(settings(MAILTWIST_REDIS_URL=f"unix://{path}"))
        assert found.reason.startswith("it says: -NOAUTH")
        url = f"unix://:p%40ss%20word@{path}?db=99"
        (found,) = leaving.redis(settings(MAILTWIST_REDIS_URL=url))
        assert found.reason.startswith("it says: -ERR DB index")
    finally:
        process.terminate()
        process.wait(30)


# -- the records of a domain ----------------------------------------------------------------


def record(kind: str, name: str, value: str, need: str = "must") -> Record:
    return Record(kind, name, value, "because", need)


SPF = record("TXT", "example.com", "v=spf1 mx ~all")
DKIM = record("TXT", "d1._domainkey.example.com", "v=DKIM1; k=rsa; p=MIIB")
DMARC = record("TXT", "_dmarc.example.com", "v=DMARC1; p=none")
MX = record("MX", "example.com", "10 mx.example.com")
SRV = record("SRV", "_imaps._tcp.example.com", "0 1 993 mx.example.com", "should")


@pytest.mark.parametrize(
    "wanted, published_, status, reason",
    [
        (MX, ["10 mx.example.com."], "ok", "10 mx.example.com"),
        (MX, ["5 other.example.", "50 MX.example.com."], "ok", "10 mx.example.com"),
        (MX, ["10 other.example."], "warn", "published is: 10 other.example"),
        (MX, [], "fail", "not published"),
        (SPF, ['"hello"', '"v=spf1 mx ~all"'], "ok", "v=spf1 mx ~all"),
        (SPF, ['"v=spf1 mx " "~all"'], "ok", "v=spf1 mx ~all"),
        (SPF, ['"v=spf1 include:other.example -all"'], "warn", "published is: v=spf1 include:"),
        (SPF, ['"v=spf1 mx ~all"', '"v=spf1 -all"'], "fail", "there are several v=spf1"),
        (SPF, ['"hello"'], "fail", "not published"),
        (DKIM, ['"v=DKIM1;k=rsa;p=MI" "IB"'], "ok", "v=DKIM1; k=rsa; p=MIIB"),
        (DKIM, ['"p=MIIB"'], "ok", "v=DKIM1; k=rsa; p=MIIB"),
        (DKIM, ['"v=DKIM1; k=rsa; p=OTHER"'], "fail", "another key is published"),
        (DMARC, ['"v=DMARC1; p=reject"'], "ok", "v=DMARC1; p=reject"),
        (SRV, ["0 1 993 mx.example.com."], "ok", "0 1 993 mx.example.com"),
        (SRV, [], "warn", "not published"),
    ],
)
def test_a_record_is_compared_with_what_is_published(
    wanted: Record, published_: list[str], status: str, reason: str
) -> None:
    zone = {wanted.name: {wanted.type: published_}} if published_ else {}
    with DnsServer(zone) as dns:
        stub = leaving.resolver_of(settings(MAILTWIST_OUTBOUND_RESOLVER=dns.address))
        found = published.compared(wanted, stub)
    assert (found.name, found.status) == (f"{wanted.type} {wanted.name}", status)
    assert found.reason.startswith(reason)
    if found.reason == "not published":
        assert found.advice.startswith(f"publish: {wanted.name}. IN {wanted.type} ")


@pytest.mark.parametrize(
    "pointer, relay, status, reason",
    [
        (["mx.example.com."], "", "ok", "mx.example.com"),
        (["host7.provider.example."], "", "fail", "leads to host7.provider.example, not to mx"),
        ([], "", "fail", "not published"),
        ([], "smart.test", "warn", "not published"),
    ],
)
def test_the_address_of_the_host_leads_back_to_it(
    pointer: list[str], relay: str, status: str, reason: str
) -> None:
    zone: dict[str, Any] = {"mx.example.com": {"A": ["192.0.2.7"]}}
    if pointer:
        zone["7.2.0.192.in-addr.arpa"] = {"PTR": pointer}
    with DnsServer(zone) as dns:
        given = {"MAIL_HOSTNAME": "mx.example.com", "SMTP_RELAY_HOST": relay}
        chosen = settings(MAILTWIST_OUTBOUND_RESOLVER=dns.address, **given)
        found = by_name(list(published.addresses(chosen, leaving.resolver_of(chosen))))
    assert found["A mx.example.com"] == ("ok", "192.0.2.7")
    assert found["PTR 192.0.2.7"][0] == status
    assert found["PTR 192.0.2.7"][1].startswith(reason)


def test_a_domain_is_well_when_what_dns_prints_is_published(
    mailtwist: Mailtwist, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAIL_HOSTNAME", "mx.example.com")
    monkeypatch.setenv("MAILTWIST_DEV_MODE", "true")
    printed = mailtwist("dns", "example.com", "--address", "192.0.2.7", "--json").json
    zone: dict[str, dict[str, list[str]]] = {}
    for each in printed:
        _, _, kind, value = each["zone"].split(" ", 3)
        zone.setdefault(each["name"], {}).setdefault(kind, []).append(value)
    with DnsServer(zone) as dns:
        monkeypatch.setenv("MAILTWIST_OUTBOUND_RESOLVER", dns.address)
        checks = mailtwist("doctor", "example.com", "--json").json["checks"]
        del zone["_dmarc.example.com"]
        dns.zone = dict(zone)
        without = mailtwist("doctor", "example.com", "--json").json["checks"]
    found = [each for each in checks if each["name"].split()[0] in {"A", "PTR", "MX", "TXT", "SRV"}]
    assert len(found) >= 9
    assert {each["status"] for each in found} == {"ok"}, found
    (missing,) = (each for each in without if each["name"] == "TXT _dmarc.example.com")
    assert missing["status"] == "fail"
