from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from mailtwist.errors import Refusal
from mailtwist.policy import passwords
from mailtwist.policy.passwords import BCRYPT, SCRAM_SHA_256, Scram, check, make_verifiers
from mailtwist.store.accounts import Verifier

CHEAP = 4


@pytest.fixture(autouse=True)
def few_iterations(monkeypatch):
    monkeypatch.setattr(passwords, "SCRAM_ITERATIONS", 4096)


def test_both_verifiers_are_written_and_each_alone_checks_the_password():
    verifiers = make_verifiers("wachtwoord", cost=CHEAP)
    assert [v.kind for v in verifiers] == [BCRYPT, SCRAM_SHA_256]
    for alone in verifiers:
        assert check([alone], "wachtwoord")
        assert not check([alone], "Wachtwoord")


def test_two_verifiers_of_one_password_differ():
    assert make_verifiers("x", cost=CHEAP) != make_verifiers("x", cost=CHEAP)


@pytest.mark.parametrize(
    ("stored", "given"),
    [
        ("a" * 72 + "b", "a" * 72 + "c"),  # bcrypt itself reads 72 octets
        ("a\0b", "a\0c"),  # and stops at a NUL
        ("a" * 1024, "a" * 1023),
    ],
)
def test_the_whole_password_counts(stored, given):
    verifiers = make_verifiers(stored, cost=CHEAP)
    assert check(verifiers, stored)
    assert not check(verifiers, given)


@pytest.mark.parametrize(
    ("stored", "given"),
    [
        ("\u00e9t\u00e9", "e\u0301te\u0301"),  # composed and decomposed: NFKC
        ("a\u00a0b", "a b"),  # RFC 4013 §2.1: non-ASCII spaces become a space
        ("I\u00adX", "IX"),  # RFC 4013 §3: a soft hyphen counts for nothing
        ("\u2168", "IX"),
    ],
)
def test_a_password_matches_however_the_keyboard_spells_it(stored, given):
    assert check(make_verifiers(stored, cost=CHEAP), given)


@pytest.mark.parametrize("password", ["\ue000x", "tab\u0080", "\udc80"])
def test_a_password_that_saslprep_prohibits_still_works(password):
    verifiers = make_verifiers(password, cost=CHEAP)
    assert check(verifiers, password)
    assert not check(verifiers, "?")


@pytest.mark.parametrize("password", ["", "\u00ad", "x" * 1025, "é" * 513])
def test_empty_and_endless_passwords_are_refused(password):
    with pytest.raises(Refusal):
        make_verifiers(password, cost=CHEAP)
    assert not check(make_verifiers("x", cost=CHEAP), password)


@pytest.mark.parametrize(
    "broken",
    [
        Verifier(BCRYPT, ""),
        Verifier(BCRYPT, "$2b$04$short"),
        Verifier(BCRYPT, "$2b$é"),
        Verifier(SCRAM_SHA_256, ""),
        Verifier(SCRAM_SHA_256, "SCRAM-SHA-256$x:y$z"),
        Verifier(SCRAM_SHA_256, "SCRAM-SHA-256$1:!$a:b"),
        Verifier("unheard-of", "x"),
    ],
)
def test_a_broken_verifier_matches_nothing(broken):
    assert not check([broken], "x")
    assert not check([], "x")


def test_the_scram_verifier_is_of_the_form_that_others_read():
    text = make_verifiers("pencil", cost=CHEAP)[1].verifier
    scheme, info, keys = text.split("$")
    iterations, salt = info.split(":")
    stored_key, server_key = keys.split(":")
    assert scheme == "SCRAM-SHA-256"
    salted = hashlib.pbkdf2_hmac("sha256", b"pencil", base64.b64decode(salt), int(iterations))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    assert base64.b64decode(stored_key) == hashlib.sha256(client_key).digest()
    assert base64.b64decode(server_key) == hmac.digest(salted, b"Server Key", "sha256")


def test_the_example_of_rfc_7677_is_reproduced():
    # RFC 7677 §3: user "user", password "pencil"
    nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    keys = Scram.derive(b"pencil", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096)
    first = f"n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    message = f"{first},c=biws,r={nonce}".encode()
    signature = hmac.digest(keys.server_key, message, "sha256")
    assert base64.b64encode(signature) == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def test_a_stranger_costs_as_much_as_an_account():
    verifier = passwords.unknown_verifiers(CHEAP)[0].verifier
    own = make_verifiers("x", cost=CHEAP)[0].verifier
    assert verifier[:7] == own[:7]
    assert len(verifier) == len(own)
    assert not check(passwords.unknown_verifiers(CHEAP), "x")
