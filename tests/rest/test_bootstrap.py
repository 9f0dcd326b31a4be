"""From an empty store to a locked-down server: users, tokens, the first administrator."""

from __future__ import annotations

import time
import uuid

import pytest

from tests.support.rest import SECRET, Rest, outcomes, parts_of, token_of

pytestmark = [pytest.mark.real]


@pytest.mark.mission("DAP-001")
def test_ping(nobody):
    answer = nobody.get("/ping")
    assert (answer.status, answer.body) == (200, b"pong")


@pytest.mark.mission("DAP-023")
def test_guests_see_which_actions_they_have(nobody):
    found = nobody.get("/actions")
    assert found.status == 200
    assert {"user:signup", "user:signin"} <= set(found.json)


@pytest.mark.mission("DAP-002")
def test_sign_up(nobody):
    answer = nobody.act(
        "user_account",
        "signup",
        {
            "attributes": {
                "name": "A",
                "email": "a@x.org",
                "password": "adminadmin",
                "passwordConfirm": "adminadmin",
            }
        },
    )
    assert answer.status == 200
    assert outcomes(answer) == [
        (
            "client.notify",
            {
                "message": "Sign-up successful. Redirecting to sign in",
                "title": "Success",
                "type": "success",
            },
        ),
        ("client.redirect", {"delay": 2000, "location": "/auth/signin", "window": "self"}),
    ]


REFUSED = [
    ("password", {"password": "seven77", "passwordConfirm": "seven77"}),
    ("password", {"passwordConfirm": "another1"}),
    ("invalid value for email", {"email": "bad"}),
    ("email", {"email": ""}),
    ("name", {"name": ""}),
    ("email", {"email": "a@x.org\r\nBcc: b@x.org"}),
    ("password", {"password": 12345678}),
    ("email", {"email": ["a@x.org"]}),
]


@pytest.mark.mission("DAP-003", "DAP-004", "DAP-005")
@pytest.mark.parametrize("text, given", REFUSED, ids=str)
def test_a_sign_up_that_is_refused_says_why(nobody, text, given):
    email = f"refused{REFUSED.index((text, given))}@x.org"
    attributes = {
        "name": "B",
        "email": email,
        "password": "adminadmin",
        "passwordConfirm": "adminadmin",
        **given,
    }
    answer = nobody.act("user_account", "signup", {"attributes": attributes})
    assert answer.status == 400
    assert text in answer.error
    # The address is still free: nothing was kept.
    assert nobody.sign_up(email).status == 200


@pytest.mark.mission("DAP-007")
def test_sign_in_gives_a_token(nobody):
    assert nobody.sign_up("b@x.org").status == 200
    answer = nobody.sign_in("b@x.org")
    assert answer.status == 200
    token = token_of(answer)
    assert len(token.split(".")) == 3
    assert outcomes(answer) == [
        ("client.store.set", {"key": "token", "value": token}),
        ("client.cookie.set", {"key": "token", "value": f"{token}; SameSite=Strict"}),
        ("client.notify", {"message": "Logged in", "title": "Success", "type": "success"}),
        ("client.redirect", {"delay": 2000, "location": "/", "window": "self"}),
    ]


@pytest.mark.mission("DAP-008")
def test_claims(nobody):
    assert nobody.sign_up("claims@x.org", name="Claire").status == 200
    header, claims = parts_of(token_of(nobody.sign_in("claims@x.org")))
    assert header["alg"] == "HS256"
    assert claims["email"] == "claims@x.org"
    assert claims["name"] == "Claire"
    uuid.UUID(claims["sub"])
    assert claims["exp"] == claims["iat"] + 72 * 3600
    assert abs(claims["iat"] - time.time()) < 60
    assert claims["nbf"] <= claims["iat"]
    assert claims["iss"]
    assert claims["jti"]
    assert "auth_version" in claims
    again = parts_of(token_of(nobody.sign_in("claims@x.org")))[1]
    assert again["jti"] != claims["jti"]


@pytest.mark.mission("DAP-009")
@pytest.mark.parametrize("email", ["wrong@x.org", "unknown@x.org"])
def test_a_wrong_password_and_an_unknown_user_look_alike(nobody, email):
    nobody.sign_up("wrong@x.org")
    answer = nobody.sign_in(email, "not this one")
    assert answer.status == 401
    assert outcomes(answer) == [
        (
            "client.notify",
            {"message": "Invalid username or password", "title": "failed", "type": "error"},
        )
    ]


@pytest.mark.mission("DAP-010")
def test_a_token_as_header_parameter_and_cookie(nobody):
    nobody.sign_up("three@x.org")
    token = token_of(nobody.sign_in("three@x.org"))
    ways = [
        {"headers": {"Authorization": f"Bearer {token}"}},
        {"query": {"token": token}},
        {"headers": {"Cookie": f"other=1; token={token}"}},
    ]
    for way in ways:
        assert nobody.get("/api/mail_server", **way).status == 200
        mine = nobody.get("/api/user_account", **way)
        assert "three@x.org" in mine.column("email")
    # The header wins.
    both = nobody.get(
        "/api/mail_server", {"token": token}, headers={"Authorization": "Bearer x.y.z"}
    )
    assert both.status == 401


@pytest.mark.mission(
    "DAP-006", "DAP-056", "DAP-013", "DAP-014", "DAP-015", "DAP-016", "DAP-024", "DAP-213"
)
def test_the_first_administrator_locks_the_server_down(make_fresh):
    server = make_fresh().start()
    nobody = Rest(server.ports["http"])
    first, second = sign_up_two(nobody)
    with_data = first.make("mail_account", {"username": "early@example.com", "password": SECRET})
    server.send("early@example.com", b"Subject: early\r\n\r\nwords\r\n")
    guests_read_no_mail(nobody)

    answer = first.act("world", "become_an_administrator")
    assert answer.status == 200
    assert outcomes(answer) == [
        ("client.redirect", {"delay": 7000, "location": "/", "window": "self"}),
        ("Restart", None),
    ]
    refused = second.act("world", "become_an_administrator")
    assert refused.status >= 400
    assert "Unauthorized" in refused.text
    # The old token has the new rights, at once.
    assert first.get("/_config").status == 200
    assert second.get("/_config").status == 403
    assert nobody.get("/_config").status == 403

    guests_read_no_mail(nobody)
    refused = nobody.create("mail_server", {"hostname": "guest.example.com"})
    assert refused.status == 403
    assert refused.json["errors"][0]["status"] == "403"
    assert refused.json["errors"][0]["title"] == "TableAccessPermissionChecker"
    assert nobody.sign_up("late@x.org").status == 403
    assert nobody.sign_in("second@x.org").status == 200

    # An address counts once, however it is written.
    emails = first.get("/api/user_account", {"page[size]": 100}).column("email")
    assert sorted(emails) == ["first@x.org", "second@x.org"]

    (signup,) = first.rows("action", ("action_name", "is", "signup")).data
    assert signup["attributes"]["permission"] == 2085120
    (signin,) = first.rows("action", ("action_name", "is", "signin")).data
    assert signin["attributes"]["permission"] == 561441
    first.change("action", signup["id"], permission=2085152)
    assert nobody.sign_up("late@x.org").status == 200
    first.change("action", signup["id"], permission=2085120)
    assert nobody.sign_up("later@x.org").status == 403

    # What was there belongs to the administrator, and stays closed to others.
    owner = first.row("mail_account", with_data["id"])["relationships"]["user_account_id"]["data"]
    assert owner["id"] == parts_of(first.token)[1]["sub"]
    server.send("early@example.com", b"Subject: late\r\n\r\nwords\r\n")
    guests_read_no_mail(nobody)
    assert second.get("/api/mail").data == []
    server.restart()
    again = Rest(server.ports["http"])
    guests_read_no_mail(again)
    assert again.sign_up("later@x.org").status == 403
    assert again.with_token(first.token).get("/_config").status == 200


def sign_up_two(nobody: Rest) -> tuple[Rest, Rest]:
    for name in ("first", "second"):
        assert nobody.sign_up(f"{name}@x.org").status == 200
    again = nobody.sign_up("FIRST@x.org")
    assert 400 <= again.status < 500
    assert again.error
    return nobody.signed_in("first@x.org"), nobody.signed_in("second@x.org")


def guests_read_no_mail(nobody: Rest) -> None:
    for entity in ("mail", "mail_box", "outbox", "credential", "certificate", "mail_account"):
        answer = nobody.get(f"/api/{entity}")
        if answer.status == 200:
            assert answer.data == [], entity
            assert answer.total == 0, entity
        else:
            assert answer.status == 403, entity


@pytest.mark.mission("DAP-019")
def test_guessing_locks_the_user_also_over_a_restart(make_server):
    server = make_server().start()
    nobody = Rest(server.ports["http"])
    nobody.become_administrator()
    assert nobody.sign_in("admin@example.com").status == 200
    seen = [nobody.sign_in("admin@example.com", f"guess {n}").status for n in range(12)]
    assert set(seen) <= {401, 429}
    assert seen[0] == 401
    assert seen[-1] == 429
    locked = nobody.sign_in("admin@example.com")
    assert locked.status == 429
    assert locked.error
    server.restart()
    locked = Rest(server.ports["http"]).sign_in("admin@example.com")
    assert locked.status == 429
