"""What becomes of a message: retries, bounces, TLS, extensions, peers that go wrong."""

from __future__ import annotations

import itertools
from datetime import datetime
from email.utils import parsedate_to_datetime

import pytest

from tests.e2e import mails
from tests.e2e.relaying import (
    FAR,
    QUICK,
    arrived,
    bounce,
    command,
    going_to,
    letter,
    listed,
    sent_by,
    stats,
    submit,
    transact,
    tried,
    until,
    view,
)
from tests.support.authority import Authority, server_context
from tests.support.sink import Sink

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def server(relay):
    return relay


# -- the schedule -----------------------------------------------------------------------------


@pytest.mark.mission("ELE-48")
def test_the_waits_are_those_of_the_schedule(make_server):
    with Sink(replies={"RCPT": ["451 4.7.1 later"] * 3}) as sink:
        queue = {"retry_schedule": ["1s", "2s"]}
        server = make_server(outbound=going_to(sink), queue=queue).start()
        alice, message = letter(server, "thrice")
        queue_id = submit(server, alice, f"bob@{FAR}", message)
        sink.wait_for_mails(1)
        found = tried(server, queue_id, 4)
    starts = [parse(attempt["started_at"]) for attempt in found["attempts"]]
    waits = [later - former for former, later in itertools.pairwise(starts)]
    assert waits == pytest.approx([1, 2, 2], abs=0.5)
    assert [attempt["code"] for attempt in found["attempts"]] == [451, 451, 451, 250]


def parse(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


@pytest.mark.mission("DAP-140")
def test_the_wait_grows_and_the_reason_is_kept(make_server):
    with Sink(replies={"RCPT": "451 4.7.1 come back later"}) as sink:
        server = make_server(
            outbound=going_to(sink), queue={"retry_schedule": ["120s", "240s"]}
        ).start()
        alice, message = letter(server, "put off")
        queue_id = submit(server, alice, f"bob@{FAR}", message)
        for times, wait in ((1, 120), (2, 240)):
            found = tried(server, queue_id, times)
            assert found["state"] == "deferred"
            assert "451 4.7.1 come back later" in found["last_error"]
            (row,) = found["details"]
            assert row["attempts"] == times
            ended = parse(found["attempts"][-1]["ended_at"])
            assert parse(row["next_attempt_at"]) - ended == pytest.approx(wait, abs=2)
            command(server, "queue", "retry", queue_id)


@pytest.mark.mission("DAP-141", "ELE-49")
def test_a_refusal_for_good_comes_back_at_once(make_server):
    with Sink(replies={"RCPT": "550 5.1.1 no such user here"}) as sink:
        server = make_server(outbound=going_to(sink), queue=QUICK).start()
        alice, message = letter(server, "refused")
        queue_id = submit(server, alice, f"nobody@{FAR}", message)
        dsn = bounce(server, alice)
        found = view(server, queue_id)
        assert found["state"] == "failed"
        assert len(found["attempts"]) == 1
    assert (dsn.action, dsn.status) == ("failed", "5.1.1")
    assert "550 5.1.1 no such user here" in dsn.recipients[0]["Diagnostic-Code"]
    assert f"nobody@{FAR}" in dsn.recipients[0]["Final-Recipient"]
    assert "no such user here" in dsn.text
    assert b"This is refused." in dsn.returned
    assert dsn.message["Auto-Submitted"].startswith("auto-")
    parsedate_to_datetime(dsn.message["Date"])


@pytest.mark.mission("DAP-142", "ELE-49")
@pytest.mark.parametrize(
    "queue, attempts",
    [
        ({"max_retries": 2, "retry_schedule": ["1s"]}, 3),
        ({"max_queue_time": "3s", "retry_schedule": ["2s"]}, 2),
    ],
)
def test_what_never_gets_through_comes_back(make_server, queue, attempts):
    with Sink(replies={"RCPT": "452 4.2.2 mailbox full"}) as sink:
        server = make_server(outbound=going_to(sink), queue=queue).start()
        alice, message = letter(server, "given up")
        queue_id = submit(server, alice, f"bob@{FAR}", message)
        dsn = bounce(server, alice)
        assert len(view(server, queue_id)["attempts"]) == attempts
    assert dsn.action == "failed"
    assert "mailbox full" in str(dsn)


def test_a_bounce_of_a_bounce_is_nobodys(make_server):
    with Sink(replies={"RCPT": "550 5.1.1 no"}) as sink:
        server = make_server(outbound=going_to(sink), allowed_relays=["127.0.0.1"]).start()
        with server.smtp() as client:
            queue_id = transact(client, "", f"bob@{FAR}", mails.simple("double"))
        until(lambda: view(server, queue_id)["state"] == "failed")
        assert stats(server)["failed"] == 1
        assert len(listed(server)) == 1


@pytest.mark.mission("DAP-143")
def test_mail_of_an_account_that_is_made_later_leaves_too(server, sink):
    alice, message = letter(server, "later")
    queue_id = submit(server, alice, f"bob@{FAR}", message)
    assert tried(server, queue_id)["attempts"][0]["outcome"] == "delivered"
    assert sent_by(sink, alice).recipients == [f"bob@{FAR}"]


# -- TLS --------------------------------------------------------------------------------------


@pytest.mark.mission("DAP-146")
def test_opportunistic_tls_takes_any_certificate_and_verify_does_not(make_server):
    context = server_context(Authority().self_signed("other.example"))
    with Sink(tls=context) as sink:
        server = make_server(outbound=going_to(sink)).start()
        alice, message = letter(server, "whatever")
        queue_id = submit(server, alice, f"bob@{FAR}", message)
        (mail,) = sink.wait_for_mails(1)
        assert mail.visit.tls
        assert "TLS" in tried(server, queue_id)["attempts"][0]["tls"]
        server.stop()

        server.settings["outbound"]["tls"] = "verify"
        server.start()
        queue_id = submit(server, alice, f"bob@{FAR}", message)
        found = tried(server, queue_id)
        assert found["state"] == "deferred"
        assert "certificate" in found["last_error"]
        assert len(sink.mails) == 1


@pytest.mark.mission("ELE-13")
def test_requiretls_without_tls_at_the_next_hop_comes_back(make_server):
    with Sink() as sink:
        server = make_server(outbound=going_to(sink)).start()
        alice, message = letter(server, "confidential")
        submit(server, alice, f"bob@{FAR}", message, mail_options=["REQUIRETLS"])
        dsn = bounce(server, alice)
        assert (dsn.action, dsn.status) == ("failed", "5.7.30")
        assert not [line for line in sink.commands if line.startswith(("MAIL", "DATA", "BDAT"))]
    # RFC 8689 §5: the content stays out of the report.
    assert b"This is confidential." not in dsn.returned


# -- extensions -------------------------------------------------------------------------------


@pytest.mark.mission("ELE-20")
def test_smtputf8_arrives_or_comes_back(make_server):
    eight_bit = mails.simple("Grüße").replace(b"\r\n\r\n", b"\r\nMIME-Version: 1.0\r\n\r\n", 1)
    with Sink() as able, Sink(extensions=["PIPELINING"]) as unable:
        override = {"able.example": str(able), "unable.example": str(unable)}
        server = make_server(outbound={"mx_override": override}).start()
        alice = server.account()
        options = ["SMTPUTF8", "BODY=8BITMIME"]
        submit(server, alice, "jürgen@able.example", eight_bit, mail_options=options)
        (mail,) = able.wait_for_mails(1)
        assert mail.recipients == ["jürgen@able.example"]
        assert "SMTPUTF8" in mail.parameters
        assert mail.data.endswith(eight_bit)
        submit(server, alice, "jürgen@unable.example", eight_bit, mail_options=options)
        stored = arrived(server, alice)
        assert b"5.6.7" in stored
        assert unable.mails == []
        assert (able.faults, unable.faults) == ([], [])


@pytest.mark.mission("ELE-22")
def test_the_dsn_parameters_are_honoured(make_server):
    refusing = {"RCPT": "550 5.1.1 unknown"}
    with Sink(extensions=["PIPELINING"]) as plain, Sink(replies=refusing) as refuses:
        override = {"plain.example": str(plain), "refuses.example": str(refuses)}
        server = make_server(outbound={"mx_override": override}).start()

        def send(to: str, notify: str) -> str:
            alice, message = letter(server, "reported")
            options = [f"NOTIFY={notify}", f"ORCPT=rfc822;was+2B{to}"]
            envelope = ["RET=HDRS", "ENVID=my+2Bid"]
            submit(server, alice, to, message, mail_options=envelope, rcpt_options=options)
            return alice

        never = send("a@refuses.example", "NEVER")
        only_success = send("b@refuses.example", "SUCCESS")
        failed = bounce(server, send("c@refuses.example", "FAILURE"))
        relayed = bounce(server, send("d@plain.example", "SUCCESS"))
        assert failed.fields["Original-Envelope-Id"] == "my+id"
        assert failed.recipients[0]["Original-Recipient"].replace(" ", "") == (
            "rfc822;was+c@refuses.example"
        )
        assert failed.returned_type == "text/rfc822-headers"
        assert b"Subject: reported" in failed.returned
        assert b"This is reported." not in failed.returned
        assert relayed.action == "relayed"
        until(lambda: stats(server)["failed"] == 3)
        assert server.mails(never) == server.mails(only_success) == {}


def test_the_dsn_parameters_are_passed_on(server, sink):
    alice, message = letter(server, "passed on")
    options = ["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;x+3Dy@far.example"]
    submit(
        server,
        alice,
        f"bob@{FAR}",
        message,
        mail_options=["RET=FULL", "ENVID=e+2B1"],
        rcpt_options=options,
    )
    mail = sent_by(sink, alice)
    assert (mail.parameters["RET"], mail.parameters["ENVID"]) == ("FULL", "e+2B1")
    (parameters,) = mail.recipient_parameters
    assert parameters["ORCPT"] == "rfc822;x+3Dy@far.example"
    assert set(parameters["NOTIFY"].split(",")) == {"SUCCESS", "FAILURE"}
    # The next hop reports it now, so we do not.
    assert server.mails(alice) == {}


# -- peers gone wrong -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "replies",
    [
        {"GREETING": ["!reset"]},
        {"GREETING": ["554 5.3.2 not today"]},
        {"EHLO": ["!close"]},
        {"MAIL": ["!garbage"]},
        {"RCPT": ["!long"]},
        {"RCPT": ["!lines"]},
        {"DATA": ["421 4.3.2 going down"]},
        {"END": ["!close"]},
        {"END": ["!then 451 4.3.0 hm"]},
    ],
    ids=str,
)
def test_whatever_the_next_hop_does_the_mail_arrives_later(make_server, replies):
    with Sink(replies=replies, extensions=["PIPELINING"]) as sink:
        server = make_server(outbound=going_to(sink), queue=QUICK).start()
        alice, message = letter(server, "at last")
        submit(server, alice, f"bob@{FAR}", message)
        (mail,) = sink.wait_for_mails(1)
        assert mail.data.endswith(message)
        assert sink.faults == []
        until(lambda: listed(server) == [])


SMUGGLED = (
    b"MAIL FROM:<evil@example.com>\r\nRCPT TO:<victim@far.example>\r\nDATA\r\n"
    b"Subject: smuggled\r\n\r\nboo\r\n.\r\n"
)


@pytest.mark.parametrize("border", range(0, 9))
def test_nothing_leaves_as_a_second_message(server, sink, border):
    """Lines of dots at any place of a block, told to a next hop without CHUNKING and with."""
    alice, message = letter(server, "one message")
    filler = b"x" * (65536 - len(message) - 4 + border - 2) + b"\r\n"
    content = message + filler + b".\r\n..\r\n.\r\n" + SMUGGLED
    submit(server, alice, f"bob@{FAR}", content)
    mail = sent_by(sink, alice)
    assert mail.data.endswith(content)
    assert sink.faults == []
