"""What the server does for a test, run in a process of its own by tests/testing/test_package.py."""

from __future__ import annotations

import asyncio
import gc
import imaplib
import json
import logging
import os
import re
import smtplib
import socket
import sys
import threading
import time
import urllib.request
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.threads import blockingCallFromThread, deferToThread

from mailtwist.errors import ConfigError, Conflict, StoreUnavailable
from mailtwist.mail.address import parse_address
from mailtwist.store import arrivals, check
from mailtwist.testing import AsyncMailServer, MailServer, NoMessage, loop

SENDER = "shop@example.com"
_taken = socket.create_server(("127.0.0.1", 0))
TAKEN = f"127.0.0.1:{_taken.getsockname()[1]}"


@pytest.fixture(scope="session")
def mailtwist_settings() -> dict[str, object]:
    return {"limits": {"recipients": 7}}


def send(
    mail: MailServer | AsyncMailServer, *recipients: str, subject: str = "Hello", text: str = "Hi."
) -> None:
    with smtplib.SMTP(mail.smtp.host, mail.smtp.port) as smtp:
        message = f"From: {SENDER}\r\nSubject: {subject}\r\n\r\n{text}\r\n"
        smtp.sendmail(SENDER, recipients or ("bob@example.org",), message)


def imap(mail: MailServer, address: str = "", password: str = "") -> imaplib.IMAP4:
    client = imaplib.IMAP4(mail.imap.host, mail.imap.port, timeout=10)
    client.login(address or mail.address, password or mail.password)
    return client


# -- what a message says --------------------------------------------------------------------


def test_all_of_a_message_is_decoded(mailtwist: MailServer) -> None:
    message = EmailMessage()
    message["From"] = "Käse <shop@example.com>"
    message["To"] = "Anna <anna@example.org>"
    message["Subject"] = "Ihr Code für heute"
    message["X-Two"] = "one"
    message["X-Two"] = "zwei ü"
    message.set_content("Ihr Code: 734912\n")
    message.add_alternative('<a href="https://x.example/?a=1&amp;b=2">hier</a> Größe', "html")
    message.add_attachment(b"\x00\xff" * 500, "application", "pdf", filename="Rechnung ü.pdf")
    with smtplib.SMTP(mailtwist.smtp.host, mailtwist.smtp.port) as smtp:
        smtp.send_message(message, SENDER, ["anna@example.org", "secret@example.org"])

    (found,) = mailtwist.inbox

    assert found.sender == SENDER
    assert found.recipients == ("anna@example.org", "secret@example.org")
    assert found.to == "anna@example.org"
    assert found.subject == "Ihr Code für heute"
    assert found.text.split() == ["Ihr", "Code:", "734912"]
    assert "Größe" in found.html
    assert found.codes == ("734912",)
    assert found.links == ("https://x.example/?a=1&b=2",)
    assert [(each.name, each.content_type) for each in found.attachments] == [
        ("Rechnung ü.pdf", "application/pdf")
    ]
    assert found.attachments[0].data == b"\x00\xff" * 500
    assert found.header("from") == "Käse <shop@example.com>"
    assert found.header("absent", "none") == "none"
    assert found.all_of("x-two") == ["one", "zwei ü"]
    assert found.raw.startswith(b"From: ")
    assert found.trace.startswith(b"Return-Path: <shop@example.com>\r\nReceived: from ")
    assert found.as_email()["Subject"] == "Ihr Code für heute"
    assert found.id in found.trace.decode()
    assert abs(found.received_at - time.time()) < 60


def test_a_large_message_is_whole(mailtwist: MailServer) -> None:
    text = "".join(f"{n} is a line of this letter.\r\n" for n in range(60_000))
    send(mailtwist, text=text)
    found = mailtwist.inbox.wait()
    assert found.text.replace("\n", "\r\n").startswith(text)
    assert found.raw.endswith(text.encode() + b"\r\n")


def test_a_bounce_has_no_sender(mailtwist: MailServer) -> None:
    with smtplib.SMTP(mailtwist.smtp.host, mailtwist.smtp.port) as smtp:
        smtp.sendmail("", ["bob@example.org"], "\xff no message\r\n".encode("latin-1"))
    found = mailtwist.inbox.wait(sender="")
    assert (found.sender, found.subject, found.line) == ("", "", "<> to bob@example.org: ''")


# -- what is there --------------------------------------------------------------------------


def test_delivered_and_captured_mail_is_one_message(mailtwist: MailServer) -> None:
    mailtwist.add_account("anna@mail.test", "secret")
    send(mailtwist, "anna@mail.test", mailtwist.address, "bob@example.org", "eve@example.net")
    (found,) = mailtwist.inbox.messages()
    assert set(found.recipients) == {
        "anna@mail.test", mailtwist.address, "bob@example.org", "eve@example.net",
    }  # fmt: skip
    for name in ("anna", "ANNA@mail.test", "bob@example.org", "eve"):
        assert mailtwist.inbox(name)[0].id == found.id
    assert len(mailtwist.inbox("bob@example.net")) == 0


def test_messages_stand_in_the_order_of_their_arrival(mailtwist: MailServer) -> None:
    for n in range(5):
        send(mailtwist, f"bob{n % 2}@example.org", subject=f"number {n}")
    assert [each.subject for each in mailtwist.inbox] == [f"number {n}" for n in range(5)]
    assert [each.subject for each in mailtwist.inbox("bob1")] == ["number 1", "number 3"]
    assert mailtwist.inbox[-1].subject == "number 4"
    assert [each.subject for each in mailtwist.inbox[1:3]] == ["number 1", "number 2"]
    assert mailtwist.inbox.wait(subject="number").subject == "number 4"


def test_what_is_deleted_by_imap_is_gone_and_what_is_moved_is_not(mailtwist: MailServer) -> None:
    for n in range(3):
        send(mailtwist, mailtwist.address, subject=f"number {n}")
    client = imap(mailtwist)
    client.select()
    client.store("1", "+FLAGS", r"(\Deleted)")
    client.expunge()
    assert client.uid("MOVE", "2", "Archive")[0] == "OK"
    client.append("INBOX", "", "", b"Subject: appended\r\n\r\n")
    client.logout()
    assert [each.subject for each in mailtwist.inbox] == ["number 1", "number 2"]


def test_the_first_account_sends_and_reads(mailtwist: MailServer) -> None:
    context = mailtwist.tls_context()
    place = mailtwist.submissions
    with smtplib.SMTP_SSL(place.host, place.port, context=context) as smtp:
        smtp.login(mailtwist.address, mailtwist.password)
        smtp.sendmail(mailtwist.address, ["bob@example.org"], "Subject: one\r\n\r\n")
    with smtplib.SMTP(mailtwist.submission.host, mailtwist.submission.port) as smtp:
        smtp.login(mailtwist.address, mailtwist.password)
        assert not smtp.has_extn("starttls")
        smtp.sendmail(mailtwist.address, [mailtwist.address], "Subject: two\r\n\r\n")
    assert [each.subject for each in mailtwist.inbox] == ["one", "two"]
    client = imaplib.IMAP4_SSL(mailtwist.imaps.host, mailtwist.imaps.port, ssl_context=context)
    client.login(mailtwist.address, mailtwist.password)
    assert client.select() == ("OK", [b"1"])
    client.logout()


def ask(mail: MailServer, path: str, document: object = None) -> Any:
    request = urllib.request.Request(
        mail.http_url + path,
        json.dumps(document).encode() if document is not None else None,
        {"Content-Type": "application/json", "X-API-KEY": mail.api_key},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def test_http_sends_and_tells_of_what_came(mailtwist: MailServer) -> None:
    letter = {"to": "bob@example.org", "subject": "Hello", "body": "Your code is 734912."}
    assert ask(mailtwist, "/send", letter)["success"]
    found = mailtwist.inbox("bob")[0]
    (item,) = ask(mailtwist, "/emails/bob")
    awaited = ask(mailtwist, "/emails/bob/wait?timeout=0")
    assert awaited["id"] == item["id"] == found.id
    assert (item["subject"], item["body_text"]) == (found.subject, found.text)
    assert (awaited["codes"], found.codes) == (["734912"], ("734912",))
    mailtwist.reset()
    assert ask(mailtwist, "/emails/bob") == []


# -- waiting --------------------------------------------------------------------------------


def test_a_message_that_comes_later_is_waited_for(mailtwist: MailServer) -> None:
    send(mailtwist, subject="another one")
    timer = threading.Timer(0.1, send, (mailtwist,), {"subject": "The one"})
    timer.start()
    assert mailtwist.inbox.wait(subject="the one").subject == "The one"
    timer.join()


FITTING = [
    {"subject": "HELLO"},
    {"subject": re.compile("^Hel+o$")},
    {"sender": "shop@"},
    {"sender": re.compile("example")},
    {"to": "bob@example.org"},
    {"text": "734912"},
    {"where": lambda message: message.codes == ("734912",)},
    {"subject": "hello", "sender": "shop", "to": "bob", "text": "code"},
]
MISSING = [
    {"subject": "Helo"},
    {"subject": re.compile("hello")},
    {"sender": "bob"},
    {"to": "shop"},
    {"text": "734913"},
    {"where": lambda message: False},
    {"subject": "hello", "sender": "bob"},
]


@pytest.mark.parametrize("wanted", FITTING)
def test_what_fits(mailtwist: MailServer, wanted: dict[str, Any]) -> None:
    send(mailtwist, text="Your code is 734912.")
    assert mailtwist.inbox.wait(**wanted, timeout=0).subject == "Hello"


@pytest.mark.parametrize("wanted", MISSING)
def test_what_does_not_fit(mailtwist: MailServer, wanted: dict[str, Any]) -> None:
    send(mailtwist, text="Your code is 734912.")
    with pytest.raises(NoMessage) as raised:
        mailtwist.inbox.wait(**wanted, timeout=0)
    assert [each.subject for each in raised.value.messages] == ["Hello"]


def test_what_did_not_come_is_told_with_what_did(mailtwist: MailServer) -> None:
    send(mailtwist, subject="One")
    send(mailtwist, subject="Two")
    with pytest.raises(AssertionError) as raised:
        mailtwist.inbox("bob").wait(subject=re.compile("Thr.e"), to="bob", timeout=0.05)
    assert str(raised.value) == (
        "no message in inbox('bob') with subject /Thr.e/, to 'bob' came within 0.05 s; "
        "what came (2):\n"
        "  shop@example.com to bob@example.org: 'One'\n"
        "  shop@example.com to bob@example.org: 'Two'"
    )
    # What came for somebody else may be what went wrong.
    with pytest.raises(NoMessage, match=r"in inbox\('eve'\) came .*\(2\):\n.* to bob@"):
        mailtwist.inbox("eve").wait(timeout=0)
    mailtwist.inbox.clear()
    with pytest.raises(NoMessage, match="nothing came at all") as raised:
        mailtwist.inbox("eve").wait(timeout=0)
    # pytest shows the line of the test alone.
    assert len(raised.traceback.filter(raised)) == 1


def test_only_what_comes_after_a_message_is_waited_for(mailtwist: MailServer) -> None:
    send(mailtwist)
    first = mailtwist.inbox.wait(subject="hello")
    with pytest.raises(NoMessage, match=r"after shop@example\.com to bob"):
        mailtwist.inbox.wait(subject="hello", after=first, timeout=0)
    send(mailtwist, text="again")
    assert mailtwist.inbox.wait(subject="hello", after=first).text.strip() == "again"


def test_a_message_is_no_later_one_when_a_copy_is_deleted(mailtwist: MailServer) -> None:
    send(mailtwist, mailtwist.address, "bob@example.org")
    (first,) = mailtwist.inbox
    client = imap(mailtwist)
    client.select()
    client.store("1", "+FLAGS", r"(\Deleted)")
    client.expunge()
    client.logout()
    assert [each.recipients for each in mailtwist.inbox] == [("bob@example.org",)]
    with pytest.raises(NoMessage):
        mailtwist.inbox.wait(after=first, timeout=0)


def test_many_may_wait_at_once_and_each_has_his_own(mailtwist: MailServer) -> None:
    async def run() -> None:
        waiting = [
            asyncio.create_task(mailtwist.inbox(f"user{n}").arrival(subject="Hello"))
            for n in range(5)
        ]
        await asyncio.to_thread(send, mailtwist, *(f"user{n}@example.org" for n in range(5)))
        found = await asyncio.gather(*waiting)
        assert len({each.id for each in found}) == 1

    asyncio.run(run())


def test_none_is_missed_while_mail_pours_in(mailtwist: MailServer) -> None:
    def pour() -> None:
        with smtplib.SMTP(mailtwist.smtp.host, mailtwist.smtp.port) as smtp:
            for n in range(60):
                smtp.sendmail(SENDER, ["bob@example.org"], f"Subject: number {n}.\r\n\r\n")

    thread = threading.Thread(target=pour)
    thread.start()
    for n in range(60):
        assert mailtwist.inbox.wait(subject=f"number {n}.").subject == f"number {n}."
    thread.join()
    assert len(mailtwist.inbox) == 60


# -- one test after another -----------------------------------------------------------------


@pytest.fixture(scope="module")
def left_behind(mailtwist_server: MailServer) -> MailServer:
    mail = mailtwist_server
    mail.add_account("anna@mail.test", "secret")
    mail.refuse("*", "550 5.1.1 no")
    client = imap(mail, "anna@mail.test", "secret")
    client.append("Sent", "", "", b"Subject: appended\r\n\r\n")
    client.logout()
    for _ in range(6):
        client = imaplib.IMAP4(mail.imap.host, mail.imap.port)
        with pytest.raises(imaplib.IMAP4.error):
            client.login(mail.address, "wrong")
        client.shutdown()
    return mail


def test_nothing_of_a_test_is_left_for_the_next(
    left_behind: MailServer, mailtwist: MailServer
) -> None:
    send(mailtwist)
    assert len(mailtwist.inbox) == 1
    # The name is free, and nobody is shut out.
    mailtwist.add_account("anna@mail.test", "other")
    client = imap(mailtwist, "anna@mail.test", "other")
    assert client.select("Sent") == ("OK", [b"0"])
    client.logout()
    imap(mailtwist).logout()


def test_what_comes_while_it_is_emptied_is_not_hidden(
    mailtwist: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = mailtwist._server.runtime
    read = runtime.database.read

    async def reading(work: Any) -> Any:
        found = await read(work)
        if work is arrivals.full_accounts:
            recipients = [parse_address("bob@example.org")]
            await runtime.mail.intake.submit(
                b"Subject: x\r\n\r\n", reverse_path=None, recipients=recipients
            )
        return found

    with monkeypatch.context() as patch:
        patch.setattr(runtime.database, "read", reading)
        mailtwist.inbox.clear()
    assert [each.subject for each in mailtwist.inbox] == ["x"]


def test_a_session_that_goes_on_sees_the_mailbox_emptied(mailtwist: MailServer) -> None:
    send(mailtwist, mailtwist.address)
    client = imap(mailtwist)
    assert client.select() == ("OK", [b"1"])
    mailtwist.inbox.clear()
    client.noop()
    assert client.search(None, "ALL") == ("OK", [b""])
    client.logout()
    assert len(mailtwist.inbox) == 0
    send(mailtwist, mailtwist.address)
    assert len(mailtwist.inbox) == 1


def test_an_account_comes_once(mailtwist: MailServer) -> None:
    with pytest.raises(Conflict):
        mailtwist.add_account(mailtwist.address, "secret")


# -- what goes wrong on purpose -------------------------------------------------------------


def test_refusals_are_those_that_were_asked_for(mailtwist: MailServer) -> None:
    mailtwist.refuse("bob@*", "550 5.1.1 User unknown")
    with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
        send(mailtwist, "bob@example.org")
    assert refused.value.recipients == {"bob@example.org": (550, b"5.1.1 User unknown")}
    mailtwist.refuse("eve@*", "451 4.3.0 later", at="data")
    with pytest.raises(smtplib.SMTPDataError):
        send(mailtwist, "eve@example.org")
    send(mailtwist, "anna@example.org")
    assert [each.to for each in mailtwist.inbox] == ["anna@example.org"]


def test_a_connection_is_cut_and_an_answer_late(mailtwist: MailServer) -> None:
    mailtwist.drop("bob@*")
    with pytest.raises(smtplib.SMTPServerDisconnected):
        send(mailtwist, "bob@example.org")
    mailtwist.delay("bob@*", 0.3)
    began = time.monotonic()
    send(mailtwist, "bob@example.org")
    assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize(
    "wrong",
    [
        lambda mail: mail.refuse("*", "250 fine"),
        lambda mail: mail.refuse("*", "550 no", at="mail"),
        lambda mail: mail.delay("*", -1),
    ],
)
def test_what_no_rule_can_say_is_refused(mailtwist: MailServer, wrong: Any) -> None:
    with pytest.raises(ValueError):
        wrong(mailtwist)
    send(mailtwist)


def test_the_settings_are_used(mailtwist: MailServer) -> None:
    with smtplib.SMTP(mailtwist.smtp.host, mailtwist.smtp.port) as smtp:
        smtp.ehlo()
        smtp.mail(SENDER)
        replies = [smtp.rcpt(f"user{n}@example.org")[0] for n in range(8)]
    assert replies == [250] * 7 + [452]


# -- the process ----------------------------------------------------------------------------


def test_a_second_server_is_another_one(
    mailtwist: MailServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Neither variables of the machine nor files that lie about count.
    monkeypatch.setenv("MAILTWIST_HOSTNAME", "elsewhere.example")
    (tmp_path / "certs").mkdir()
    for name in ("fullchain.pem", "privkey.pem"):
        (tmp_path / "certs" / name).write_text("none")
    monkeypatch.chdir(tmp_path)
    settings = {"tls": {"enabled": True}}
    with MailServer(settings, address="eve@second.example", password="secret") as second:
        with smtplib.SMTP(second.submission.host, second.submission.port) as smtp:
            smtp.starttls(context=second.tls_context())
            smtp.login("eve@second.example", "secret")
        send(second, "eve@second.example")
        assert (len(second.inbox), len(mailtwist.inbox)) == (1, 0)
        assert b"by localhost with" in second.inbox[0].trace
        imap(second).logout()
        client = socket.create_connection((second.imap.host, second.imap.port))
        folder = second._server._folder
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()
    assert b"* BYE" in client.makefile("rb").read()
    client.close()
    second.stop()
    send(mailtwist)


@pytest.mark.parametrize(
    "settings, error, text",
    [
        ({"dev_mode": False}, ValueError, "dev_mode"),
        ({"data_dir": "x"}, ValueError, "data_dir"),
        ({"limits": {"recipient": 5}}, ConfigError, "recipients"),
        ({"limits": {"recipients": "many"}}, ConfigError, "limits.recipients"),
        ({"events": {"retention": 0}}, ConfigError, "events.retention"),
        ({"listeners": [{"protocol": "smtp", "address": TAKEN}]}, ConfigError, "cannot bind"),
    ],
)
def test_wrong_settings_are_named(
    settings: dict[str, object], error: type[Exception], text: str
) -> None:
    before = set(Path(os.environ["TMPDIR"]).glob("mailtwist-*"))
    with pytest.raises(error, match=text):
        MailServer(settings).start()
    assert set(Path(os.environ["TMPDIR"]).glob("mailtwist-*")) == before


def test_a_server_that_ended_says_so(mailtwist: MailServer) -> None:
    with MailServer() as second:
        inbox = second.inbox
    with pytest.raises(StoreUnavailable):
        inbox.messages()


def test_the_reactor_is_told_not_to_wait_for_itself(mailtwist: MailServer) -> None:
    def inside() -> None:
        with pytest.raises(RuntimeError, match="use AsyncMailServer"):
            mailtwist.inbox.messages()

    running: Any = reactor
    blockingCallFromThread(running, inside)


def test_the_asynchronous_face_works_in_a_reactor_that_runs(mailtwist: MailServer) -> None:
    async def run() -> list[str]:
        async with AsyncMailServer() as second:
            await second.add_account("anna@mail.test", "secret")
            second.refuse("bob@*", "550 no")
            await deferToThread(send, second, "anna@mail.test")
            found = await second.inbox("anna").wait(subject="hello")
            await second.reset()
            assert await second.inbox.messages() == []
            return list(found.recipients)

    assert loop.call(run) == ["anna@mail.test"]


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_leaves_the_server_alone(mailtwist: MailServer) -> None:
    child = os.fork()
    if not child:
        try:
            mailtwist.inbox.messages()
        except RuntimeError:
            os._exit(17)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 17
    send(mailtwist)
    assert len(mailtwist.inbox) == 1


def test_processes_of_the_server_end_with_it() -> None:
    server = MailServer().start()
    script = server._server.runtime.rest.script

    async def evaluate() -> object:
        return await script.evaluate(["a.b + 1"], {"a": {"b": 1}})

    assert loop.call(evaluate) == [2]
    server.stop()


def test_the_log_goes_to_logging(mailtwist: MailServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mailtwist")
    send(mailtwist, subject="logged")
    assert any("bob@example.org" in record.getMessage() for record in caplog.records)
    assert {record.name for record in caplog.records} == {"mailtwist"}


def test_the_process_is_as_it_was(mailtwist: MailServer) -> None:
    assert sys.getswitchinterval() == 0.005
    # Python 3.12 counts a few hundred of its own.
    assert gc.get_freeze_count() < 1000


def test_asserts_of_the_server_are_not_rewritten(mailtwist: MailServer) -> None:
    loader = sys.modules["mailtwist.store.database"].__loader__
    assert type(loader).__name__ == "SourceFileLoader"


def test_a_server_may_be_started_again() -> None:
    server = MailServer()
    for _ in range(2):
        server.start()
        with pytest.raises(RuntimeError, match="runs already"):
            server.start()
        server.add_account("anna@mail.test", "secret")
        send(server)
        assert len(server.inbox) == 1
        server.stop()


def test_nothing_is_wrong_in_the_store_after_all_this(mailtwist: MailServer) -> None:
    for recipients in (["bob@example.org", mailtwist.address], ["eve@example.org"]):
        send(mailtwist, *recipients)
    mailtwist.add_account("anna@mail.test", "secret")
    mailtwist.reset()
    database = mailtwist._server.runtime.database
    assert loop.call(lambda: database.read(check.verify)) == []
