"""Key files that change, that miss, that are wrong; and TLS as a client sees it."""

from __future__ import annotations

import smtplib
import socket
import ssl

import pytest
from cryptography import x509

from tests.e2e.relaying import until
from tests.e2e.server import DOMAIN, PASSWORD, Server, trusting
from tests.support.chains import Chain

pytestmark = [pytest.mark.real]

HOST = "mx.example.com"


@pytest.fixture
def make(tmp_path):
    made = []

    def make(**settings):
        made.append(Server(tmp_path / "server", **settings))
        return made[-1]

    yield make
    for each in made:
        each.stop()


def write(folder, chain):
    """As certbot does: new files take the place of the old ones."""
    folder.mkdir(exist_ok=True)
    for name, text in (
        ("fullchain.pem", chain.leaf.pem + chain.middle.pem),
        ("privkey.pem", chain.key),
    ):
        (folder / f"{name}.new").write_text(text)
        (folder / f"{name}.new").replace(folder / name)


def served(server, protocol="imaps"):
    with (
        socket.create_connection(("127.0.0.1", server.ports[protocol]), timeout=30) as raw,
        trusting().wrap_socket(raw, server_hostname=HOST) as connection,
    ):
        der = connection.getpeercert(binary_form=True)
        assert der is not None
        return x509.load_der_x509_certificate(der)


@pytest.mark.mission("ADG-22", "ELE-10")
@pytest.mark.parametrize("is_named", [True, False], ids=["named", "found"])
def test_files_that_change_are_served_without_a_restart(make, tmp_path, is_named):
    first, second = Chain(HOST), Chain(HOST)
    server = make()
    folder = server.folder / "certs"
    write(folder, first)
    if is_named:
        server.settings["tls"] = {
            "cert_file": str(folder / "fullchain.pem"),
            "key_file": str(folder / "privkey.pem"),
        }
    server.start()
    address = server.account()
    assert served(server) == first.leaf.certificate
    with smtplib.SMTP("127.0.0.1", server.ports["submission"], timeout=30) as session:
        session.starttls(context=trusting())
        session.login(address, PASSWORD)
        write(folder, second)
        until(lambda: served(server) == second.leaf.certificate)
        # What began under the certificate before goes on under it.
        session.sendmail(address, [address], f"From: {address}\r\n\r\nhello\r\n")
    with smtplib.SMTP("127.0.0.1", server.ports["smtp"], timeout=30) as fresh:
        fresh.starttls(context=trusting())
        octets = fresh.sock.getpeercert(binary_form=True)
        assert x509.load_der_x509_certificate(octets) == second.leaf.certificate
        # RFC 3207 §4.2
        fresh.ehlo()
        assert not fresh.has_extn("starttls")
        assert fresh.mail(f"x@{DOMAIN}")[0] == 250
    # Half a renewal changes nothing, and the log says why.
    (folder / "fullchain.pem").write_text(first.leaf.pem)
    until(lambda: "does not belong" in server.log)
    assert served(server) == second.leaf.certificate


@pytest.mark.mission("ADG-23")
def test_a_missing_certificate_stops_the_start_and_says_what_helps(make):
    server = make(tls={"cert_file": "missing.pem", "key_file": "missing.key"})
    server.launch()
    assert server.wait() == 1
    said = server.log.strip().splitlines()[-1]
    assert "tls.cert_file: cannot read" in said
    assert "missing.pem" in said
    assert "tls.self_signed" in said
    server.settings["tls"]["self_signed"] = True
    server.start()
    assert served(server).issuer == served(server).subject
    chain = Chain(HOST)
    (server.folder / "missing.key").write_text(chain.key)
    (server.folder / "missing.pem").write_text(chain.leaf.pem)
    until(lambda: served(server) == chain.leaf.certificate)


@pytest.mark.parametrize("wrong", ["key", "certificate"])
def test_a_pair_that_is_none_stops_the_start(make, wrong):
    server = make()
    write(server.folder / "certs", Chain(HOST))
    name, text = {
        "key": ("privkey.pem", Chain(HOST).key),
        "certificate": ("fullchain.pem", "nonsense"),
    }[wrong]
    (server.folder / "certs" / name).write_text(text)
    server.launch()
    assert server.wait() == 1
    said = server.log.strip().splitlines()[-1]
    assert said.startswith("mailtwist: ")
    assert "fullchain.pem" in said


@pytest.mark.mission("ELE-62")
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_nothing_below_tls_1_2_is_spoken_whoever_is_asked_for(make):
    server = make()
    write(server.folder / "certs", Chain(HOST))
    server.start()
    for name in (HOST, "nobody.example"):
        for protocol in ("imaps", "submissions"):
            old = trusting()
            old.set_ciphers("ALL:@SECLEVEL=0")
            old.minimum_version = ssl.TLSVersion.TLSv1
            old.maximum_version = ssl.TLSVersion.TLSv1_1
            with (
                socket.create_connection(("127.0.0.1", server.ports[protocol]), timeout=30) as raw,
                pytest.raises((ssl.SSLError, ConnectionError)),
            ):
                old.wrap_socket(raw, server_hostname=name)
    assert served(server).subject.rfc4514_string() == f"CN={HOST}"
