"""How long a stop may take, whoever is connected."""

from __future__ import annotations

import json
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.e2e import mails
from tests.e2e.relaying import until
from tests.support.sink import Sink

STOP_S = 5.0


def begun_mail(server, recipient: str):
    """A connection on which DATA was answered with 354."""
    talk = server.raw("smtp")
    talk.reply()
    talk.say(b"EHLO client.example")
    talk.say(b"MAIL FROM:<x@elsewhere.example>")
    talk.say(b"RCPT TO:<%s>" % recipient.encode())
    assert talk.say(b"DATA").startswith(b"354")
    return talk


def begun_request(server, body: bytes) -> socket.socket:
    """A sign-up whose body is still to come."""
    head = (
        b"POST /action/user_account/signup HTTP/1.1\r\nHost: mx.example.com\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    link = socket.create_connection(("127.0.0.1", server.ports["http"]), timeout=30)
    link.sendall(head + body[:10])
    return link


def systemd(path: Path) -> socket.socket:
    """What a service tells its manager comes here."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(str(path))
    made.settimeout(30)
    return made


@pytest.mark.mission("ADG-30")
def test_a_stop_takes_five_seconds_at_most_and_what_is_under_way_ends(make_server, tmp_path):
    """Beside those that end there are peers that never do: a client, and a next hop."""
    attributes = {"email": "new@example.com", "password": "long enough", "name": "new"}
    attributes["passwordConfirm"] = attributes["password"]
    body = json.dumps({"attributes": attributes}).encode()
    sent = mails.simple("in flight", octets=100_000)
    with Sink(replies={"DATA": "!hang"}) as sink:
        told = systemd(tmp_path / "systemd")
        server = make_server(
            outbound={"mx_override": {"*": f"127.0.0.1:{sink.port}"}}, allowed_relays=["127.0.0.1"]
        )
        server.environment |= {"NOTIFY_SOCKET": told.getsockname(), "WATCHDOG_USEC": "600000000"}
        server.start()
        assert [told.recv(1000), told.recv(1000)] == [b"READY=1", b"WATCHDOG=1"]
        alice = server.account()
        server.send("bob@far.test", mails.simple("never answered"))
        sink.wait(lambda: "DATA" in sink.commands)
        ending, silent = begun_mail(server, alice), begun_mail(server, alice)
        request = begun_request(server, body)
        ending.send(sent[:50_000])

        asked_at = time.monotonic()
        server.terminate()
        until(lambda: "stopping" in server.log)
        ending.send(sent[50_000:] + b".\r\n")
        request.sendall(body[10:])
        assert ending.reply().startswith(b"250 2.0.0 Message accepted")
        assert request.makefile("rb").readline().startswith(b"HTTP/1.1 200 ")
        # twistd ends itself by the signal that it was sent.
        assert server.wait() == -signal.SIGTERM
        assert time.monotonic() - asked_at < STOP_S
        assert told.recv(1000) == b"STOPPING=1"
        for each in (told, ending, silent, request):
            each.close()
    assert not [each for each in server.events if each["level"] == "error"]
