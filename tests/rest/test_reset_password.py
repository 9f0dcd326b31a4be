"""A forgotten password: who gets a code, what it is good for, and what nobody learns."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing

import pytest

from tests.e2e.relaying import FAR, going_to
from tests.support.rest import SECRET, Rest, outcomes
from tests.support.sink import Sink

pytestmark = [pytest.mark.real]

NEW = "another secret"
numbers = iter(range(1, 10_000))


@pytest.fixture
def started(make_fresh):
    """Starts a server with an administrator, whose foreign mail goes to a sink."""

    def start(sink, **settings):
        server = make_fresh(outbound=going_to(sink), **settings).start()
        return server, Rest(server.ports["http"]).become_administrator()

    return start


def person(admin: Rest):
    return admin.user(f"person{next(numbers)}@{FAR}")


def ask(rest: Rest, email: str):
    return rest.act("user_account", "reset-password", {"attributes": {"email": email}})


def show(rest: Rest, email: str, code: str, **more):
    attributes = {"email": email, "otp": code, **more}
    return rest.act("user_account", "reset-password-verify", {"attributes": attributes})


def mails(sink: Sink, email: str) -> list:
    return [each for each in sink.taken if each.recipients == [email]]


def code_for(sink: Sink, rest: Rest, email: str) -> str:
    """Ask for a code; the one that comes."""
    before = len(mails(sink, email))
    assert ask(rest, email).status == 200
    sink.wait(lambda: len(mails(sink, email)) > before)
    text = mails(sink, email)[-1].data.decode()
    (found,) = re.findall(r"Your verification code is: (\d{6})\r\n", text)
    return found


def wrong(code: str) -> str:
    return f"{(int(code) + 1) % 1_000_000:06d}"


@pytest.mark.mission("DAP-020")
def test_a_code_is_mailed_from_the_configured_sender(started):
    with Sink() as sink:
        _server, admin = started(sink)
        user = person(admin)
        # Without any: role address of the first local domain.
        code_for(sink, user.guest, user.email)
        (mail,) = mails(sink, user.email)
        assert mail.reverse_path.startswith("postmaster@")
        answer = admin.post("/_config/backend/mail.default_from", b"no-reply@example.com")
        assert answer.status == 200
        code = code_for(sink, user.guest, user.email)
        mail = mails(sink, user.email)[-1]
        assert mail.reverse_path == "no-reply@example.com"
        assert b"From: no-reply@example.com\r\n" in mail.data
        assert b"Subject: Request for password reset\r\n" in mail.data
        assert b"Auto-Submitted: auto-generated\r\n" in mail.data
        assert show(user.guest, user.email, code, password=NEW).status == 200


@pytest.mark.mission("DAP-021")
def test_the_right_code_sets_a_password_once(started):
    with Sink() as sink:
        _server, admin = started(sink)
        user, guest = person(admin), admin.guest
        code = code_for(sink, guest, user.email)
        answer = show(guest, user.email, wrong(code), password=NEW)
        assert answer.status == 400
        assert "wrong" in answer.error
        assert guest.sign_in(user.email).status == 200
        answer = show(guest, user.email, code, password=NEW)
        assert answer.status == 200
        assert [kind for kind, _ in outcomes(answer)] == ["client.notify", "client.redirect"]
        assert guest.sign_in(user.email, SECRET).status == 401
        assert user.get("/api/user_account").status == 401, "the token of the old password"
        assert guest.sign_in(user.email, NEW).status == 200
        again = show(guest, user.email, code, password="third secret")
        assert again.status == 400
        assert guest.sign_in(user.email, NEW).status == 200


@pytest.mark.mission("DAP-021")
def test_without_a_password_a_new_one_is_mailed(started):
    with Sink() as sink:
        _server, admin = started(sink)
        user, guest = person(admin), admin.guest
        code = code_for(sink, guest, user.email)
        assert show(guest, user.email, code).status == 200
        sink.wait(lambda: len(mails(sink, user.email)) == 2)
        (given,) = re.findall(rb"Your new password is: (\S+)\r\n", mails(sink, user.email)[1].data)
        assert guest.sign_in(user.email, SECRET).status == 401
        assert guest.sign_in(user.email, given.decode()).status == 200


@pytest.mark.mission("DAP-022")
def test_nobody_learns_who_has_an_account(started):
    with Sink() as sink:
        _server, admin = started(sink)
        user, guest = person(admin), admin.guest
        unknown = f"stranger@{FAR}"
        known_answer, unknown_answer = ask(guest, user.email), ask(guest, unknown)
        assert known_answer.status == unknown_answer.status == 200
        assert known_answer.body == unknown_answer.body
        sink.wait(lambda: mails(sink, user.email))
        refusals = [show(guest, email, "000000", password=NEW) for email in (user.email, unknown)]
        assert refusals[0].status == refusals[1].status == 400
        assert refusals[0].body == refusals[1].body
        assert not mails(sink, unknown)


def test_five_wrong_codes_make_the_right_one_useless(started):
    with Sink() as sink:
        _server, admin = started(sink)
        user, guest = person(admin), admin.guest
        code = code_for(sink, guest, user.email)
        for _ in range(5):
            assert show(guest, user.email, wrong(code), password=NEW).status == 400
        assert show(guest, user.email, code, password=NEW).status == 400
        assert guest.sign_in(user.email, SECRET).status == 200


def test_who_tries_many_codes_is_shut_out_for_any_address(started):
    with Sink() as sink:
        _server, admin = started(sink)
        guest = admin.guest
        statuses = [
            show(guest, f"someone{n}@{FAR}", "123456", password=NEW).status for n in range(12)
        ]
        assert statuses == [400] * 10 + [429] * 2


def test_a_user_gets_few_codes_and_the_answer_does_not_tell(started):
    with Sink() as sink:
        _server, admin = started(sink)
        user, other, guest = person(admin), person(admin), admin.guest
        answers = [ask(guest, user.email) for _ in range(6)]
        assert {answer.status for answer in answers} == {200}
        assert len({answer.body for answer in answers}) == 1
        sink.wait(lambda: len(mails(sink, user.email)) >= 3)
        ask(guest, other.email)
        sink.wait(lambda: mails(sink, other.email))
        assert len(mails(sink, user.email)) == 3


def test_who_asks_often_is_told_to_wait(started):
    with Sink() as sink:
        _server, admin = started(sink)
        statuses = [ask(admin.guest, f"someone{n}@{FAR}").status for n in range(22)]
        assert statuses == [200] * 20 + [429] * 2


@pytest.mark.parametrize(
    "attributes, named",
    [
        ({}, "email"),
        ({"email": "nonsense", "otp": "123456"}, "email"),
        ({"email": f"a@{FAR}"}, "otp"),
        ({"email": f"a@{FAR}", "otp": "1" * 21}, "otp"),
        ({"email": f"a@{FAR}", "otp": "123456", "password": "short"}, "password"),
        (
            {
                "email": f"a@{FAR}",
                "otp": "123456",
                "password": NEW,
                "passwordConfirm": "not the same",
            },
            "password",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value,
)
def test_bad_input_is_named(nobody, attributes, named):
    answer = nobody.act("user_account", "reset-password-verify", {"attributes": attributes})
    assert answer.status == 400
    assert named in answer.error


def test_no_code_is_in_the_database(make_server):
    with Sink() as sink:
        server = make_server(outbound=going_to(sink)).start()
        admin = Rest(server.ports["http"]).become_administrator()
        user = person(admin)
        code = code_for(sink, admin.guest, user.email)
        path = f"file:{server.data_dir}/mailtwist.db?mode=ro"
        with closing(sqlite3.connect(path, uri=True)) as connection:
            rows = connection.execute("SELECT purpose, verifier FROM one_time_code").fetchall()
        ((purpose, verifier),) = rows
        assert purpose == "reset-password"
        assert code not in verifier
        assert len(verifier) == 64
