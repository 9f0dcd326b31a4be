from __future__ import annotations

import pytest

from mailtwist.actions import accounts
from mailtwist.actions.inputs import checked
from mailtwist.actions.registry import Input
from mailtwist.errors import ProtocolViolation

SIGN_UP = next(each for each in accounts.OPERATIONS if each.name == "signup").inputs
GOOD = {
    "name": "A",
    "email": "a@x.org",
    "password": "adminadmin",
    "passwordConfirm": "adminadmin",
}


def text_of(inputs, attributes):
    with pytest.raises(ProtocolViolation) as refused:
        checked(inputs, attributes)
    assert refused.value.http_status == 400
    return refused.value.text


def test_good_inputs_pass_as_they_are():
    assert checked(SIGN_UP, GOOD) == GOOD


@pytest.mark.mission("DAP-003", "DAP-004", "DAP-005")
@pytest.mark.parametrize(
    "changed, text",
    [
        (
            {"password": "1234567", "passwordConfirm": "1234567"},
            "http error (400) min and 0 more errors, invalid value for password",
        ),
        (
            {"passwordConfirm": "another1"},
            "http error (400) eqfield and 0 more errors, invalid value for password",
        ),
        (
            {"email": "bad"},
            "http error (400) email and 0 more errors, invalid value for email",
        ),
        ({"email": "a@b@c"}, "http error (400) email and 0 more errors, invalid value for email"),
        (
            {"email": "a@nodots"},
            "http error (400) email and 0 more errors, invalid value for email",
        ),
        (
            {"email": "a@x.org\r\nBcc: b@x.org"},
            "http error (400) email and 0 more errors, invalid value for email",
        ),
        ({"name": "  "}, "Field name cannot be blank"),
        ({"name": None}, "Field name cannot be blank"),
        ({"name": {"a": 1}}, "http error (400) text and 0 more errors, invalid value for name"),
        (
            {"password": ["x" * 9]},
            "http error (400) text and 0 more errors, invalid value for password",
        ),
        (
            {"password": "p" * 1025, "passwordConfirm": "p" * 1025},
            "http error (400) max and 0 more errors, invalid value for password",
        ),
    ],
)
def test_a_bad_input_is_named(changed, text):
    assert text_of(SIGN_UP, {**GOOD, **changed}) == text


def test_a_password_keeps_its_blanks_and_nothing_else_does():
    given = {**GOOD, "name": " A ", "password": " secret99 ", "passwordConfirm": " secret99 "}
    tidy = checked(SIGN_UP, given)
    assert (tidy["name"], tidy["password"]) == ("A", " secret99 ")


def test_numbers_and_booleans_become_the_text_they_are_written_as():
    inputs = (Input("a"), Input("b"), Input("c"), Input("d", "json"))
    given = {"a": 5, "b": True, "c": 1.5, "d": [1], "other": [2]}
    assert checked(inputs, given) == {"a": "5", "b": "true", "c": "1.5", "d": [1], "other": [2]}
