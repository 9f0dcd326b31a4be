"""Performers that make something: codes, tokens, chance, texts."""

from __future__ import annotations

import time
import uuid

import pytest

from tests.e2e.relaying import FAR
from tests.support.own_actions import define, once, outcome, run
from tests.support.rest import SECRET, outcomes, parts_of, token_of

pytestmark = [pytest.mark.real]

numbers = iter(range(1, 10_000))


def shown(rest, kind: str, attributes: dict, text: str):
    """What the outcome's value gives in a text."""
    name = define(
        rest,
        [
            outcome(kind, attributes, Reference="made", SkipInResponse=True),
            {
                "Type": "client.notify",
                "Method": "ACTIONRESPONSE",
                "Attributes": {"message": text},
            },
        ],
    )
    answer = run(rest, name)
    assert answer.status == 200, answer
    ((_, told),) = outcomes(answer)
    return told["message"]


def test_a_code_of_an_action_resets_a_password_once(admin, nobody):
    user = admin.user(f"coded{next(numbers)}@{FAR}")
    code = shown(admin, "otp.generate", {"email": user.email.upper()}, "$made.otp")
    assert len(code) == 6
    assert code.isdigit()
    given = {"email": user.email, "otp": code, "password": "another secret"}
    assert nobody.act("user_account", "reset-password-verify", given).status == 200
    assert nobody.sign_in(user.email, "another secret").status == 200
    assert nobody.act("user_account", "reset-password-verify", given).status == 400


def test_a_code_for_nobody_is_a_code_all_the_same(admin, nobody):
    for attributes in ({"email": f"stranger@{FAR}"}, {"email": "nonsense"}, {}):
        assert len(shown(admin, "otp.generate", attributes, "$made.otp")) == 6


def test_a_code_of_an_action_that_fails_counts_for_nothing(admin, nobody):
    user = admin.user(f"coded{next(numbers)}@{FAR}")
    code = shown(admin, "otp.generate", {"email": user.email}, "$made.otp")
    failing = [
        outcome("otp.generate", {"email": user.email}),
        outcome("mail.send", {"from": "a@example.com", "to": "nobody"}),
    ]
    assert run(admin, define(admin, failing)).status == 400
    given = {"email": user.email, "otp": code, "password": "another secret"}
    assert nobody.act("user_account", "reset-password-verify", given).status == 200


def test_a_token_is_given_for_a_password(admin):
    user = admin.user(f"token{next(numbers)}@{FAR}")
    good = once(admin, "jwt.token", {"email": user.email, "password": SECRET})
    assert good.status == 200
    _, claims = parts_of(token_of(good))
    assert claims["email"] == user.email
    bad = once(admin, "jwt.token", {"email": user.email, "password": "wrong password"})
    assert bad.status == 401
    assert "client.store.set" not in bad.text
    for missing in ("email", "password"):
        given = {"email": user.email, "password": SECRET, missing: ""}
        answer = once(admin, "jwt.token", {**given, "skipPasswordCheck": True})
        assert answer.status == 400
        assert missing in answer.error


@pytest.mark.parametrize(
    "given, length, characters",
    [
        ({}, 16, None),
        ({"type": "password", "length": 40}, 40, None),
        ({"type": "digits", "length": "9"}, 9, "0123456789"),
        ({"type": "hex", "length": 7}, 7, "0123456789abcdef"),
    ],
    ids=["none", "password", "digits", "hex"],
)
def test_chance_has_the_form_that_is_asked_for(admin, given, length, characters):
    found = [shown(admin, "random.generate", given, "$made.value") for _ in range(2)]
    assert found[0] != found[1]
    assert {len(each) for each in found} == {length}
    assert characters is None or set("".join(found)) <= set(characters)


def test_chance_may_be_a_uuid(admin):
    assert uuid.UUID(shown(admin, "random.generate", {"type": "uuid"}, "$made.value")).version == 4


@pytest.mark.parametrize(
    "given, named",
    [
        ({"type": "name"}, "type"),
        ({"length": 0}, "length"),
        ({"length": 1025}, "length"),
        ({"length": "many"}, "length"),
        ({"length": [1]}, "length"),
    ],
    ids=str,
)
def test_chance_has_bounds(admin, given, named):
    answer = once(admin, "random.generate", given)
    assert answer.status == 400
    assert named in answer.error


def test_a_template_is_rendered(admin):
    given = {
        "template": "Hi {{ name }}{% for each in data_of %} {{ each }}{% endfor %}",
        "name": "<Bob>",
        "data": {"data_of": [1, 2], "name": "somebody else"},
    }
    assert shown(admin, "template.render", given, "$made.content") == "Hi <Bob> 1 2"
    shown_escaped = shown(admin, "template.render", {**given, "html": True}, "$made.content")
    assert shown_escaped == "Hi &lt;Bob&gt; 1 2"


@pytest.mark.parametrize(
    "template, named",
    [
        ("", "template"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ cycler.__init__.__globals__.os.popen('id').read() }}", "unsafe"),
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "long"),
        ("{% include '/etc/passwd' %}", "loader"),
        ("{{ nobody }}", "undefined"),
    ],
    ids=["empty", "class", "globals", "time", "file", "unknown"],
)
def test_a_bad_template_is_an_error(admin, nobody, template, named):
    begun = time.monotonic()
    # A text that is `{{ }}` from end to end is an expression; what an input holds never is.
    name = define(admin, [outcome("template.render", {"template": "~text"})], inputs=["text"])
    answer = run(admin, name, text=template)
    assert answer.status == 400
    assert named in answer.error
    assert time.monotonic() - begun < 20
    assert nobody.get("/ping").status == 200
