from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL

from mailtwist.errors import ConfigError
from mailtwist.tls import pem, selfsigned
from mailtwist.tls.contexts import Certificates, make_context, names_of
from mailtwist.tls.files import read_pair

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def pair(*names):
    return selfsigned.make(names, NOW)


DEFAULT = pair("mx.example.com")
OTHER = pair("imap.example.org")
WILD = pair("*.example.net")


def shake_hands(creator, name=b"", *, low=SSL.TLS1_2_VERSION, high=SSL.TLS1_3_VERSION):
    """The common name of the certificate that a client gets, and the protocol's name."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(low)
    context.set_max_proto_version(high)
    if low < SSL.TLS1_2_VERSION:
        # OpenSSL itself allows them at its lowest level alone; the server must refuse all the same.
        context.set_cipher_list(b"ALL:@SECLEVEL=0")
    client = SSL.Connection(context, None)
    client.set_connect_state()
    if name:
        client.set_tlsext_host_name(name)
    server = creator.serverConnectionForTLS(None)
    server.set_accept_state()
    waiting = {client, server}
    for _ in range(20):
        for each, peer in ((client, server), (server, client)):
            try:
                each.do_handshake()
                waiting.discard(each)
            except SSL.WantReadError:
                pass
            try:
                peer.bio_write(each.bio_read(1 << 20))
            except SSL.WantReadError:
                pass
        if not waiting:
            break
    certificate = client.get_peer_certificate(as_cryptography=True)
    (name,) = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return name.value, client


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        (b"", "mx.example.com"),
        (b"mx.example.com", "mx.example.com"),
        (b"MX.Example.COM", "mx.example.com"),
        (b"imap.example.org", "imap.example.org"),
        (b"any.example.net", "*.example.net"),
        (b"two.labels.example.net", "mx.example.com"),  # RFC 9525 §6.3: one label
        (b"example.net", "mx.example.com"),
        (b"unheard.of", "mx.example.com"),
    ],
)
def test_the_name_that_the_client_asks_for_chooses_the_certificate(asked, got):
    certificates = Certificates(*DEFAULT)
    certificates.replace(DEFAULT, OTHER, WILD)
    assert shake_hands(certificates.creator, asked)[0] == got


def test_a_new_certificate_is_used_by_the_next_handshake_and_the_creator_stays():
    certificates = Certificates(*DEFAULT)
    creator = certificates.creator
    _, before = shake_hands(creator)
    certificates.replace(pair("new.example.com"), OTHER)
    assert certificates.creator is creator
    assert shake_hands(creator)[0] == "new.example.com"
    assert shake_hands(creator, b"imap.example.org")[0] == "imap.example.org"
    # The session that began before goes on.
    before.send(b"still here")


def test_a_set_with_one_bad_pair_changes_nothing():
    certificates = Certificates(*DEFAULT)
    with pytest.raises(ValueError, match="does not belong"):
        certificates.replace(OTHER, (DEFAULT[0], OTHER[1]))
    assert shake_hands(certificates.creator)[0] == "mx.example.com"


@pytest.mark.mission("ELE-62")
@pytest.mark.parametrize("version", [SSL.TLS1_VERSION, SSL.TLS1_1_VERSION])
def test_tls_before_1_2_is_refused(version):
    with pytest.raises(SSL.Error):
        shake_hands(Certificates(*DEFAULT).creator, low=version, high=version)


def test_tls_1_2_can_be_switched_off():
    creator = Certificates(DEFAULT[0], DEFAULT[1], min_version="1.3").creator
    with pytest.raises(SSL.Error):
        shake_hands(creator, high=SSL.TLS1_2_VERSION)
    assert shake_hands(creator)[1].get_protocol_version_name() == "TLSv1.3"


def test_tls_1_2_has_forward_secrecy_and_aead_alone():
    _, client = shake_hands(Certificates(*DEFAULT).creator, high=SSL.TLS1_2_VERSION)
    name = client.get_cipher_name()
    assert name.startswith(("ECDHE-", "DHE-"))
    assert "GCM" in name or "CHACHA20" in name


def test_the_chain_is_sent_whole():
    context = make_context(DEFAULT[0] + OTHER[0], DEFAULT[1])
    certificates = Certificates(*DEFAULT)
    certificates.creator.replace(context, {})
    _, client = shake_hands(certificates.creator)
    assert len(client.get_peer_cert_chain(as_cryptography=True)) == 2


# -- files ----------------------------------------------------------------------------------


def test_files_are_read_and_a_key_may_stand_in_the_certificates_file(tmp_path):
    both = tmp_path / "both.pem"
    both.write_bytes(DEFAULT[0] + DEFAULT[1])
    chain, key = read_pair(str(both), "")
    Certificates(chain, key)


@pytest.mark.parametrize(
    ("cert", "key", "message"),
    [
        (None, DEFAULT[1], "tls.cert_file: cannot read"),
        (DEFAULT[0], None, "tls.key_file: cannot read"),
        (b"nonsense", DEFAULT[1], "tls.cert_file"),
        (DEFAULT[0], b"nonsense", "tls.key_file"),
        (DEFAULT[0], OTHER[1], "does not belong"),
        (b"", b"", "tls.cert_file"),
    ],
)
def test_what_is_wrong_with_the_files_names_the_key(tmp_path, cert, key, message):
    for name, content in (("c", cert), ("k", key)):
        if content is not None:
            (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_pair(str(tmp_path / "c"), str(tmp_path / "k"))


def test_a_file_that_is_too_long_is_not_read_in_part(tmp_path):
    chain, key = DEFAULT
    cert = tmp_path / "long.crt"
    cert.write_bytes(chain + key + b"\n" * pem.MAX_OCTETS + chain)
    with pytest.raises(ConfigError, match="is longer than"):
        read_pair(str(cert), "")


def test_a_key_with_a_passphrase_is_refused():
    loaded = serialization.load_pem_private_key(DEFAULT[1], None)
    locked = loaded.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"x"),
    )
    with pytest.raises(ValueError, match="passphrase"):
        make_context(DEFAULT[0], locked)


# -- the self-signed one --------------------------------------------------------------------


def test_it_is_made_once_and_its_key_is_private(tmp_path):
    first = selfsigned.load_or_make(tmp_path, ["mx.example.com"], NOW)
    assert selfsigned.load_or_make(tmp_path, ["mx.example.com"], NOW) == first
    mode = stat.S_IMODE((tmp_path / selfsigned.KEY_FILE).stat().st_mode)
    assert mode == 0o600
    assert {path.name for path in tmp_path.iterdir()} == {
        selfsigned.KEY_FILE,
        selfsigned.CERT_FILE,
    }


@pytest.mark.mission("DAP-091")
def test_it_is_for_the_host_name_and_this_machine():
    chain, _ = selfsigned.make(["mx.example.com", "imap.example.com"], NOW)
    certificate = x509.load_pem_x509_certificate(chain)
    assert certificate.subject.rfc4514_string() == "CN=mx.example.com"
    assert names_of(chain) == ["mx.example.com", "imap.example.com", "localhost"]
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert [str(a) for a in names.value.get_values_for_type(x509.IPAddress)] == [
        "127.0.0.1",
        "::1",
    ]


def test_a_long_host_name_stands_in_the_names_alone():
    name = "a" * 60 + ".example.com"
    assert name in names_of(selfsigned.make([name], NOW)[0])


def test_another_host_name_or_the_end_of_its_life_makes_a_new_one(tmp_path):
    first = selfsigned.load_or_make(tmp_path, ["mx.example.com"], NOW)
    second = selfsigned.load_or_make(tmp_path, ["mail.example.com"], NOW)
    assert second != first
    late = NOW + selfsigned.LIFETIME - timedelta(days=1)
    assert selfsigned.load_or_make(tmp_path, ["mail.example.com"], late) != second


def test_broken_files_are_replaced(tmp_path):
    (tmp_path / selfsigned.CERT_FILE).write_text("nonsense")
    (tmp_path / selfsigned.KEY_FILE).write_text("nonsense")
    Certificates(*selfsigned.load_or_make(tmp_path, ["localhost"], NOW))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="data_dir"):
        selfsigned.load_or_make(tmp_path / "file", ["localhost"], NOW)


def test_an_address_as_host_name_is_allowed(tmp_path):
    first = selfsigned.load_or_make(tmp_path, ["192.0.2.1"], NOW)
    assert selfsigned.load_or_make(tmp_path, ["192.0.2.1"], NOW) == first
