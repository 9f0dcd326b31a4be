"""Actions of one's own over HTTP: defined by a row, called at once, evaluated by JavaScript."""

from __future__ import annotations

import email
import itertools
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.e2e.relaying import FAR, until
from tests.support.rest import Answer, Rest, User

pytestmark = [pytest.mark.real]

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
OPEN = 2085152  # as others, and guests may execute
_numbers = itertools.count(1)


def world_id(admin: Rest, table: str = "world") -> str:
    return admin.rows("world", ("table_name", "is", table)).ids[0]


def notify(message: Any, **more: Any) -> dict[str, Any]:
    attributes = {"message": message, "title": "Done", "type": "success"}
    return {
        "Type": "client.notify",
        "Method": "ACTIONRESPONSE",
        "Attributes": attributes,
        **more,
    }


def define(
    admin: Rest,
    *outcomes: dict[str, Any],
    table: str = "world",
    permission: int | None = None,
    **schema: Any,
) -> str:
    """A new action; its name."""
    name = f"own_{next(_numbers)}"
    whole = {"Name": name, "OnType": table, "InstanceOptional": True, **schema}
    attributes = {
        "action_name": name,
        "label": "Mine",
        "instance_optional": whole["InstanceOptional"],
        "action_schema": json.dumps({**whole, "OutFields": list(outcomes)}),
    }
    if permission is not None:
        attributes["permission"] = permission
    relation = {"world_id": ("world", world_id(admin, table))}
    admin.make("action", attributes, relation)
    return name


def run(admin: Rest, *outcomes: dict[str, Any], given: Any = None, **schema: Any) -> Any:
    """Define and call; what is answered."""
    answer = admin.act("world", define(admin, *outcomes, **schema), {"attributes": given or {}})
    assert answer.status == 200, answer
    return answer.json


def value_of(admin: Rest, value: Any, **given: Any) -> Any:
    """What a value of an attribute becomes; "nothing" when it is left out."""
    (response,) = run(admin, notify(value), given=given)
    return response["Attributes"].get("message", "nothing")


def hostnames(admin: Rest) -> set[str]:
    return set(admin.rows("mail_server", **{"page__size]": 1000}).column("hostname"))


def fresh_hostname() -> str:
    return f"h{next(_numbers)}.example.com"


def post(hostname: str, **more: Any) -> dict[str, Any]:
    attributes = {"hostname": hostname}
    return {"Type": "mail_server", "Method": "POST", "Attributes": attributes, **more}


FAILING = {"Type": "mail_server", "Method": "DELETE", "Attributes": {"reference_id": "none"}}


# -- what the documents show ----------------------------------------------------------------


@pytest.mark.mission("DAP-127", "DAP-170")
def test_the_documented_action_is_made_and_called_at_once(admin, sink):
    schema = (
        '{"Name":"send_notification","OnType":"world","InstanceOptional":true,'
        '"InFields":[{"Name":"recipient_email","ColumnName":"recipient_email",'
        '"ColumnType":"email"}],"OutFields":[{"Type":"mail.send","Method":"EXECUTE",'
        '"Attributes":{"to":"~recipient_email","subject":"Your Subject",'
        '"body":"Email body content","from":"noreply@example.com"}},'
        '{"Type":"client.notify","Method":"ACTIONRESPONSE","Attributes":{"type":"success",'
        '"title":"Sent","message":"queued for $recipient_email"}}]}'
    )
    attributes = {
        "action_name": "send_notification",
        "label": "Send",
        "instance_optional": True,
        "action_schema": schema,
    }
    relation = {"world_id": ("world", world_id(admin))}
    admin.make("action", attributes, relation)
    reader = f"reader{next(_numbers)}@{FAR}"
    answer = admin.act("world", "send_notification", {"attributes": {"recipient_email": reader}})
    assert answer.status == 200
    assert answer.json == [
        {
            "ResponseType": "client.notify",
            "Attributes": {"message": f"queued for {reader}", "title": "Sent", "type": "success"},
        }
    ]
    until(lambda: [mail for mail in sink.mails if mail.recipients == [reader]])
    (mail,) = [mail for mail in sink.mails if mail.recipients == [reader]]
    assert email.message_from_bytes(mail.data)["Subject"] == "Your Subject"


def test_the_documented_outcome_alone_is_enough(admin, sink):
    """Neither name nor inputs are declared."""
    outcome = {
        "Type": "mail.send",
        "Method": "EXECUTE",
        "Attributes": {
            "to": "~recipient_email",
            "subject": "Your Subject",
            "body": "Email body content",
            "from": "noreply@example.com",
        },
    }
    name = f"own_{next(_numbers)}"
    attributes = {"action_name": name, "action_schema": {"OutFields": [outcome]}}
    relation = {"world_id": ("world", world_id(admin))}
    admin.make("action", attributes, relation)
    reader = f"reader{next(_numbers)}@{FAR}"
    assert admin.act("world", name, {"recipient_email": reader}).json == []
    until(lambda: [mail for mail in sink.mails if mail.recipients == [reader]])


# -- values ---------------------------------------------------------------------------------


@pytest.mark.mission("DAP-161")
@pytest.mark.parametrize("given", [["a", "b"], {"a": {"b": [1]}}, True, 5, 1.5, None, "text"])
def test_what_is_looked_up_keeps_its_type(admin, given):
    assert value_of(admin, "~field", field=given) == given
    assert value_of(admin, {"inner": ["~field"]}, field=given) == {"inner": [given]}


def test_what_is_unknown_is_left_out(admin):
    assert value_of(admin, "~nobody") == "nothing"
    assert value_of(admin, ["a", "~nobody", {"b": "~nobody"}]) == ["a", {}]


@pytest.mark.mission("DAP-162")
@pytest.mark.parametrize(
    "text, expected",
    [
        ("Hi $name", "Hi Bob"),
        ("$name, $name!", "Bob, Bob!"),
        ("costs $5", "costs $5"),
        ("US$ and $nobody", "US$ and $nobody"),
        ("$user[0].email", "$user[0].email"),
        ("$order.items[1].title", "pear"),
        ("Hello ~name", "Hello ~name"),
        ("$attributes.name", "Bob"),
    ],
)
def test_texts_are_interpolated(admin, text, expected):
    order = {"items": [{"title": "apple"}, {"title": "pear"}]}
    found = value_of(admin, text, name="Bob", order=order)
    assert found == expected
    assert "<nil>" not in found


EXPRESSIONS = [
    ("[recipient]", ["bob@x.org"]),
    ("'Hi ' + name", "Hi Bob"),
    ("`Hello ${name}\n`", "Hello Bob\n"),
    ("btoa(name)", "Qm9i"),
    ("atob('Qm9i')", "Bob"),
    ("order.title + '.pem.crt'", "pear.pem.crt"),
    ("""JSON.parse('[{"a": 1}]')""", [{"a": 1}]),
    ("order.title", "pear"),
    ("missing || name", None),
    ("(typeof mobile === 'undefined') ? 'none' : mobile", "none"),
    ("name != null && name != undefined && name != ''", True),
    ("order.price * order.quantity", 7.5),
    ("s.split(',').map(e => e.trim())", ["a", "b", "c"]),
    ("ToString(5)", "5"),
    ("attributes.name", "Bob"),
    ("name === 'Bob' ? 'yes' : 'no'", "yes"),
]


@pytest.mark.mission("DAP-163", "DAP-164")
@pytest.mark.parametrize("form", ["!%s", "{{%s}}"])
def test_expressions_are_evaluated(admin, form):
    given = {
        "recipient": "bob@x.org",
        "name": "Bob",
        "order": {"title": "pear", "price": 2.5, "quantity": 3},
        "s": " a, b ,c",
    }
    cases = [(text, expected) for text, expected in EXPRESSIONS if expected is not None]
    values = {f"v{at}": form % text for at, (text, _) in enumerate(cases)}
    outcome = {"Type": "values", "Method": "ACTIONRESPONSE", "Attributes": values}
    (response,) = run(admin, outcome, given=given)
    found = response["Attributes"]
    assert [found[f"v{at}"] for at in range(len(cases))] == [expected for _, expected in cases]


@pytest.mark.mission("DAP-163")
def test_expressions_make_ids_and_moments(admin):
    made = value_of(admin, "!uuid()")
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", made)
    moment = datetime.fromisoformat(value_of(admin, "!new Date().toISOString()"))
    assert abs((datetime.now(UTC) - moment).total_seconds()) < 60


def test_no_input_becomes_an_expression(admin):
    for evil in ("!1+1", "{{1+1}}", "~name", "$name"):
        assert value_of(admin, "~evil", evil=evil, name="Bob") == evil
        assert value_of(admin, "so $evil", evil=evil, name="Bob") == f"so {evil}"


BOMBS = [
    "!(() => { while (true) {} })()",
    "!'x'.repeat(1 << 30)",
    "!(function f() { return f() })()",
    "!/(a+)+$/.test('a'.repeat(40) + '!')",
    "!new Array(1e9).fill(0)",
    "!Function('return 1')()",
    "!(() => 0).constructor('return 1')()",
    "!eval('1')",
    "!globalThis",
    "!import('os')",
    "!() => 1",
    "!Promise.resolve(1)",
    "!require('fs').readFileSync('/etc/passwd')",
    "!nothing.at.all",
    "!{",
]


@pytest.mark.mission("DAP-165", "DAP-179")
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_an_error_soon_and_nothing_is_written(admin, bomb):
    hostname = fresh_hostname()
    name = define(admin, post(hostname), notify(bomb))
    began = time.monotonic()
    answer = admin.act("world", name)
    # An engine's own limits and a process that is killed; the machine may be busy.
    assert time.monotonic() - began < 5
    assert answer.status == 400
    assert answer.error
    assert hostname not in hostnames(admin)
    assert admin.get("/ping").text == "pong"


@pytest.mark.mission("DAP-165")
def test_a_prototype_is_as_it_was_for_the_next_call(admin):
    value_of(admin, "!(Object.prototype.evil = 1, Array.prototype.map = null, 'done')")
    assert value_of(admin, "!({}).evil === undefined && [1].map(e => e + 1)[0] === 2") is True


# -- conditions, references, what is hidden ---------------------------------------------------


@pytest.mark.mission("DAP-166")
def test_conditions_skip_outcomes(admin):
    answer = run(
        admin,
        notify("no", Condition="!amount > 5"),
        notify("nor this", Condition="!nothing.known"),
        notify("nor that", Condition="~nothing"),
        given={"amount": 1},
    )
    assert answer == []
    (only,) = run(
        admin,
        notify("yes", Condition="!mobile != null && mobile != undefined && mobile != ''"),
        given={"mobile": "123"},
    )
    assert only["Attributes"]["message"] == "yes"


@pytest.mark.mission("DAP-167", "DAP-168")
def test_outcomes_build_on_each_other(admin, nobody):
    answer = run(
        admin,
        {
            "Type": "user_account",
            "Method": "GET",
            "Reference": "user",
            "SkipInResponse": True,
            "Attributes": {"query": '[{"column": "email", "operator": "is", "value": "$email"}]'},
        },
        notify("$user[0].email"),
        notify("!user[0].email + ' ' + user.length"),
        notify("allowed", Condition="!user[0].email == email"),
        given={"email": "admin@example.com"},
    )
    messages = [each["Attributes"]["message"] for each in answer]
    assert messages == ["admin@example.com", "admin@example.com 1", "allowed"]


@pytest.mark.mission("DAP-169")
def test_an_outcome_may_fail_and_the_others_go_on(admin):
    (only,) = run(admin, FAILING | {"ContinueOnError": True}, notify("after"))
    assert only["Attributes"]["message"] == "after"
    (other,) = run(admin, notify("!wrong.name", ContinueOnError=True), notify("after"))
    assert other == only


@pytest.mark.mission("DAP-171")
def test_an_outcome_sets_status_and_header(admin):
    headers = {
        "Type": "client.header.set",
        "Method": "ACTIONRESPONSE",
        "Attributes": {"status": "201", "X-A": "$value"},
    }
    name = define(admin, headers, notify("m"))
    answer = admin.act("world", name, {"value": "b"})
    assert (answer.status, answer.headers["X-A"]) == (201, "b")
    assert [each["ResponseType"] for each in answer.json] == ["client.header.set", "client.notify"]
    injected = admin.act("world", name, {"value": "b\r\nSet-Cookie: token=x"})
    assert injected.status == 400
    assert "client.header.set" in injected.error


def test_an_answer_without_content(admin):
    headers = {
        "Type": "client.header.set",
        "Method": "ACTIONRESPONSE",
        "Attributes": {"status": 204},
    }
    answer = admin.act("world", define(admin, headers))
    assert (answer.status, answer.body) == (204, b"")


# -- rows -----------------------------------------------------------------------------------


@pytest.mark.mission("DAP-172")
def test_an_outcome_makes_rows(admin):
    user = admin.user()
    account, _ = user.account()
    box = {
        "Type": "mail_box",
        "Method": "POST",
        "Reference": "box",
        "Attributes": {"name": "~name", "mail_account_id": "~account"},
    }
    subscribe = {
        "Type": "mail_box",
        "Method": "PATCH",
        "SkipInResponse": True,
        "Attributes": {"reference_id": "~box.reference_id", "subscribed": "!false"},
    }
    made, told = run(
        admin,
        box,
        subscribe,
        notify("$box.reference_id"),
        given={"name": "Orders", "account": account},
    )
    assert made["ResponseType"] == "mail_box"
    id_ = user.boxes(account)["Orders"]
    assert (made["Attributes"]["reference_id"], told["Attributes"]["message"]) == (id_, id_)
    assert admin.row("mail_box", id_)["attributes"]["subscribed"] is False
    gone = {"Type": "mail_box", "Method": "DELETE", "Attributes": {"reference_id": "~id"}}
    run(admin, gone, given={"id": id_})
    assert "Orders" not in user.boxes(account)


@pytest.mark.mission("DAP-180")
def test_an_action_that_fails_leaves_nothing(admin, sink):
    user = admin.user()
    account, address = user.account()
    hostname, far = fresh_hostname(), f"never{next(_numbers)}@{FAR}"
    letter = {
        "Type": "mail.send",
        "Method": "EXECUTE",
        "Attributes": {
            "from": "noreply@example.com",
            "to": [address, far],
            "subject": "never",
            "body": "never",
            "send_immediately": True,
        },
    }
    answer = admin.act("world", define(admin, post(hostname), letter, FAILING))
    assert answer.status == 404
    assert answer.error
    assert hostname not in hostnames(admin)
    assert admin.rows("mail", ("subject", "is", "never")).total == 0
    assert admin.rows("outbox", ("to_address", "is", far)).total == 0
    # The same without the failure does all of it.
    assert admin.act("world", define(admin, post(hostname), letter)).status == 200
    assert hostname in hostnames(admin)
    until(lambda: [mail for mail in sink.mails if mail.recipients == [far]])
    assert len([mail for mail in sink.mails if far in mail.recipients]) == 1
    assert user.inbox(account).total == 1


def test_calls_at_the_same_time_are_all_done(admin):
    user = admin.user()
    account, _ = user.account()
    box = {
        "Type": "mail_box",
        "Method": "POST",
        "Reference": "box",
        "SkipInResponse": True,
        "Attributes": {"name": "~name", "mail_account_id": account},
    }
    name = define(admin, box, notify("~box.reference_id"))

    def call(at: int) -> Answer:
        for _ in range(50):
            answer = admin.act("world", name, {"name": f"Box{at}"})
            if answer.status != 409:
                break
        return answer

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(call, range(12)))
    assert [answer.status for answer in answers] == [200] * 12
    boxes = user.boxes(account)
    told = {answer.json[0]["Attributes"]["message"] for answer in answers}
    assert told == {boxes[f"Box{at}"] for at in range(12)}


# -- the subject, inputs ----------------------------------------------------------------------


@pytest.mark.mission("DAP-173")
def test_an_action_on_a_row(admin):
    row = admin.make("certificate", {"hostname": fresh_hostname()})
    name = define(
        admin,
        notify("$.hostname"),
        notify("!subject.hostname + '.pem.crt'"),
        notify("~subject.reference_id"),
        table="certificate",
        InstanceOptional=False,
    )
    missing = admin.act("certificate", name)
    assert (missing.status, "no reference id" in missing.error) == (400, True)
    for body in ({"certificate_id": row["id"]}, {"attributes": {"certificate_id": row["id"]}}):
        answer = admin.act("certificate", name, body)
        hostname = row["attributes"]["hostname"]
        messages = [each["Attributes"]["message"] for each in answer.json]
        assert messages == [hostname, f"{hostname}.pem.crt", row["id"]]
    unknown = admin.act("certificate", name, {"certificate_id": world_id(admin)})
    assert unknown.status == 404


@pytest.mark.mission("DAP-174", "DAP-179")
def test_a_required_input(admin):
    fields = [
        {"Name": "Amount", "ColumnName": "amount", "ColumnType": "measurement"},
        {"Name": "note", "ColumnName": "note", "ColumnType": "label", "IsNullable": True},
    ]
    name = define(admin, notify("$amount"), InFields=fields)
    refused = admin.act("world", name, {"attributes": {"note": "n"}})
    assert (refused.status, refused.error) == (400, "Field amount cannot be blank")
    assert admin.act("world", name, {"attributes": {"amount": 5}}).status == 200


@pytest.mark.mission("DAP-175")
def test_inputs_are_conformed_and_validated(admin):
    fields = [{"Name": n, "ColumnName": n, "ColumnType": "label"} for n in ("email", "word")]
    name = define(
        admin,
        notify("$email $word"),
        InFields=fields,
        Validations=[
            {"ColumnName": "email", "Tags": "required,email"},
            {"ColumnName": "word", "Tags": "min=3"},
        ],
        Conformations=[
            {"ColumnName": "email", "Tags": "trim,lowercase"},
            {"ColumnName": "word", "Tags": "trim"},
        ],
    )
    good = admin.act("world", name, {"attributes": {"email": " Bob@X.ORG ", "word": " abc "}})
    assert good.json[0]["Attributes"]["message"] == "bob@x.org abc"
    for given, wrong in (
        ({"email": "bob", "word": "abc"}, "email"),
        ({"email": "bob@x.org", "word": " ab "}, "word"),
    ):
        refused = admin.act("world", name, {"attributes": given})
        assert (refused.status, f"invalid value for {wrong}" in refused.error) == (400, True)


@pytest.mark.mission("DAP-178")
def test_inputs_come_by_form_and_query_string(admin):
    name = define(admin, notify("$a $b"))
    path = f"/action/world/{name}"
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        answer = admin.ask(method, f"{path}?b=2", b"a=1", headers=FORM)
        assert answer.json[0]["Attributes"]["message"] == "1 2", method
    answer = admin.get(path, {"a": "1", "b": "2"})
    assert answer.json[0]["Attributes"]["message"] == "1 2"


# -- who may --------------------------------------------------------------------------------


@pytest.mark.mission("DAP-177", "DAP-179")
def test_who_may_execute(admin, nobody):
    user: User = admin.user()
    closed = define(admin, notify("m"))
    for who in (user, nobody):
        refused = who.act("world", closed)
        assert (refused.status, "forbidden" in refused.error) == (403, True)
    opened = define(admin, notify("m"), permission=OPEN)
    for who in (user, nobody, admin):
        assert who.act("world", opened).status == 200
    for_users = define(admin, notify("~user.email"), permission=2085120 | 1 << 21)
    assert user.act("world", for_users).json[0]["Attributes"]["message"] == user.email
    assert nobody.act("world", for_users).status == 403


def test_rows_made_by_an_action_are_the_callers(admin, nobody):
    user: User = admin.user()
    hostname = fresh_hostname()
    assert user.create("mail_server", {"hostname": hostname}).status == 403
    name = define(admin, post(hostname, Reference="row"), permission=OPEN)
    answer = user.act("world", name)
    assert answer.status == 200
    row = admin.row("mail_server", answer.json[0]["Attributes"]["reference_id"])
    assert row["attributes"]["user_account_id"] == user.id


@pytest.mark.mission("DAP-176", "DAP-152", "DAP-179")
@pytest.mark.parametrize("name", ["nope", "mail.send", "aws.mail.send", "a%00b"])
def test_what_is_no_action_is_told(admin, nobody, name):
    for who in (admin, nobody):
        answer = who.act("world", name, {"to": "b@x.org"})
        assert (answer.status, answer.error) == (404, "no such action")


@pytest.mark.mission("DAP-176")
@pytest.mark.parametrize(
    "outcome, wrong",
    [
        ({"Type": "nope.do", "Method": "EXECUTE"}, "OutFields[0] (nope.do)"),
        ({"Type": "nope", "Method": "POST"}, "OutFields[0] (nope)"),
        ({"Type": "mail_box", "Method": "PURGE"}, "there is no Method PURGE"),
        ({"Type": "mail_box", "Method": "POST", "Attributes": []}, "Attributes is no object"),
        # Actions don't call actions, so there are no cycles of them.
        ({"Type": "signin", "Method": "EXECUTE"}, "no such performer"),
    ],
)
def test_what_nobody_can_do_is_refused_when_it_is_written(admin, outcome, wrong):
    attributes = {"action_name": "wrong", "action_schema": json.dumps({"OutFields": [outcome]})}
    relation = {"world_id": ("world", world_id(admin))}
    refused = admin.create("action", attributes, relation)
    assert (refused.status, wrong in refused.error) == (400, True)
    name = define(admin, notify("m"))
    (row,) = admin.rows("action", ("action_name", "is", name)).data
    refused = admin.patch("action", row["id"], {"action_schema": {"OutFields": [outcome]}})
    assert (refused.status, wrong in refused.error) == (400, True)
    assert admin.act("world", name).status == 200


def test_a_change_is_in_force_at_once(admin):
    name = define(admin, notify("before"))
    assert admin.act("world", name).json[0]["Attributes"]["message"] == "before"
    (row,) = admin.rows("action", ("action_name", "is", name)).data
    admin.change("action", row["id"], action_schema=json.dumps({"OutFields": [notify("after")]}))
    assert admin.act("world", name).json[0]["Attributes"]["message"] == "after"
    admin.remove("action", row["id"])
    assert admin.act("world", name).status == 404


def test_actions_are_listed(admin, nobody):
    name = define(admin, notify("secret"), InFields=[{"Name": "To", "ColumnName": "to"}])
    assert set(nobody.get("/actions").json) == {"user:signup", "user:signin"}
    listed = admin.get("/actions")
    assert {"user:signup", "user:signin", "mail_box:status"} < set(listed.json)
    assert listed.json[f"world:{name}"]["InFields"][0]["ColumnName"] == "to"
    assert "secret" not in listed.text
    assert f"world:{name}" not in admin.user().get("/actions").json
