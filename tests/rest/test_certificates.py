"""Certificate rows over real sockets: imported, signed, swapped, refused."""

from __future__ import annotations

import re
import socket
import ssl
from base64 import b64decode
from itertools import count

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import PrivateFormat, load_pem_public_key

from tests.e2e.relaying import until
from tests.e2e.server import run, tool, trusting
from tests.support import chains
from tests.support.chains import Chain, key_pem, sign
from tests.support.rest import SECRET, outcomes
from tests.support.signatures import dkimpy

pytestmark = [pytest.mark.real]

_hosts = (f"host{n}.tls.example" for n in count(1))


@pytest.fixture
def host(admin):
    """A host name with a certificate row and a listener of its own that begins with TLS."""
    name = next(_hosts)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    given = {
        "hostname": name,
        "is_enabled": True,
        "listen_interface": f"127.0.0.1:{port}",
        "always_on_tls": True,
    }
    server = admin.make("mail_server", given)["id"]
    yield Host(admin, name, port, admin.make("certificate", {"hostname": name})["id"])
    admin.remove("mail_server", server)
    admin.act("mail_server", "sync_mail_servers")


class Host:
    def __init__(self, admin, name, port, id):
        self.admin, self.name, self.port, self.id = admin, name, port, id

    def sync(self):
        answer = self.admin.act("mail_server", "sync_mail_servers")
        assert outcomes(answer) == [], answer
        return self

    def patch(self, **attributes):
        return self.admin.patch("certificate", self.id, attributes)

    def imports(self, chain, **more):
        given = {"certificate_pem": chain.leaf.pem, "private_key_pem": chain.key, **more}
        assert self.patch(**given).status == 200
        return self

    @property
    def row(self):
        return self.admin.row("certificate", self.id)["attributes"]

    def connect(self, name=None):
        """A connection after its handshake."""
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        return trusting().wrap_socket(raw, server_hostname=name)

    def served(self, name=None):
        """The certificate of a new handshake."""
        with self.connect(name) as connection:
            octets = connection.getpeercert(binary_form=True)
        return x509.load_der_x509_certificate(octets)

    def shown(self, *more):
        """What openssl says of a new handshake."""
        where = ["-connect", f"127.0.0.1:{self.port}", "-servername", self.name]
        return run(tool("openssl"), "s_client", *where, *more).stdout.decode()


# -- import -----------------------------------------------------------------------------------


@pytest.mark.mission("DAP-093", "DAP-201")
@pytest.mark.parametrize("order", ["apart", "together", "turned"])
def test_the_whole_chain_is_served(host, order):
    chain = Chain(host.name, kind="rsa2048")
    leaf, middle, _ = chain.pems
    given = {
        "apart": {"certificate_pem": leaf, "root_certificate": middle},
        "together": {"certificate_pem": leaf + middle},
        "turned": {"certificate_pem": middle + leaf},
    }[order]
    assert host.patch(private_key_pem=chain.key, **given).status == 200
    shown = host.sync().shown("-showcerts")
    found = re.findall("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", shown, re.S)
    assert found == [leaf, middle]
    assert host.row["issuer"] == "imported"
    assert host.row["names"] == host.name


@pytest.mark.mission("DAP-093")
def test_clients_that_trust_the_root_alone_verify_the_chain(host, tmp_path):
    chain = Chain(host.name)
    host.imports(chain, root_certificate=chain.middle.pem).sync()
    (tmp_path / "root.pem").write_text(chain.root.pem)
    context = ssl.create_default_context(cafile=tmp_path / "root.pem")
    with (
        socket.create_connection(("127.0.0.1", host.port), timeout=30) as raw,
        context.wrap_socket(raw, server_hostname=host.name) as connection,
    ):
        assert connection.recv(4) == b"220 "
    assert "Verification: OK" in host.shown("-CAfile", str(tmp_path / "root.pem"))


@pytest.mark.mission("DAP-201")
@pytest.mark.parametrize(
    ("kind", "form"),
    [
        ("rsa2048", PrivateFormat.TraditionalOpenSSL),
        ("p256", PrivateFormat.TraditionalOpenSSL),
        ("p384", PrivateFormat.PKCS8),
    ],
)
def test_keys_of_every_form_are_served(host, kind, form):
    chain = Chain(host.name, private=chains.key(kind))
    given = key_pem(chain.leaf.key, form)
    assert host.patch(certificate_pem=chain.leaf.pem, private_key_pem=given).status == 200
    assert host.sync().served() == chain.leaf.certificate


@pytest.mark.mission("DAP-201")
def test_what_is_wrong_is_said_and_the_one_before_stays(host):
    good, other = Chain(host.name), Chain(host.name)
    host.imports(good, root_certificate=good.middle.pem).sync()
    before = host.row
    expired = sign(host.name, names=(host.name,), until=-chains.NOW.resolution)
    weak = sign(host.name, names=(host.name,), private=chains.key("rsa1024"))
    leaf, key = "certificate_pem", "private_key_pem"
    for given, says in (
        ({leaf: other.leaf.pem, key: good.key}, "private_key_pem: the key does not belong"),
        ({leaf: other.leaf.pem}, "private_key_pem: the key does not belong"),
        ({key: other.key}, "private_key_pem: the key does not belong"),
        ({leaf: "nonsense", key: other.key}, "certificate_pem: the certificate is no PEM"),
        ({leaf: other.leaf.pem, key: "nonsense"}, "private_key_pem: the key cannot be read"),
        ({leaf: expired.pem, key: expired.key_pem}, "has expired"),
        ({leaf: weak.pem, key: weak.key_pem}, "private_key_pem: RSA keys have 2048"),
        (
            {leaf: other.leaf.pem, key: other.key, "root_certificate": good.middle.pem},
            "root_certificate: the certificate of middle did not sign",
        ),
        ({"root_certificate": other.middle.pem}, "root_certificate"),
        ({leaf: Chain("else.example").leaf.pem}, "private_key_pem"),
        ({leaf: 7}, "certificate_pem"),
    ):
        answer = host.patch(**given)
        assert answer.status == 400, (given, answer)
        assert says in answer.error, answer.error
    elsewhere = Chain("else.example")
    answer = host.patch(**{leaf: elsewhere.leaf.pem, key: elsewhere.key})
    assert f"is for else.example, not for {host.name}" in answer.error
    assert host.row == before
    assert host.sync().served() == good.leaf.certificate
    # Who sends back what he has read changes nothing.
    read = {name: before[name] for name in (leaf, "root_certificate", "public_key_pem")}
    assert host.patch(**read, private_key_pem="").status == 200
    assert host.row["serial_number"] == before["serial_number"]


@pytest.mark.mission("DAP-201")
def test_a_row_may_begin_with_its_certificate(admin):
    name = next(_hosts)
    chain = Chain(name)
    given = {"hostname": name, "certificate_pem": chain.leaf.pem, "private_key_pem": chain.key}
    row = admin.make("certificate", given)["attributes"]
    assert row["expires_at"].startswith(chain.leaf.certificate.not_valid_after_utc.isoformat()[:19])
    assert row["serial_number"] == f"{chain.leaf.certificate.serial_number:x}"
    bad = admin.create("certificate", {**given, "hostname": next(_hosts)})
    assert bad.status == 400
    assert "certificate_pem" in bad.error


# -- the handshake ----------------------------------------------------------------------------


@pytest.mark.mission("DAP-201", "DAP-193")
def test_a_swap_shows_at_the_next_handshake_and_sessions_go_on(host, server):
    first, second = Chain(host.name), Chain(host.name)
    host.imports(first).sync()
    with host.connect() as session:
        assert session.recv(4) == b"220 "
        host.imports(second)
        # No sync: certificates are no listeners.
        until(lambda: host.served() == second.leaf.certificate)
        session.sendall(b"EHLO still.here\r\n")
        until(lambda: b"250 " in session.recv(4096))
    with server.smtp() as smtp:
        smtp.starttls(context=trusting())
        assert smtp.noop()[0] == 250


def test_the_name_that_is_asked_for_chooses_the_certificate(host, admin):
    own, wild = Chain(host.name), Chain("*.wild.example")
    host.imports(own).sync()
    given = {
        "hostname": "*.wild.example",
        "certificate_pem": wild.leaf.pem,
        "private_key_pem": wild.key,
    }
    id = admin.make("certificate", given)["id"]
    until(lambda: host.served("a.wild.example") == wild.leaf.certificate)
    for asked, chain in (
        ("a.wild.example", wild),
        ("A.Wild.Example", wild),
        ("a.b.wild.example", own),
        ("wild.example", own),
        ("nobody.example", own),
        (None, own),
    ):
        assert host.served(asked) == chain.leaf.certificate, asked
    assert admin.remove("certificate", id).status in {200, 204}
    until(lambda: host.served("a.wild.example") == own.leaf.certificate)


# -- self-signed ------------------------------------------------------------------------------


@pytest.mark.mission("DAP-190", "DAP-191", "DAP-192", "DAP-193", "DAP-200")
def test_a_certificate_of_our_own_is_made_served_made_anew_and_downloaded(host):
    assert (host.row["issuer"], host.row["certificate_pem"]) == ("self", "")
    serials = set()
    for body in (
        {"attributes": {"hostname": host.name}, "certificate_id": host.id},
        {"attributes": {"certificate_id": host.id}},
    ):
        answer = host.admin.act("certificate", "generate_self_certificate", body)
        message = f"Certificate generated for {host.name}"
        notified = {"message": message, "title": "Success", "type": "message"}
        assert outcomes(answer) == [("client.notify", notified)]
        made = x509.load_pem_x509_certificate(host.row["certificate_pem"].encode())
        assert host.sync().served() == made
        serials.add(made.serial_number)
    assert len(serials) == 2
    assert made.public_key().key_size == 2048
    assert made.subject.rfc4514_string() == f"CN={host.name}"
    public = load_pem_public_key(host.row["public_key_pem"].encode())
    assert public == made.public_key()
    for action, column, suffix in (
        ("download_certificate", "certificate_pem", ".pem.crt"),
        ("download_public_key", "public_key_pem", ".pem.key.pub"),
    ):
        answer = host.admin.act("certificate", action, {"certificate_id": host.id})
        ((kind, file),) = outcomes(answer)
        assert kind == "client.file.download"
        assert file["name"] == f"{host.name}{suffix}"
        assert file["contentType"] == "application/x-x509-ca-cert"
        assert b64decode(file["content"]).decode() == host.row[column]


def test_one_of_our_own_may_have_several_names_and_a_p_256_key(host):
    names = f"{host.name}, extra.tls.example, 192.0.2.7"
    attributes = {"hostname": names, "key_type": "ecdsa"}
    body = {"attributes": attributes, "certificate_id": host.id}
    assert host.admin.act("certificate", "generate_self_certificate", body).status == 200
    served = host.sync().served("extra.tls.example")
    assert served.public_key().curve.name == "secp256r1"
    assert host.row["names"].split() == [host.name, "extra.tls.example", "192.0.2.7"]
    body["attributes"] = {"key_type": "dsa"}
    answer = host.admin.act("certificate", "generate_self_certificate", body)
    assert (answer.status, "rsa or ecdsa" in answer.error) == (400, True)


@pytest.mark.mission("DAP-194")
def test_without_a_row_nothing_is_made(admin):
    none = admin.act("certificate", "generate_self_certificate", {})
    assert none.status == 400
    assert none.error
    unknown = {"certificate_id": "01890000-0000-7000-8000-000000000000"}
    assert admin.act("certificate", "generate_self_certificate", unknown).status == 404


# -- DKIM -------------------------------------------------------------------------------------


@pytest.mark.mission("DAP-126", "DAP-202")
@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_a_key_that_was_given_to_a_domain_signs_its_mail(admin, server, sink, form):
    domain = next(_hosts)
    _, address = admin.user().account("writer", domain)
    mail_server = admin.make("mail_server", {"hostname": domain})["id"]
    made = admin.row("mail_server", mail_server)["attributes"]["dkim_public_key"]
    id = admin.make("certificate", {"hostname": domain})["id"]
    admin.act("certificate", "generate_self_certificate", {"certificate_id": id})
    private = chains.MAKE["rsa2048"]()
    assert admin.patch("certificate", id, {"private_key_pem": key_pem(private, form)}).status == 200
    assert admin.row("certificate", id)["attributes"]["issuer"] == "own-key"
    shown = admin.row("mail_server", mail_server)["attributes"]
    published = shown["dkim_public_key"]
    assert published != made
    assert published in shown["dkim_dns_record"]
    pem = admin.row("certificate", id)["attributes"]["public_key_pem"]
    assert published == "".join(pem.splitlines()[1:-1])
    before = len(sink.taken)
    with server.smtp("submissions") as smtp:
        smtp.login(address, SECRET)
        text = f"From: {address}\r\nTo: x@elsewhere.example\r\nSubject: s\r\n\r\nhello\r\n"
        smtp.sendmail(address, ["x@elsewhere.example"], text)
    mail = sink.wait_for_mails(before + 1)[-1]
    record = {f"{shown['dkim_selector']}._domainkey.{domain}": f"v=DKIM1; k=rsa; p={published}"}
    assert dkimpy(mail.data, record)
    assert b"PRIVATE KEY" not in b"".join(
        path.read_bytes() for path in server.data_dir.iterdir() if path.name.startswith("mailtwist")
    )
