from __future__ import annotations

import base64
from datetime import timedelta
from itertools import permutations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)

from mailtwist.tls import pem, rows
from mailtwist.tls.pem import Fault
from tests.support.chains import NOW, Chain, key, key_pem, sign

CHAIN = Chain("mail.example.com", "*.example.org")
OTHER = Chain("other.example")
LEAF, MIDDLE, ROOT = CHAIN.pems


def refused(where, certificates, issuers="", private="", *, now=NOW):
    with pytest.raises(Fault) as raised:
        pem.read(certificates, issuers, private, now=now)
    assert raised.value.where == where, raised.value
    return str(raised.value)


# -- order ------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_certificates_may_come_in_any_order(order):
    text = "".join(CHAIN.pems[n] for n in order)
    for private in ("", CHAIN.key):
        bundle = pem.read(text, key=private, now=NOW)
        assert bundle.full_pem == LEAF + MIDDLE + ROOT


@pytest.mark.parametrize(
    ("certificates", "issuers"),
    [(LEAF, MIDDLE + ROOT), (LEAF, ROOT + MIDDLE), (MIDDLE + LEAF, ROOT), (LEAF + ROOT, MIDDLE)],
    ids=["apart", "apart and turned", "half", "with a gap"],
)
def test_those_given_apart_are_put_behind(certificates, issuers):
    bundle = pem.read(certificates, issuers, CHAIN.key, now=NOW)
    assert bundle.leaf_pem == LEAF
    assert bundle.chain_pem == MIDDLE + ROOT


def test_the_root_may_miss_and_copies_count_once():
    assert pem.read(LEAF + MIDDLE, now=NOW).full_pem == LEAF + MIDDLE
    assert pem.read(LEAF + LEAF + MIDDLE, LEAF, now=NOW).full_pem == LEAF + MIDDLE
    assert pem.read(LEAF, now=NOW).chain_pem == ""


def test_keys_and_remarks_between_certificates_are_passed_over():
    text = f"Subject: leaf\n{LEAF}{CHAIN.key}\r\nmore\n{MIDDLE}"
    assert pem.read(text, key=text, now=NOW).full_pem == LEAF + MIDDLE


def test_an_authority_that_is_certified_twice_does_no_harm():
    old = sign("Old root", is_authority=True)
    cross = sign("Root", old, is_authority=True, private=CHAIN.root.key)
    bundle = pem.read(LEAF + MIDDLE + ROOT + cross.pem, old.pem, now=NOW)
    assert bundle.full_pem == LEAF + MIDDLE + cross.pem + old.pem


@pytest.mark.parametrize(
    ("certificates", "issuers"),
    [
        (LEAF, ROOT),  # the one between misses
        (LEAF, OTHER.middle.pem),  # of the same name, but another
        (LEAF + MIDDLE, OTHER.root.pem),
        (LEAF + OTHER.leaf.pem, ""),
    ],
)
def test_a_chain_in_which_one_did_not_sign_the_next_is_refused(certificates, issuers):
    for private in ("", CHAIN.key):
        assert "certificate of" in refused("chain", certificates, issuers, private)


def test_who_is_no_authority_signs_nothing():
    false = sign("False", CHAIN.root, is_authority=False)
    leaf = sign("mail.example.com", false, names=("mail.example.com",))
    assert "no authority" in refused("chain", leaf.pem + false.pem)


def test_too_many_certificates_are_refused():
    text = "".join(sign(f"host{n}").pem for n in range(pem.MAX_CERTIFICATES + 1))
    assert "more than 10" in refused("chain", text)


# -- what is no certificate -------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        CHAIN.key,
        LEAF.replace("MII", "AAA", 1),
        LEAF[:200],
        "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
    ],
    ids=["nothing", "nonsense", "a key", "broken", "cut", "empty"],
)
def test_what_is_no_certificate_is_said(text):
    refused("certificate", text)


def altered(*changes, names=("a.example",), extensions=()):
    """A certificate, PEM, of which octets were changed after it was signed."""
    private = key("p256")
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a.example")])
    builder = (
        x509.CertificateBuilder(name, name, private.public_key(), 5)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=9))
    )
    if names:
        general = [x509.DNSName(each) for each in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
    for oid, octets in extensions:
        unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), octets)
        builder = builder.add_extension(unknown, critical=False)
    der = builder.sign(private, hashes.SHA256()).public_bytes(Encoding.DER)
    for before, after in changes:
        assert before in der
        der = der.replace(before, after, 1)
    body = base64.encodebytes(der).decode()
    return f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n"


P256 = bytes.fromhex("2a8648ce3d030107")


def test_a_version_that_nobody_knows_is_no_certificate():
    text = altered((b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07"))
    assert "cannot be read" in refused("certificate", text)
    assert "cannot be read" in refused("chain", LEAF, text)


def test_a_key_of_a_kind_that_nobody_knows_is_refused():
    text = altered((P256, P256[:-1] + b"\x6f"))
    assert "keys are RSA" in refused("certificate", text)
    refused("key", text, private=CHAIN.key)
    # Above a certificate of the same name it is an issuer that did not sign it.
    named = altered()
    refused("chain", named + text, private=key_pem(key("p256")))


@pytest.mark.parametrize(
    "text",
    [
        altered(
            (b"\x06\x04\x2a\x03\x04\x05", b"\x06\x04\x2a\x03\x04\x06"),
            extensions=[("1.2.3.4.5", b"\x05\x00"), ("1.2.3.4.6", b"\x05\x00")],
        ),
        altered(names=(), extensions=[("2.5.29.17", b"\x30\x04\xa3\x02\x05\x00")]),
    ],
    ids=["one extension twice", "a kind of name that is not supported"],
)
def test_extensions_that_cannot_be_read_say_nothing(text):
    assert pem.read(text, now=NOW).names == ("a.example",)
    assert pem.read(text, now=NOW).addresses == ()


def test_a_blank_in_a_name_makes_no_name_of_somebody_else():
    bundle = pem.read(altered(names=("a.example", "x b.example")), now=NOW)
    assert rows.facts(bundle).names == ("a.example",)


def test_a_text_without_end_is_refused():
    refused("certificate", LEAF + "x" * pem.MAX_OCTETS)
    refused("key", LEAF, private=CHAIN.key + "x" * pem.MAX_OCTETS)


@pytest.mark.parametrize(
    ("since", "until", "says"),
    [
        (timedelta(days=-10), timedelta(0), "has expired on"),
        (timedelta(days=-10), timedelta(days=-1), "has expired on"),
        (timedelta(seconds=1), timedelta(days=10), "not valid before"),
    ],
)
def test_what_is_not_valid_now_is_refused(since, until, says):
    leaf = sign("a.example", names=("a.example",), since=since, until=until)
    assert says in refused("certificate", leaf.pem)
    assert pem.read(leaf.pem, now=None).names == ("a.example",)


def test_an_authority_that_has_expired_is_refused():
    old = sign("Old", CHAIN.root, is_authority=True, until=timedelta(days=-1) + timedelta(hours=1))
    leaf = sign("a.example", old, names=("a.example",))
    assert "of old has expired" in refused("certificate", leaf.pem + old.pem)


# -- keys -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        ("rsa2048", PrivateFormat.PKCS8),
        ("rsa2048", PrivateFormat.TraditionalOpenSSL),  # PKCS #1
        ("p256", PrivateFormat.PKCS8),
        ("p256", PrivateFormat.TraditionalOpenSSL),  # SEC 1
        ("p384", PrivateFormat.TraditionalOpenSSL),
        ("ed25519", PrivateFormat.PKCS8),
    ],
)
def test_keys_of_the_kinds_that_tls_uses_are_read_in_every_form(kind, form):
    private = key(kind)
    leaf = sign("a.example", private=private)
    bundle = pem.read(leaf.pem, key=key_pem(private, form), now=NOW)
    assert bundle.key_pem == key_pem(private)
    assert "PUBLIC KEY" in bundle.public_pem


@pytest.mark.parametrize("kind", ["rsa1024", "p521", "ed448", "dsa"])
def test_other_keys_are_refused(kind):
    refused("key", LEAF, private=key_pem(key(kind)))


@pytest.mark.parametrize("kind", ["rsa1024", "p521", "ed448"])
def test_certificates_for_other_keys_are_refused(kind):
    refused("certificate", sign("a.example", private=key(kind)).pem)


@pytest.mark.parametrize(
    ("private", "says"),
    [
        (OTHER.key, "does not belong"),
        ("nonsense", "cannot be read"),
        (LEAF, "cannot be read"),
        (CHAIN.key[:100], "cannot be read"),
    ],
    ids=["another's", "nonsense", "a certificate", "cut"],
)
def test_a_key_that_is_not_the_certificates_is_refused(private, says):
    assert says in refused("key", LEAF + MIDDLE, private=private)


def test_a_key_with_a_passphrase_is_refused():
    locked = CHAIN.leaf.key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")
    )
    assert "passphrase" in refused("key", LEAF, private=locked.decode())


def test_a_huge_rsa_key_is_refused_before_it_is_checked():
    # Numbers of this size are no primes of anybody: only their length is looked at.
    modulus = (1 << 16_000) + 1
    numbers = _der_sequence(0, modulus, 65537, modulus, 3, 5, 7, 9, 11)
    body = base64.encodebytes(numbers).decode()
    text = f"-----BEGIN RSA PRIVATE KEY-----\n{body}-----END RSA PRIVATE KEY-----\n"
    refused("key", LEAF, private=text)


def _der_sequence(*numbers):
    body = b"".join(_der(2, n.to_bytes(n.bit_length() // 8 + 1, "big")) for n in numbers)
    return _der(0x30, body)


def _der(tag, body):
    length = len(body)
    if length < 128:
        return bytes([tag, length]) + body
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(size)]) + size + body


# -- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "is_covered"),
    [
        ("mail.example.com", True),
        ("MAIL.example.com.", True),
        ("a.example.org", True),
        ("*.example.org", True),
        ("a.b.example.org", False),
        ("example.org", False),
        ("example.com", False),
    ],
)
def test_a_certificate_is_for_its_names_and_one_label_of_a_wildcard(host, is_covered):
    assert pem.read(LEAF, now=NOW).covers(host) is is_covered


def test_the_common_name_counts_where_no_names_are_listed():
    assert pem.read(sign("Old.Example").pem, now=NOW).names == ("old.example",)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Mail.Example.com", ("mail.example.com",)),
        (" a.example , b.example.,a.example,", ("a.example", "b.example")),
        ("*.example.com, 192.0.2.1, 2001:DB8::1", ("*.example.com", "192.0.2.1", "2001:db8::1")),
        ("bücher.example", ("xn--bcher-kva.example",)),
        ("localhost", ("localhost",)),
    ],
)
def test_a_row_may_list_several_host_names(text, names):
    assert pem.host_names(text) == names


@pytest.mark.parametrize(
    "text", ["", " , ", "a b.example", "-a.example", "a..example", "*.com.*", "*", "*.", "a/b"]
)
def test_what_is_no_host_name_is_refused(text):
    with pytest.raises(Fault):
        pem.host_names(text)


def test_a_list_of_names_has_an_end():
    with pytest.raises(Fault, match="more than 100"):
        pem.host_names(",".join(f"h{n}.example" for n in range(101)))
