"""All mail goes through a smart host: a sink that sees everything, and a real Postfix."""

from __future__ import annotations

import os

import pytest

from tests.e2e import mails
from tests.e2e.relaying import (
    FAR,
    QUICK,
    ask,
    bounce,
    letter,
    listed,
    submit,
    tried,
    until,
    view,
)
from tests.e2e.server import Server
from tests.support import postfix
from tests.support.authority import Authority, server_context
from tests.support.sink import Sink

pytestmark = pytest.mark.real
LOGIN = {"relay@far.example": "app password"}


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture(scope="module")
def context(authority):
    return server_context(authority.issue("127.0.0.1", "localhost"))


def through(port: int, **more: object) -> dict[str, object]:
    return {"host": "127.0.0.1", "port": port, **more}


def send(server: Server, text: str = "relayed") -> str:
    sender, message = letter(server, text)
    return submit(server, sender, f"bob@{FAR}", message)


@pytest.mark.mission("DIN-12", "DIN-14")
def test_everything_goes_to_the_smart_host_and_no_mx_is_looked_up(make_server):
    with Sink() as sink:
        # Whoever asks the resolver would wait for its time-out.
        server = make_server(outbound={"resolver": "127.0.0.1:9"})
        server.environment |= {
            "SMTP_RELAY_HOST": "127.0.0.1",
            "SMTP_RELAY_PORT": str(sink.port),
            "USE_TLS": "no",
        }
        server.start()
        for domain in (FAR, "other.example"):
            sender, message = letter(server, "through")
            submit(server, sender, f"bob@{domain}", message)
        mails = sink.wait_for_mails(2, 10)
        assert sorted(mail.recipients[0] for mail in mails) == [f"bob@{FAR}", "bob@other.example"]
        assert not any(mail.visit.tls for mail in mails)


@pytest.mark.mission("DIN-13")
@pytest.mark.parametrize("mechanisms", ["PLAIN LOGIN", "LOGIN"])
def test_it_logs_in_under_tls_and_the_spaces_of_an_app_password_go(
    make_server, context, authority, mechanisms
):
    logins = {"me@far.example": "abcdefghijklmnop"}
    with Sink(tls=context, logins=logins, mechanisms=mechanisms) as sink:
        server = make_server(relay={"ca_file": str(authority.file)})
        server.environment |= {
            "SMTP_RELAY_HOST": "127.0.0.1",
            "SMTP_RELAY_PORT": str(sink.port),
            "SMTP_RELAY_USERNAME": "me@far.example",
            "SMTP_RELAY_PASSWORD": "abcd efgh ijkl mnop",
            "USE_TLS": "yes",
            "TLS_VERIFY": "yes",
        }
        server.start()
        found = tried(server, send(server))
        (mail,) = sink.wait_for_mails(1)
        assert mail.visit.login == ("me@far.example", "abcdefghijklmnop")
        assert mail.visit.tls
        assert "verified" in found["attempts"][0]["tls"]
        # No word of the login in clear.
        clear = sink.commands[: sink.commands.index("STARTTLS")]
        assert not [line for line in clear if line.startswith("AUTH")]
    assert "spaces" in server.log
    assert "abcdefghijklmnop" not in server.log
    assert "abcd efgh" not in server.log


@pytest.mark.mission("DIN-14")
def test_tls_that_is_insisted_on_and_not_offered_keeps_the_mail(make_server):
    with Sink(logins=LOGIN) as sink:
        relay = through(sink.port, username="relay@far.example", password="apppassword")
        server = make_server(relay=relay).start()
        found = tried(server, send(server))
        assert found["state"] == "deferred"
        assert "STARTTLS" in found["last_error"]
        assert not [line for line in sink.commands if line.startswith(("MAIL", "AUTH"))]


@pytest.mark.mission("DIN-15")
def test_a_self_signed_smart_host_is_taken_only_unverified(make_server, authority):
    with Sink(tls=server_context(authority.self_signed("127.0.0.1"))) as sink:
        server = make_server(relay=through(sink.port, verify=True), queue=QUICK).start()
        queue_id = send(server)
        found = tried(server, queue_id)
        assert found["state"] in {"deferred", "active"}
        assert "self-signed" in found["last_error"]
        server.stop()
        server.settings["relay"]["verify"] = False
        server.start()
        (mail,) = sink.wait_for_mails(1)
        assert mail.visit.tls


@pytest.mark.mission("DIN-16")
def test_without_a_smart_host_mail_goes_to_the_mx(make_server):
    with Sink() as sink:
        server = make_server(outbound={"mx_override": {FAR: str(sink)}}).start()
        send(server)
        sink.wait_for_mails(1)


@pytest.mark.mission("DIN-17")
def test_the_older_variables_are_taken_with_a_warning(make_server):
    with Sink() as sink:
        server = make_server(relay={"tls": False})
        server.environment |= {"RELAY_HOST": "127.0.0.1", "RELAY_PORT": str(sink.port)}
        server.start()
        send(server)
        sink.wait_for_mails(1)
    assert "RELAY_HOST" in server.log


@pytest.mark.mission("DIN-24")
def test_mail_waits_for_a_smart_host_that_is_down(make_server):
    with Sink() as sink:
        port = sink.port
    server = make_server(relay=through(port, tls=False), queue=QUICK).start()
    queue_id = send(server, "patient")
    found = tried(server, queue_id)
    assert "refused" in found["last_error"]
    with Sink(port=port) as sink:
        (mail,) = sink.wait_for_mails(1)
        assert b"Subject: patient" in mail.data
        until(lambda: view(server, queue_id)["attempts"][-1]["outcome"] == "delivered")


def test_a_smart_host_that_is_down_is_not_tried_for_each_domain(make_server):
    with Sink(replies={"GREETING": "421 4.3.2 down"}) as sink:
        server = make_server(relay=through(sink.port, tls=False)).start()
        sender, message = letter(server, "many")
        for n in range(20):
            submit(server, sender, f"bob@d{n}.example", message)
        until(lambda: listed(server))
        tried(server, min(row["id"] for row in listed(server)))
        assert len(sink.visits) < 10


def test_transports_route_single_domains(make_server):
    with Sink() as one, Sink() as other:
        transports = {"one.example": f"smtp://{one}?tls=none", "*": f"smtp://{other}?tls=none"}
        server = make_server(transports=transports).start()
        sender, message = letter(server, "routed")
        for domain in ("one.example", "else.example"):
            submit(server, sender, f"bob@{domain}", message)
        (first,), (second,) = one.wait_for_mails(1), other.wait_for_mails(1)
        assert first.recipients == ["bob@one.example"]
        assert second.recipients == ["bob@else.example"]


# -- Postfix ------------------------------------------------------------------------------------


def require_postfix(*, with_auth: bool = False) -> None:
    reason = postfix.absence(with_auth=with_auth)
    if reason and os.environ.get("MAILTWIST_REQUIRE_REAL") and os.getuid() == 0:
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


@pytest.mark.mission("DIN-12", "DIN-13", "DIN-15")
@pytest.mark.parametrize("mechanisms", ["PLAIN LOGIN", "LOGIN"])
def test_postfix_as_smart_host_with_sasl(make_server, mechanisms):
    require_postfix(with_auth=True)
    with postfix.Postfix(password="geheim", mechanisms=mechanisms, hostname="localhost") as running:
        relay = through(
            running.port, username=postfix.USERNAME, password="geheim", ca_file=str(running.ca_file)
        )
        server = make_server(relay=relay).start()
        queue_id = send(server, "through postfix")
        (stored,) = running.wait_for(1)
        assert b"ESMTPSA" in stored
        assert f"Delivered-To: bob@{FAR}".encode() in stored
        (attempt,) = tried(server, queue_id)["attempts"]
        assert attempt["code"] == 250
        assert "TLSv1.3" in attempt["tls"]
        assert "verified" in attempt["tls"]


def test_a_wrong_password_at_postfix_keeps_the_mail_and_says_so(make_server):
    require_postfix(with_auth=True)
    with postfix.Postfix(password="geheim") as running:
        relay = through(running.port, username=postfix.USERNAME, password="wrong", verify=False)
        server = make_server(relay=relay).start()
        found = tried(server, send(server))
        assert found["state"] == "deferred"
        assert "535" in found["last_error"]


@pytest.mark.mission("ELE-54", "DAP-146")
def test_postfix_as_next_hop_with_starttls(make_server):
    """Large, dotted, eight-bit, to several: as Postfix stored it."""
    require_postfix()
    with postfix.Postfix() as running:
        target = f"127.0.0.1:{running.port}"
        server = make_server(outbound={"mx_override": {"*": target}}).start()
        sender = server.account()
        message = mails.mime(octets=2_000_000, to=f"bob@{FAR}")
        people = [f"bob@{FAR}", f"carol@{FAR}", "dave@other.example"]
        submit(server, sender, people, message)
        stored = running.wait_for(3)
        for each in stored:
            assert each.replace(b"\n", b"\r\n").endswith(message)
            assert b"using TLSv1.3" in each
        until(lambda: listed(server) == [])


def test_postfix_reports_success_itself(make_server):
    """It announces DSN, so NOTIFY=SUCCESS is its business: its report comes back to us."""
    require_postfix()
    server = make_server().start()
    settings = {"virtual_mailbox_domains": FAR, "relayhost": f"127.0.0.1:{server.ports['smtp']}"}
    with postfix.Postfix(settings=settings) as running:
        server.stop()
        server.settings["outbound"] = {"mx_override": {"*": f"127.0.0.1:{running.port}"}}
        server.settings["listeners"] = [
            {**each, "address": f"127.0.0.1:{server.ports[each['protocol']]}"}
            for each in server.settings["listeners"]
        ]
        server.start()
        sender, message = letter(server, "reported")
        submit(
            server,
            sender,
            f"bob@{FAR}",
            message,
            mail_options=["ENVID=abc"],
            rcpt_options=["NOTIFY=SUCCESS"],
        )
        dsn = bounce(server, sender)
        assert dsn.action == "delivered"
        assert dsn.fields["Original-Envelope-Id"] == "abc"
        assert "Postfix" in str(dsn)


@pytest.mark.mission("DAP-141")
def test_postfix_refuses_for_good(make_server):
    require_postfix()
    settings = {
        "virtual_mailbox_domains": FAR,
        "virtual_mailbox_maps": "inline:{bob@far.example=x/}",
    }
    with postfix.Postfix(settings=settings) as running:
        target = f"127.0.0.1:{running.port}"
        server = make_server(outbound={"mx_override": {"*": target}}).start()
        sender, message = letter(server, "to nobody")
        submit(server, sender, f"nobody@{FAR}", message)
        dsn = bounce(server, sender)
        assert dsn.status == "5.1.1"
        assert "unknown" in dsn.recipients[0]["Diagnostic-Code"].lower()
        (row,) = ask(server, "queue", "suppressed", "list")
        assert (row["address"], row["bounces"]) == (f"nobody@{FAR}", 1)
