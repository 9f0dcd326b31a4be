"""Tokens that others made: forged, changed, too old; none of them is anybody."""

from __future__ import annotations

import time
import uuid

import pytest

from tests.support.rest import Rest, forge, parts_of

pytestmark = [pytest.mark.real]

KNOWN = "a secret of at least thirty-two octets, known to this test"


@pytest.fixture(scope="module")
def claims(admin):
    """Those of a token that is good."""
    return parts_of(admin.token)[1]


@pytest.mark.mission("DAP-012")
def test_a_token_dies_with_the_password(admin):
    user = admin.user()
    assert user.get("/api/user_account").status == 200
    answer = user.patch("user_account", user.id, {"password": "another one"})
    assert answer.status == 200
    refused = user.get("/api/user_account")
    assert refused.status == 401
    assert refused.error
    assert user.guest.sign_in(user.email).status == 401
    fresh = user.guest.signed_in(user.email, "another one")
    assert fresh.get("/api/user_account").status == 200


@pytest.mark.mission("DAP-011")
@pytest.mark.parametrize("token", ["x.y.z", "x", "a.b", "....", "é.é.é", "A" * 5000])
def test_an_invalid_token_is_no_guest(nobody, admin, token):
    answer = nobody.get("/api/mail_server", {"token": token})
    assert answer.status == 401
    assert answer.error


def test_a_signature_is_needed(admin, claims):
    header, body, signature = admin.token.split(".")
    stranger = "A" if signature[0] != "A" else "B"
    for token in (
        f"{header}.{body}.",
        f"{header}.{body}",
        f"{header}.{body}.{stranger}{signature[1:]}",
        f"{header}.{body}.{signature}.{signature}",
        forge({"alg": "none", "typ": "JWT"}, claims),
        forge({"alg": "None", "typ": "JWT"}, claims),
        forge({"alg": "nOnE"}, claims),
        forge({"alg": "HS256"}, claims, b""),
        forge({"alg": "HS256"}, claims, b"secret"),
        forge({"typ": "JWT"}, claims, b"secret"),
        forge({"alg": ["HS256"]}, claims, b"secret"),
        forge({"alg": {"a": 1}}, claims, b"secret"),
    ):
        answer = admin.with_token(token).get("/_config")
        assert answer.status == 401, token
        assert admin.with_token(token).get("/api/mail_server").status == 401, token


def test_another_person_in_the_claims_breaks_the_signature(admin, claims):
    user = admin.user()
    header, _, signature = user.token.split(".")
    body = forge({}, claims, b"x").split(".")[1]
    assert user.with_token(f"{header}.{body}.{signature}").get("/_config").status == 401


@pytest.mark.mission("DAP-011")
def test_what_a_good_signature_does_not_mend(make_server):
    server = make_server().start()
    admin = Rest(server.ports["http"]).become_administrator()
    claims = parts_of(admin.token)[1]
    plain = {"Content-Type": "text/plain"}
    key = "/_config/backend/jwt.secret"
    issuer = "/_config/backend/jwt.token.issuer"
    assert admin.post(issuer, claims["iss"].encode(), headers=plain).status == 200
    assert admin.post(key, KNOWN.encode(), headers=plain).status == 200
    # Older tokens have died with their secret.
    assert admin.get("/_config").status == 401
    now = int(time.time())
    good = {**claims, "iat": now, "nbf": now, "exp": now + 3600}
    header = {"alg": "HS256", "typ": "JWT"}

    def status(changed: dict, head: dict | None = None) -> int:
        token = forge(head or header, changed, KNOWN.encode())
        return admin.with_token(token).get("/_config").status

    assert status(good) == 200
    wrong: dict[str, dict[str, object]] = {
        "expired": {"exp": now - 3600, "iat": now - 7200, "nbf": now - 7200},
        "not yet": {"nbf": now + 7200},
        "another issuer": {"iss": "somebody"},
        "stale version": {"auth_version": -1},
        "unknown user": {"sub": str(uuid.uuid4())},
        "no uuid": {"sub": "1"},
        "a number as user": {"sub": 1},
        "SQL as user": {"sub": "' OR 1=1 --"},
        "text as end": {"exp": "never"},
        "an end without end": {"exp": "inf"},
    }
    for name, changed in wrong.items():
        assert status({**good, **changed}) == 401, name
    for missing in ("sub", "exp", "auth_version", "iss"):
        assert status({k: v for k, v in good.items() if k != missing}) == 401, missing
    # Only one algorithm is ours, and no header says where keys are.
    for name in ("none", "HS384", "RS256", "ES256"):
        assert status(good, {"alg": name, "typ": "JWT"}) == 401, name
    pointed = {**header, "kid": "../../../dev/null", "jku": "http://127.0.0.1:1/keys"}
    assert status(good, pointed) in {200, 401}
