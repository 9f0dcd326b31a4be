"""Messages in chunks, any octets among them, through the whole server and on to the next hop."""

from __future__ import annotations

import smtplib

import pytest

from tests.e2e import mails
from tests.e2e.relaying import FAR, arrived, bounce, going_to, sent_by
from tests.e2e.server import LISTENERS, PASSWORD
from tests.support.sink import EXTENSIONS, Sink

pytestmark = pytest.mark.real

HEADER = b"Subject: octets\r\nContent-Type: application/octet-stream\r\n\r\n"
OCTETS = HEADER + bytes(range(256)) * 5000 + b"\n\r\0"


def chunked(
    client: smtplib.SMTP, sender: str, recipient: str, message: bytes, *, chunk: int = 300_000
) -> str:
    """Send with BDAT; the text of the last answer."""
    code, text = client.mail(sender, ["BODY=BINARYMIME"])
    assert code == 250, text
    code, text = client.rcpt(recipient)
    assert code == 250, text
    pieces = [message[at : at + chunk] for at in range(0, len(message), chunk)]
    for n, piece in enumerate(pieces):
        last = " LAST" if n == len(pieces) - 1 else ""
        client.send(b"BDAT %d%b\r\n%b" % (len(piece), last.encode(), piece))
        code, text = client.getreply()
        assert code == 250, text
    return text.decode()


@pytest.mark.mission("ELE-19")
def test_any_octets_are_kept_and_read_by_imap(server):
    alice = server.account()
    with server.smtp() as client:
        client.ehlo()
        assert {"chunking", "binarymime"} <= client.esmtp_features.keys()
        assert "queued as" in chunked(client, "zoe@elsewhere.example", alice, OCTETS)
    assert arrived(server, alice).endswith(OCTETS)


def test_any_octets_go_on_to_a_host_that_takes_them(make_server):
    with Sink(extensions=(*EXTENSIONS, "CHUNKING", "BINARYMIME")) as sink:
        server = make_server(outbound=going_to(sink)).start()
        alice = server.account()
        with server.smtp("submissions") as client:
            client.login(alice, PASSWORD)
            chunked(client, alice, f"bob@{FAR}", OCTETS)
        assert sent_by(sink, alice).data.endswith(OCTETS.partition(b"\r\n\r\n")[2])


def test_a_host_that_cannot_take_them_never_sees_them(make_server, sink):
    server = make_server(outbound=going_to(sink)).start()
    alice = server.account()
    with server.smtp("submissions") as client:
        client.login(alice, PASSWORD)
        chunked(client, alice, f"bob@{FAR}", OCTETS)
    assert bounce(server, alice).status == "5.6.3"
    assert alice not in {mail.reverse_path for mail in sink.mails}


def test_neighbours_bring_mail_by_lmtp(make_server):
    server = make_server(
        listeners=[*LISTENERS, {"protocol": "lmtp", "address": "127.0.0.1:0"}]
    ).start()
    alice, bob = server.account(), server.account()
    message = mails.simple("by LMTP")
    with smtplib.LMTP("127.0.0.1", server.ports["lmtp"]) as client:
        refused = client.sendmail("zoe@elsewhere.example", [alice, f"no@{FAR}"], message)
        assert set(refused) == {f"no@{FAR}"}
        # smtplib itself reads one answer alone behind a message.
        client.mail("zoe@elsewhere.example")
        for address in (alice, bob):
            client.rcpt(address)
        assert client.data(message)[0] == 250
        assert client.getreply()[0] == 250
    assert b" with LMTP id " in arrived(server, bob)
