"""In by SMTP, out by IMAP, byte for byte: with the libraries that everybody has."""

from __future__ import annotations

import smtplib

import pytest

from tests.e2e import mails
from tests.e2e.server import PASSWORD, Server, content_of, run, tool, trusting

pytestmark = pytest.mark.real


@pytest.mark.mission("DAP-225", "ELE-16")
def test_a_mime_mail_comes_back_byte_for_byte(server: Server):
    alice = server.account()
    sent = mails.mime(to=alice)
    server.send(alice, sent)
    (stored,) = server.mails(alice).values()
    assert content_of(stored) == sent


@pytest.mark.mission("ELE-60", "ELE-59")
def test_from_and_mail_from_may_differ_and_words_are_only_words(server: Server):
    alice = server.account()
    sent = mails.simple("DROP TABLE; select")
    server.send(alice, sent)
    assert content_of(next(iter(server.mails(alice).values()))) == sent


@pytest.mark.mission("ELE-56", "DAP-108")
def test_trace_fields_stand_on_top(server: Server):
    alice = server.account()
    queue_id = server.send(alice, mails.simple("traced"))
    (stored,) = server.mails(alice).values()
    head = stored.partition(b"\r\n\r\n")[0].replace(b"\r\n ", b" ").replace(b"\r\n\t", b" ")
    fields = head.split(b"\r\n")
    assert fields[0] == b"Return-Path: <sender@elsewhere.example>"
    received = next(field for field in fields if field.startswith(b"Received: from "))
    assert fields.index(received) < fields.index(b"From: Sender <sender@elsewhere.example>")
    for part in (b"[127.0.0.1]", b"by mx.example.com", b"with ESMTP", queue_id.encode()):
        assert part in received


@pytest.mark.mission("DAP-092", "ELE-10", "ADG-18")
def test_starttls_and_then_mail_on_the_mx(server: Server):
    alice = server.account()
    with server.smtp() as client:
        client.ehlo()
        assert client.has_extn("starttls")
        client.starttls(context=trusting())
        client.ehlo()
        assert not client.has_extn("starttls")
        client.sendmail("x@elsewhere.example", [alice], mails.simple("over tls"))
    (stored,) = server.mails(alice).values()
    assert b"with ESMTPS" in stored


@pytest.mark.mission("DAP-095", "DAP-097", "ELE-31", "ELE-32", "DAP-222")
@pytest.mark.parametrize("protocol", ["submission", "submissions"])
def test_submission_under_tls_with_a_login(server: Server, protocol):
    alice, bob = server.account(), server.account()
    with server.smtp(protocol) as client:
        if protocol == "submission":
            client.starttls(context=trusting())
        client.login(alice, PASSWORD)
        client.sendmail(alice, [bob], mails.simple(protocol, to=bob))
    (stored,) = server.mails(bob).values()
    assert b"with ESMTPSA" in stored
    assert content_of(stored) == mails.simple(protocol, to=bob)


def test_a_wrong_password_is_refused_on_both(server: Server):
    alice = server.account()
    with server.smtp("submissions") as smtp:
        with pytest.raises(smtplib.SMTPAuthenticationError) as caught:
            smtp.login(alice, "wrong")
        assert caught.value.smtp_code == 535
    client = server.imap()
    with pytest.raises(client.error, match="AUTHENTICATIONFAILED"):
        client.login(alice, "wrong")
    client.logout()


@pytest.mark.mission("DAP-091")
def test_implicit_tls_shows_the_certificate_of_the_host_name(server: Server):
    openssl = tool("openssl")
    for protocol in ("submissions", "imaps"):
        shown = run(
            openssl, "s_client", "-connect", f"127.0.0.1:{server.ports[protocol]}", "-brief"
        )
        assert "CN=mx.example.com" in (shown.stdout + shown.stderr).decode().replace(" ", "")


@pytest.mark.mission("ELE-62")
@pytest.mark.parametrize("protocol", ["submissions", "imaps", "smtp", "imap"])
def test_tls_1_1_is_refused_and_1_2_taken(server: Server, protocol):
    openssl = tool("openssl")
    command = ["s_client", "-connect", f"127.0.0.1:{server.ports[protocol]}", "-brief"]
    if protocol in ("smtp", "imap"):
        command += ["-starttls", protocol]
    old = [openssl, *command, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]
    with pytest.raises(AssertionError):
        run(*old)
    run(openssl, *command, "-tls1_2")


@pytest.mark.mission("DAP-233", "DAP-232", "DAP-230", "DAP-231")
def test_imaplib_appends_flags_copies_and_expunges(server: Server):
    alice = server.account()
    sent = mails.mime(octets=3000)
    client = server.imap(alice, implicit=False)
    try:
        assert client.create("Work/Later")[0] == "OK"
        assert client.append("Work/Later", "(\\Seen)", None, sent)[0] == "OK"
        assert client.select("Work/Later")[1] == [b"1"]
        assert client.store("1", "+FLAGS", "(\\Flagged custom)")[0] == "OK"
        assert client.copy("1", "Archive")[0] == "OK"
        flags = str(client.fetch("1", "(FLAGS)")[1])
        assert "\\Flagged" in flags
        assert "custom" in flags
        client.store("1", "+FLAGS", "(\\Deleted)")
        assert client.expunge()[1] == [b"1"]
        assert client.select("Archive")[1] == [b"1"]
    finally:
        client.logout()
    assert server.mails(alice, "Archive") == {1: sent}


@pytest.mark.mission("DAP-103", "ADG-13")
def test_one_mail_to_several_reaches_each_of_them(server: Server):
    people = [server.account() for _ in range(3)]
    sent = mails.simple("to all")
    with server.smtp() as client:
        refused = client.sendmail("x@elsewhere.example", [*people, "nobody@example.com"], sent)
    assert list(refused) == ["nobody@example.com"]
    for each in people:
        assert [content_of(mail) for mail in server.mails(each).values()] == [sent]


@pytest.mark.mission("DAP-105", "DAP-106", "ELE-15", "ADG-27")
def test_a_mail_that_is_too_large_is_refused_and_the_session_goes_on(make_server):
    server = make_server(max_message_size=100_000).start()
    alice = server.account()
    with server.smtp() as client:
        client.ehlo()
        assert client.esmtp_features["size"] == "100000"
        assert client.mail("x@elsewhere.example", ["SIZE=100001"])[0] == 552
        client.mail("x@elsewhere.example")
        client.rcpt(alice)
        assert client.data(mails.simple("large", octets=200_000))[0] == 552
        client.sendmail("x@elsewhere.example", [alice], mails.simple("small"))
    (stored,) = server.mails(alice).values()
    assert content_of(stored) == mails.simple("small")


@pytest.mark.mission("DAP-237")
def test_idle_hears_of_a_delivery_at_once(server: Server):
    alice = server.account()
    client = server.imap(alice)
    client.select("INBOX")
    client.send(b"x1 IDLE\r\n")
    assert client.readline().startswith(b"+")
    client.sock.settimeout(2)
    server.send(alice, mails.simple("pushed"))
    assert client.readline() == b"* 1 EXISTS\r\n"
    client.send(b"DONE\r\n")
    while not client.readline().startswith(b"x1 OK"):
        pass
    client.logout()


@pytest.mark.mission("ELE-61", "GEN-05")
def test_the_log_has_a_line_for_each_event_with_its_session_and_no_password(server: Server):
    alice = server.account()
    server.send(alice, mails.simple("logged"))
    server.mails(alice)
    events = [event for event in server.events if alice in str(event)]
    assert events
    assert all(event.get("session") for event in events)
    assert PASSWORD not in server.log


@pytest.mark.mission("DAP-225", "DAP-235")
def test_the_same_on_postgresql(postgresql_url, make_server):
    server = make_server(database_url=postgresql_url).start()
    alice = server.account()
    sent = [mails.mime(octets=5000), mails.simple("large", octets=3_000_000)]
    for message in sent:
        server.send(alice, message)
    assert [content_of(mail) for mail in server.mails(alice).values()] == sent
    server.kill()
    server.start()
    server.send(alice, mails.simple("afterwards"))
    found = server.mails(alice)
    assert sorted(found) == [1, 2, 3]
    assert [content_of(found[uid]) for uid in (1, 2)] == sent
