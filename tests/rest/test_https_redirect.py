"""The three HTTP listeners from outside: ``http``, ``https`` and ``http-redirect``."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import warnings

import pytest

from tests.e2e.server import LISTENERS, trusting
from tests.support.rest import SECRET

pytestmark = [pytest.mark.real]

MORE = [{"protocol": name, "address": "127.0.0.1:0"} for name in ("https", "http-redirect")]


@pytest.fixture
def server(make_server):
    return make_server(listeners=LISTENERS + MORE, http={"hsts": "180d"}).start()


def ask(server, protocol, method, path, body=None, **headers):
    """(status, header fields, body) of one request."""
    port = server.ports[protocol]
    if protocol == "https":
        client: http.client.HTTPConnection = http.client.HTTPSConnection(
            "127.0.0.1", port, context=trusting(), timeout=30
        )
    else:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        client.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        answer = client.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        client.close()


@pytest.mark.mission("ADG-20")
def test_what_comes_without_tls_is_sent_to_where_it_is(server):
    for method in ("GET", "POST", "DELETE"):
        status, headers, _ = ask(
            server, "http-redirect", method, "/emails/u?x=1", Host="mail.example.com:8080"
        )
        assert status == 301
        # Never our own port: a proxy or a firewall may stand before it.
        assert headers["Location"] == "https://mail.example.com/emails/u?x=1"
    rows = json.loads((server.data_dir / "listeners.json").read_text())
    (row,) = [each for each in rows if each["protocol"] == "http-redirect"]
    assert row["tls"] is False


def test_the_redirecting_listener_serves_nothing_else(server):
    assert ask(server, "http-redirect", "GET", "/ping", Host="x.example")[0] == 301
    status, headers, _ = ask(
        server, "http-redirect", "GET", "/.well-known/acme-challenge/unknown", Host="x.example"
    )
    assert status == 404
    assert "Location" not in headers
    assert ask(server, "http-redirect", "GET", "/", Host="a b")[0] == 400


def certificate(server, protocol):
    with (
        socket.create_connection(("127.0.0.1", server.ports[protocol]), timeout=30) as plain,
        trusting().wrap_socket(plain, server_hostname="mx.example.com") as secured,
    ):
        return secured.getpeercert(binary_form=True)


@pytest.mark.mission("ADG-21")
def test_https_serves_the_api_with_the_certificate_of_mail(server):
    status, _, body = ask(server, "https", "GET", "/health")
    assert (status, json.loads(body)["success"]) == (200, True)
    attributes = {"name": "A", "email": "a@x.example", "password": SECRET}
    asked = json.dumps({"attributes": {**attributes, "passwordConfirm": SECRET}})
    status, _, body = ask(
        server, "https", "POST", "/action/user_account/signup", asked,
        Content_Type="application/json",
    )  # fmt: skip
    assert status == 200, body
    assert certificate(server, "https") == certificate(server, "submissions")


@pytest.mark.mission("ADG-21")
@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1", "TLSv1_2", "TLSv1_3"])
def test_https_is_tls_1_2_or_later(server, version):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Python, about versions that it thinks little of
        context = trusting()
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion[version]
    with socket.create_connection(("127.0.0.1", server.ports["https"]), timeout=30) as plain:
        if version in ("TLSv1", "TLSv1_1"):
            with pytest.raises(ssl.SSLError):
                context.wrap_socket(plain)
            return
        with context.wrap_socket(plain) as secured:
            assert secured.version() == version.replace("_", ".")


def test_only_what_came_by_tls_is_told_to_insist_on_it(server):
    for path in ("/ping", "/nothing"):
        _, headers, _ = ask(server, "https", "GET", path)
        assert headers["Strict-Transport-Security"] == "max-age=15552000"
    for protocol in ("http", "http-redirect"):
        assert "Strict-Transport-Security" not in ask(server, protocol, "GET", "/ping")[1]
