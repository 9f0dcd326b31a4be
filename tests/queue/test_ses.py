"""The way out by SES: credentials, replies, and a session that is a next hop like others."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
    ReadTimeoutError,
)

from mailtwist.actions.letters import compose, read
from mailtwist.config import Settings
from mailtwist.errors import MailError, ProtocolViolation
from mailtwist.queue import ses, ses_client, ses_credentials
from mailtwist.queue.routes import Router
from mailtwist.queue.ses import Ses
from mailtwist.queue.ses_client import Clients
from mailtwist.queue.ses_credentials import Credential
from mailtwist.queue.values import Outgoing, OutgoingRecipient, RemoteReply, Undeliverable
from mailtwist.store import credentials
from mailtwist.store.secrets import Secrets
from tests.support.now import now

GOOD = {"access_key": "AKIA", "secret_key": "s3cret", "region": "eu-west-1"}


def credential(**changed) -> Credential:
    return ses_credentials.read("mine", json.dumps({**GOOD, **changed}), is_trusted=True)


# -- credentials ----------------------------------------------------------------------------


def test_a_credential_says_where_it_leads():
    assert (credential().host, credential().port) == ("email.eu-west-1.amazonaws.com", 443)
    own = credential(endpoint="http://127.0.0.1:4566/ses")
    assert (own.host, own.port) == ("127.0.0.1", 4566)
    assert credential(endpoint="http://ses.local").port == 80


def test_a_credential_never_shows_its_secrets():
    assert "s3cret" not in repr(credential(token="t0ken"))
    assert "t0ken" not in repr(credential(token="t0ken"))


@pytest.mark.parametrize(
    "text, named",
    [
        ("", "JSON"),
        ("[]", "JSON"),
        ("[" * 100_000, "JSON"),
        (json.dumps({**GOOD, "access_key": ""}), "access_key is missing"),
        (json.dumps({**GOOD, "secret_key": None}), "secret_key is missing"),
        (json.dumps({"access_key": "a", "secret_key": "b"}), "region is missing"),
        (json.dumps({**GOOD, "region": "eu-west-1.evil.example/#"}), "region"),
        (json.dumps({**GOOD, "region": "-x"}), "region"),
        (json.dumps({**GOOD, "access_key": "a\r\nX: y"}), "access_key"),
        (json.dumps({**GOOD, "secret_key": 7}), "secret_key"),
        (json.dumps({**GOOD, "token": "x" * 4097}), "token"),
        (json.dumps({**GOOD, "endpoint": "ftp://x"}), "endpoint"),
        (json.dumps({**GOOD, "endpoint": "http://"}), "endpoint"),
        (json.dumps({**GOOD, "endpoint": "http://a:b@c"}), "endpoint"),
        (json.dumps({**GOOD, "endpoint": "http://c:99999"}), "endpoint"),
        (json.dumps({**GOOD, "endpoint": "http://[::1"}), "endpoint"),
    ],
    ids=lambda text: text[-40:],
)
def test_what_is_no_credential_is_named_without_its_values(text, named):
    with pytest.raises(ProtocolViolation, match=named) as caught:
        ses_credentials.read("mine", text, is_trusted=True)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "endpoint, may",
    [
        ("https://email.us-east-1.amazonaws.com", True),
        ("https://8.8.8.8", True),
        ("http://email.us-east-1.amazonaws.com", False),
        ("https://127.0.0.1", False),
        ("https://10.1.2.3", False),
        ("https://100.64.0.1", False),
        ("https://169.254.169.254", False),
        ("https://[::1]", False),
        ("https://[fe80::1]", False),
        ("https://[fd00::1]", False),
        ("https://[::ffff:127.0.0.1]", False),
        ("https://[2002:7f00:1::]", False),
        ("https://224.0.0.1", False),
        ("https://0.0.0.0", False),
        ("https://localhost", False),
        ("https://app.localhost", False),
        ("https://printer.local", False),
        ("https://db", False),
    ],
)
def test_where_the_credential_of_a_user_may_lead(endpoint, may):
    text = json.dumps({**GOOD, "endpoint": endpoint})
    assert ses_credentials.read("x", text, is_trusted=True).endpoint == endpoint
    if may:
        assert ses_credentials.read("x", text, is_trusted=False).endpoint == endpoint
    else:
        with pytest.raises(ProtocolViolation, match="administrators"):
            ses_credentials.read("x", text, is_trusted=False)


@pytest.mark.parametrize(
    "addresses, code",
    [
        (["93.184.216.34"], 250),
        (["10.0.0.1"], 554),
        (["93.184.216.34", "127.0.0.1"], 554),
        (["::ffff:192.168.1.1"], 554),
        (["fe80::1%eth0"], 554),
        ([], 451),
    ],
    ids=repr,
)
def test_the_addresses_of_a_users_endpoint_are_looked_at_before_each_call(
    monkeypatch, addresses, code
):
    def answer(host, port, **_):
        assert (host, port) == ("ses.example.com", 443)
        if not addresses:
            raise OSError("no such name")
        return [(2, 1, 6, "", (each, port)) for each in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    own = Credential("a", "b", "c", endpoint="https://ses.example.com", is_trusted=False)
    assert send(own, {"MessageId": "x"}).code == code


# -- what SES says --------------------------------------------------------------------------


class Client:
    """Answers, or raises, one thing."""

    def __init__(self, answer):
        self.answer, self.calls = answer, []

    def send_email(self, **arguments):
        return self._call("SendEmail", arguments)

    def send_raw_email(self, **arguments):
        return self._call("SendRawEmail", arguments)

    def _call(self, name, arguments):
        self.calls.append((name, arguments))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def letter(**more) -> bytes:
    given = {"from": "ann@example.com", "to": "bob@example.net", "subject": "Hi", "body": "x"}
    return compose(read({**given, **more}, limit=1 << 20), seconds=0, message_id="a@b")


def send(own: Credential, answer, octets: bytes = b"", to=("bob@example.net",)) -> RemoteReply:
    clients = Clients(lambda _: Client(answer))
    return ses_client.send(clients, own, "ann@example.com", list(to), octets or letter())


def said(code: str, status: int = 400) -> ClientError:
    response = {
        "Error": {"Code": code, "Message": "so\r\nit is\x07"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(response, "SendEmail")


@pytest.mark.parametrize(
    "answer, code, status, stage",
    [
        ({"MessageId": "0100"}, 250, "2.0.0", "end"),
        (said("MessageRejected"), 554, "5.7.1", "end"),
        (said("MailFromDomainNotVerifiedException"), 550, "5.7.1", "end"),
        (said("InvalidParameterValue"), 501, "5.5.4", "end"),
        (said("SomethingNew"), 554, "5.0.0", "end"),
        (said("SomethingNew", 503), 451, "4.3.2", "end"),
        (said("SomethingNew", 429), 451, "4.3.2", "end"),
        (said("Throttling"), 451, "4.3.2", "end"),
        (said("LimitExceeded"), 451, "4.3.2", "end"),
        (said("InvalidClientTokenId", 403), 454, "4.7.0", "auth"),
        (said("SignatureDoesNotMatch", 403), 454, "4.7.0", "auth"),
        (EndpointConnectionError(endpoint_url="http://x"), 451, "4.4.2", "connect"),
        (ReadTimeoutError(endpoint_url="http://x"), 451, "4.4.2", "connect"),
        (ParamValidationError(report="bad"), 554, "5.5.4", "end"),
        (NoCredentialsError(), 451, "4.3.5", "connect"),
        (ModuleNotFoundError("No module named 'boto3'"), 451, "4.3.5", "connect"),
    ],
    ids=lambda value: ascii(value)[:60] if not isinstance(value, int) else str(value),
)
def test_what_ses_says_becomes_the_reply_of_a_host(answer, code, status, stage):
    reply = send(credential(), answer)
    assert (reply.code, reply.status, reply.stage) == (code, status, stage)
    assert reply.text.isprintable()
    assert reply.text.isascii()
    assert len(reply.text) <= 500
    assert "s3cret" not in reply.text


def test_a_bug_is_no_reply():
    with pytest.raises(ZeroDivisionError):
        send(credential(), ZeroDivisionError())


def test_clients_are_made_once_for_a_credential_and_bounded():
    made = []

    def make(each):
        made.append(each)
        return object()

    clients = Clients(make)
    assert clients.of(credential()) is clients.of(credential())
    for n in range(ses_client.CLIENTS):
        clients.of(credential(access_key=f"k{n}"))
    clients.of(credential())
    assert len(made) == ses_client.CLIENTS + 2


@pytest.mark.parametrize(
    "given, is_simple",
    [
        ({}, True),
        ({"html": "<p>x</p>"}, True),
        ({"html": "<p>x</p>", "body": None}, True),
        ({"reply_to": "answers@example.com", "cc": "c@example.net"}, True),
        ({"headers": {"X-A": "b"}}, False),
        ({"attachments": [{"content": "YQ=="}]}, False),
    ],
    ids=ascii,
)
def test_a_letter_that_is_simple_is_told_in_simple_words(given, is_simple):
    client = Client({"MessageId": "x"})
    octets = letter(**given)
    ses_client.send(Clients(lambda _: client), credential(), "ann@example.com", ["b@c"], octets)
    ((name, arguments),) = client.calls
    assert name == ("SendEmail" if is_simple else "SendRawEmail")
    if not is_simple:
        assert arguments["RawMessage"]["Data"] == octets


def test_names_and_texts_of_a_letter_reach_ses_decoded():
    client = Client({"MessageId": "x"})
    octets = letter(
        **{"from": "Änn <ann@example.com>"},
        to='Dörte <D@example.net>, "B, C" <b@example.net>, gone@example.net',
        subject="Grüße 🎉" * 20,
        body="Straße",
        reply_to="Jürgen <j@example.com>",
    )
    to = ["d@example.net", "b@example.net", "blind@example.net"]
    ses_client.send(Clients(lambda _: client), credential(), "ann@example.com", to, octets)
    ((_, arguments),) = client.calls
    assert arguments["Source"].endswith("<ann@example.com>")
    assert arguments["Source"].isascii()
    assert arguments["Destination"]["ToAddresses"] == [
        "=?utf-8?b?RMO2cnRl?= <D@example.net>",
        '"B, C" <b@example.net>',
    ]
    assert arguments["Destination"]["BccAddresses"] == ["blind@example.net"]
    assert arguments["Message"]["Subject"]["Data"] == "Grüße 🎉" * 20
    assert arguments["Message"]["Body"]["Text"]["Data"].strip() == "Straße"
    assert arguments["ReplyToAddresses"][0].endswith("<j@example.com>")


@pytest.mark.parametrize(
    "octets",
    [b"", b"\r\n", b"\xff\xfe", b"From: x", b"Content-Type: multipart/alternative\r\n\r\nx"],
    ids=repr,
)
def test_whatever_octets_are_sent_as_they_are(octets):
    client = Client({"MessageId": "x"})
    ses_client.send(Clients(lambda _: client), credential(), "a@b", ["c@d"], octets or b" ")
    assert len(client.calls) == 1


# -- as a next hop --------------------------------------------------------------------------


def test_a_credential_is_a_route_of_its_own_whatever_the_settings_say():
    settings = Settings(relay=Settings().relay)
    route = Router(settings).route(ses.destination("0199"))
    assert (route.key, route.host) == ("ses:0199", "")
    assert Router(settings).route("ses.example").key == "ses.example"


class Rows:
    """Stands for the store: one credential, or none."""

    def __init__(self, stored):
        self.stored = stored

    async def read(self, _work):
        return self.stored


def service(stored, replies=()):
    found = Ses(Rows(stored), Secrets(b"k" * 32), reactor=None)
    asked = []

    async def answer(_credential, sender, recipients, octets):
        asked.append((sender, recipients, octets))
        return replies[min(len(asked), len(replies)) - 1]

    instead: Any = found
    instead.send = answer
    return found, asked


def stored(content: str | None = None, *, sealed: str = "") -> credentials.Stored:
    text = json.dumps(GOOD) if content is None else content
    sealed = sealed or Secrets(b"k" * 32).seal(text, credentials.PURPOSE)
    return credentials.Stored("0199", "mine", sealed, 0, True)


@pytest.mark.parametrize(
    "row, said_so",
    [(None, "no credential"), (stored("{}"), "access_key"), (stored(sealed="v1:AAAA"), "mine")],
    ids=["gone", "incomplete", "unreadable"],
)
def test_mail_waits_for_a_credential_that_is_of_no_use(row, said_so):
    found, _ = service(row)
    with pytest.raises(Undeliverable, match=said_so) as caught:
        now(found.connect("ses:0199"))
    assert caught.value.reply.code == 451
    assert caught.value.reply.status == "4.3.5"


def outgoing(count: int, octets: int = 3) -> Outgoing:
    async def blocks():
        yield b"a"
        yield b"bc"

    recipients = tuple(OutgoingRecipient(f"u{n}@example.net") for n in range(count))
    return Outgoing("ann@example.com", recipients, octets, blocks)


def test_a_session_sends_fifty_at_once_and_answers_for_each():
    good, bad = RemoteReply(250, "2.0.0", "Ok", "end"), RemoteReply(451, "4.3.2", "later", "end")
    found, asked = service(stored(), [good, bad])
    session = now(found.connect("ses:0199"))
    replies = now(session.deliver(outgoing(60)))
    assert [reply.code for reply in replies] == [250] * 50 + [451] * 10
    assert [len(recipients) for _, recipients, _ in asked] == [50, 10]
    assert {octets for _, _, octets in asked} == {b"abc"}
    assert not session.is_open, "the credential is read anew for the next one"


def test_a_session_holds_no_message_of_any_size():
    found, asked = service(stored(), [RemoteReply(250, "2.0.0", "Ok", "end")])
    session = now(found.connect("ses:0199"))
    (reply,) = now(session.deliver(outgoing(1, octets=ses.MAX_OCTETS + 1)))
    assert (reply.code, reply.status) == (552, "5.3.4")
    assert asked == []


def test_a_failure_of_the_store_is_none_of_the_credentials():
    class Broken:
        async def read(self, _work):
            raise MailError(detail="gone")

    with pytest.raises(MailError):
        now(Ses(Broken(), Secrets(b"k" * 32), reactor=None).connect("ses:0199"))
