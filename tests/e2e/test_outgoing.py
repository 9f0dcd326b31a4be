"""Mail leaves by SMTP: to where it should, as it was sent, under the limits that hold."""

from __future__ import annotations

import smtplib
from concurrent.futures import ThreadPoolExecutor

import dkim
import pytest

from tests.e2e import mails
from tests.e2e.relaying import (
    FAR,
    QUICK,
    arrived,
    ask,
    command,
    going_to,
    letter,
    listed,
    sent_by,
    submit,
    transact,
    until,
    view,
)
from tests.e2e.server import LISTENERS, PASSWORD, content_of
from tests.support.sink import Sink

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def server(relay):
    return relay


# -- in and out -------------------------------------------------------------------------------


@pytest.mark.mission("DAP-120", "ELE-42", "ELE-54")
@pytest.mark.parametrize("protocol", ["submission", "submissions"])
def test_a_user_sends_to_any_domain_and_the_octets_stay(server, sink, protocol):
    alice = server.account()
    sent = mails.mime(to=f"bob@{FAR}").replace(b"zoe@elsewhere.example", alice.encode())
    queue_id = submit(server, alice, f"bob@{FAR}", sent, protocol=protocol)
    mail = sent_by(sink, alice)
    assert mail.recipients == [f"bob@{FAR}"]
    assert mail.data.endswith(sent)
    head = mail.data[: -len(sent)]
    assert head.startswith(b"DKIM-Signature: ")
    assert b"Received: from " in head
    assert queue_id.encode() in head
    found = until(lambda: (now := view(server, queue_id))["attempts"] and now)
    (attempt,) = found["attempts"]
    assert (attempt["code"], attempt["outcome"]) == (250, "delivered")
    # Delivered ones are no longer listed.
    assert queue_id not in [row["id"] for row in listed(server)]


@pytest.mark.mission("DAP-101", "DIN-22", "ELE-39", "ELE-40")
def test_strangers_may_not_relay_and_listed_addresses_may(make_server, sink):
    server = make_server(outbound=going_to(sink)).start()

    def answer(source: str) -> tuple[int, bytes]:
        with smtplib.SMTP(
            "127.0.0.1", server.ports["smtp"], source_address=(source, 0), timeout=60
        ) as client:
            client.ehlo()
            client.mail("x@elsewhere.example")
            return client.rcpt(f"x@{FAR}")

    assert answer("127.0.0.1")[0] == 250  # listed by default, as ::1
    assert answer("127.0.0.2") == (554, b"5.7.1 Relay access denied")
    server.stop()
    server.settings["allowed_relays"] = ["127.0.0.2/31"]
    server.start()
    assert answer("127.0.0.1") == (554, b"5.7.1 Relay access denied")
    assert answer("127.0.0.3")[0] == 250


@pytest.mark.mission("ELE-39")
def test_what_a_listed_address_sends_arrives(server, sink):
    with server.smtp() as client:
        transact(client, "listed@elsewhere.example", f"x@{FAR}", mails.simple("listed"))
    assert sent_by(sink, "listed@elsewhere.example").recipients == [f"x@{FAR}"]


@pytest.mark.mission("DAP-121")
def test_the_sender_must_be_the_users_own(server):
    alice, boss = server.account(), server.account()
    with server.smtp("submissions") as client:
        client.login(alice, PASSWORD)
        code, text = client.mail(boss)
        assert (code, text[:5]) == (553, b"5.7.1")


@pytest.mark.mission("DAP-144")
def test_the_next_hop_is_greeted_with_our_name(server, sink):
    alice, message = letter(server, "greeted")
    submit(server, alice, f"bob@{FAR}", message)
    assert sent_by(sink, alice).visit.greeted_as == "mx.example.com"


@pytest.mark.mission("DAP-144")
def test_a_listener_may_have_a_name_of_its_own(make_server):
    listeners = [{**each, "hostname": f"{each['protocol']}.example.com"} for each in LISTENERS]
    with Sink() as sink:
        server = make_server(outbound=going_to(sink), listeners=listeners).start()
        alice, message = letter(server, "greeted")
        submit(server, alice, f"bob@{FAR}", message)
        (mail,) = sink.wait_for_mails(1)
        assert mail.visit.greeted_as == "submissions.example.com"


@pytest.mark.mission("DAP-122", "DAP-123")
def test_what_leaves_is_signed_and_verifies_with_the_record_that_we_print(server, sink):
    alice, message = letter(server, "signed", octets=3000)
    submit(server, alice, f"bob@{FAR}", message)
    signed = sent_by(sink, alice).data
    (record,) = [row for row in ask(server, "dns", "example.com") if row["name"].startswith("d1.")]
    published = record["value"].strip('"').replace('" "', "").encode()

    def lookup(name: bytes, timeout: int = 5) -> bytes:
        assert name == b"d1._domainkey.example.com."
        return published

    assert dkim.verify(signed, dnsfunc=lookup)
    assert not dkim.verify(signed.replace(b"Subject: signed", b"Subject: changed"), dnsfunc=lookup)
    field = signed.partition(b"\r\nReceived:")[0]
    for tag in (b"a=rsa-sha256", b"c=relaxed/relaxed", b"d=example.com", b"s=d1"):
        assert tag in field


@pytest.mark.mission("DAP-133")
def test_a_submission_is_filed_in_sent_once(make_server):
    with Sink(replies={"RCPT": ["451 4.7.1 later"]}) as sink:
        settings = {"delivery": {"sent_copy": True}, "queue": QUICK}
        server = make_server(outbound=going_to(sink), **settings).start()
        alice, message = letter(server, "filed")
        submit(server, alice, f"bob@{FAR}", message)
        sink.wait_for_mails(1)
        assert content_of(arrived(server, alice, "Sent")) == message
        client = server.imap(alice)
        client.select("Sent", readonly=True)
        assert b"\\Seen" in client.fetch("1", "(FLAGS)")[1][0]
        client.logout()


@pytest.mark.mission("DAP-148")
def test_a_local_recipient_never_meets_the_mx(server, sink):
    alice, message = letter(server, "short cut")
    bob = server.account()
    submit(server, alice, [bob, f"carol@{FAR}"], message)
    assert content_of(arrived(server, bob)).endswith(message)
    assert sent_by(sink, alice).recipients == [f"carol@{FAR}"]


def test_recipients_of_one_domain_share_a_transaction(server, sink):
    alice, message = letter(server, "together")
    people = [f"user{n}@{FAR}" for n in range(5)]
    submit(server, alice, people, message)
    assert sorted(sent_by(sink, alice).recipients) == people


@pytest.mark.mission("DIN-34")
def test_mail_to_a_domain_is_forwarded(make_server, sink):
    server = make_server(outbound=going_to(sink))
    server.environment["FORWARD_EMAIL"] = f"owner@{FAR}"
    server.start()
    server.send("anything@example.com", mails.simple("forwarded"))
    sink.wait(lambda: [mail for mail in sink.taken if mail.recipients == [f"owner@{FAR}"]])
    (mail,) = [mail for mail in sink.taken if mail.recipients == [f"owner@{FAR}"]]
    assert mail.data.endswith(mails.simple("forwarded"))
    # Under a reverse-path of ours, or SPF would refuse it: a bounce finds its way back.
    assert mail.reverse_path.endswith("@example.com")
    with server.smtp() as client:
        client.ehlo()
        client.mail("")
        assert client.rcpt(mail.reverse_path)[0] == 250
        assert client.rcpt("SRS0=forged=XX=elsewhere.example=sender@example.com")[0] == 550


@pytest.mark.mission("ELE-55")
def test_lmtp_takes_the_local_mail(make_server):
    with Sink(is_lmtp=True) as sink:
        delivery = {"mode": "lmtp", "host": "127.0.0.1", "port": sink.port}
        server = make_server(delivery=delivery).start()
        alice = server.account()
        server.send(alice, mails.simple("by lmtp"))
        (mail,) = sink.wait_for_mails(1)
        assert mail.visit.verb == "LHLO"
        assert mail.recipients == [alice]
        assert mail.data.endswith(mails.simple("by lmtp"))


@pytest.mark.mission("ELE-43")
def test_in_dev_mode_nothing_leaves(make_server):
    with Sink() as sink:
        server = make_server(dev_mode=True, outbound=going_to(sink)).start()
        alice, message = letter(server, "kept here")
        submit(server, alice, f"bob@{FAR}", message)
        (line,) = [event for event in server.events if event.get("subject") == "kept here"]
        assert line["forward_paths"] == [f"bob@{FAR}"]
        assert "dev_mode" in command(server, "send-test", f"bob@{FAR}")
        server.stop()  # it would have been tried long before
        assert sink.visits == []


# -- limits -----------------------------------------------------------------------------------


@pytest.mark.mission("ELE-47", "ELE-57")
@pytest.mark.parametrize(
    "settings, domains, most",
    [
        ({"queue": {"max_workers": 2}}, [f"d{n}.example" for n in range(6)], 2),
        ({"queue": {"max_connections_per_domain": 1}}, [FAR], 1),
        ({"queue": {"max_connections_per_domain": 3}}, [FAR], 3),
    ],
)
def test_connections_are_bounded(make_server, settings, domains, most):
    with Sink(delay=lambda verb: 0.05 if verb == "END" else 0.0) as sink:
        server = make_server(outbound=going_to(sink), **settings).start()
        alice, message = letter(server, "bounded")
        with server.smtp("submissions") as client:
            client.login(alice, PASSWORD)
            for n in range(24):
                transact(client, alice, f"bob{n}@{domains[n % len(domains)]}", message)
        sink.wait_for_mails(24)
        assert sink.peak == most


@pytest.mark.slow
def test_a_connection_is_used_again(make_server):
    with Sink() as sink:
        server = make_server(outbound=going_to(sink, per_domain=1)).start()
        alice, message = letter(server, "again")
        with server.smtp("submissions") as client:
            client.login(alice, PASSWORD)
            for n in range(30):
                transact(client, alice, f"bob{n}@{FAR}", message)
        sink.wait_for_mails(30)
        assert len(sink.visits) == 1


# -- several at once --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.mission("DAP-147")
def test_two_servers_on_one_store_send_each_mail_once(postgresql_url, make_server):
    with Sink() as sink:
        servers = [
            make_server(database_url=postgresql_url, outbound=going_to(sink), queue=QUICK).start()
            for _ in range(2)
        ]
        alice, message = letter(servers[0], "once")

        def send(n: int) -> None:
            with servers[n].smtp("submissions") as client:
                client.login(alice, PASSWORD)
                for m in range(60):
                    transact(client, alice, f"bob{n}-{m}@{FAR}", message)

        # What waits is anybody's: the sink is deaf at first.
        sink.script({"GREETING": ["421 4.3.2 not yet"] * 4})
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(send, range(2)))
        for _ in range(3):
            command(servers[0], "queue", "flush")
        sink.wait_for_mails(120, 60)
        until(lambda: listed(servers[0]) == [])
        recipients = [mail.recipients[0] for mail in sink.taken]
        assert len(recipients) == len(set(recipients)) == 120
