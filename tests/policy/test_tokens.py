from __future__ import annotations

import base64
import hashlib
import hmac
import json

import jwt
import pytest

from mailtwist.policy.tokens import DEFAULT_LIFE_S, LEEWAY_S, MAX_TOKEN, BadToken, Tokens

SECRET = "s" * 64
NOW = 1_800_000_000.0
ISSUER = "mailtwist-abc123"


@pytest.fixture
def tokens():
    return Tokens(SECRET, issuer=ISSUER)


def issue(tokens, now=NOW):
    return tokens.issue(subject="0199aa", email="a@x.org", name="A", auth_version=3, now=now)


def b64(data: object) -> str:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def forged(header: object, claims: object, secret: str = SECRET, digest=hashlib.sha256) -> str:
    signed = f"{b64(header)}.{b64(claims)}"
    return f"{signed}.{b64(hmac.digest(secret.encode(), signed.encode(), digest))}"


def claims(**changed):
    return {
        "email": "a@x.org",
        "sub": "0199aa",
        "name": "A",
        "nbf": int(NOW),
        "exp": int(NOW) + 60,
        "iss": ISSUER,
        "iat": int(NOW),
        "jti": "1",
        "auth_version": 3,
        **changed,
    }


HEADER = {"alg": "HS256", "typ": "JWT"}


@pytest.mark.mission("DAP-008")
def test_a_token_carries_the_claims_that_clients_read(tokens):
    payload = jwt.decode(issue(tokens), options={"verify_signature": False})
    assert set(payload) == {
        "email", "sub", "name", "nbf", "exp", "iss", "iat", "jti", "auth_version",
    }  # fmt: skip
    assert payload["exp"] == payload["iat"] + 72 * 3600 == int(NOW) + DEFAULT_LIFE_S
    assert (payload["sub"], payload["email"], payload["auth_version"]) == ("0199aa", "a@x.org", 3)


def test_a_token_reads_back_until_its_last_second(tokens):
    token = issue(tokens)
    assert tokens.read(token, now=NOW).subject == "0199aa"
    assert tokens.read(token, now=NOW + DEFAULT_LIFE_S - 1).auth_version == 3
    with pytest.raises(BadToken):
        tokens.read(token, now=NOW + DEFAULT_LIFE_S)


def test_a_node_whose_clock_is_a_little_behind_takes_it_and_one_far_behind_does_not(tokens):
    token = issue(tokens)
    assert tokens.read(token, now=NOW - LEEWAY_S)
    with pytest.raises(BadToken):
        tokens.read(token, now=NOW - LEEWAY_S - 1)


def test_no_two_tokens_are_the_same(tokens):
    assert issue(tokens) != issue(tokens)


def test_what_the_forgeries_below_are_made_from_would_be_good_itself(tokens):
    raw = json.dumps(HEADER, separators=(",", ":")).encode()
    assert tokens.read(forged(raw, claims()), now=NOW).subject == "0199aa"


GOOD = json.dumps(HEADER, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x.y.z",
        "....",
        forged(GOOD, claims(), secret="another" * 10),
        forged(GOOD, claims())[:-2] + "AA",
        b64(GOOD) + "." + b64(claims()) + ".",
        forged(GOOD, claims(exp=int(NOW) - 1)),
        forged(GOOD, claims(nbf=int(NOW) + 3600)),
        forged(GOOD, claims(iss="somebody else")),
        forged(GOOD, {k: v for k, v in claims().items() if k != "exp"}),
        forged(GOOD, {k: v for k, v in claims().items() if k != "auth_version"}),
        forged(GOOD, claims(auth_version="3")),
        forged(GOOD, claims(auth_version=True)),
        forged(GOOD, claims(exp="never")),
        forged(GOOD, claims(sub=7)),
        forged(GOOD, claims(sub=None)),
        forged(GOOD, [1, 2]),
        forged(GOOD, b"[" * 2000),
        forged({"alg": "none", "typ": "JWT"}, claims()),
        b64({"alg": "none", "typ": "JWT"}) + "." + b64(claims()) + ".",
        forged({"alg": "HS512", "typ": "JWT"}, claims(), digest=hashlib.sha512),
        forged({"alg": "RS256", "typ": "JWT"}, claims()),
        forged({"alg": "HS256", "typ": "JWT", "kid": "../../dev/null"}, claims(), secret=""),
        forged({"alg": "HS256", "typ": "JWT", "jku": "http://evil.example/"}, claims()),
        forged({"alg": ["HS256"], "typ": "JWT"}, claims()),
        forged(b"[" * 2000, claims()),
        "é" + forged(GOOD, claims()),
        forged(GOOD, claims()) + "é",
        forged(GOOD, claims(name="n" * MAX_TOKEN)),
    ],
)  # fmt: skip
def test_a_token_that_is_not_ours_is_refused_and_nothing_else_is_raised(tokens, token):
    with pytest.raises(BadToken):
        tokens.read(token, now=NOW)


def test_what_is_remembered_of_a_token_does_not_outlive_it(tokens):
    token = issue(tokens)
    tokens.read(token, now=NOW)
    with pytest.raises(BadToken):
        tokens.read(token, now=NOW + DEFAULT_LIFE_S)


def test_another_secret_ends_all_tokens(tokens):
    with pytest.raises(BadToken):
        Tokens("t" * 64, issuer=ISSUER).read(issue(tokens), now=NOW)
