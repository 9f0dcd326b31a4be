"""mail_server rows and _config keys that listen, in the running process."""

from __future__ import annotations

import json
import smtplib
import socket
import ssl

import pytest
from cryptography import x509

from tests.e2e import mails
from tests.e2e.relaying import until
from tests.e2e.server import Server, trusting
from tests.support.ports import free_address
from tests.support.rest import SECRET, Rest, outcomes

pytestmark = [pytest.mark.real]

PLAIN = {"Content-Type": "text/plain"}


def port(address: str) -> int:
    return int(address.rpartition(":")[2])


@pytest.fixture
def row(admin):
    """Makes an enabled row with a port of its own; the rows go with the test."""
    made: list[str] = []

    def make(hostname: str, **more) -> tuple[str, str]:
        address = free_address()
        given = {
            "hostname": hostname,
            "is_enabled": True,
            "listen_interface": address,
            "always_on_tls": False,
            "authentication_required": False,
            **more,
        }
        made.append(admin.make("mail_server", given)["id"])
        return made[-1], given["listen_interface"]

    yield make
    for id in made:
        admin.remove("mail_server", id)
    sync(admin)


def sync(admin: Rest) -> None:
    answer = admin.act("mail_server", "sync_mail_servers")
    assert (answer.status, outcomes(answer)) == (200, []), answer


def client(address: str) -> smtplib.SMTP:
    return smtplib.SMTP("127.0.0.1", port(address), timeout=30)


def refuses(address: str) -> bool:
    try:
        client(address).close()
    except ConnectionRefusedError:
        return True
    return False


def answers(address: str) -> bool:
    """Whether anything listens there, whatever it speaks."""
    try:
        socket.create_connection(("127.0.0.1", port(address)), timeout=30).close()
    except ConnectionRefusedError:
        return False
    return True


def names(server: Server) -> dict[str, str]:
    """Listener to address, as the file beside the store says."""
    found = json.loads((server.data_dir / "listeners.json").read_text())
    return {each["name"]: f"{each['address']}:{each['port']}" for each in found}


@pytest.mark.mission("DAP-080", "DAP-100", "DAP-092", "DAP-094")
def test_a_row_listens_after_a_sync(server, admin, row):
    _, address = row("mx.synced.example", max_size=12345)
    assert refuses(address)
    sync(admin)
    assert "mx.synced.example" in str(names(server))
    _, mailbox = admin.user().account()
    with client(address) as smtp:
        code, greeting = smtp.ehlo()
        assert (code, greeting.split()[0]) == (250, b"mx.synced.example")
        offered = smtp.esmtp_features
        assert offered["size"] == "12345"
        for name in ("pipelining", "starttls", "enhancedstatuscodes", "help", "8bitmime"):
            assert name in offered, name
        assert "auth" not in offered  # not before TLS
        smtp.starttls(context=trusting())
        smtp.ehlo()
        assert "starttls" not in smtp.esmtp_features
        assert "auth" in smtp.esmtp_features
        smtp.mail("x@elsewhere.example")
        assert smtp.rcpt(mailbox)[0] == 250
        assert smtp.data(mails.simple("by the row"))[0] == 250
    assert len(server.mails(mailbox)) == 1


@pytest.mark.mission("DAP-081", "DAP-082", "GEN-03")
def test_a_moved_port_is_followed_and_sessions_stay(server, admin, row):
    id, old = row("mx.moving.example")
    sync(admin)
    _, mailbox = admin.user().account()
    idle = server.imap(mailbox)
    idle.select("INBOX")
    idle.send(b"I1 IDLE\r\n")
    assert idle.readline().startswith(b"+")
    session = client(old)
    session.ehlo()
    new = free_address()
    admin.change("mail_server", id, listen_interface=new, hostname="mx.moved.example")
    # Nothing moves by itself.
    assert not refuses(old)
    assert refuses(new)
    sync(admin)
    assert refuses(old)
    with client(new) as smtp:
        assert smtp.ehlo()[1].startswith(b"mx.moved.example")
    assert session.noop()[0] == 250
    assert session.quit()[0] == 221
    server.send(mailbox, mails.simple("while it moved"))
    assert idle.readline() == b"* 1 EXISTS\r\n"
    idle.shutdown()
    admin.change("mail_server", id, max_size=54321)
    sync(admin)
    with client(new) as smtp:
        smtp.ehlo()
        assert smtp.esmtp_features["size"] == "54321"
        assert smtp.mail("x@elsewhere.example", ["SIZE=99999999"])[0] == 552


@pytest.mark.mission("DAP-083")
def test_a_disabled_and_a_removed_row_close(server, admin, row):
    one, first = row("mx.one.example")
    two, second = row("mx.two.example")
    _, third = row("mx.three.example")
    sync(admin)
    admin.change("mail_server", one, is_enabled=False)
    admin.remove("mail_server", two)
    sync(admin)
    assert refuses(first)
    assert refuses(second)
    assert not refuses(third)
    with server.smtp() as smtp:
        assert smtp.noop()[0] == 250


@pytest.mark.mission("DAP-084")
def test_the_host_name_of_a_row_is_a_local_domain(server, admin, row):
    row("hosted.test", is_enabled=False)
    sync(admin)
    admin.make("mail_account", {"username": "u@hosted.test", "password": SECRET})
    with server.smtp() as smtp:
        smtp.ehlo()
        smtp.mail("x@elsewhere.example")
        assert smtp.rcpt("u@hosted.test")[0] == 250
        assert smtp.rcpt("nobody@hosted.test")[0] == 550


@pytest.mark.mission("DAP-085", "DAP-086")
def test_a_conflict_is_told_and_nothing_changes(server, admin, row):
    _, old = row("mx.stays.example")
    sync(admin)
    before = names(server)
    _, address = row("mx.first.example")
    second, _ = row("mx.second.example", listen_interface=address)
    answer = admin.act("mail_server", "sync_mail_servers")
    assert "mx.first.example" in answer.error or address in answer.error
    assert "mx.second.example" in answer.error or address in answer.error
    assert refuses(address)
    assert not refuses(old)
    assert names(server) == before
    admin.remove("mail_server", second)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = f"127.0.0.1:{taken.getsockname()[1]}"
        row("mx.busy.example", listen_interface=busy)
        answer = admin.act("mail_server", "sync_mail_servers")
        assert busy in answer.error
        assert not refuses(old)


@pytest.mark.mission("DAP-087")
def test_a_sync_is_not_for_guests(nobody, admin):
    for who in (nobody, admin.user()):
        answer = who.act("mail_server", "sync_mail_servers")
        assert answer.status == 403
        assert "forbidden" in answer.error


@pytest.mark.mission("DAP-091", "DAP-099")
def test_a_row_that_begins_with_tls_and_wants_a_login(server, admin, row):
    _, address = row("mx.tls.example", always_on_tls=True, authentication_required=True)
    sync(admin)
    pem = ssl.get_server_certificate(("127.0.0.1", port(address)))
    certificate = x509.load_pem_x509_certificate(pem.encode())
    (name,) = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    assert name.value == "mx.tls.example"
    _, mailbox = admin.user().account()
    with smtplib.SMTP_SSL("127.0.0.1", port(address), context=trusting(), timeout=30) as smtp:
        smtp.ehlo()
        refused = [smtp.mail("x@elsewhere.example")[0], smtp.rcpt(mailbox)[0]]
        assert max(refused) >= 500
        smtp.rset()
        smtp.login(mailbox, SECRET)
        assert smtp.mail(mailbox)[0] == 250
        assert smtp.rcpt(mailbox)[0] == 250


@pytest.mark.mission("DAP-107")
def test_the_limit_of_connections_of_a_row(admin, row):
    _, address = row("mx.few.example", max_clients=2)
    sync(admin)
    kept = [client(address) for _ in range(2)]
    with socket.create_connection(("127.0.0.1", port(address))) as third:
        third.settimeout(10)
        assert third.recv(3) == b"421"
    for each in kept:
        assert each.noop()[0] == 250
        each.quit()


@pytest.mark.mission("DAP-089", "DAP-214")
def test_a_restart_moves_imap(server, admin):
    old, new = free_address(), free_address()
    for name, value in (("imps.enabled", "true"), ("imap.listen_interface", old)):
        assert admin.post(f"/_config/backend/{name}", value.encode(), headers=PLAIN).status == 200
    pid = server.server_pid
    assert admin.act("world", "restart_daptin", {"attributes": {}}).status == 200
    until(lambda: old in names(server).values())
    kept = socket.create_connection(("127.0.0.1", port(old)))
    assert kept.recv(4) == b"* OK"
    admin.post("/_config/backend/imap.listen_interface", new.encode(), headers=PLAIN)
    assert admin.act("world", "restart_daptin", {"attributes": {}}).status == 200
    until(lambda: new in names(server).values())
    with socket.create_connection(("127.0.0.1", port(new))) as opened:
        assert opened.recv(4) == b"* OK"
    assert refuses(old)
    # The session of before is still served.
    kept.sendall(b"a NOOP\r\n")
    assert kept.recv(1000)
    kept.close()
    assert server.server_pid == pid
    assert admin.get("/_config").status == 200
    admin.delete("/_config/backend/imps.enabled")
    admin.act("world", "restart_daptin", {"attributes": {}})
    until(lambda: new not in names(server).values())


@pytest.mark.mission("DAP-090")
def test_smtp_switched_off_by_a_variable(make_server):
    server = make_server()
    server.environment["DAPTIN_DISABLE_SMTP"] = "true"
    server.start()
    assert "smtp" not in server.ports
    admin = Rest(server.ports["http"]).become_administrator()
    address = free_address()
    admin.make(
        "mail_server",
        {"hostname": "mx.off.example", "is_enabled": True, "listen_interface": address},
    )
    answer = admin.act("mail_server", "sync_mail_servers")
    assert "disabled" in answer.text.lower()
    assert refuses(address)
