"""The PROXY protocol in front of real listeners: the client behind the balancer is the client."""

from __future__ import annotations

import imaplib
import smtplib
import socket

import pytest

from tests.e2e import mails
from tests.e2e.relaying import FAR, arrived
from tests.e2e.server import LISTENERS, PASSWORD, trusting

pytestmark = pytest.mark.real

HEADER = b"PROXY TCP4 203.0.113.5 192.0.2.1 4711 25\r\n"
SOURCE = ("127.0.0.2", 0)


@pytest.fixture
def server(make_server):
    listeners = [
        {**each, "proxies": ["127.0.0.2"]} for each in LISTENERS if each["protocol"] != "http"
    ]
    return make_server(listeners=listeners).start()


def behind_proxy(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), 60, source_address=SOURCE)
    connection.sendall(HEADER)
    return connection


class ProxiedSMTP(smtplib.SMTP):
    def _get_socket(self, host, port, timeout):
        return behind_proxy(port)


class ProxiedIMAP(imaplib.IMAP4_SSL):
    def _create_socket(self, timeout=None):
        return trusting().wrap_socket(behind_proxy(self.port))


def test_the_client_is_named_in_received_and_may_not_relay(server):
    alice = server.account()
    with ProxiedSMTP("127.0.0.1", server.ports["smtp"]) as client:
        client.starttls(context=trusting())
        client.ehlo()
        client.mail("zoe@elsewhere.example")
        # 127.0.0.1 may by default, whoever the proxy is.
        assert client.rcpt(f"x@{FAR}") == (554, b"5.7.1 Relay access denied")
        assert client.rcpt(alice)[0] == 250
        assert client.data(mails.simple("proxied"))[0] == 250
    assert b"([203.0.113.5])" in arrived(server, alice)


def test_the_header_stands_before_implicit_tls(server):
    alice = server.account()
    with ProxiedIMAP("127.0.0.1", server.ports["imaps"]) as client:
        assert client.login(alice, PASSWORD)[0] == "OK"
    assert any("login" in line and '"203.0.113.5"' in line for line in server.log.splitlines())


def test_a_stranger_is_not_believed(server):
    with socket.create_connection(("127.0.0.1", server.ports["smtp"]), 60) as connection:
        assert connection.recv(1000).startswith(b"220 ")
        connection.sendall(HEADER)
        assert connection.recv(1000).startswith(b"500 5.5.1 ")


def test_a_proxy_without_header_is_closed(server):
    with socket.create_connection(
        ("127.0.0.1", server.ports["smtp"]), 60, source_address=SOURCE
    ) as connection:
        connection.sendall(b"EHLO balancer\r\n")
        with pytest.raises(ConnectionResetError):
            assert connection.recv(1000) == b"never comes"
