"""Definitions of actions: what is read of them, and what is refused with its place."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mailtwist.actions import definitions
from mailtwist.actions.definition import MAX_OUTCOMES, InField, Method, loaded, parse
from mailtwist.actions.inputs import taken
from mailtwist.actions.performers import PERFORMERS
from mailtwist.errors import ProtocolViolation

NOTIFY = {"Type": "client.notify", "Method": "ACTIONRESPONSE", "Attributes": {"message": "m"}}


def refusal(document):
    with pytest.raises(ProtocolViolation) as caught:
        definitions.check_given(document)
    assert caught.value.http_status == 400
    return caught.value.text


def outcome(**changed):
    return parse({"OutFields": [NOTIFY | changed]}).outcomes[0]


def test_a_whole_definition():
    read = parse(
        {
            "Name": "order",
            "Label": "Order",
            "OnType": "world",
            "InstanceOptional": True,
            "Permission": 2085152,
            "InFields": [
                {"Name": "Amount", "ColumnName": "amount", "ColumnType": "measurement"},
                {"Name": "note", "ColumnName": "note", "IsNullable": True, "DefaultValue": "-"},
            ],
            "Validations": [{"ColumnName": "amount", "Tags": "required, gt=0"}],
            "Conformations": [{"ColumnName": "note", "Tags": "trim"}],
            "OutFields": [
                {
                    "Type": "mail_box",
                    "Method": "POST",
                    "Reference": "box",
                    "SkipInResponse": True,
                    "ContinueOnError": True,
                    "LogToConsole": True,
                    "Condition": "!amount > 5",
                    "Attributes": {"name": "~note"},
                },
                NOTIFY,
            ],
        }
    )
    assert (read.name, read.label, read.on_type) == ("order", "Order", "world")
    assert (read.is_instance_optional, read.permission) == (True, 2085152)
    assert read.in_fields == (
        InField("amount", "measurement", "Amount"),
        InField("note", "label", "note", True, "-"),
    )
    assert read.validations == {"amount": ("required", "gt=0")}
    assert read.conformations == {"note": ("trim",)}
    first, second = read.outcomes
    assert (first.type, first.method, first.reference) == ("mail_box", Method.POST, "box")
    assert (first.is_hidden, first.continues_on_error, first.is_logged) == (True, True, True)
    assert (first.condition, dict(first.attributes)) == ("!amount > 5", {"name": "~note"})
    assert (second.is_hidden, second.continues_on_error, second.reference) == (False, False, "")
    assert read.references == {"box"}


def test_keys_are_read_whatever_their_case_and_unknown_ones_passed_over():
    read = parse(
        {
            "NAME": "n",
            "outfields": [{"type": "client.notify", "METHOD": "actionresponse", "Colour": "red"}],
            "infields": [{"columnname": "a", "isnullable": "true"}],
            "AccessGroups": None,
        }
    )
    assert read.name == "n"
    assert read.outcomes[0].method is Method.ACTIONRESPONSE
    assert read.in_fields == (InField("a", is_nullable=True),)


def test_what_is_left_out_has_a_meaning():
    read = parse({"OutFields": None, "Label": None})
    assert (read.outcomes, read.in_fields, read.is_instance_optional) == ((), None, None)
    assert outcome(Method="").method is Method.ACTIONRESPONSE
    assert parse({"OutFields": [{"Type": "mail.send"}]}).outcomes[0].method is Method.EXECUTE
    assert outcome(Attributes=None).attributes == {}
    assert outcome(Condition=None).condition is None
    assert outcome(Condition=True).condition is True


@pytest.mark.parametrize(
    "document, place",
    [
        ([], "action_schema: an object"),
        ("[]", "action_schema: an object"),
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ({"OutFields": {}}, "OutFields: a list"),
        ({"OutFields": ["x"]}, "OutFields[0]: an object"),
        ({"OutFields": [NOTIFY, {}]}, "OutFields[1]: Type is missing"),
        ({"OutFields": [{"Type": 5}]}, "OutFields[0].Type: a text"),
        ({"OutFields": [NOTIFY | {"Attributes": []}]}, "OutFields[0] (client.notify): Attributes"),
        ({"OutFields": [NOTIFY | {"Condition": []}]}, "OutFields[0] (client.notify): Condition"),
        ({"OutFields": [NOTIFY | {"SkipInResponse": "maybe"}]}, "OutFields[0].SkipInResponse"),
        ({"OutFields": [NOTIFY | {"Method": "PURGE"}]}, "there is no Method PURGE"),
        ({"OutFields": [NOTIFY | {"Reference": "a b"}]}, "a b is no name"),
        ({"OutFields": [NOTIFY | {"Reference": "subject"}]}, "subject is no name"),
        (
            {"OutFields": [{"Type": "nope.do", "Method": "EXECUTE"}]},
            "OutFields[0] (nope.do): there is no such performer",
        ),
        (
            {"OutFields": [NOTIFY, {"Type": "nope", "Method": "POST"}]},
            "OutFields[1] (nope): there is no such table",
        ),
        # An action is no performer: none calls another, let alone itself.
        ({"OutFields": [{"Type": "signin", "Method": "EXECUTE"}]}, "no such performer"),
        ({"OutFields": [NOTIFY] * (MAX_OUTCOMES + 1)}, "OutFields: more than 100"),
        ({"InFields": [{}]}, "InFields[0]: ColumnName is missing"),
        ({"InFields": [{"ColumnName": "env"}]}, "env is no name"),
        ({"Validations": [{"Tags": "email"}]}, "Validations[0]: ColumnName is missing"),
        ({"Validations": [{"ColumnName": "a", "Tags": "prime"}]}, "there is no tag prime"),
        ({"Validations": [{"ColumnName": "a", "Tags": "min=x"}]}, "min=x needs a number"),
        ({"Conformations": [{"ColumnName": "a", "Tags": "bold"}]}, "there is no tag bold"),
        ({"InstanceOptional": "perhaps"}, "InstanceOptional"),
        ({"Permission": "all"}, "Permission: a number"),
        ({"Permission": True}, "Permission: a number"),
        ({"Permission": -1}, "Permission"),
        ({"OutFields": [NOTIFY | {"Attributes": {"a": None}}], "Name": 5}, "Name: a text"),
    ],
)
def test_what_is_wrong_is_named(document, place):
    assert place in refusal(document)


def test_values_are_nested_so_deep_at_most():
    def nested(depth):
        value: Any = "x"
        for _ in range(depth):
            value = [value]
        return {"OutFields": [NOTIFY | {"Attributes": {"a": value}}]}

    definitions.check_given(nested(18))
    assert "deeper" in refusal(nested(30))
    assert "deeper" in refusal(json.dumps(nested(30)))


def test_a_definition_has_a_size():
    assert "longer" in refusal(json.dumps({"Label": "x" * (257 << 10)}))


def test_the_same_text_is_read_once():
    text = json.dumps({"OutFields": [NOTIFY]})
    assert loaded(text) is loaded(text)


def test_the_performers_of_the_mission_are_there():
    expected = {
        "mail.send",
        "aws.mail.send",
        "mail.servers.sync",
        "outbox.process",
        "self.tls.generate",
        "acme.tls.generate",
        "mail_box.status",
        "jwt.token",
        "otp.generate",
        "random.generate",
        "response.create",
        "template.render",
        "__become_admin",
        "__restart",
    }
    assert expected - set(PERFORMERS) == set()


# -- inputs ---------------------------------------------------------------------------------


def fields(*names, **changed):
    return [{"ColumnName": name, **changed} for name in names]


def given(document, **attributes):
    return taken(parse(document), attributes)


@pytest.mark.mission("DAP-174")
@pytest.mark.parametrize("value", [None, "", [], {}])
def test_a_required_input_must_not_be_blank(value):
    with pytest.raises(ProtocolViolation, match=r"^Field amount cannot be blank$"):
        given({"InFields": fields("amount")}, amount=value)
    with pytest.raises(ProtocolViolation, match="Field amount cannot be blank"):
        given({"InFields": fields("amount")})
    assert given({"InFields": fields("amount", IsNullable=True)}) == {"amount": None}


@pytest.mark.mission("DAP-161")
@pytest.mark.parametrize("value", [["a", "b"], {"a": 1}, False, 0, 1.5, "text"])
def test_inputs_keep_their_types(value):
    assert given({"InFields": fields("amount")}, amount=value) == {"amount": value}


def test_defaults_fill_what_is_not_given():
    document = {"InFields": fields("amount", DefaultValue="5")}
    assert given(document) == {"amount": "5"}
    assert given(document, amount="") == {"amount": "5"}
    assert given(document, amount=0) == {"amount": 0}


def test_only_declared_inputs_stand_by_their_names():
    assert given({"InFields": fields("a")}, a="1", b="2") == {"a": "1"}
    assert given({"InFields": []}, b="2") == {}


def test_an_action_without_declared_inputs_takes_what_comes_except_our_names():
    document = {"OutFields": [NOTIFY | {"Reference": "row"}]}
    found = given(document, a="1", row=[{"allow": True}], user={}, subject={}, env={}, attributes=1)
    assert found == {"a": "1"}


@pytest.mark.mission("DAP-175")
@pytest.mark.parametrize(
    "tags, value, expected",
    [
        ("trim", "  a b ", "a b"),
        ("ltrim", "  a ", "a "),
        ("rtrim", "  a ", "  a"),
        ("lowercase", "Ab", "ab"),
        ("uppercase", "Ab", "AB"),
        ("trim,lowercase", "  Ab ", "ab"),
        ("email", " Bob@X.Org ", "Bob@x.org"),
        ("trim", 5, 5),
    ],
)
def test_conformations_change_texts(tags, value, expected):
    document = {
        "InFields": fields("a"),
        "Conformations": [{"ColumnName": "a", "Tags": tags}],
    }
    assert given(document, a=value) == {"a": expected}


@pytest.mark.mission("DAP-175")
@pytest.mark.parametrize(
    "tags, good, bad",
    [
        ("required", "a", ""),
        ("email", "a@x.org", "a@"),
        ("min=3", "abc", "ab"),
        ("max=3", "abc", "abcd"),
        ("min=3", 3, 2),
        ("min=2", ["a", "b"], ["a"]),
        ("gt=0", 0.1, 0),
        ("gt=0", "5", "-5"),
        ("gt=0", 10**400, -(10**400)),
        ("gte=2", 2, 1),
        ("lt=2", 1, 2),
        ("lte=2", 2, 3),
        ("len=2", "ab", "abc"),
        ("eq=yes", "yes", "no"),
        ("ne=yes", "no", "yes"),
        ("oneof=a b", "b", "c"),
        ("alpha", "ab", "a1"),
        ("alphanum", "a1", "a-1"),
        ("numeric", "1.5", "1.5e"),
        ("eqfield=other", "other", "another"),
        ("nefield=other", "another", "other"),
        ("omitempty,email", "", "a@"),
        ("required,email,max=9", "a@x.org", "abcd@x.org"),
    ],
)
def test_validations_refuse_in_known_words(tags, good, bad):
    document = {"InFields": fields("a", IsNullable=True)}
    document["Validations"] = [{"ColumnName": "a", "Tags": tags}]
    assert given(document, a=good, other="other") == {"a": good}
    with pytest.raises(ProtocolViolation, match=r"^http error \(400\) .* invalid value for a$"):
        given(document, a=bad, other="other")


def test_an_input_that_is_not_there_is_checked_only_when_required():
    document = {"InFields": fields("a", IsNullable=True)}
    document["Validations"] = [{"ColumnName": "a", "Tags": "email"}]
    assert given(document) == {"a": None}
    document["Validations"][0]["Tags"] = "required,email"
    with pytest.raises(ProtocolViolation, match="required"):
        given(document)
