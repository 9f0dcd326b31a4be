from __future__ import annotations

import json
from typing import Any

import pytest

from mailtwist.actions.registry import Response, notify
from mailtwist.errors import NotFound, ProtocolViolation, Refusal
from mailtwist.http import actions
from mailtwist.http.exchange import Exchange
from mailtwist.mail.permissions import NOBODY, Viewer
from mailtwist.policy.identities import Unauthorized
from tests.support.now import now

SOMEBODY = Viewer(user_id=1, reference_id="u")


class Recording:
    """Stands for the operations: notes what each call got."""

    def __init__(self, outcome=()):
        self.outcome = outcome
        self.calls = []

    async def execute(self, viewer, entity, name, attributes, *, peer=""):
        self.calls.append((viewer, entity, name, dict(attributes), peer))
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    async def listed(self, viewer):
        found: dict[str, Any] = {"user:signup": {}, "user:signin": {}}
        return found if viewer.is_guest else {**found, "world:own": {}}


def exchange(body=b"", *, method="POST", query=None, content_type="", viewer=SOMEBODY, **more):
    async def identify():
        if isinstance(viewer, Exception):
            raise viewer
        return viewer

    return Exchange(
        method,
        "/action/world/x",
        {name: (value,) for name, value in (query or {}).items()},
        lambda name: content_type if name.lower() == "content-type" else "",
        body if isinstance(body, bytes) else json.dumps(body).encode(),
        identify,
        client="192.0.2.1",
        **more,
    )


def call(operations, given):
    route = actions.routes(operations)[0]
    return now(route.run(given, entity="world", name="x"))


def attributes_of(given):
    operations = Recording()
    call(operations, given)
    ((_, entity, name, attributes, peer),) = operations.calls
    assert (entity, name, peer) == ("world", "x", "192.0.2.1")
    return attributes


@pytest.mark.mission("DAP-178")
@pytest.mark.parametrize(
    "given, attributes",
    [
        (exchange(), {}),
        (exchange(b"  "), {}),
        (exchange(b"null"), {}),
        (
            exchange({"attributes": {"a": 1}, "certificate_id": "c"}),
            {"a": 1, "certificate_id": "c"},
        ),
        (exchange({"attributes": {"certificate_id": "c"}}), {"certificate_id": "c"}),
        (exchange({"attributes": None, "a": 1}), {"a": 1}),
        (exchange({"a": 1, "attributes": {"a": 2}}), {"a": 2}),
        (exchange({"a": 1}, query={"a": "0", "b": "q", "token": "t"}), {"a": 1, "b": "q"}),
        (
            exchange({"data": {"type": "world", "attributes": {"a": 1}}}),
            {"a": 1, "type": "world"},
        ),
        (
            exchange(b"a=b&c=d+e", content_type="application/x-www-form-urlencoded"),
            {"a": "b", "c": "d e"},
        ),
        (
            exchange(b'{"a": "b"}', content_type="application/x-www-form-urlencoded"),
            {"a": "b"},
        ),
        (exchange(b'{"a": "b"}', content_type="application/json"), {"a": "b"}),
        (exchange(method="GET", query={"email": "a@x.org"}), {"email": "a@x.org"}),
    ],
)
def test_what_an_operation_gets_comes_from_every_place(given, attributes):
    assert attributes_of(given) == attributes


@pytest.mark.parametrize(
    "body, content_type",
    [
        (b"{", "application/json"),
        (b"[1]", ""),
        (b'"text"', ""),
        (b"7", ""),
        (b'{"attributes": [1]}', ""),
        (b'{"attributes": "a"}', ""),
        (b"[" * 100_000, ""),
        (b'{"a": ' * 100_000, "application/json"),
        (b'{"a": ' + b"9" * 10_000 + b"}", ""),
        (b"\xff\xfe{}", ""),
        (b"&".join(b"a%d=1" % n for n in range(2000)), "application/x-www-form-urlencoded"),
    ],
)
def test_a_body_that_cannot_be_read_reaches_no_operation(body, content_type):
    operations = Recording()
    with pytest.raises(ProtocolViolation) as refused:
        call(operations, exchange(body, content_type=content_type))
    assert refused.value.http_status in {400, 415}
    assert operations.calls == []


def test_the_answer_is_a_list_of_what_the_operation_gave():
    answer = call(Recording((notify("done"), Response("Restart"))), exchange())
    assert (answer.status, answer.content_type) == (200, "application/json")
    assert json.loads(answer.body) == [
        {
            "ResponseType": "client.notify",
            "Attributes": {"message": "done", "title": "Success", "type": "success"},
        },
        {"ResponseType": "Restart", "Attributes": None},
    ]
    assert json.loads(call(Recording(), exchange()).body) == []


@pytest.mark.mission("DAP-179")
@pytest.mark.parametrize(
    "error, status",
    [(NotFound("no such action"), 404), (Refusal("forbidden"), 403), (Unauthorized(), 401)],
)
def test_a_failure_is_one_line_for_the_person(error, status):
    answer = actions.refuse(error)
    assert answer.status == status
    assert json.loads(answer.body) == [
        {
            "ResponseType": "client.notify",
            "Attributes": {"message": error.text, "title": "failed", "type": "error"},
        }
    ]


def test_with_a_token_that_is_no_longer_good_one_may_do_what_guests_may():
    operations = Recording((notify("Logged in"),))
    assert call(operations, exchange(viewer=Unauthorized("old"))).status == 200
    assert operations.calls[0][0] == NOBODY


def test_and_is_told_of_the_token_where_guests_may_not():
    with pytest.raises(Unauthorized, match="old"):
        call(Recording(Refusal("forbidden")), exchange(viewer=Unauthorized("old")))
    with pytest.raises(Refusal, match="forbidden"):
        call(Recording(Refusal("forbidden")), exchange(viewer=NOBODY))


def test_a_foreign_page_cannot_use_the_cookie_of_a_browser():
    form = "application/x-www-form-urlencoded"
    for given in (
        exchange(method="GET", by_cookie=True),
        exchange(b"a=b", content_type=form, by_cookie=True),
        exchange(b'{"a": "b"}', content_type="text/plain", by_cookie=True),
    ):
        operations = Recording()
        with pytest.raises((Refusal, ProtocolViolation)):
            call(operations, given)
        assert operations.calls == []
    own = exchange({"a": "b"}, content_type="application/json", by_cookie=True)
    assert attributes_of(own) == {"a": "b"}


@pytest.mark.mission("DAP-023")
@pytest.mark.parametrize(
    "viewer, more",
    [(NOBODY, set()), (Unauthorized("old"), set()), (SOMEBODY, {"world:own"})],
    ids=["guest", "old token", "user"],
)
def test_everybody_is_told_what_he_may_do(viewer, more):
    route = actions.routes(Recording())[1]
    assert (route.rule, route.methods) == ("/actions", ("GET",))
    answer = now(route.run(exchange(method="GET", viewer=viewer)))
    assert set(json.loads(answer.body)) == {"user:signup", "user:signin"} | more


# -- header fields ----------------------------------------------------------------------------


def headers(**attributes):
    return Response(
        "client.header.set", {name.replace("_", "-"): v for name, v in attributes.items()}
    )


@pytest.mark.mission("DAP-171")
def test_outcomes_set_status_and_header_fields():
    answer = call(Recording((headers(status="201", X_A="b"), notify("m"))), exchange())
    assert (answer.status, answer.headers) == (201, (("X-A", "b"),))
    first, second = json.loads(answer.body)
    assert first == {
        "ResponseType": "client.header.set",
        "Attributes": {"status": "201", "X-A": "b"},
    }
    assert second["ResponseType"] == "client.notify"


def test_the_last_of_several_wins():
    outcome = (headers(status=201, X_A="a", X_B="b"), headers(X_A="c"), headers(status=202))
    answer = call(Recording(outcome), exchange())
    assert (answer.status, dict(answer.headers)) == (202, {"X-A": "c", "X-B": "b"})


@pytest.mark.parametrize("status", [204, 205, 304])
def test_some_answers_have_no_content(status):
    answer = call(Recording((headers(status=status), notify("m"))), exchange())
    assert (answer.status, answer.body) == (status, b"")


def test_a_list_is_answered_as_one():
    answer = call(Recording((Response("mail_box", [{"name": "INBOX"}]),)), exchange())
    assert json.loads(answer.body) == [
        {"ResponseType": "mail_box", "Attributes": [{"name": "INBOX"}]}
    ]
