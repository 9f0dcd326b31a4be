from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cryptography.x509 import SubjectAlternativeName
from sqlalchemy import text
from twisted.logger import ILogObserver, globalLogPublisher
from zope.interface import implementer

from mailtwist.config import Listener, load
from mailtwist.control.certificates import CertificateSet
from mailtwist.policy.hashing import Inline
from mailtwist.store import certificates, changes
from mailtwist.store.secrets import Secrets
from mailtwist.tls import selfsigned
from tests.support.now import now
from tests.tls.test_contexts import shake_hands

NOW = datetime(2026, 11, 20, tzinfo=UTC)
SECRETS = Secrets(bytes(32))
ADD = text(
    "INSERT INTO certificate (hostname, certificate_pem, root_certificate, private_key_pem,"
    " reference_id, permission, created_at, updated_at)"
    " VALUES (:hostname, :chain, '', :key, :hostname, 0, 0, 0)"
)


def pair(*names):
    return selfsigned.make(names, NOW)


MX = pair("mx.example.com")
MAIL = pair("mail.example.com")


class Set:
    def __init__(self, database, folder, *, named=None):
        settings = load(
            None,
            {"MAILTWIST_HOSTNAME": "mx.example.com", "MAILTWIST_DATA_DIR": str(folder)},
        )
        self.database = database
        self.set = CertificateSet(
            settings, secrets=SECRETS, threads=Inline(), now=lambda: NOW, named=named
        )
        self.certificates = self.set.certificates
        now(self.set.start(database))

    def cover(self, *names, hostname="mx.example.com"):
        listeners = [Listener(name, "smtp", "", 0, hostname=name) for name in names]
        now(self.set.cover(hostname, listeners))

    def add(self, hostname, issued, *, key=None):
        sealed = SECRETS.seal((key or issued[1]).decode(), certificates.PURPOSE)

        def write(connection):
            values = {"hostname": hostname, "chain": issued[0].decode(), "key": sealed}
            connection.execute(ADD, values)
            changes.bump(connection, certificates.KIND)

        now(self.database.write(write))

    def presented(self, asked=b"", *, listener=""):
        """The name on the certificate and its octets."""
        name, client = shake_hands(self.certificates.of(listener), asked)
        return name, client.get_peer_certificate(as_cryptography=True)


@pytest.fixture
def errors():
    """What is logged as an error."""
    found = []

    @implementer(ILogObserver)
    def observe(event):
        if event["log_level"].name == "error":
            found.append(event)

    globalLogPublisher.addObserver(observe)
    yield found
    globalLogPublisher.removeObserver(observe)


@pytest.fixture
def found(database, tmp_path):
    return Set(database, tmp_path)


def test_the_first_certificate_is_our_own(found):
    assert found.presented()[0] == "mx.example.com"


def test_a_listener_with_a_name_of_its_own_gets_one(found):
    found.cover("mail.example.com", "other.example")
    for name in ("mail.example.com", "other.example", "mx.example.com"):
        _, certificate = found.presented(name.encode())
        names = certificate.extensions.get_extension_for_class(SubjectAlternativeName).value
        assert name in str(list(names))


def test_a_row_is_used_from_the_next_handshake_on(found):
    found.cover("mail.example.com")
    before = found.presented(b"mail.example.com")[1]
    found.add("mail.example.com", MAIL)
    name, after = found.presented(b"mail.example.com")
    assert name == "mail.example.com"
    assert after != before
    assert found.presented(b"mx.example.com")[0] == "mx.example.com"


def test_who_names_nobody_gets_the_certificate_of_the_listener(found):
    found.add("mail.example.com", MAIL)
    assert found.presented(listener="mail.example.com")[0] == "mail.example.com"
    assert found.presented()[0] == "mx.example.com"
    assert found.presented(b"unknown.example", listener="mail.example.com")[0] == (
        "mail.example.com"
    )
    assert found.presented(b"mx.example.com", listener="mail.example.com")[0] == "mx.example.com"


def test_the_row_of_the_servers_own_name_comes_before_our_own(found):
    own = found.presented()[1]
    found.add("mx.example.com", MX)
    assert found.presented()[1] != own
    assert found.presented()[0] == "mx.example.com"


def test_the_files_come_before_rows(database, tmp_path):
    found = Set(database, tmp_path, named=MX)
    named = found.presented()[1]
    found.add("mx.example.com", pair("mx.example.com"))
    assert found.presented()[1] == named
    assert found.presented(b"mx.example.com")[1] == named


def test_nothing_of_our_own_is_made_where_the_files_cover_all(database, tmp_path):
    found = Set(database, tmp_path, named=MX)
    assert not list(tmp_path.rglob("*.crt"))
    found.cover("mail.example.com")
    assert found.presented(listener="mail.example.com")[0] == "mail.example.com"
    assert found.presented()[0] == "mx.example.com"


def test_a_row_that_cannot_be_used_is_said_and_passed_over(found, errors):
    found.add("mail.example.com", MAIL, key=MX[1])
    assert errors
    found.add("other.example", pair("other.example"))
    assert found.presented(b"other.example")[0] == "other.example"
    assert found.presented(b"mail.example.com")[0] == "mx.example.com"


def test_a_second_start_makes_no_other_certificate(database, tmp_path):
    first = Set(database, tmp_path)
    first.cover("mail.example.com", hostname="imaps.example.com")
    kept = (tmp_path / selfsigned.CERT_FILE).read_bytes()
    second = Set(database, tmp_path)
    second.cover("mail.example.com", hostname="imaps.example.com")
    assert (tmp_path / selfsigned.CERT_FILE).read_bytes() == kept
