"""Logins against the real process: mechanisms, back-ends, lock-outs, and their end."""

from __future__ import annotations

import base64
import imaplib
import json
import smtplib
import ssl
import time
from functools import partial

import bcrypt
import pytest
from scramp import ScramClient

from mailtwist.policy.passwords import make_verifiers
from mailtwist.store import accounts
from mailtwist.store.engine import open_engine
from mailtwist.store.upgrade import upgrade
from tests.e2e.server import LISTENERS, PASSWORD, Server, run, tool, trusting
from tests.support.authority import Authority
from tests.support.slapd import ADMIN, ADMIN_PASSWORD, BASE, Slapd, is_installed

ALL = ["plain", "login", "scram-sha-256", "scram-sha-256-plus"]
SCRAM = ["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("server"), auth={"methods": ALL}) as running:
        yield running
    running.check()


@pytest.fixture(scope="module")
def alice(server):
    return add(server, "alice@example.com")


def add(server, address):
    """An account that has the keys of SCRAM too."""
    server.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    engine = open_engine(server.url)
    upgrade(engine)
    with engine.write() as connection:
        accounts.add(connection, address, make_verifiers(PASSWORD, cost=4))
    engine.dispose()
    return address


def change(server, work, address):
    engine = open_engine(server.url)
    with engine.write() as connection:
        work(connection, accounts.find(connection, address).account_id)
    engine.dispose()


def scram(mechanism, username, password, connection):
    """A client of SCRAM that binds the connection when it can."""
    binding = None
    if mechanism.endswith("PLUS"):
        binding = ("tls-server-end-point", connection)
    return ScramClient([mechanism], username, password, channel_binding=binding)


def smtp_scram(client, mechanism, username, password=PASSWORD):
    """AUTH with SCRAM over an SMTP connection; the last reply."""
    scramp = scram(mechanism, username, password, client.sock)
    opening = base64.b64encode(scramp.get_client_first().encode()).decode()
    code, text = client.docmd(f"AUTH {mechanism} {opening}")
    if code == 334:
        scramp.set_server_first(base64.b64decode(text).decode())
        ending = base64.b64encode(scramp.get_client_final().encode()).decode()
        code, text = client.docmd(ending)
    if code == 334:
        scramp.set_server_final(base64.b64decode(text).decode())
        code, text = client.docmd("")
    return code, text.decode()


def imap_scram(client, mechanism, username, password=PASSWORD):
    """AUTHENTICATE with SCRAM over an IMAP connection."""
    scramp = scram(mechanism, username, password, client.sock)
    steps = iter(
        [
            lambda _: scramp.get_client_first().encode(),
            lambda said: (scramp.set_server_first(said.decode()), scramp.get_client_final())[
                1
            ].encode(),
            lambda said: (scramp.set_server_final(said.decode()), b"")[1],
        ]
    )
    return client.authenticate(mechanism, partial(_next, steps))


def _next(steps, said):
    return next(steps)(said)


def submission(server):
    client = server.smtp("submission")
    client.starttls(context=trusting())
    client.ehlo()
    return client


# -- mechanisms -------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", SCRAM)
@pytest.mark.parametrize("protocol", ["submission", "submissions"])
def test_scram_logs_in_over_smtp(server, alice, mechanism, protocol):
    client = submission(server) if protocol == "submission" else server.smtp(protocol)
    with client:
        client.ehlo()
        assert client.esmtp_features["auth"].split() == [name.upper() for name in ALL]
        assert smtp_scram(client, mechanism, alice)[0] == 235
        client.sendmail(alice, [alice], b"Subject: by scram\r\n\r\nhello\r\n")


@pytest.mark.parametrize("mechanism", SCRAM)
@pytest.mark.parametrize("implicit", [True, False])
def test_scram_logs_in_over_imap(server, alice, mechanism, implicit):
    client = server.imap(implicit=implicit)
    assert f"AUTH={mechanism}" in client.capabilities
    assert imap_scram(client, mechanism, alice)[0] == "OK"
    assert client.select("INBOX")[0] == "OK"
    client.logout()


def test_a_wrong_password_is_none_by_scram_either(server, alice):
    with submission(server) as client:
        code, text = smtp_scram(client, SCRAM[1], alice, "wrong")
        assert (code, text) == (535, "5.7.8 Authentication credentials invalid")
    client = server.imap()
    with pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"):
        imap_scram(client, SCRAM[0], alice, "wrong")
    client.logout()


@pytest.mark.real
@pytest.mark.parametrize("mechanism", SCRAM)
@pytest.mark.parametrize("protocol", ["smtp", "imap"])
def test_gsasl_logs_in_and_binds_what_tls_exports(server, alice, protocol, mechanism):
    port = server.ports["submission" if protocol == "smtp" else "imap"]
    done = run(
        tool("gsasl"),
        f"--connect=127.0.0.1:{port}",
        f"--{protocol}",
        "--starttls",
        "--x509-ca-file=",
        f"--mechanism={mechanism}",
        *([] if mechanism.endswith("PLUS") else ["--no-cb"]),
        f"--authentication-id={alice}",
        "--authorization-id=",
        f"--password={PASSWORD}",
        "--no-client-first",
        "--verbose",
        input=b"",
    )
    said = done.stdout + done.stderr
    assert b"235 2.7.0" in said or b" OK " in said, said
    if mechanism.endswith("PLUS"):
        # "p=tls-exporter": gsasl shows what it sent.
        assert base64.b64encode(b"p=tls-exporter,") in said.replace(b"\n", b""), said


def test_plus_of_another_connection_is_refused(server, alice):
    """Somebody in between has two connections, with two certificates."""
    with submission(server) as client:
        other = ScramClient(
            ["SCRAM-SHA-256-PLUS"],
            alice,
            PASSWORD,
            channel_binding=("tls-server-end-point", b"y" * 32),
        )
        client.docmd("AUTH SCRAM-SHA-256-PLUS")
        _, first = client.docmd(base64.b64encode(other.get_client_first().encode()).decode())
        other.set_server_first(base64.b64decode(first).decode())
        code, _ = client.docmd(base64.b64encode(other.get_client_final().encode()).decode())
        assert code == 535


def test_without_tls_no_mechanism_is_there(server, alice):
    with server.smtp("submission") as client:
        client.ehlo()
        assert "auth" not in client.esmtp_features
        assert client.docmd("AUTH SCRAM-SHA-256")[0] == 538
    client = imaplib.IMAP4("127.0.0.1", server.ports["imap"])
    assert "LOGINDISABLED" in client.capabilities
    assert not [name for name in client.capabilities if name.startswith("AUTH=")]
    client.logout()


@pytest.mark.mission("ELE-34")
def test_one_method_is_all_there_is(make_server):
    with make_server(auth={"methods": ["plain"]}) as server:
        alice = server.account("alice")
        with submission(server) as client:
            assert client.esmtp_features["auth"].split() == ["PLAIN"]
            assert client.docmd("AUTH LOGIN")[0] == 504
            client.login(alice, PASSWORD)
        client = server.imap(alice)
        client.logout()


def test_where_no_password_may_be_shown_imap_has_no_login(make_server):
    with make_server(auth={"methods": ["scram-sha-256"]}) as server:
        alice = add(server, "alice@example.com")
        client = server.imap()
        assert "LOGINDISABLED" in client.capabilities
        with pytest.raises(imaplib.IMAP4.error, match="CANNOT"):
            client.login(alice, PASSWORD)
        assert imap_scram(client, "SCRAM-SHA-256", alice)[0] == "OK"
        client.logout()


@pytest.mark.mission("ELE-35", "ELE-36")
def test_logins_may_be_asked_for_or_switched_off(make_server):
    with make_server(auth={"required": True}) as server:
        alice = server.account("alice")
        with server.smtp() as client:
            client.starttls(context=trusting())
            client.ehlo()
            assert client.mail("a@elsewhere.example") == (530, b"5.7.0 Authentication required")
            client.login(alice, PASSWORD)
            assert client.mail(alice)[0] == 250
    with make_server(auth={"enabled": False}) as server, server.smtp() as client:
        client.starttls(context=trusting())
        client.ehlo()
        assert "auth" not in client.esmtp_features
        assert client.docmd("AUTH PLAIN")[0] in {502, 503}


# -- a file -------------------------------------------------------------------------------------


def hashed(password):
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


@pytest.mark.mission("ELE-37")
def test_the_users_of_a_file_and_its_edits(make_server, tmp_path):
    users = tmp_path / "users.json"
    users.write_text(
        json.dumps({"users": [{"username": "alice@example.com", "password": hashed("one")}]})
    )
    with make_server(auth={"backend": "file", "file_path": str(users), "methods": ALL}) as server:
        with submission(server) as client:
            assert client.esmtp_features["auth"].split() == ["PLAIN", "LOGIN"]
            client.login("alice@example.com", "one")
            assert client.mail("bob@example.com")[0] == 553
            assert client.mail("alice@example.com")[0] == 250
            assert client.rcpt("somebody@elsewhere.example")[0] == 250
        # Edited while the server runs, and in the other form now.
        users.write_text(f"# people\nalice:{hashed('two')}\nbob@example.com:{hashed('three')}\n")
        with submission(server) as client:
            with pytest.raises(smtplib.SMTPAuthenticationError):
                client.login("alice@example.com", "one")
            client.login("bob@example.com", "three")
        with submission(server) as client:
            client.login("alice@example.com", "two")
        # A broken edit changes nothing.
        users.write_text("{")
        with submission(server) as client:
            client.login("alice@example.com", "two")
        assert "no JSON" in server.log
        client = server.imap()
        with pytest.raises(imaplib.IMAP4.error, match="AUTHORIZATIONFAILED"):
            client.login("alice@example.com", "two")
        client.logout()
        bob = server.account("bob")
        client = server.imap()
        client.login(bob, "three")
        client.logout()


def test_who_is_taken_out_of_the_file_is_shown_out(make_server, tmp_path):
    users = tmp_path / "users"
    users.write_text(f"alice@example.com:one\nbob@example.com:{hashed('two')}\n")
    with make_server(auth={"backend": "file", "file_path": str(users)}) as server:
        alice, bob = submission(server), submission(server)
        alice.login("alice@example.com", "one")
        bob.login("bob@example.com", "two")
        users.write_text("\n".join(users.read_text().splitlines()[1:]))
        alice.sock.settimeout(30)
        assert alice.getreply() == (421, b"4.7.0 The login is no longer valid")
        assert bob.noop()[0] == 250
        alice.close()
        bob.quit()


def test_a_file_that_is_not_there_yet_keeps_nothing_from_starting(make_server, tmp_path):
    users = tmp_path / "etc" / "users.json"
    with make_server(auth={"backend": "file", "file_path": str(users)}) as server:
        assert str(users) in server.log
        users.parent.mkdir()
        users.write_text(json.dumps({"alice@example.com": hashed("one")}))
        with submission(server) as client:
            client.login("alice@example.com", "one")


# -- lock-outs ------------------------------------------------------------------------------------


@pytest.mark.mission("ELE-38", "DAP-117")
@pytest.mark.parametrize("backend", ["sql", "file"])
def test_five_bad_logins_on_five_connections_lock_and_a_restart_does_not_help(
    make_server, tmp_path, backend
):
    users = tmp_path / "users"
    users.write_text("".join(f"{name}@example.com:{PASSWORD}\n" for name in ("alice", "bob")))
    server = make_server(auth={"backend": backend, "file_path": str(users)})
    with server:
        alice, bob = server.account("alice"), server.account("bob")
        assert [bad_login(server, alice) for _ in range(5)] == [535] * 5
        assert login(server, alice, PASSWORD) == 454
        assert login(server, bob, PASSWORD) == 235
        server.restart()
        assert login(server, alice, PASSWORD) == 454
        client = server.imap()
        with pytest.raises(imaplib.IMAP4.error, match="UNAVAILABLE"):
            client.login(alice, PASSWORD)
        client.logout()
        assert login(server, bob, PASSWORD) == 235
        # Five were counted for the address already.
        codes = [bad_login(server, f"nobody{n}@example.com") for n in range(5)]
        assert codes[:1] == [535]
        assert codes[-1] in {421, 454}
        assert login(server, bob, PASSWORD) in {421, 454}


def bad_login(server, username):
    return login(server, username, "wrong")


def login(server, username, password):
    """One AUTH on a connection of its own; smtplib's own login tries twice."""
    with submission(server) as client:
        token = base64.b64encode(f"\0{username}\0{password}".encode()).decode()
        return client.docmd(f"AUTH PLAIN {token}")[0]


# -- LDAP -----------------------------------------------------------------------------------------


@pytest.mark.real
def test_the_users_of_an_ldap_server(make_server, tmp_path):
    if not is_installed():
        tool("slapd")
    authority = Authority(tmp_path)
    pem = authority.issue("127.0.0.1").read_bytes()
    with Slapd(tmp_path / "ldap", pem, pem, security="localSSF 256\nsecurity ssf=1") as slapd:
        server = make_server(
            auth={"backend": "ldap"},
            ldap={
                "url": f"ldap://127.0.0.1:{slapd.port}",
                "bind_dn": ADMIN,
                "password": ADMIN_PASSWORD,
                "base_dn": BASE,
                "ca_file": str(authority.file),
            },
        )
        with server:
            alice = "alice@example.com"
            with submission(server) as client:
                client.login(alice, PASSWORD)
                assert client.mail("bob@example.com")[0] == 553
                assert client.mail(alice)[0] == 250
            assert login(server, "st*r@example.com", PASSWORD) == 235
            assert login(server, "*", PASSWORD) == 535
            assert login(server, alice, "") == 535
            slapd.stop()
            # Nobody is to blame: it is not counted.
            assert [login(server, alice, PASSWORD) for _ in range(6)] == [454] * 6
            slapd.start()
            assert login(server, alice, PASSWORD) == 235
            assert [bad_login(server, "twin@example.com") for _ in range(5)] == [535] * 5
            assert bad_login(server, "twin@example.com") == 454
        assert ADMIN_PASSWORD not in server.log
        assert PASSWORD not in server.log


# -- the end of a login ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "work",
    [
        accounts.remove_step,
        lambda connection, number: accounts.set_state(connection, number, "disabled"),
        lambda connection, number: accounts.set_secrets(
            connection, number, make_verifiers("another", cost=4)
        ),
    ],
    ids=["removed", "disabled", "password"],
)
def test_sessions_end_when_what_they_stand_on_is_gone(server, work, request):
    """The change is another process's, as that of the command line is."""
    name = request.node.callspec.id
    leaving, staying = add(server, f"{name}@example.com"), add(server, f"{name}.2@example.com")
    idle, other = server.imap(leaving), server.imap(staying)
    idle.select("INBOX")
    idle.send(b"a IDLE\r\n")
    assert idle.readline().startswith(b"+")
    smtp = submission(server)
    smtp.login(leaving, PASSWORD)
    smtp.mail(leaving)
    change(server, work, leaving)
    began = time.monotonic()
    idle.sock.settimeout(30)
    assert idle.readline() == b"* BYE The login is no longer valid\r\n"
    assert idle.readline() == b""
    smtp.sock.settimeout(30)
    assert smtp.getreply() == (421, b"4.7.0 The login is no longer valid")
    assert time.monotonic() - began < 10
    assert other.noop()[0] == "OK"
    other.logout()
    idle.shutdown()
    smtp.close()


def test_a_message_on_its_way_still_ends(server):
    address = add(server, "sender@example.com")
    smtp = submission(server)
    smtp.login(address, PASSWORD)
    smtp.mail(address)
    smtp.rcpt(address)
    assert smtp.docmd("DATA")[0] == 354
    smtp.send("Subject: on its way\r\n\r\n")
    change(server, lambda c, n: accounts.set_secrets(c, n, make_verifiers("x", cost=4)), address)
    time.sleep(2.5)
    smtp.send(".\r\n")
    assert smtp.getreply()[0] == 250
    assert smtp.getreply()[0] == 421
    smtp.close()


def test_an_old_tls_can_bind_its_end_point_too(server, alice):
    context = trusting()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with smtplib.SMTP_SSL("127.0.0.1", server.ports["submissions"], context=context) as client:
        client.ehlo()
        assert smtp_scram(client, "SCRAM-SHA-256-PLUS", alice)[0] == 235


def test_every_listener_is_here():
    """The ports that the tests above speak to."""
    assert {"submission", "submissions", "imap", "imaps"} <= {
        each["protocol"] for each in LISTENERS
    }
