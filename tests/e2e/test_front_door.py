"""Who may come in, by what is configured: names, addresses, TLS, rates; through real processes."""

from __future__ import annotations

import base64
import smtplib
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from mailtwist.config import load
from mailtwist.store import rates
from mailtwist.store.engine import open_engine
from mailtwist.store.ids import now_us
from tests.e2e import mails
from tests.e2e.relaying import going_to, until
from tests.e2e.server import PASSWORD, Server, trusting

pytestmark = pytest.mark.real

EXCEEDED = (450, b"4.7.1 rate limit exceeded")
SUBMISSION = [
    {"protocol": protocol, "address": "127.0.0.1:0"} for protocol in ("submission", "imaps")
]


# Another one of this machine: on Linux all of 127/8 are.
OTHER_ADDRESS = "127.0.0.2"


def named_events(server: Server, name: str) -> list[dict[str, Any]]:
    return [each for each in server.events if each["event"] == name]


@pytest.fixture(scope="module")
def named(sink, tmp_path_factory):
    """A server that variables told its names, its people and that it is a sandbox."""
    server = Server(
        tmp_path_factory.mktemp("named"), outbound=going_to(sink), hostname="file.example"
    )
    server.environment = {
        "MAIL_HOSTNAME": "mail.example.org",
        "MAIL_DOMAIN": "example.org",
        "MAILTWIST_ALIASES": "postmaster=alice@example.org, abuse=alice@example.org",
        "ENVIRONMENT": "development",
    }
    with server:
        yield server
    server.check()


@pytest.mark.mission("DIN-20")
def test_host_name_and_domain_come_from_variables(named):
    with named.raw("smtp") as talk:
        assert talk.line() == b"220 mail.example.org ESMTP mailtwist ready\r\n"
        talk.send(b"EHLO c\r\n")
        assert talk.line() == b"250-mail.example.org Hello c\r\n"


@pytest.mark.mission("DIN-20", "DIN-28", "DIN-29")
def test_the_domain_of_the_variable_is_local_with_tags_and_roles(make_server):
    server = make_server()
    server.environment = {
        "MAIL_DOMAIN": "example.com",
        "MAILTWIST_ALIASES": "postmaster=alice@example.com, abuse=alice@example.com",
    }
    server.settings["domains"] = ["other.example"]
    server.start()
    alice = server.account("alice")
    names = [
        "alice",
        "alice+tag",
        "Alice+Tag+more",
        "postmaster",
        "PostMaster",
        "abuse",
        "abuse+spam",
    ]
    for name in names:
        server.send(f"{name}@example.com", mails.simple(f"to {name}"))
    with server.smtp() as client:
        client.ehlo()
        client.mail("x@elsewhere.example")
        # RFC 5321 §4.5.1: without a domain too.
        assert client.docmd("RCPT TO:<postmaster>")[0] == 250
        assert client.rcpt("nobody@example.com") == (550, b"5.1.1 User unknown")
        assert client.rcpt("nobody+alice@example.com") == (550, b"5.1.1 User unknown")
        # What the file said counts no more.
        code, text = client.rcpt("alice@other.example")
        assert (code, text) == (250, b"2.1.5 OK")  # a foreign domain, from a relay
    stored = server.mails(alice)
    assert len(stored) == len(names)


@pytest.mark.mission("DIN-21")
def test_nothing_is_bound_beyond_loopback_unless_told(make_server, tmp_path: Path):
    unconfigured = load(None, {}, {"data_dir": str(tmp_path)})
    assert {each.host for each in unconfigured.listeners} == {"127.0.0.1"}
    server = make_server().start()
    for port in server.ports.values():
        with socket.create_connection(("127.0.0.1", port), 30):
            pass
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((OTHER_ADDRESS, port), 30)


@pytest.mark.mission("DIN-30")
def test_a_development_environment_sends_nothing_and_tells_everything(named, sink):
    before = len(sink.mails)
    with named.smtp() as client:
        client.ehlo()
        client.mail("dev@example.org")
        assert client.rcpt("somebody@far.example")[0] == 250
        assert client.data(mails.simple("kept here"))[0] == 250
    until(lambda: named_events(named, "message accepted"))
    (accepted,) = named_events(named, "message accepted")
    assert accepted["forward_paths"] == ["somebody@far.example"]
    assert accepted["subject"] == "kept here"
    assert any(each["level"] == "debug" for each in named.events)
    time.sleep(0.5)
    assert len(sink.mails) == before


@pytest.mark.mission("DIN-23")
def test_submission_wants_tls_and_then_a_login(make_server):
    server = make_server(listeners=SUBMISSION).start()
    alice = server.account()
    with server.smtp("submission") as client:
        client.ehlo()
        assert "auth" not in client.esmtp_features
        assert client.mail(alice) == (530, b"5.7.0 Must issue a STARTTLS command first")
        client.starttls(context=trusting())
        client.ehlo()
        assert client.mail(alice) == (530, b"5.7.0 Authentication required")
        client.login(alice, PASSWORD)
        assert client.mail(alice) == (250, b"2.1.0 OK")


@pytest.mark.mission("ADG-19")
@pytest.mark.parametrize("key", [{"require_tls": True}, {"tls": {"required": True}}], ids=str)
def test_tls_can_be_insisted_on(make_server, key):
    server = make_server(**key).start()
    alice = server.account()
    with server.smtp() as client:
        client.ehlo()
        assert client.mail("x@elsewhere.example") == (
            530,
            b"5.7.0 Must issue a STARTTLS command first",
        )
        client.starttls(context=trusting())
        client.ehlo()
        assert client.mail("x@elsewhere.example")[0] == 250
        assert client.rcpt(alice)[0] == 250


@pytest.mark.mission("ADG-14", "DIN-22")
def test_other_domains_are_refused_for_good(make_server):
    server = make_server(allowed_relays=[])
    server.environment = {"DOMAIN": "inbox.example"}
    server.start()
    with server.smtp() as client:
        client.ehlo()
        client.mail("x@elsewhere.example")
        code, _ = client.rcpt("somebody@wrong.example")
        assert code in {550, 554}


# -- rates ----------------------------------------------------------------------------------


def tries(server: Server, sender: str, n: int) -> list[tuple[int, bytes]]:
    with smtplib.SMTP("127.0.0.1", server.ports["smtp"], timeout=60) as client:
        client.ehlo()
        said = []
        for _ in range(n):
            said.append(client.mail(sender))
            client.rset()
        return said


@pytest.mark.mission("ADG-11")
def test_the_rate_of_a_sender_survives_a_restart(make_server):
    server = make_server()
    server.environment = {"DOMAIN": "inbox.example"}
    server.start()
    alice = server.account()
    begun = time.monotonic()
    with server.smtp() as client:
        client.ehlo()
        for n in range(50):
            client.mail("busy@elsewhere.example")
            client.rcpt(alice)
            assert client.data(mails.simple(f"mail {n}"))[0] == 250
        assert client.mail("busy@elsewhere.example") == EXCEEDED
        assert client.mail("other@elsewhere.example")[0] == 250
    server.restart()
    refused = tries(server, "busy@elsewhere.example", 3)
    if time.monotonic() - begun < 55:  # else the minute was over on this machine
        assert refused == [EXCEEDED] * 3
    assert tries(server, "other@elsewhere.example", 1)[0][0] == 250
    assert len(server.mails(alice)) == 50


@pytest.mark.mission("ADG-11", "ELE-58")
def test_a_client_that_hammers_gets_back_in_when_its_time_is_over(make_server):
    server = make_server(limits={"message_rate": "2/3s", "connection_rate": "1000/h"}).start()
    answers: list[int] = []
    with server.smtp() as client:
        client.ehlo()
        begun = time.monotonic()
        while time.monotonic() - begun < 10 and answers.count(250) < 4:
            answers.append(client.mail("x@elsewhere.example")[0])
            client.rset()
            time.sleep(0.05)
    assert answers[:3] == [250, 250, 450]
    assert answers.count(250) == 4
    (told,) = named_events(server, "rate limit exceeded")
    assert told["rule"] == "messages of address"
    assert told["session"]


@pytest.mark.mission("ELE-58")
def test_one_address_may_connect_so_often(make_server):
    server = make_server(limits={"connection_rate": "3/h"}).start()
    for _ in range(3):
        with server.raw("smtp") as talk:
            assert talk.reply().startswith(b"220 ")
    with server.raw("smtp") as talk:
        assert talk.reply().startswith(b"421 4.7.0 ")
        assert talk.line() == b""
    with socket.create_connection(
        ("127.0.0.1", server.ports["smtp"]), 30, source_address=(OTHER_ADDRESS, 0)
    ) as other:
        assert other.recv(4) == b"220 "


@pytest.mark.mission("ELE-58")
def test_two_nodes_count_together(postgresql_url, make_server):
    nodes = [
        make_server(database_url=postgresql_url, limits={"message_rate": "5/h"}).start()
        for _ in range(2)
    ]
    one, other = nodes
    assert [code for code, _ in tries(one, "a@elsewhere.example", 3)] == [250] * 3
    engine = open_engine(postgresql_url)
    try:

        def written() -> bool:
            with engine.read() as connection:
                found = rates.find(
                    connection,
                    "messages of address",
                    "127.0.0.1",
                    lasts=3_600_000_000,
                    now=now_us(),
                )
            return found is not None and found.n == 3

        until(written)
    finally:
        engine.dispose()
    said = tries(other, "b@elsewhere.example", 4)
    assert [code for code, _ in said] == [250, 250, 450, 450]


# -- the log --------------------------------------------------------------------------------


@pytest.mark.mission("ELE-61")
@pytest.mark.parametrize("level", ["info", "debug"])
def test_each_event_is_one_line_with_its_session_and_no_password(make_server, level):
    server = make_server(log_level=level, allowed_relays=[]).start()
    alice = server.account()
    wrong = "tr0ub4dor and three"
    with server.smtp("submissions") as client:
        for mechanism in (client.auth_plain, client.auth_login):
            client.user, client.password = alice, wrong
            client.ehlo_or_helo_if_needed()
            with pytest.raises(smtplib.SMTPAuthenticationError):
                client.auth(mechanism.__name__.removeprefix("auth_").upper(), mechanism)
        client.login(alice, PASSWORD)
        client.sendmail(alice, [alice], mails.simple("one"))
    with server.smtp() as client:
        client.ehlo()
        client.mail("x@elsewhere.example")
        client.rcpt("nobody@example.com")
        client.rcpt("x@far.example")
        # A password where none is asked for.
        client.docmd("AUTH PLAIN", encoded(f"\0{alice}\0{PASSWORD}"))
    until(lambda: len(named_events(server, "recipient refused")) == 2)
    server.stop()
    (accepted,) = named_events(server, "message accepted")
    refused = named_events(server, "recipient refused")
    assert len(refused) == 2
    assert len({each["session"] for each in refused}) == 1
    assert accepted["session"] != refused[0]["session"]
    logins = [each for each in server.events if "login" in each["event"]]
    assert len([each for each in logins if each.get("session") == accepted["session"]]) >= 3
    for line in server.log.splitlines():
        assert line.startswith("{"), line
    for password in (PASSWORD, wrong):
        assert password not in server.log
        assert encoded(password) not in server.log
        assert encoded(f"\0{alice}\0{password}") not in server.log


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
