from __future__ import annotations

import stat

import pytest

from mailtwist.store import certificates
from mailtwist.store.secrets import load_or_make
from mailtwist.tls import pem
from tests.support.chains import Chain, sign

pytestmark = pytest.mark.usefixtures("ready")

HOST = "mail.example.com"
CHAIN, NEXT = Chain(HOST, "imap.example.com"), Chain(HOST, "imap.example.com")


@pytest.fixture
def files(tmp_path):
    """Writes PEM texts; the paths."""

    def files(**texts):
        for name, text in texts.items():
            (tmp_path / name).write_text(text)
        return [str(tmp_path / name) for name in texts]

    return files


def row(store, hostname=HOST):
    with store.read() as connection:
        return certificates.of_hostname(connection, hostname)


def test_nothing_is_listed_at_first(mailtwist):
    assert mailtwist("cert", "list").out == ""
    assert mailtwist("cert", "list", "--json").json == []


@pytest.mark.mission("DAP-201", "DAP-202")
def test_a_certificate_is_imported_listed_and_exported(mailtwist, files, store, tmp_path):
    crt, key, chain = files(
        crt=CHAIN.leaf.pem, key=CHAIN.key, chain=CHAIN.root.pem + CHAIN.middle.pem
    )
    told = mailtwist("cert", "import", crt, key, "--chain", chain, "--json").json
    assert told["hostname"] == HOST
    assert told["names"] == [HOST, "imap.example.com"]
    assert told["chain_length"] == 3
    (listed,) = mailtwist("cert", "list", "--json").json
    assert (listed["hostname"], listed["issuer"], listed["is_usable"]) == (HOST, "imported", True)
    assert listed["expires_at"] == told["expires_at"]
    assert listed["serial_number"] == f"{CHAIN.leaf.certificate.serial_number:x}"
    assert HOST in mailtwist("cert", "list").out
    assert "PRIVATE KEY" not in row(store).sealed_key
    out = tmp_path / "out"
    assert mailtwist("cert", "export", HOST, "--to", str(out)).status == 0
    assert [path.name for path in out.iterdir()] == [f"{HOST}.crt"]
    assert (out / f"{HOST}.crt").read_text() == "".join(CHAIN.pems)
    ended = mailtwist("cert", "export", HOST, "--to", str(out), "--with-key", "--json")
    assert ended.json["files"] == [str(out / f"{HOST}.crt"), str(out / f"{HOST}.key")]
    assert (out / f"{HOST}.key").read_text() == CHAIN.key
    assert stat.S_IMODE((out / f"{HOST}.key").stat().st_mode) == 0o600


def test_an_import_takes_the_place_of_the_one_before(mailtwist, files, store):
    mailtwist("cert", "import", *files(crt=CHAIN.leaf.pem, key=CHAIN.key))
    before = row(store)
    ended = mailtwist("cert", "import", *files(crt=NEXT.middle.pem + NEXT.leaf.pem, key=NEXT.key))
    assert (ended.status, ended.err) == (0, "")
    after = row(store)
    assert after.certificate_id == before.certificate_id
    assert after.chain.strip() == (NEXT.leaf.pem + NEXT.middle.pem).strip()


@pytest.mark.parametrize(
    ("texts", "more", "says"),
    [
        ({"crt": CHAIN.leaf.pem, "key": NEXT.key}, (), "key: the key does not belong"),
        ({"crt": "nonsense", "key": CHAIN.key}, (), "certificate: the certificate is no PEM"),
        ({"crt": "", "key": CHAIN.key}, (), "certificate"),
        ({"crt": CHAIN.leaf.pem, "key": ""}, (), "one of the files is empty"),
        (
            {"crt": CHAIN.leaf.pem, "key": CHAIN.key},
            ("--hostname", "else.example"),
            "not for else.example",
        ),
        ({"crt": CHAIN.leaf.pem, "key": CHAIN.key}, ("--hostname", "a b"), "no host name"),
    ],
    ids=["another key", "nonsense", "empty", "no key", "another host", "no host"],
)
def test_what_cannot_be_imported_is_said_in_one_line(mailtwist, files, store, texts, more, says):
    ended = mailtwist("cert", "import", *files(**texts), *more)
    assert ended.status == 1
    assert says in ended.err
    assert ended.err.count("\n") == 1
    assert mailtwist("cert", "list", "--json").json == []


def test_one_of_our_own_is_signed_anew(mailtwist, store, data_dir, monkeypatch):
    monkeypatch.setenv("MAILTWIST_TLS_KEY_TYPE", "ecdsa")
    assert mailtwist("cert", "list").status == 0
    with store.write() as connection:
        certificates.add(connection, f"{HOST},imap.example.com", "id", now=1)
    serials = set()
    for _ in range(2):
        told = mailtwist("cert", "renew", "imap.example.com", "--json").json
        assert told["names"] == [HOST, "imap.example.com"]
        serials.add(told["serial_number"])
    assert len(serials) == 2
    found = row(store, f"{HOST},imap.example.com")
    assert found.issuer == certificates.SELF
    key = load_or_make(data_dir).open(found.sealed_key, certificates.PURPOSE)
    assert pem.read(found.chain, key=key, now=None).key_pem == key


def test_one_that_was_imported_is_not_ours_to_renew(mailtwist, files):
    mailtwist("cert", "import", *files(crt=CHAIN.leaf.pem, key=CHAIN.key))
    ended = mailtwist("cert", "renew", HOST)
    assert ended.status == 1
    assert "import the certificate that follows it" in ended.err


@pytest.mark.parametrize("command", ["renew", "export"])
def test_a_host_name_without_row_is_said(mailtwist, command):
    ended = mailtwist("cert", command, "nobody.example")
    assert ended.status == 1
    assert "no certificate row for nobody.example" in ended.err
    assert mailtwist("cert", command, "a b").status == 1


def test_an_order_needs_an_address_and_makes_its_row_first(mailtwist, store):
    ended = mailtwist("cert", "order", "MX.example.com, imap.example.com")
    assert (ended.status, ended.err) == (
        1,
        "mailtwist: name an address of yours: --email you@example.com\n",
    )
    assert row(store, "mx.example.com,imap.example.com") is not None


def test_a_key_of_a_domain_signs_its_mail(mailtwist, files, monkeypatch):
    monkeypatch.setenv("MAILTWIST_DOMAINS", "example.com")
    signed = sign("example.com", names=("example.com",), kind="rsa2048")
    assert mailtwist("cert", "import", *files(crt=signed.pem, key=signed.key_pem)).status == 0
    public = "".join(pem.public_pem(signed.key.public_key()).splitlines()[1:-1])
    (key,) = mailtwist("dkim", "list", "example.com", "--json").json
    assert (key["selector"], key["public_key"]) == ("d1", public)
    records = mailtwist("dns", "example.com", "--json").json
    assert any(public in each["value"] for each in records)
    # A rotation is later than what was given.
    mailtwist("dkim", "rotate", "example.com", "--now")
    active = [
        k for k in mailtwist("dkim", "list", "example.com", "--json").json if k["state"] == "active"
    ]
    assert [each["selector"] for each in active] == ["d2"]
    mailtwist("dns", "example.com")
    listed = mailtwist("dkim", "list", "example.com", "--json").json
    assert [each["selector"] for each in listed if each["state"] == "active"] == ["d2"]
