"""Actions of one's own, run: conditions, references, what is hidden, what may fail."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event, text
from twisted.internet.defer import Deferred

from mailtwist.actions import execution, outcomes
from mailtwist.actions.performers import PERFORMERS, responses
from mailtwist.actions.registry import Performed
from mailtwist.errors import (
    Conflict,
    ExpressionError,
    MailError,
    NotFound,
    OverQuota,
    ProtocolViolation,
    Refusal,
    TemporaryFailure,
)
from mailtwist.mail.permissions import NOBODY, OPEN, SYSTEM
from mailtwist.store.entities.model import Ref
from tests.support.now import now


class Spelled:
    """Stands for JavaScript: knows what a few expressions yield."""

    def __init__(self):
        self.asked = []

    def allowance(self, who=""):
        return self

    async def evaluate(self, expressions, scope):
        self.asked += expressions
        return [self._one(each, scope) for each in expressions]

    @staticmethod
    def _one(expression, scope):
        if expression == "wrong":
            raise ExpressionError("wrong: ReferenceError")
        if expression.startswith("\\u"):
            return sorted(scope)
        return {"yes": True, "no": False}[expression]


@pytest.fixture
def own(server):
    """Makes an action of these outcomes and runs it, as the administrator unless it says."""
    server.script = Spelled()
    server.services = replace(server.services, script=server.script)
    server.operations.services = server.services
    server.bob = server.user("bob@x.org")  # while everybody may sign up
    server.admin = server.administrator()
    return Own(server)


class Own:
    def __init__(self, server):
        self.server = server
        self.count = 0

    def make(self, *out_fields, table="world", permission=0, **schema):
        self.count += 1
        row = self.table(table)
        schema = {"OutFields": list(out_fields), "InstanceOptional": True, **schema}
        given = {
            "action_name": f"own{self.count}",
            "action_schema": json.dumps(schema),
            "permission": permission,
        }
        table_row = Ref("world", row.id)
        self.row = self.server.create("action", given, self.server.admin, world_id=table_row)
        return f"own{self.count}"

    def table(self, name="world"):
        rows = self.server.rows("world", size=100)
        return next(each for each in rows if each.attributes["table_name"] == name)

    def __call__(self, *out_fields, given=None, viewer=None, table="world", **schema):
        name = self.make(*out_fields, table=table, **schema)
        return self.act(name, given, viewer, table)

    def act(self, name, given=None, viewer=None, table="world"):
        return self.server.act(table, name, given, viewer or self.server.admin)


def notify(message, **more):
    return {
        "Type": "client.notify",
        "Method": "ACTIONRESPONSE",
        "Attributes": {"message": message, "title": "t", "type": "success"},
        **more,
    }


def messages(answer):
    return [each["Attributes"]["message"] for each in answer]


def post(hostname, **more):
    return {
        "Type": "mail_server",
        "Method": "POST",
        "Attributes": {"hostname": hostname},
        **more,
    }


FAILING = {"Type": "mail_server", "Method": "GET_BY_ID", "Attributes": {"reference_id": "none"}}


def hostnames(server):
    return sorted(row.attributes["hostname"] for row in server.rows("mail_server", size=100))


# -- the answer -----------------------------------------------------------------------------


@pytest.mark.mission("DAP-170")
@pytest.mark.parametrize(
    "kind, attributes",
    [
        ("client.notify", {"message": "m", "title": "t", "type": "success"}),
        ("client.redirect", {"location": "/", "delay": 2000, "window": "self"}),
        ("client.file.download", {"content": "aGk=", "name": "a.txt", "contentType": "text/plain"}),
        ("client.store.set", {"key": "token", "value": {"a": [1, None, True]}}),
        ("anything.else", {}),
    ],
)
def test_a_response_is_returned_word_for_word(own, kind, attributes):
    answer = own({"Type": kind, "Method": "ACTIONRESPONSE", "Attributes": attributes})
    assert answer == [{"ResponseType": kind, "Attributes": attributes}]


def test_a_response_of_a_type_that_is_evaluated(own):
    answer = own(
        {
            "Type": "response.create",
            "Method": "EXECUTE",
            "Attributes": {"response_type": "~kind", "value": "$kind!"},
        },
        given={"kind": "client.notify"},
    )
    assert answer == [
        {
            "ResponseType": "client.notify",
            "Attributes": {"response_type": "client.notify", "value": "client.notify!"},
        }
    ]


def test_an_action_without_outcomes_answers_an_empty_list(own):
    assert own() == []


@pytest.mark.mission("DAP-168")
def test_what_is_hidden_is_not_answered_but_done(own):
    answer = own(
        post("a.x.org", SkipInResponse=True, Reference="made"),
        notify("$made.hostname"),
    )
    assert messages(answer) == ["a.x.org"]
    assert hostnames(own.server) == ["a.x.org"]


# -- conditions -----------------------------------------------------------------------------


@pytest.mark.mission("DAP-166")
@pytest.mark.parametrize(
    "condition, runs",
    [
        (None, True),
        ("", True),
        ("!yes", True),
        ("!no", False),
        ("{{no}}", False),
        ("~flag", True),
        ("$flag", True),
        ("1", True),
        ("0", False),
        ("$subject.hostname", False),
        ("~nothing", False),
        ("!wrong", False),
    ],
)
def test_a_condition_decides(own, condition, runs):
    answer = own(notify("m", Condition=condition), given={"flag": True})
    assert messages(answer) == (["m"] if runs else [])


# -- references and rows --------------------------------------------------------------------


@pytest.mark.mission("DAP-167")
def test_a_list_is_kept_for_later_outcomes(own):
    answer = own(
        {
            "Type": "user_account",
            "Method": "GET",
            "Reference": "user",
            "SkipInResponse": True,
            "Attributes": {
                "query": '[{"column":"email","operator":"is","value":"$email"}]',
                "page[size]": 1,
            },
        },
        notify("$user[0].email is ~user"),
        notify("~user[0].name"),
        given={"email": "admin@x.org"},
    )
    assert messages(answer) == ["admin@x.org is ~user", "admin"]


def test_the_caller_is_known(own):
    bob = own.server.bob
    out = {"Type": "a", "Method": "ACTIONRESPONSE"}
    name = own.make(out | {"Attributes": {"me": "~user.email", "id": "~user.reference_id"}})
    own.server.update(own.row, {"permission": OPEN})
    (first,) = own.act(name, viewer=own.server.admin)
    assert first["Attributes"]["me"] == "admin@x.org"
    own.server.update(own.table(), {"permission": OPEN})
    (second,) = own.act(name, viewer=bob)
    assert second["Attributes"] == {"me": "bob@x.org", "id": bob.reference_id}
    (third,) = own.act(name, viewer=NOBODY)
    assert third["Attributes"] == {"me": "", "id": ""}


@pytest.mark.mission("DAP-172")
def test_rows_are_made_changed_read_and_deleted(own):
    answer = own(
        post("a.x.org", Reference="made"),
        {
            "Type": "mail_server",
            "Method": "PATCH",
            "Attributes": {"reference_id": "~made.reference_id", "max_clients": 7},
        },
        {
            "Type": "mail_server",
            "Method": "GET_BY_ID",
            "Reference": "now",
            "Attributes": {"reference_id": "$made.reference_id"},
        },
        {
            "Type": "mail_server",
            "Method": "GET",
            "Attributes": {"sort": "hostname", "page[size]": "5", "filter": ""},
        },
        notify("~now.max_clients"),
    )
    made, changed, read, listed, told = answer
    assert [each["ResponseType"] for each in answer[:4]] == ["mail_server"] * 4
    assert made["Attributes"]["max_clients"] == 20
    assert changed["Attributes"]["max_clients"] == 7
    assert read["Attributes"] == changed["Attributes"]
    assert [row["hostname"] for row in listed["Attributes"]] == ["a.x.org"]
    assert told["Attributes"]["message"] == 7
    (row,) = own.server.rows("mail_server")
    assert row.id == made["Attributes"]["reference_id"]
    assert row.attributes["max_clients"] == 7

    deleted = own(
        {"Type": "mail_server", "Method": "DELETE", "Attributes": {"reference_id": row.id}},
        {"Type": "mail_server", "Method": "GET", "Reference": "left", "SkipInResponse": True},
    )
    assert messages(deleted) == ["Deleted mail_server"]
    assert hostnames(own.server) == []


def test_a_new_row_is_the_callers_and_made_with_an_administrators_rights(own):
    bob = own.server.bob
    with pytest.raises(Refusal):
        own.server.create("certificate", {"hostname": "b.x.org"}, bob)
    name = own.make(
        {"Type": "certificate", "Method": "POST", "Attributes": {"hostname": "~hostname"}},
    )
    own.server.update(own.row, {"permission": OPEN})
    own.server.update(own.table(), {"permission": OPEN})
    own.act(name, {"hostname": "b.x.org"}, bob)
    (row,) = own.server.rows("certificate")
    assert row.attributes["user_account_id"] == bob.reference_id


def test_a_secret_of_a_row_made_in_the_same_call_can_be_changed(own):
    own(
        {
            "Type": "mail_account",
            "Method": "POST",
            "Reference": "account",
            "Attributes": {"username": "b@x.org", "password": "adminadmin"},
        },
        {
            "Type": "mail_account",
            "Method": "PATCH",
            "Attributes": {"reference_id": "~account.reference_id", "password": "another one"},
        },
    )
    (row,) = own.server.rows("mail_account")
    assert row.attributes["username"] == "b@x.org"


def test_an_account_and_a_mailbox_in_it_are_made_in_one_call(own):
    *_, box = own(
        {
            "Type": "mail_account",
            "Method": "POST",
            "Reference": "account",
            "Attributes": {"username": "b@x.org", "password": "adminadmin"},
        },
        {
            "Type": "mail_box",
            "Method": "POST",
            "Attributes": {"name": "Orders", "mail_account_id": "~account.reference_id"},
        },
    )
    boxes = {row.attributes["name"]: row.id for row in own.server.rows("mail_box", size=100)}
    assert boxes["Orders"] == box["Attributes"]["reference_id"]


@pytest.mark.parametrize("method", ["PATCH", "DELETE", "GET_BY_ID"])
@pytest.mark.parametrize("attributes", [{}, {"reference_id": 5}])
def test_a_row_is_named_by_its_id(own, method, attributes):
    with pytest.raises(ProtocolViolation, match="reference_id is missing"):
        own({"Type": "mail_server", "Method": method, "Attributes": attributes})


@pytest.mark.parametrize(
    "attributes, reason",
    [
        ({"query": [{"column": "colour", "operator": "is", "value": 1}]}, "colour"),
        ({"query": '[{"column":'}, "query"),
        ({"sort": "colour"}, "colour"),
        ({"sort": ",".join("abcdefghijkl")}, "sort"),
        ({"sort": 5}, "sort"),
        ({"page[size]": "many"}, "page"),
        ({"page[number]": -1}, "page"),
    ],
)
def test_a_list_is_asked_for_as_over_http(own, attributes, reason):
    with pytest.raises(ProtocolViolation, match=reason):
        own({"Type": "mail_server", "Method": "GET", "Attributes": attributes})


# -- what fails -----------------------------------------------------------------------------


@pytest.mark.mission("DAP-180")
def test_an_outcome_that_fails_leaves_nothing_of_those_before_it(own):
    own.server.create("mail_account", {"username": "b@x.org", "password": "adminadmin"})
    mail = {
        "Type": "mail.send",
        "Method": "EXECUTE",
        "Attributes": {"from": "a@x.org", "to": "b@x.org", "subject": "s", "body": "b"},
    }
    with pytest.raises(NotFound):
        own(post("a.x.org"), mail, FAILING)
    assert hostnames(own.server) == []
    assert own.server.rows("mail") == ()
    assert own.server.rows("outbox") == ()
    own(post("a.x.org"), mail)
    assert (len(own.server.rows("mail")), hostnames(own.server)) == (1, ["a.x.org"])


@pytest.mark.mission("DAP-169")
@pytest.mark.parametrize(
    "failing",
    [
        FAILING,
        post("a.x.org"),
        notify("!wrong"),
        {"Type": "mail.send", "Method": "EXECUTE", "Attributes": {}},
        {"Type": "response.create", "Method": "EXECUTE", "Attributes": {}},
        {"Type": "client.header.set", "Method": "ACTIONRESPONSE", "Attributes": {"status": "x"}},
    ],
    ids=lambda each: each["Type"],
)
def test_an_outcome_may_fail(own, failing):
    own.server.create("mail_server", {"hostname": "a.x.org"})
    name = own.make(failing, notify("after"))
    with pytest.raises(MailError):
        own.act(name)
    answer = own(failing | {"ContinueOnError": True}, notify("after"))
    assert messages(answer) == ["after"]


def test_a_letter_that_nobody_has_room_for_may_fail_too(own):
    server = own.server
    server.create("mail_account", {"username": "full@x.org", "password": "correct horse"})
    full = "UPDATE account SET quota_octets = 1 WHERE username = 'full@x.org'"
    now(server.database.write(lambda connection: connection.execute(text(full))))
    letter = {
        "Type": "mail.send",
        "Method": "EXECUTE",
        "Attributes": {"from": "a@x.org", "to": "full@x.org", "subject": "s", "body": "b"},
    }
    told = {"Type": "client.notify", "Attributes": {"message": "m"}}
    with pytest.raises(OverQuota):
        own(letter, told)
    assert [each["ResponseType"] for each in own(letter | {"ContinueOnError": True}, told)] == [
        "client.notify"
    ]


def test_what_an_outcome_wrote_before_it_failed_goes_with_it(own, monkeypatch):
    async def halfway(call, _attributes):
        planned = await call.context.services.resources.creating(
            SYSTEM, "mail_server", {"hostname": "half.x.org"}, {}
        )
        await call.buffer.perform(planned.unit)
        raise Conflict("and then")

    monkeypatch.setattr(outcomes, "PERFORMERS", {**PERFORMERS, "mail.send": halfway})
    halved = {"Type": "mail.send", "Method": "EXECUTE", "ContinueOnError": True}
    own(post("a.x.org"), halved, post("b.x.org"))
    assert hostnames(own.server) == ["a.x.org", "b.x.org"]


def test_a_performer_that_is_gone_is_an_error(own, monkeypatch):
    name = own.make({"Type": "outbox.process", "Method": "EXECUTE"})
    monkeypatch.setattr(
        "mailtwist.actions.definitions.PERFORMERS",
        {name: each for name, each in PERFORMERS.items() if name != "outbox.process"},
    )
    with pytest.raises(ProtocolViolation, match=r"outbox\.process.*no such performer"):
        own.act(name)


def test_what_is_kept_has_a_bound(own):
    huge = {
        "Type": "a",
        "Method": "ACTIONRESPONSE",
        "Reference": "huge",
        "SkipInResponse": True,
        "Attributes": {"a": "~text", "b": "~text"},
    }
    with pytest.raises(ProtocolViolation, match="huge is too large"):
        own(huge, notify("~huge.a"), given={"text": "x" * 300_000})


def test_inputs_have_a_bound(own):
    with pytest.raises(ProtocolViolation, match="inputs are too large"):
        own(notify("m"), given={"text": "x" * (1 << 20)})


def test_an_answer_has_a_bound(own):
    twice = {"Type": "a", "Method": "ACTIONRESPONSE", "Attributes": {"a": "~text", "b": "~text"}}
    with pytest.raises(ProtocolViolation, match="answer"):
        own(*[twice] * 10, given={"text": "x" * 250_000})


def test_one_letter_is_one_write_and_nothing_is_tried_out(own, engine):
    commits, rollbacks = [], []
    event.listen(engine.writing, "commit", lambda connection: commits.append(1))
    event.listen(engine.writing, "rollback", lambda connection: rollbacks.append(1))
    name = own.make(
        {
            "Type": "mail.send",
            "Attributes": {"from": "a@x.org", "to": "b@far.example", "subject": "s", "body": "b"},
        },
        notify("queued"),
    )
    assert own.server.database.ids.next()  # its node number is claimed
    commits.clear()
    rollbacks.clear()
    assert messages(own.act(name)) == ["queued"]
    assert (len(commits), len(rollbacks)) == (1, 0)
    assert len(own.server.rows("outbox")) == 1


def test_rows_that_nothing_is_built_on_are_written_without_trying(own, engine):
    rollbacks = []
    event.listen(engine.writing, "rollback", lambda connection: rollbacks.append(1))
    made = [post(f"h{at}.x.org", Reference=f"row{at}") for at in range(30)]
    answer = own(*made)
    assert [each["Attributes"]["hostname"] for each in answer] == [
        f"h{at}.x.org" for at in range(30)
    ]
    assert len(hostnames(own.server)) == 30
    assert rollbacks == []
    rollbacks.clear()
    own(*[post(f"i{at}.x.org", Reference=f"row{at}") for at in range(5)], notify("$row0 $row4"))
    assert len(rollbacks) == 1, "one look serves all references"


def test_a_long_chain_of_rows_is_refused(own, monkeypatch):
    monkeypatch.setattr("mailtwist.actions.buffer.MAX_RUNS", 5)
    looks = [
        {"Type": "mail_server", "Method": "GET", "Attributes": {"filter": str(at)}}
        for at in range(4)
    ]
    own(post("a.x.org"), *looks)
    with pytest.raises(ProtocolViolation, match="too much at once"):
        own(post("b.x.org"), post("c.x.org"), *looks)
    assert hostnames(own.server) == ["a.x.org"]


def test_a_failure_that_shows_late_is_one_all_the_same(own):
    own.server.create("mail_server", {"hostname": "a.x.org"})
    with pytest.raises(Conflict, match="hostname"):
        own(post("b.x.org"), post("a.x.org"), notify("m"))
    assert hostnames(own.server) == ["a.x.org"]
    # Another outcome that may fail does not hide it.
    with pytest.raises(Conflict, match="hostname"):
        own(post("a.x.org"), post("b.x.org", ContinueOnError=True))
    assert hostnames(own.server) == ["a.x.org"]


def test_a_deletion_may_fail_too(own):
    gone = {"Type": "mail_server", "Method": "DELETE", "Attributes": {"reference_id": "none"}}
    assert messages(own(gone | {"ContinueOnError": True}, notify("m"))) == ["m"]


def test_a_reference_is_found_however_it_is_spelled(own):
    (_, told) = own(post("a.x.org", Reference="row"), notify("!\\u0072ow"))
    assert "row" in told["Attributes"]["message"], "what expressions see"


# -- others at the same time ----------------------------------------------------------------


def meanwhile(own, account, times):
    """Outcomes that make a mailbox while somebody else is quicker so many times."""
    server = own.server
    left = list(range(times))
    tried = []

    async def box(call, attributes):
        planned = await server.resources.creating(
            SYSTEM, "mail_box", {"name": "ours", "mail_account_id": account.id}, {}
        )
        item = await call.buffer.perform(planned.unit)
        tried.append(item.id)
        if left:
            name = f"theirs{left.pop()}"
            server.create("mail_box", {"name": name, "mail_account_id": account.id})
        return Performed(dict(item.attributes))

    return box, tried


@pytest.mark.parametrize("times", [1, 3])
def test_a_call_is_run_again_when_others_were_quicker(own, monkeypatch, times):
    account = own.server.create("mail_account", {"username": "b@x.org", "password": "adminadmin"})
    box, tried = meanwhile(own, account, times)
    monkeypatch.setattr(outcomes, "PERFORMERS", {**PERFORMERS, "mail.send": box})
    answer = own({"Type": "mail.send", "Reference": "box"}, notify("$box.reference_id"))
    (row,) = [
        each for each in own.server.rows("mail_box", size=100) if each.attributes["name"] == "ours"
    ]
    assert messages(answer) == [row.id]
    assert len(tried) == times + 1


def test_a_call_that_never_gets_its_turn_is_told_so(own, monkeypatch):
    account = own.server.create("mail_account", {"username": "b@x.org", "password": "adminadmin"})
    box, tried = meanwhile(own, account, 100)
    monkeypatch.setattr(outcomes, "PERFORMERS", {**PERFORMERS, "mail.send": box})
    with pytest.raises(TemporaryFailure) as caught:
        own({"Type": "mail.send"})
    assert (caught.value.http_status, len(tried)) == (409, execution.ATTEMPTS)


def test_a_call_ends_when_its_outcomes_take_too_long(own, monkeypatch):
    async def hang(call, attributes):
        await Deferred()

    monkeypatch.setattr(outcomes, "PERFORMERS", {**PERFORMERS, "mail.send": hang})
    server = own.server
    server.operations.services = replace(server.services, clock=server.clock)
    name = own.make(post("a.x.org"), {"Type": "mail.send", "ContinueOnError": True})
    running = server.operations.execute(server.admin, "world", name, {})
    answer = Deferred.fromCoroutine(running)
    server.clock.advance(execution.CALL_S - 1)
    assert not answer.called
    server.clock.advance(1)
    failures: list[Any] = []
    keep: Any = failures.append
    answer.addErrback(keep)
    (failure,) = failures
    assert isinstance(failure.value, TemporaryFailure)
    assert "longer than 30 s" in failure.value.text
    assert hostnames(server) == []


# -- the subject ----------------------------------------------------------------------------


@pytest.mark.mission("DAP-173")
def test_the_row_that_is_meant_is_there_for_expressions(own):
    row = own.server.create("mail_server", {"hostname": "a.x.org"})
    name = own.make(
        notify("$.hostname ~subject.hostname"),
        notify("~.hostname"),
        notify("~mail_server_id"),
        table="mail_server",
        InstanceOptional=False,
    )
    answer = own.act(name, {"mail_server_id": row.id}, table="mail_server")
    assert messages(answer) == ["a.x.org ~subject.hostname", "a.x.org", row.id]
    for given in ({}, {"mail_server_id": ""}, {"mail_server_id": 5}):
        with pytest.raises(ProtocolViolation, match="no reference id"):
            own.act(name, given, table="mail_server")
    unknown = {"mail_server_id": "00000000-0000-7000-8000-000000000000"}
    with pytest.raises(NotFound):
        own.act(name, unknown, table="mail_server")


def test_the_row_says_whether_a_row_is_needed_when_the_schema_does_not(own):
    name = own.make(notify("m"), table="mail_server", InstanceOptional=None)
    assert messages(own.act(name, table="mail_server")) == ["m"]
    own.server.update(own.row, {"instance_optional": False})
    with pytest.raises(ProtocolViolation, match="no reference id"):
        own.act(name, table="mail_server")


# -- who may --------------------------------------------------------------------------------


@pytest.mark.mission("DAP-177")
def test_both_gates_must_be_open(own):
    bob = own.server.bob
    name = own.make(notify("m"))
    with pytest.raises(Refusal, match="forbidden"):
        own.act(name, viewer=bob)
    with pytest.raises(Refusal, match="forbidden"):
        own.act(name, viewer=NOBODY)
    own.server.update(own.row, {"permission": 2085152})
    assert messages(own.act(name, viewer=bob)) == ["m"]
    assert messages(own.act(name, viewer=NOBODY)) == ["m"]


@pytest.mark.mission("DAP-176", "DAP-152")
@pytest.mark.parametrize("name", ["mail.send", "nope", "aws.mail.send", "__become_admin"])
def test_performers_are_no_actions(own, name):
    with pytest.raises(NotFound, match="no such action"):
        own.act(name, {"to": "b@x.org"})


def test_actions_are_listed_for_those_who_may_execute_them(own):
    server = own.server
    bob = server.bob
    name = own.make(
        notify("m"),
        InFields=[{"Name": "To", "ColumnName": "to", "ColumnType": "email"}],
        Validations=[{"ColumnName": "to", "Tags": "required,email"}],
    )
    guests = now(server.operations.listed(NOBODY))
    assert set(guests) == {"user:signup", "user:signin"}
    mine = now(server.operations.listed(bob))
    assert "mail_box:status" in mine
    assert f"world:{name}" not in mine
    every = now(server.operations.listed(server.admin))
    assert every[f"world:{name}"] == {
        "Name": name,
        "Label": "",
        "OnType": "world",
        "InstanceOptional": True,
        "InFields": [
            {"Name": "To", "ColumnName": "to", "ColumnType": "email", "IsNullable": False}
        ],
        "Validations": [{"ColumnName": "to", "Tags": "required,email"}],
    }
    assert "OutFields" not in json.dumps(every)
    server.update(own.row, {"permission": OPEN})
    assert f"world:{name}" in now(server.operations.listed(bob))


def test_a_list_has_pages(own, monkeypatch):
    monkeypatch.setattr(execution, "LIST_PAGE", 3)
    every = now(own.server.operations.listed(own.server.admin))
    assert "certificate:download_certificate" in every
    assert len(every) == 2 + len(own.server.rows("action", size=100))


# -- the server -----------------------------------------------------------------------------


def test_listeners_are_brought_in_line_after_the_commit(own):
    seen = []

    async def apply():
        seen.append(hostnames(own.server))

    own.server.listeners.apply = apply
    assert own(post("a.x.org", SkipInResponse=True), {"Type": "mail.servers.sync"}) == []
    assert seen == [["a.x.org"]]


def test_nothing_happens_outside_when_a_later_outcome_fails(own):
    outside = ("mail.servers.sync", "outbox.process", "__restart")
    with pytest.raises(NotFound):
        own(*[{"Type": kind, "Method": "EXECUTE"} for kind in outside], FAILING)
    assert own.server.listeners.calls == []
    assert own.server.runner.runs == 0
    answer = own(*[{"Type": kind, "Method": "EXECUTE"} for kind in outside])
    assert own.server.listeners.calls == ["apply", "restart"]
    assert own.server.runner.runs == 1
    assert [each["ResponseType"] for each in answer] == ["client.notify", "client.redirect"]


def test_what_fails_outside_is_told_unless_it_may(own):
    own.server.listeners.error = Conflict("a.x.org and b.x.org")
    sync = {"Type": "mail.servers.sync", "Method": "EXECUTE"}
    with pytest.raises(Conflict, match=r"a\.x\.org"):
        own(sync)
    assert messages(own(sync | {"ContinueOnError": True}, notify("m"))) == ["m"]


def test_there_is_one_first_administrator(own):
    with pytest.raises(Refusal, match="Unauthorized"):
        own({"Type": "__become_admin", "Method": "EXECUTE"})


def test_mailboxes_of_others_are_not_told(own):
    bob = own.server.bob
    own.server.create("mail_account", {"username": "b@x.org", "password": "adminadmin"})
    status = {"Type": "mail_box.status", "Method": "EXECUTE", "Reference": "s"}
    name = own.make(status, table="mail_box")
    own.server.update(own.row, {"permission": OPEN})
    (mine,) = own.act(name, viewer=bob, table="mail_box")
    (every,) = own.act(name, table="mail_box")
    assert mine["Attributes"]["data"] == []
    assert len(every["Attributes"]["data"]) == 6


# -- headers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "attributes",
    [
        {"status": "700"},
        {"status": "20"},
        {"X-A": "a\r\nB: c"},
        {"X-A": "ä"},
        {"X A": "b"},
        {"Content-Length": "0"},
        {"transfer-encoding": "chunked"},
        {"Content-Type": "text/html"},
        {"X-A": "x" * 5000},
        {f"X-{n}": "a" for n in range(21)},
    ],
    ids=lambda each: next(iter(each))[:20],
)
def test_headers_that_http_cannot_carry_are_refused(attributes):
    with pytest.raises(ProtocolViolation, match=r"client\.header\.set"):
        responses.read_headers(attributes)


def test_headers_are_read():
    read = responses.read_headers({"Status": 201, "X-A": " b ", "X-N": 5, "X-T": True})
    assert read == (201, {"X-A": "b", "X-N": "5", "X-T": "true"})
