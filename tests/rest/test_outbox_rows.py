"""Mail that leaves, as rows of the outbox; and the key that signs it."""

from __future__ import annotations

import base64
import re
import smtplib
import socket
import threading
from datetime import datetime, timedelta

import pytest
from cryptography.hazmat.primitives.serialization import load_der_public_key

from tests.e2e import mails
from tests.e2e.relaying import FAR, going_to, letter, submit, until
from tests.support.authority import Authority, server_context
from tests.support.rest import Rest, outcomes
from tests.support.signatures import dkimpy
from tests.support.sink import Sink

pytestmark = [pytest.mark.real]

SCHEDULE = {"queue": {"retry_schedule": [120, 240]}}


@pytest.fixture
def started(make_fresh):
    """Starts a server with an administrator, whose foreign mail goes to a sink."""

    def start(sink, **settings):
        outbound = going_to(sink, **settings.pop("outbound", {}))
        server = make_fresh(outbound=outbound, **settings).start()
        return server, Rest(server.ports["http"]).become_administrator()

    return start


def row(admin: Rest, sender: str) -> dict:
    (found,) = admin.rows("outbox", ("from_address", "is", sender)).data
    return found


def attributes(admin: Rest, sender: str) -> dict:
    return row(admin, sender)["attributes"]


@pytest.mark.mission("DAP-137", "DAP-138")
def test_what_was_sent_is_a_row(started):
    with Sink() as sink:
        server, admin = started(sink)
        alice, message = letter(server, "leaving")
        submit(server, alice, [f"bob@{FAR}", "carol@other.example"], message)
        sink.wait_for_mails(2)
        until(lambda: admin.rows("outbox", ("sent", "is true", None)).total == 2)
        found = admin.rows("outbox", sort="to_address").data
        assert [each["attributes"]["to_address"] for each in found] == [
            f"bob@{FAR}",
            "carol@other.example",
        ]
        for each in found:
            shown = each["attributes"]
            assert shown["from_address"] == alice
            assert shown["to_host"] == shown["to_address"].split("@")[1]
            assert (shown["sent"], shown["retry_count"]) == (True, 0)
            assert not shown["last_error"]
            assert "next_retry_at" in shown
            assert "mail_server_id" in each["relationships"]
            assert admin.row("outbox", each["id"])["attributes"] == shown


@pytest.mark.mission("DAP-140", "DAP-139")
def test_a_refusal_for_now_is_told_and_tried_later(started):
    with Sink(replies={"RCPT": "451 4.7.1 come back later"}) as sink:
        server, admin = started(sink, **SCHEDULE)
        alice, message = letter(server, "deferred")
        submit(server, alice, f"bob@{FAR}", message)
        until(lambda: attributes(admin, alice)["retry_count"] == 1)
        seen = attributes(admin, alice)
        assert "451" in seen["last_error"]
        assert "come back later" in seen["last_error"]
        assert seen["sent"] is False
        wait = when(seen["next_retry_at"]) - when(seen["updated_at"])
        assert timedelta(seconds=60) < wait < timedelta(seconds=200)
        # An administrator says when; the run waits for what was due.
        for count, low, high in ((2, 200, 320), (3, 200, 320)):
            make_due(admin, row(admin, alice)["id"])
            answer = admin.act("outbox", "process_outbox", {})
            assert (answer.status, outcomes(answer)) == (200, [])
            seen = attributes(admin, alice)
            assert seen["retry_count"] == count
            wait = when(seen["next_retry_at"]) - datetime.now(tz=when(seen["updated_at"]).tzinfo)
            assert timedelta(seconds=low) < wait < timedelta(seconds=high)
        sink.script({"RCPT": "250 2.1.5 now it is fine"})
        make_due(admin, row(admin, alice)["id"])
        assert admin.act("outbox", "process_outbox").status == 200
        seen = attributes(admin, alice)
        assert seen["sent"] is True, seen
        assert len(sink.taken) == 1


def when(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def make_due(admin: Rest, id: str) -> None:
    answer = admin.patch("outbox", id, {"next_retry_at": "2026-01-01T00:00:00Z"})
    assert answer.status == 200, answer


@pytest.mark.mission("DAP-141")
def test_a_refusal_for_good_comes_back(started):
    with Sink(replies={"RCPT": "550 5.1.1 nobody of that name"}) as sink:
        server, admin = started(sink)
        alice, message = letter(server, "bounced")
        submit(server, alice, f"bob@{FAR}", message)
        until(lambda: attributes(admin, alice)["last_error"])
        seen = attributes(admin, alice)
        assert "550" in seen["last_error"]
        assert seen["sent"] is False
        bounce = until(
            lambda: admin.rows("mail", ("recipient", "is", alice), included_relations="mail").data
        )[0]
        raw = base64.b64decode(
            admin.row("mail", bounce["id"], {"included_relations": "mail"})["attributes"]["mail"]
        )
        assert b"multipart/report" in raw
        admin.act("outbox", "process_outbox")
        assert len(sink.visits) == 1


@pytest.mark.mission("DAP-147")
def test_many_runs_at_once_send_it_once(started):
    with Sink(replies={"RCPT": ["451 4.7.1 once"]}) as sink:
        server, admin = started(sink, **SCHEDULE)
        alice, message = letter(server, "once")
        submit(server, alice, f"bob@{FAR}", message)
        until(lambda: attributes(admin, alice)["retry_count"] == 1)
        make_due(admin, row(admin, alice)["id"])
        statuses: list[int] = []

        def run() -> None:
            statuses.append(admin.act("outbox", "process_outbox").status)

        threads = [threading.Thread(target=run) for _ in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert statuses == [200] * 8
        until(lambda: attributes(admin, alice)["sent"])
        assert len(sink.taken) == 1


@pytest.mark.mission("DAP-143")
def test_mail_leaves_although_the_administrator_came_later(make_fresh):
    with Sink() as sink:
        server = make_fresh(outbound=going_to(sink)).start()
        nobody = Rest(server.ports["http"])
        alice, message = letter(server, "before")
        submit(server, alice, f"bob@{FAR}", message)
        sink.wait_for_mails(1)
        admin = nobody.become_administrator()
        submit(server, alice, f"bob@{FAR}", message)
        sink.wait_for_mails(2)
        until(lambda: admin.rows("outbox", ("sent", "is true", None)).total == 2)


@pytest.mark.mission("DAP-146")
@pytest.mark.parametrize("policy, is_delivered", [("opportunistic", True), ("verify", False)])
def test_the_certificate_of_the_next_hop(started, tmp_path, policy, is_delivered):
    context = server_context(Authority(tmp_path).self_signed("127.0.0.1"))
    with Sink(tls=context) as sink:
        server, admin = started(sink, outbound={"tls": policy}, **SCHEDULE)
        alice, message = letter(server, "under TLS")
        submit(server, alice, f"bob@{FAR}", message)
        if is_delivered:
            until(lambda: attributes(admin, alice)["sent"])
            return
        until(lambda: attributes(admin, alice)["last_error"])
        assert "certificate" in attributes(admin, alice)["last_error"].lower()
        assert attributes(admin, alice)["sent"] is False
        assert sink.taken == []


@pytest.mark.mission("DAP-124")
def test_the_key_of_a_mail_server_verifies_what_it_sent(started):
    with Sink() as sink:
        server, admin = started(sink)
        id = admin.make("mail_server", {"hostname": "mx.example.com"})["id"]
        shown = admin.row("mail_server", id)["attributes"]
        assert shown["dkim_selector"] == "d1"
        key = shown["dkim_public_key"]
        load_der_public_key(base64.b64decode(key, validate=True))
        record = shown["dkim_dns_record"]
        assert record.startswith("d1._domainkey.example.com")
        joined = "".join(re.findall(r'"([^"]*)"', record))
        assert re.sub(r"\s*;\s*", "; ", joined.rstrip("; ")) == f"v=DKIM1; k=rsa; p={key}"
        alice, message = letter(server, "signed")
        submit(server, alice, f"bob@{FAR}", message)
        sink.wait_for_mails(1)
        (mail,) = sink.taken
        assert dkimpy(mail.data, {"d1._domainkey.example.com": joined})


@pytest.mark.mission("DAP-125")
def test_another_selector(started):
    with Sink() as sink:
        server, admin = started(sink)
        plain = {"Content-Type": "text/plain"}
        set_ = admin.post("/_config/backend/mail.dkim_selector", b"k2", headers=plain)
        assert set_.status == 200
        alice, message = letter(server, "signed otherwise")
        submit(server, alice, f"bob@{FAR}", message)
        sink.wait_for_mails(1)
        assert re.search(rb"DKIM-Signature:[^\x00]*?\bs=k2;", sink.taken[0].data)


def test_rows_of_others_are_not_seen(started):
    with Sink(replies={"RCPT": "451 4.7.1 later"}) as sink:
        server, admin = started(sink)
        alice, bob = admin.user(), admin.user()
        _, address = alice.account()
        message = mails.simple("mine").replace(b"sender@elsewhere.example", address.encode())
        submit(server, address, f"far@{FAR}", message)
        until(lambda: admin.get("/api/outbox").total == 1)
        assert alice.get("/api/outbox").column("from_address") == [address]
        (id,) = alice.get("/api/outbox").ids
        assert bob.get("/api/outbox").data == []
        assert bob.get("/api/outbox").total == 0
        assert bob.get(f"/api/outbox/{id}").status in {403, 404}
        for answer in (
            bob.patch("outbox", id, {"next_retry_at": "2026-01-01T00:00:00Z"}),
            bob.remove("outbox", id),
            bob.guest.get(f"/api/outbox/{id}"),
        ):
            assert answer.status in {403, 404}


@pytest.mark.mission("DAP-144")
def test_the_next_hop_is_greeted_with_the_name_of_the_mail_server_row(started):
    with Sink() as sink:
        _, admin = started(sink)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        given = {
            "hostname": "mx.other.example",
            "is_enabled": True,
            "listen_interface": address,
            "always_on_tls": False,
            "authentication_required": False,
        }
        row = admin.make("mail_server", given)["id"]
        assert admin.act("mail_server", "sync_mail_servers").status == 200
        with smtplib.SMTP("127.0.0.1", int(address.rpartition(":")[2]), timeout=30) as client:
            client.sendmail("eve@elsewhere.example", [f"bob@{FAR}"], b"Subject: one\r\n\r\nhi\r\n")
        sender = "carol@mx.other.example"
        account = {"username": sender, "password": "a pass phrase", "mail_server_id": row}
        user = admin.user()
        admin.make("mail_account", {**account, "user_account_id": user.id})
        letter = {"attributes": {"from": sender, "to": f"bob@{FAR}", "subject": "two"}}
        assert user.act("outbox", "send", letter).status == 200
        mails_sent = sink.wait_for_mails(2)
        assert {mail.visit.greeted_as for mail in mails_sent} == {"mx.other.example"}
