"""Whatever is sent: an answer in 4xx and JSON, soon, and nothing is changed."""

from __future__ import annotations

import json
import time
import uuid

import pytest

from tests.support.rest import JSON_API, SECRET, Rest, document

# An id that no row has; the same in each process that collects the tests.
NOBODY = "0199a0b1-2c3d-7e4f-8a5b-6c7d8e9f0a1b"

pytestmark = [pytest.mark.real]


def deep(depth: int, inner: str = "1") -> str:
    return "[" * depth + inner + "]" * depth


def attributes(text: str) -> bytes:
    return b'{"data":{"type":"mail_server","attributes":%s}}' % text.encode()


BODIES = {
    "nothing": b"",
    "no JSON": b"hello",
    "half": b'{"data":{"type":"mail_server"',
    "a number": b"1",
    "null": b"null",
    "a list": b"[]",
    "text": b'"x"',
    "null data": b'{"data":null}',
    "data is a list": b'{"data":[]}',
    "data is text": b'{"data":"x"}',
    "another type": b'{"data":{"type":"mail_account","attributes":{"hostname":"bad.example"}}}',
    "type is a number": b'{"data":{"type":1,"attributes":{"hostname":"bad.example"}}}',
    "attributes are a list": attributes("[]"),
    "attributes are text": attributes('"x"'),
    "relationships are text": b'{"data":{"type":"mail_server","attributes":'
    b'{"hostname":"bad.example"},"relationships":"x"}}',
    "a relation is text": b'{"data":{"type":"mail_server","attributes":'
    b'{"hostname":"bad.example"},"relationships":{"user_account_id":"x"}}}',
    "an unknown relation": b'{"data":{"type":"mail_server","attributes":'
    b'{"hostname":"bad.example"},"relationships":{"nope":{"data":null}}}}',
    "a relation to another table": b'{"data":{"type":"mail_server","attributes":'
    b'{"hostname":"bad.example"},"relationships":{"user_account_id":{"data":'
    b'{"type":"mail_box","id":"00000000-0000-7000-8000-000000000000"}}}}}',
    "deep": attributes(deep(500)),
    "deeper": deep(100_000).encode(),
    "deep objects": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "a long number": attributes('{"hostname":"bad.example","max_size":' + "9" * 10_000 + "}"),
    "a number of 401 digits": attributes('{"hostname":"bad.example","max_size":%s}' % ("9" * 401)),
    "a number beyond the column": attributes('{"hostname":"bad.example","max_size":1e30}'),
    "2 to the 63rd": attributes('{"hostname":"bad.example","max_size":9223372036854775808}'),
    "a negative size": attributes('{"hostname":"bad.example","max_size":-1}'),
    "a broken size": attributes('{"hostname":"bad.example","max_size":1.5}'),
    "no number": attributes('{"hostname":"bad.example","max_size":"many"}'),
    "NaN": attributes('{"hostname":"bad.example","max_size":NaN}'),
    "infinity": attributes('{"hostname":"bad.example","max_size":Infinity}'),
    "a list as number": attributes('{"hostname":"bad.example","max_size":[1]}'),
    "an object as text": attributes('{"hostname":{"a":1}}'),
    "a list as text": attributes('{"hostname":["bad.example"]}'),
    "a number as text": attributes('{"hostname":7}'),
    "an empty name": attributes('{"hostname":""}'),
    "a long name": attributes('{"hostname":"%s.example"}' % ("a" * 5000)),
    "no host name": attributes('{"hostname":"bad example"}'),
    "NUL": attributes('{"hostname":"bad\\u0000.example"}'),
    "a line end": attributes('{"hostname":"bad.example\\r\\nX: y"}'),
    "half a character": attributes('{"hostname":"bad\\ud800.example"}'),
    "perhaps": attributes('{"hostname":"bad.example","is_enabled":"perhaps"}'),
    "two": attributes('{"hostname":"bad.example","is_enabled":2}'),
    "nowhere": attributes('{"hostname":"bad.example","listen_interface":"nowhere"}'),
    "no port": attributes('{"hostname":"bad.example","listen_interface":"127.0.0.1:99999"}'),
    "an unknown column": attributes('{"hostname":"bad.example","colour":"red"}'),
    "a column of SQL": attributes('{"hostname":"bad.example","id = 1; --":"red"}'),
    "a permission of text": attributes('{"hostname":"bad.example","permission":"all"}'),
    "a permission beyond": attributes('{"hostname":"bad.example","permission":99999999999}'),
    "a negative permission": attributes('{"hostname":"bad.example","permission":-1}'),
    "bad UTF-8": attributes('{"hostname":"bad.example","x":"') + b"\xff\xfe",
    "UTF-16": attributes('{"hostname":"bad.example"}').decode().encode("utf-16"),
    "many columns": attributes(json.dumps({f"c{n}": n for n in range(10_000)})),
}


@pytest.fixture(scope="module")
def target(admin):
    return admin.make("mail_server", {"hostname": "target.example"})


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_none(admin, target, name):
    body = BODIES[name]
    before = admin.get("/api/mail_server").total
    start = time.monotonic()
    answers = [admin.post("/api/mail_server", body)]
    if name not in {"nothing", "another type"}:
        patched = body.replace(
            b'"mail_server",', b'"mail_server","id":"%s",' % target["id"].encode()
        )
        answers.append(admin.ask("PATCH", f"/api/mail_server/{target['id']}", patched))
    assert time.monotonic() - start < 1
    for answer in answers:
        assert 400 <= answer.status < 500, answer
        if answer.status != 413:
            assert answer.error
    assert admin.get("/api/mail_server").total == before
    assert admin.row("mail_server", target["id"]) == target
    for action in ("signin", "signup"):
        assert admin.guest.post(f"/action/user_account/{action}", body).status in range(400, 500)


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", JSON_API, f"{JSON_API}; ext=x", ""],
)
def test_json_is_json_by_any_name(admin, content_type):
    name = f"ct{uuid.uuid4().hex[:8]}.example"
    body = json.dumps(document("mail_server", {"hostname": name})).encode()
    answer = admin.post("/api/mail_server", body, headers={"Content-Type": content_type})
    assert answer.status == 201


@pytest.mark.parametrize(
    "content_type", ["application/xml", "image/png", "multipart/form-data; boundary=x", "\xe9"]
)
def test_what_says_that_it_is_something_else_and_is(admin, content_type):
    answer = admin.post("/api/mail_server", b"<x/>", headers={"Content-Type": content_type})
    assert answer.status in {400, 415}
    assert answer.error


QUERIES = [
    "page[size]=x",
    "page[size]=-1",
    "page[size]=" + "9" * 5000,
    "page[number]=0",
    "page[number]=-1",
    "page[number]=1e9",
    "page[number]=" + "9" * 400,
    "page[number]=99999999999999999999",
    "sort=",
    "sort=-",
    "sort=%00",
    "fields=%00",
    "fields=" + "a," * 3000,
    "included_relations=nope",
    "included_relations=" + "mail_server_id," * 500,
    "query=%5B%00%5D",
    "query=%FF%FE",
    "filter=%00",
    "filter=" + "x" * 8000,
    "token=x",
    "token=%00",
    "%00=%00",
    "&&&===",
    "a" * 4000,
    "page[after]=' OR 1=1 --",
    "page[size]=1&page[size]=2",
]


@pytest.mark.parametrize("query", QUERIES, ids=lambda text: text[:40])
def test_a_query_string_of_any_kind(admin, query):
    start = time.monotonic()
    for entity in ("mail_server", "mail", "outbox"):
        answer = admin.get(f"/api/{entity}?" + query.replace(" ", "%20").replace("'", "%27"))
        assert answer.status < 500, answer
        if answer.status not in {200, 414}:
            assert answer.error
    assert time.monotonic() - start < 1


METHODS = ["PUT", "TRACE", "OPTIONS", "HEAD", "FOO", "POST", "PATCH", "DELETE"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "path", ["/api/mail", "/api/world", f"/api/mail/{NOBODY}", "/meta", "/openapi.yaml", "/"]
)
def test_a_method_of_any_kind(admin, method, path):
    before = admin.get("/api/world").total
    answer = admin.ask(method, path, b"{}" if method == "POST" else None)
    assert answer.status < 500, answer
    assert admin.get("/api/world").total == before


# -- mass assignment ------------------------------------------------------------------------


def test_nobody_makes_himself_an_administrator(admin):
    user = admin.user()
    (group,) = admin.rows("usergroup", ("name", "is", "administrators")).ids
    linked = {"type": "usergroup", "id": group}
    tries = [
        user.patch("user_account", user.id, {"is_admin": True}),
        user.patch("user_account", user.id, {"usergroup_id": group}),
        user.patch("user_account", user.id, {"auth_version": 99}),
        user.patch("user_account", user.id, None, {"usergroup_id": [("usergroup", group)]}),
        user.post(f"/api/user_account/{user.id}/relationships/usergroup_id", {"data": [linked]}),
        user.post(
            f"/api/usergroup/{group}/relationships/member_id",
            {"data": [{"type": "user_account", "id": user.id}]},
        ),
        user.create("usergroup", {"name": "administrators"}),
        user.patch("usergroup", group, {"permission": 2097151}),
        user.patch("usergroup", group, {"user_account_id": user.id}),
    ]
    for answer in tries:
        assert 400 <= answer.status < 500, answer
    assert user.get("/_config").status == 403


def test_nobody_opens_a_table_or_an_action_for_himself(admin):
    user = admin.user()
    (world,) = admin.rows("world", ("table_name", "is", "mail")).data
    (action,) = admin.rows("action", ("action_name", "is", "sync_mail_servers")).data
    for entity, row in (("world", world), ("action", action)):
        for given in ({"permission": 2097151}, {"user_account_id": user.id}):
            answer = user.patch(entity, row["id"], given)
            assert answer.status in {400, 403, 404}, answer
        shown = admin.row(entity, row["id"])
        assert shown["attributes"]["permission"] == row["attributes"]["permission"]
    assert user.act("mail_server", "sync_mail_servers").status == 403
    assert user.act("world", "restart_daptin").status == 403
    assert user.act("outbox", "process_outbox").status == 403


@pytest.mark.parametrize(
    "entity, given",
    [
        ("mail_server", {"hostname": "user.example"}),
        ("mail_account", {"username": "mine@example.com", "password": SECRET}),
        ("domain", {"name": "user-domain.example"}),
        ("alias", {"address": "postmaster@example.com", "targets": "mine@example.com"}),
        ("certificate", {"hostname": "user.example"}),
        ("user_account", {"name": "x", "email": "made@x.example", "password": SECRET}),
        ("world", {"table_name": "mine"}),
        ("action", {"action_name": "mine", "action_schema": "{}"}),
        ("task", {"name": "mine", "action_name": "signup", "schedule": "@every 1s"}),
    ],
)
def test_a_user_makes_no_rows_of_the_server(admin, entity, given):
    user = admin.user()
    answer = user.create(entity, given)
    assert 400 <= answer.status < 500, answer
    assert user.guest.create(entity, given).status in {403, 405}


def test_a_row_is_made_in_nobody_elses_name(admin):
    one, two = admin.user(), admin.user()
    given = {"name": "mine", "content": "{}", "user_account_id": two.id}
    answer = one.create("credential", given)
    if answer.status == 201:  # then it is his own all the same
        assert two.get("/api/credential").data == []
    else:
        assert answer.status in {400, 403}


def test_the_server_is_well_after_all_that(admin, server):
    assert admin.get("/health").status == 200
    assert "http request failed" not in server.log
    assert Rest(server.ports["http"]).get("/ping").text == "pong"
