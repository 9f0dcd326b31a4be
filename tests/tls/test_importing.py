from __future__ import annotations

from datetime import timedelta

import pytest

from mailtwist.store.certificates import ACME, IMPORTED, OWN_KEY, SELF
from mailtwist.tls import issuing, pem
from mailtwist.tls.importing import Given, Held, imported
from mailtwist.tls.pem import Fault
from tests.support.chains import NOW, Chain, key, key_pem, sign

HOST = "mail.example.com"
CHAIN = Chain(HOST)
NEXT = Chain(HOST)
LEAF, MIDDLE, ROOT = CHAIN.pems
OURS = issuing.issue([HOST], NOW, kind=issuing.ECDSA)

NOTHING = Held(HOST)
SIGNED = Held(HOST, SELF, OURS.leaf_pem, OURS.leaf_pem, OURS.key_pem)
FOREIGN = Held(HOST, IMPORTED, LEAF, MIDDLE, CHAIN.key)


def refused(given, held=NOTHING):
    with pytest.raises(Fault) as raised:
        imported(given, held, NOW)
    return raised.value


@pytest.mark.parametrize("held", [NOTHING, SIGNED, FOREIGN], ids=["nothing", "ours", "foreign"])
@pytest.mark.parametrize(
    ("given", "columns"),
    [
        (Given(NEXT.leaf.pem, None, NEXT.key), (NEXT.leaf.pem, "")),
        (
            Given(NEXT.leaf.pem, NEXT.root.pem + NEXT.middle.pem, NEXT.key),
            (NEXT.leaf.pem, NEXT.middle.pem + NEXT.root.pem),
        ),
        (
            Given(NEXT.middle.pem + NEXT.leaf.pem, None, NEXT.key),
            (NEXT.leaf.pem + NEXT.middle.pem, ""),
        ),
        (
            Given(NEXT.middle.pem + NEXT.leaf.pem, NEXT.root.pem, NEXT.key),
            (NEXT.leaf.pem + NEXT.middle.pem, NEXT.root.pem),
        ),
    ],
    ids=["alone", "apart", "together", "both"],
)
def test_a_whole_pair_takes_the_place_of_what_was_there(held, given, columns):
    made = imported(given, held, NOW)
    assert made.issuer == IMPORTED
    assert (made.certificate, made.above) == columns
    assert made.bundle.key_pem == NEXT.key


def test_a_certificate_alone_is_for_the_key_that_is_there():
    again = sign(HOST, CHAIN.middle, names=(HOST,), private=CHAIN.leaf.key)
    made = imported(Given(again.pem), FOREIGN, NOW)
    # It comes from the same authority, so those above it stay.
    assert (made.certificate, made.above, made.issuer) == (again.pem, MIDDLE, IMPORTED)
    assert refused(Given(NEXT.leaf.pem), FOREIGN).where == "key"
    assert refused(Given(NEXT.leaf.pem), SIGNED).where == "key"


def test_a_certificate_may_come_before_its_key():
    made = imported(Given(LEAF), NOTHING, NOW)
    assert made.bundle.key is None
    held = Held(HOST, IMPORTED, LEAF, "", "")
    assert imported(Given(key=CHAIN.key), held, NOW).bundle.key_pem == CHAIN.key
    assert refused(Given(key=NEXT.key), held).where == "key"


@pytest.mark.parametrize("issuer", [SELF, OWN_KEY])
@pytest.mark.parametrize("kind", ["rsa2048", "p256", "ed25519"])
def test_a_key_alone_gets_a_certificate_of_ours(issuer, kind):
    text = key_pem(key(kind))
    for held in (NOTHING, Held(HOST, issuer, OURS.leaf_pem, OURS.leaf_pem, OURS.key_pem)):
        made = imported(Given(key=text), held, NOW)
        assert made.issuer == OWN_KEY
        assert made.bundle.key_pem == text
        assert made.bundle.covers(HOST)
        assert made.certificate == made.above == made.bundle.leaf_pem


@pytest.mark.parametrize("issuer", [IMPORTED, ACME, "Example CA"])
def test_a_key_alone_does_not_take_the_place_of_a_certificate_from_elsewhere(issuer):
    fault = refused(Given(key=NEXT.key), Held(HOST, issuer, LEAF, MIDDLE, CHAIN.key))
    assert fault.where == "key"
    assert "does not belong" in str(fault)


def test_those_above_may_come_later_and_go_again():
    held = Held(HOST, IMPORTED, LEAF, "", CHAIN.key)
    made = imported(Given(above=ROOT + MIDDLE), held, NOW)
    assert (made.certificate, made.above, made.issuer) == (LEAF, MIDDLE + ROOT, IMPORTED)
    assert imported(Given(above=""), FOREIGN, NOW).above == ""
    assert refused(Given(above=NEXT.middle.pem), held).where == "chain"
    assert refused(Given(above=MIDDLE)).where == "chain"


def test_a_certificate_is_taken_away_by_an_empty_one():
    assert imported(Given(""), FOREIGN, NOW) is None


def test_a_certificate_must_be_for_every_name_of_the_row():
    fault = refused(Given(LEAF, None, CHAIN.key), Held(f"{HOST},imap.example.com"))
    assert fault.where == "certificate"
    assert str(fault) == f"the certificate is for {HOST}, not for imap.example.com"
    wild = Chain("*.example.com")
    given = Given(wild.leaf.pem, None, wild.key)
    assert imported(given, Held(f"{HOST},imap.example.com"), NOW)


def test_an_expired_certificate_is_refused_and_one_that_is_there_is_not_asked_again():
    old = sign(HOST, CHAIN.middle, names=(HOST,), until=timedelta(days=-1) + timedelta(hours=1))
    assert "expired" in str(refused(Given(old.pem, None, old.key_pem)))
    held = Held(HOST, IMPORTED, old.pem, "", old.key_pem)
    assert imported(Given(above=MIDDLE), held, NOW).above == MIDDLE


def test_what_we_sign_is_for_all_names_and_has_a_serial_of_its_own():
    names = ("mail.example.com", "imap.example.com", "192.0.2.1")
    one, other = (issuing.issue(names, NOW, kind=issuing.ECDSA) for _ in range(2))
    assert (*one.names, *one.addresses) == names
    assert one.serial != other.serial
    assert one.not_after - NOW == issuing.LIFETIME
    assert pem.read(one.leaf_pem, key=one.key_pem, now=NOW).full_pem == one.leaf_pem
    assert issuing.kind_of(issuing.make_key(issuing.RSA)) == issuing.RSA
    assert one.key.curve.name == "secp256r1"
