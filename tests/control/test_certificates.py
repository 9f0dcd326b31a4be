from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from cryptography.x509 import SubjectAlternativeName, load_pem_x509_certificate
from sqlalchemy import text
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, globalLogPublisher
from zope.interface import implementer

from mailtwist.config import Listener, load
from mailtwist.control import certificates as certificates_of_control
from mailtwist.control.certificates import CertificateSet
from mailtwist.errors import ConfigError
from mailtwist.policy.hashing import Inline
from mailtwist.store import certificates, changes, lease
from mailtwist.store.secrets import Secrets
from mailtwist.tls import issuing, pem, rows, selfsigned
from mailtwist.tls.files import KeyFiles
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


def in_files(folder, issued):
    """Key files as the settings would name them."""
    paths = folder / "named.crt", folder / "named.key"
    for path, content in zip(paths, issued, strict=True):
        path.write_bytes(content)
    files = KeyFiles([(str(paths[0]), str(paths[1]))], is_required=True)
    files.read()
    return files


class Set:
    def __init__(self, database, folder, *, named=None, files=None, clock=None):
        settings = load(
            None,
            {"MAILTWIST_HOSTNAME": "mx.example.com", "MAILTWIST_DATA_DIR": str(folder)},
        )
        self.database = database
        self.now = NOW
        self.set = CertificateSet(
            settings,
            secrets=SECRETS,
            threads=Inline(),
            now=lambda: self.now,
            files=in_files(folder, named) if named else files,
            clock=clock,
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

    def issued(self, hostname, made, *, issuer=certificates.ACME):
        """Put a certificate into the row of this name, made where there is none."""
        if isinstance(made, tuple):
            made = pem.read(made[0], key=made[1], now=None)
        material = rows.material(made, SECRETS)
        at = int(self.now.timestamp() * 1_000_000)

        def write(connection):
            row = certificates.of_hostname(connection, hostname)
            number = (
                certificates.add(connection, hostname, hostname, now=at)
                if row is None
                else row.certificate_id
            )
            certificates.store_issued(connection, number, material, issuer=issuer, now=at)

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


def test_a_folder_that_cannot_be_made_is_named(database, tmp_path):
    found = Set(database, tmp_path)
    (tmp_path / "self-signed").touch()
    with pytest.raises(ConfigError, match=r"data_dir: cannot make .*self-signed"):
        found.cover("imap.example.com")
    assert found.presented()[0] == "mx.example.com"


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
    assert not list(tmp_path.rglob("self-signed*"))
    found.cover("mail.example.com")
    assert found.presented(listener="mail.example.com")[0] == "mail.example.com"
    assert found.presented()[0] == "mx.example.com"


def test_a_row_that_cannot_be_used_is_said_and_passed_over(found, errors):
    found.add("mail.example.com", MAIL, key=MX[1])
    assert found.presented(b"mail.example.com")[0] == "mx.example.com"
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


# -- rows that others wrote, and many of them ---------------------------------------------------


def state(found):
    with found.database.engine.read() as connection:
        return {row.hostname: row for row in certificates.listed(connection)}


def test_what_is_in_a_row_is_noted_once_whoever_wrote_it(found):
    found.add("mail.example.com", MAIL)
    facts = state(found)["mail.example.com"].facts
    assert facts.names[0] == "mail.example.com"
    assert facts.is_usable
    assert facts.not_after == (NOW + selfsigned.LIFETIME).timestamp() * 1_000_000


def test_a_row_with_nonsense_is_looked_into_once(found):
    found.add("mail.example.com", (b"nonsense", MAIL[1]))
    assert not state(found)["mail.example.com"].facts.is_usable
    assert found.presented(b"mail.example.com")[0] == "mx.example.com"
    with found.database.engine.read() as connection:
        assert certificates.unknown(connection, 10) == []


def test_a_row_that_goes_is_served_no_more(found):
    found.add("mail.example.com", MAIL)
    assert found.presented(b"mail.example.com")[0] == "mail.example.com"

    def delete(connection):
        connection.execute(text("DELETE FROM certificate"))
        connection.execute(text("DELETE FROM certificate_state"))
        changes.bump(connection, certificates.KIND)

    now(found.database.write(delete))
    assert found.presented(b"mail.example.com")[0] == "mx.example.com"


@pytest.mark.mission("DAP-193", "DAP-199")
def test_a_row_that_is_written_anew_is_used_by_the_next_handshake(found):
    found.add("mail.example.com", MAIL)
    _, before = found.presented(b"mail.example.com")
    found.issued("mail.example.com", pair("mail.example.com"))
    _, after = found.presented(b"mail.example.com")
    assert after.serial_number != before.serial_number


class Reads:
    """Counts the rows whose texts are read."""

    def __init__(self, monkeypatch):
        self.numbers: list[Any] = []
        read = certificates.rows

        def counted(connection, ids):
            self.numbers += ids
            return read(connection, ids)

        monkeypatch.setattr(certificates, "rows", counted)


def test_only_the_names_of_many_rows_are_read(database, tmp_path, monkeypatch):
    reads = Reads(monkeypatch)
    first = Set(database, tmp_path)
    for n in range(5):
        first.add(f"host{n}.example.com", pair(f"host{n}.example.com"))
    assert reads.numbers == []
    found = Set(database, tmp_path)
    found.cover("host1.example.com")
    assert len(set(reads.numbers)) == 1
    for _ in range(2):
        assert found.presented(b"host3.example.com")[0] == "host3.example.com"
    assert len(set(reads.numbers)) == 2
    reads.numbers.clear()
    found.issued("host4.example.com", pair("host4.example.com"))
    assert reads.numbers == []
    assert found.presented(b"host4.example.com")[0] == "host4.example.com"
    assert len(reads.numbers) == 1


# -- files --------------------------------------------------------------------------------------


@pytest.mark.mission("ADG-22")
def test_files_that_change_are_used_from_the_next_handshake_on(database, tmp_path, errors):
    clock = Clock()
    found = Set(database, tmp_path, named=MX, clock=clock)
    other = pair("mx.example.com")
    (tmp_path / "named.crt").write_bytes(other[0])
    clock.advance(1)
    # Its key is still to come.
    assert "does not belong" in str(errors[-1]["error"])
    assert found.presented()[1] == load_pem_x509_certificate(MX[0])
    clock.advance(1)
    assert len(errors) == 1, "said once"
    (tmp_path / "named.key").write_bytes(other[1])
    clock.advance(1)
    assert found.presented()[1] == load_pem_x509_certificate(other[0])
    (tmp_path / "named.key").unlink()
    clock.advance(1)
    assert "cannot read" in str(errors[-1]["error"])
    assert found.presented()[1] == load_pem_x509_certificate(other[0])
    now(found.set.stop())


def test_files_that_come_later_take_the_place_of_our_own(database, tmp_path):
    clock = Clock()
    places = [(str(tmp_path / "late.crt"), str(tmp_path / "late.key"))]
    found = Set(database, tmp_path, clock=clock, files=KeyFiles(places, is_required=False))
    assert found.presented()[1] != load_pem_x509_certificate(MX[0])
    (tmp_path / "late.crt").write_bytes(MX[0])
    (tmp_path / "late.key").write_bytes(MX[1])
    clock.advance(1)
    assert found.presented()[1] == load_pem_x509_certificate(MX[0])
    now(found.set.stop())


# -- renewal ------------------------------------------------------------------------------------


def signed(found, *names):
    return issuing.issue(names, found.now, kind=issuing.ECDSA)


@pytest.mark.parametrize("issuer", [certificates.SELF, certificates.OWN_KEY])
def test_what_we_signed_is_signed_anew_before_it_ends(found, issuer):
    first = signed(found, "mail.example.com", "imap.example.com")
    found.issued("mail.example.com", first, issuer=issuer)
    found.now += issuing.LIFETIME - issuing.RENEW_BEFORE - timedelta(minutes=1)
    now(found.set.renew())
    assert found.presented(b"imap.example.com")[1] == first.leaf
    found.now += timedelta(minutes=2)
    now(found.set.renew())
    _, after = found.presented(b"imap.example.com")
    assert after.not_valid_after_utc == found.now + issuing.LIFETIME
    assert after.serial_number != first.leaf.serial_number
    # A key that was given to us is no other person's to throw away.
    assert (after.public_key() == first.leaf.public_key()) is (issuer == certificates.OWN_KEY)
    assert state(found)["mail.example.com"].issuer == issuer


@pytest.mark.parametrize("issuer", [certificates.IMPORTED, certificates.ACME])
def test_what_others_signed_is_left_to_them(found, issuer):
    first = signed(found, "mail.example.com")
    found.issued("mail.example.com", first, issuer=issuer)
    found.now += issuing.LIFETIME - timedelta(days=1)
    now(found.set.renew())
    assert found.presented(b"mail.example.com")[1] == first.leaf


def test_renewal_begins_with_the_server_and_goes_on_each_hour(database, tmp_path):
    clock = Clock()
    first = Set(database, tmp_path)
    old = signed(first, "mail.example.com")
    first.issued("mail.example.com", old, issuer=certificates.SELF)
    found = Set(database, tmp_path, clock=clock)
    assert found.presented(b"mail.example.com")[1] == old.leaf
    found.now += issuing.LIFETIME - timedelta(days=1)
    clock.advance(certificates_of_control.RENEWAL_S)
    assert found.presented(b"mail.example.com")[1] != old.leaf
    now(found.set.stop())


def test_while_another_node_renews_nothing_is_done(found):
    first = signed(found, "mail.example.com")
    found.issued("mail.example.com", first)
    found.now += issuing.LIFETIME - timedelta(days=1)
    at = int(found.now.timestamp() * 1_000_000)
    take = partial(lease.take, name=certificates_of_control.LEASE, node_id=77, now=at, seconds=60)
    assert now(found.database.write(take))
    now(found.set.renew())
    assert found.presented(b"mail.example.com")[1] == first.leaf
