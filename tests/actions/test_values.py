"""What is looked up, put into texts, evaluated and left alone in an action's values."""

from __future__ import annotations

import pytest

from mailtwist.actions import values
from mailtwist.actions.values import DROPPED
from mailtwist.errors import ExpressionError, ExpressionLimit
from tests.support.now import now

SCOPE = {
    "name": "Bob",
    "empty": "",
    "none": None,
    "yes": True,
    "count": 3,
    "price": 2.5,
    "list": ["a", "b"],
    "first-name": "Rob",
    "map": {"key": "value", "deep": {"er": 1}},
    "user": [{"email": "bob@x.org", "reference_id": "r-1"}],
    "otp": {"otp": "123456"},
    "subject": {"col": "C", "hostname": "h.x.org", "0": "zero"},
    "sneaky": "$name ~name !name {{name}}",
    "größe": "XL",
}


class Scripted:
    """Answers every expression with itself in brackets, or with what a table says."""

    def __init__(self, results=None, error=None):
        self.requests = []
        self.results, self.error = results or {}, error

    async def evaluate(self, expressions, scope):
        self.requests.append(list(expressions))
        if self.error:
            raise self.error
        return [self.results.get(each, f"[{each}]") for each in expressions]


def evaluated(value, script=None):
    return now(values.evaluate(value, SCOPE, script or Scripted()))


@pytest.mark.mission("DAP-161")
@pytest.mark.parametrize(
    "text, value",
    [
        ("~name", "Bob"),
        ("~list", ["a", "b"]),
        ("~yes", True),
        ("~count", 3),
        ("~none", None),
        ("~empty", ""),
        ("~map", {"key": "value", "deep": {"er": 1}}),
        ("~map.key", "value"),
        ("~map.deep.er", 1),
        ("~list[1]", "b"),
        ("~list.1", "b"),
        ("~user[0].email", "bob@x.org"),
        ("~subject", SCOPE["subject"]),
        ("~.col", "C"),
        ("~.0", "~.0"),
        ("~subject.0", "zero"),
        ("~first-name", "Rob"),
        ("~größe", "XL"),
        ("~sneaky", "$name ~name !name {{name}}"),
    ],
)
def test_a_whole_text_behind_a_tilde_is_the_value_with_its_type(text, value):
    found = evaluated(text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    "text",
    ["~nobody", "~map.nope", "~list[2]", "~list.x", "~name.x", "~none.x", "~.nope", "~user.email"],
)
def test_what_leads_nowhere_is_left_out(text):
    assert evaluated(text) is DROPPED
    assert evaluated({"a": text, "b": 1, "c": [text, "~name"]}) == {"b": 1, "c": ["Bob"]}


@pytest.mark.mission("DAP-162")
@pytest.mark.parametrize(
    "text, value",
    [
        ("Hi $name", "Hi Bob"),
        ("Hi $name, $name!", "Hi Bob, Bob!"),
        ("$name", "Bob"),
        ("costs $5", "costs $5"),
        ("costs $ 5, $$, $", "costs $ 5, $$, $"),
        ("$$name", "$Bob"),
        ("Hi $nobody", "Hi $nobody"),
        ("Hi $none.", "Hi ."),
        ("<$empty>", "<>"),
        ("$count of $price", "3 of 2.5"),
        ("$yes", "true"),
        ("$list", '["a", "b"]'),
        ("$map.deep", '{"er": 1}'),
        ("to $user[0].email, $user[0].reference_id", "to bob@x.org, r-1"),
        ("$user[1].email", "$user[1].email"),
        ("code $otp.otp.", "code 123456."),
        ("$.col is $.hostname", "C is h.x.org"),
        ("$.50", "$.50"),
        ("$names", "$names"),
        ("www.$name.com", "www.Bob.com"),
        ("$name.com.au", "Bob.com.au"),
        ("$name[0]", "Bob[0]"),
        ("$name-$count", "Bob-3"),
        ("$first-name", "Rob"),
        ("$name-tag", "Bob-tag"),
        ("$map.key-ring", "value-ring"),
        ("$map.nope", "$map.nope"),
        ("$user.nope", "$user.nope"),
        ("$größe", "XL"),
        ("$sneaky", "$name ~name !name {{name}}"),
        ("Hello ~name", "Hello ~name"),
        ("say !name", "say !name"),
        ("{{name}} and more", "{{name}} and more"),
        ("~ five", "~ five"),
        ("~~~", "~~~"),
        ("!", "!"),
        ("!  ", "!  "),
        ("{{}}", "{{}}"),
        ("{{ }}", "{{ }}"),
        ("", ""),
    ],
)
def test_paths_behind_dollars_are_put_into_texts(text, value):
    script = Scripted()
    assert evaluated(text, script) == value
    assert "<nil>" not in value
    assert script.requests == []


@pytest.mark.parametrize("value", [None, True, 3, 2.5, {}, []])
def test_what_is_no_text_stays(value):
    assert evaluated(value) == value


def test_all_expressions_of_a_value_are_one_request():
    script = Scripted({"list": ["x"], " 1 ": 1})
    value = {
        "a": "!list",
        "b": ["{{ 1 }}", {"c": "!name", "d": "~nobody"}, "plain $name"],
        "e": {"f": "{{z}}"},
        "!key": 1,
    }
    assert evaluated(value, script) == {
        "a": ["x"],
        "b": [1, {"c": "[name]"}, "plain Bob"],
        "e": {"f": "[z]"},
        "!key": 1,
    }
    assert script.requests == [["list", " 1 ", "name", "z"]]


def test_a_result_is_not_evaluated_again():
    assert evaluated("!x", Scripted({"x": "!y $name ~name"})) == "!y $name ~name"


def test_attributes_have_a_depth():
    value: object = "x"
    for _ in range(20):
        value = [value]
    assert evaluated(value) == value
    with pytest.raises(ExpressionLimit):
        evaluated([value])


def test_a_text_that_grows_without_bound_is_an_error():
    scope = {"long": "x" * 1_000_000}
    assert len(now(values.evaluate("$long" * 4, scope, Scripted()))) == 4_000_000
    with pytest.raises(ExpressionLimit, match="too large"):
        now(values.evaluate(["$long$long", "$long$long$long"], scope, Scripted()))


@pytest.mark.parametrize(
    "text", ["$a" + ".a" * 50_000, "$a" + "-a" * 50_000, "~a" + "[0]" * 50_000]
)
def test_long_paths_take_linear_time(text):
    found = evaluated(text)
    assert found in {text, DROPPED}


@pytest.mark.mission("DAP-166")
@pytest.mark.parametrize(
    "condition, answer",
    [
        (None, True),
        ("", True),
        ("  ", True),
        (True, True),
        (1, True),
        ("true", True),
        ("1", True),
        ("~yes", True),
        ("$yes", True),
        ("!t", True),
        ("!one", True),
        ("!text", True),
        (False, False),
        (0, False),
        (2, False),
        ("false", False),
        ("True", False),
        ("yes", False),
        ("~count", False),
        ("~nobody", False),
        ("$nobody", False),
        ("~list", False),
        ("!f", False),
        ("!null", False),
        ("!list", False),
    ],
)
def test_a_condition_holds_when_it_is_true_or_one(condition, answer):
    results = {"t": True, "one": 1, "text": "true", "f": False, "null": None, "list": [1]}
    assert now(values.holds(condition, SCOPE, Scripted(results))) is answer


def test_a_wrong_condition_does_not_hold_and_a_bomb_is_an_error():
    wrong = Scripted(error=ExpressionError("x is not defined"))
    assert now(values.holds("!x", SCOPE, wrong)) is False
    with pytest.raises(ExpressionLimit):
        now(values.holds("!x", SCOPE, Scripted(error=ExpressionLimit("takes too long"))))
