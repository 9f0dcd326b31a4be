"""The routes of rows over a fake that remembers what it was asked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mailtwist.errors import Conflict, NotFound, ProtocolViolation, StoreUnavailable
from mailtwist.http import jsonapi
from mailtwist.mail.filters import AllOf, Comparison, Operator
from mailtwist.store.entities.model import AccessDenied, Item, ListRequest, Page, Ref
from tests.http.asking import Server
from tests.support.now import now

A = "0199aaaa-0000-7000-8000-000000000001"
B = "0199aaaa-0000-7000-8000-000000000002"
SERVER = "0199aaaa-0000-7000-8000-0000000000ff"
JSONAPI = "application/vnd.api+json"


def row(row_id=A, entity="mail_account", **attributes):
    return Item(
        entity,
        row_id,
        {"__type": entity, "reference_id": row_id, "mail_server_id": SERVER, **attributes},
        {"mail_server_id": Ref("mail_server", SERVER), "user_account_id": None},
    )


class Resources:
    def __init__(self):
        self.calls = []
        self.page = Page((row(),), 1)
        self.raises = None

    def _called(self, *call):
        self.calls.append(call)
        if self.raises is not None:
            raise self.raises

    async def list(self, viewer, entity, request):
        self._called("list", entity, request)
        return self.page

    async def get(self, viewer, entity, id, *, columns=None, includes=()):
        self._called("get", entity, id, columns, includes)
        return self.page

    async def create(self, viewer, entity, attributes, relations):
        self._called("create", entity, attributes, relations)
        return self.page.items[0]

    async def update(self, viewer, entity, id, attributes, relations):
        self._called("update", entity, id, attributes, relations)
        return self.page.items[0]

    async def delete(self, viewer, entity, id):
        self._called("delete", entity, id)

    async def related(self, viewer, entity, id, relation, request):
        self._called("related", entity, id, relation, request)
        return self.page

    async def relate(self, viewer, entity, id, relation, refs):
        self._called("relate", entity, id, relation, refs)

    async def unrelate(self, viewer, entity, id, relation, refs):
        self._called("unrelate", entity, id, relation, refs)

    async def replace(self, viewer, entity, id, relation, refs):
        self._called("replace", entity, id, relation, refs)


@pytest.fixture
def resources():
    return Resources()


@pytest.fixture
def server(resources):
    return Server(resources=resources)


# -- rows out -------------------------------------------------------------------------------


def test_a_row(server):
    answer = server.answer("GET", f"/api/mail_account/{A}")
    assert answer.status == 200
    assert answer.headers["content-type"] == JSONAPI
    data = answer.json["data"]
    assert (data["type"], data["id"]) == ("mail_account", A)
    assert data["attributes"]["reference_id"] == A
    assert data["relationships"]["mail_server_id"] == {
        "data": {"type": "mail_server", "id": SERVER},
        "links": {
            "self": f"/api/mail_account/{A}/relationships/mail_server_id",
            "related": f"/api/mail_account/{A}/mail_server_id",
        },
    }
    assert data["relationships"]["user_account_id"]["data"] is None
    assert "included" not in answer.json


def test_a_list_of_other_rows_is_linked(server):
    relationships = server.answer("GET", f"/api/mail_account/{A}").json["data"]["relationships"]
    assert relationships["mail_box_id"] == {
        "links": {
            "self": f"/api/mail_account/{A}/relationships/mail_box_id",
            "related": f"/api/mail_account/{A}/mail_box_id",
        }
    }


def test_rows_that_come_along(server, resources):
    resources.page = Page((row(),), 1, (row(SERVER, "mail_server"),))
    answer = server.answer("GET", f"/api/mail_account/{A}?included_relations=mail_server_id")
    assert [each["type"] for each in answer.json["included"]] == ["mail_server"]
    listed = server.answer("GET", "/api/mail_account?include=mail_server_id")
    assert [each["id"] for each in listed.json["included"]] == [SERVER]
    assert resources.calls[0][-1] == ("mail_server_id",)
    assert resources.calls[1][-1].includes == ("mail_server_id",)


def test_what_a_mail_brought_is_shown_whatever_it_is(server, resources):
    resources.page = Page((row(username="a\ud800\x00é"),), 1)
    answer = server.answer("GET", f"/api/mail_account/{A}")
    assert answer.json["data"]["attributes"]["username"] == "a?\x00é"


# -- lists ----------------------------------------------------------------------------------


@pytest.mark.mission("DAP-036")
def test_where_a_page_stands(server, resources):
    resources.page = Page(tuple(row() for _ in range(5)), 12)
    answer = server.answer("GET", "/api/mail_box?page[size]=5&page[number]=2&sort=name&token=x")
    links = answer.json["links"]
    base = "http://mail.example.com/api/mail_box?sort=name"
    assert links == {
        "total": 12,
        "per_page": 5,
        "current_page": 2,
        "last_page": 3,
        "from": 6,
        "to": 10,
        "first_page_url": f"{base}&page[number]=1&page[size]=5",
        "prev_page_url": f"{base}&page[number]=1&page[size]=5",
        "next_page_url": f"{base}&page[number]=3&page[size]=5",
        "last_page_url": f"{base}&page[number]=3&page[size]=5",
    }
    assert len(answer.json["data"]) == 5


def test_the_url_of_another_page_asks_for_the_same(server, resources):
    resources.page = Page((row(),), 20)
    path = '/api/mail_box?query=[{"column":"name","operator":"is","value":"a%20%26b"}]&fields=name'
    asked = server.answer("GET", path).json["links"]["next_page_url"]
    assert asked.startswith("http://mail.example.com/api/mail_box?")
    server.answer("GET", asked.removeprefix("http://mail.example.com"))
    first, second = (call[-1] for call in resources.calls)
    assert second.filter == first.filter
    assert second.filter == AllOf((Comparison("name", Operator.EQ, "a &b"),))
    assert (second.number, second.columns) == (2, frozenset({"name"}))


def test_no_rows_are_one_empty_page(server, resources):
    resources.page = Page((), 0)
    answer = server.answer("GET", "/api/mail_box")
    links = answer.json["links"]
    assert answer.json["data"] == []
    assert (links["total"], links["last_page"], links["from"], links["to"]) == (0, 1, 0, 0)
    assert links["next_page_url"] == ""


@pytest.mark.parametrize(
    ("query", "members"),
    [
        ("", {"size": 10, "number": 1, "columns": None}),
        ("page[size]=0", {"size": 1}),
        ("page[size]=1000", {"size": 1000}),
        ("page[size]=100000", {"size": 1000}),
        ("page[number]=0", {"number": 1}),
        ("page%5Bnumber%5D=3", {"number": 3}),
        (f"page[after]={A}", {"after": A}),
        (f"page[before]={A}", {"before": A}),
        ("sort=-name,created_at", {"sort": (("name", True), ("created_at", False))}),
        ("sort=+name", {"sort": (("name", False),)}),
        ("fields=a,%20b", {"columns": frozenset({"a", "b"})}),
        ("fields[mail_box]=a&fields[mail]=b", {"columns": frozenset({"a"})}),
        ("fields=", {"columns": None}),
        ("filter=x%20y", {"text": "x y"}),
        ("query=x", {"filter": None}),
        ("query=[]", {"filter": None}),
        ("_=123&whatever=1", {}),
        ("included_relations=a&include=b,a", {"includes": ("a", "b")}),
    ],
)
@pytest.mark.mission("DAP-037")
def test_what_a_list_is_asked_for(server, resources, query, members):
    assert server.answer("GET", f"/api/mail_box?{query}").status == 200
    ((_, entity, request),) = resources.calls
    assert entity == "mail_box"
    assert isinstance(request, ListRequest)
    assert {name: getattr(request, name) for name in members} == members


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("page[size]=x", "page[size]"),
        ("page[size]=-1", "page[size]"),
        ("page[size]=1.5", "page[size]"),
        ("page[size]=" + "9" * 5000, "page[size]"),
        ("page[number]=9999999999", "page[number]"),
        ("page[number]=%D9%A3", "page[number]"),
        ("sort=" + ",".join("abcdefghijk"), "sort"),
        ("fields=" + ",".join(["a"] * 101), "fields"),
        ("query=[{", "query"),
        ("query=[1]", "query"),
        ("a=%ff", "query string"),
        ("a=%00", "NUL"),
    ],
)
def test_a_list_that_makes_no_sense(server, resources, query, named):
    answer = server.answer("GET", f"/api/mail_box?{query}")
    assert answer.status == 400
    assert named in answer.error["detail"]
    assert resources.calls == []


def test_all_includes(server, resources):
    server.answer("GET", "/api/mail_box?include=*")
    ((_, _, request),) = resources.calls
    assert "mail_account_id" in request.includes
    assert "*" not in request.includes


# -- rows in --------------------------------------------------------------------------------


@pytest.mark.mission("DAP-030")
def test_a_new_row(server, resources):
    answer = server.answer(
        "POST",
        "/api/mail_account",
        {
            "data": {
                "type": "mail_account",
                "attributes": {"username": "a@x.org", "permission": 0},
                "relationships": {
                    "mail_server_id": {"data": {"type": "mail_server", "id": SERVER}},
                    "user_account_id": {"data": None},
                    "usergroup_id": {"data": [{"id": B}]},
                    "mail_box_id": {"links": {}},
                },
            },
            "meta": {},
        },
    )
    assert answer.status == 201
    assert answer.headers["location"] == f"/api/mail_account/{A}"
    assert answer.headers["content-type"] == JSONAPI
    assert answer.json["data"]["id"] == answer.json["data"]["attributes"]["reference_id"]
    ((_, entity, attributes, relations),) = resources.calls
    assert (entity, attributes) == ("mail_account", {"username": "a@x.org", "permission": 0})
    assert relations["mail_server_id"] == Ref("mail_server", SERVER)
    assert relations["user_account_id"] is None
    assert relations["usergroup_id"] == (Ref("", B),)


@pytest.mark.parametrize(
    ("document", "status", "named"),
    [
        (None, 400, "data"),
        ({}, 400, "data"),
        ([], 400, "object"),
        ("x", 400, "object"),
        ({"data": []}, 400, "data"),
        ({"data": None}, 400, "data"),
        ({"data": {"type": "mail_box"}}, 409, "data.type"),
        ({"data": {"type": 5}}, 409, "data.type"),
        ({"data": {"attributes": []}}, 400, "data.attributes"),
        ({"data": {"relationships": "x"}}, 400, "data.relationships"),
        ({"data": {"relationships": {"a": "x"}}}, 400, "data.relationships.a"),
        ({"data": {"relationships": {"a": {}}}}, 400, "data.relationships.a"),
        ({"data": {"relationships": {"a": {"data": 1}}}}, 400, "data.relationships.a"),
        ({"data": {"relationships": {"a": {"data": {"id": 1}}}}}, 400, "data.relationships.a"),
        ({"data": {"relationships": {"a": {"data": [{}]}}}}, 400, "data.relationships.a"),
        (
            {"data": {"relationships": {"a": {"data": [{"id": A}] * 1001}}}},
            400,
            "data.relationships.a",
        ),
        ({"data": {"relationships": {"a": {"data": {"id": A, "type": 1}}}}}, 400, "type"),
    ],
)
def test_a_document_that_makes_no_sense(server, resources, document, status, named):
    answer = server.answer("POST", "/api/mail_account", document)
    assert answer.status == status
    assert named in answer.error["detail"]
    assert resources.calls == []


def test_a_changed_row(server, resources):
    body = {"data": {"type": "mail_account", "id": A, "attributes": {"username": "b"}}}
    answer = server.answer("PATCH", f"/api/mail_account/{A}", body)
    assert answer.status == 200
    assert answer.json["data"]["id"] == A
    assert resources.calls == [("update", "mail_account", A, {"username": "b"}, {})]


@pytest.mark.mission("DAP-048")
def test_the_id_of_a_changed_row_is_that_of_its_address(server, resources):
    body: Any = {"data": {"type": "mail_account", "id": B, "attributes": {}}}
    answer = server.answer("PATCH", f"/api/mail_account/{A}", body)
    assert answer.status == 409
    assert answer.error["detail"] == "id in the resource does not match servers endpoint"
    assert resources.calls == []
    for unsaid in ("", None):
        named: Any = {"data": {"attributes": {}, "id": unsaid}}
        assert server.answer("PATCH", f"/api/mail_account/{A}", named).status == 200


@pytest.mark.mission("DAP-049")
def test_a_deleted_row(server, resources):
    answer = server.answer("DELETE", f"/api/mail_account/{A}")
    assert (answer.status, answer.json) == (200, {"meta": None})
    assert resources.calls == [("delete", "mail_account", A)]


@pytest.mark.parametrize(
    ("error", "status", "title"),
    [
        (NotFound("no such row"), 404, "Not Found"),
        (AccessDenied(AccessDenied.TABLE), 403, "TableAccessPermissionChecker"),
        (AccessDenied(AccessDenied.ROW), 403, "ObjectAccessPermissionChecker"),
        (Conflict("hostname: exists"), 409, "Conflict"),
        (ProtocolViolation("name: is missing"), 400, "Bad Request"),
        (StoreUnavailable(detail="private"), 503, "Service Unavailable"),
    ],
)
def test_errors_of_rows(server, resources, error, status, title):
    resources.raises = error
    for method, path in [("GET", "/api/mail_box"), ("DELETE", f"/api/mail_box/{A}")]:
        answer = server.answer(method, path)
        assert answer.status == status
        assert answer.error["title"] == title
        assert answer.error["detail"] == error.text
        assert b"private" not in answer.body


@pytest.mark.mission("DAP-050")
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/nope"),
        ("POST", "/api/nope"),
        ("GET", f"/api/nope/{A}"),
        ("PATCH", f"/api/nope/{A}"),
        ("DELETE", f"/api/nope/{A}"),
        ("GET", f"/api/nope/{A}/x"),
        ("GET", f"/api/mail_box/{A}/nope"),
        ("GET", f"/api/mail_box/{A}/relationships/nope"),
        ("PATCH", f"/api/mail_box/{A}/relationships/nope"),
        ("GET", "/api"),
        ("GET", "/api/"),
    ],
)
def test_what_there_is_not(server, resources, method, path):
    body: Any = {"data": {"attributes": {}}} if method in {"POST", "PATCH"} else None
    answer = server.answer(method, path, body)
    assert answer.status == 404
    assert answer.json["errors"][0]["status"] == "404"
    assert resources.calls == []


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_a_list_takes_no_other_method(server, method):
    answer = server.answer(method, "/api/mail_box")
    assert answer.status == 405
    assert "POST" in answer.headers["allow"]


# -- relations ------------------------------------------------------------------------------


def test_the_row_behind_a_relation(server, resources):
    resources.page = Page((row(SERVER, "mail_server"),), 1)
    answer = server.answer("GET", f"/api/mail_account/{A}/mail_server_id")
    assert answer.json["data"]["id"] == SERVER
    assert resources.calls[0][:4] == ("related", "mail_account", A, "mail_server_id")
    resources.page = Page((), 0)
    empty = server.answer("GET", f"/api/mail_account/{A}/mail_server_id")
    assert (empty.status, empty.json["data"]) == (200, None)


def test_the_rows_behind_a_relation(server, resources):
    resources.page = Page((row(B, "mail_box"),), 30)
    answer = server.answer("GET", f"/api/mail_account/{A}/mail_box_id?page[size]=1")
    assert [each["id"] for each in answer.json["data"]] == [B]
    assert answer.json["links"]["total"] == 30
    assert resources.calls[0][-1].size == 1


def test_the_ids_behind_a_relation(server, resources):
    resources.page = Page((row(SERVER, "mail_server"),), 1)
    one = server.answer("GET", f"/api/mail_account/{A}/relationships/mail_server_id").json
    assert one["data"] == {"type": "mail_server", "id": SERVER}
    resources.page = Page((row(B, "mail_box"),), 1)
    many = server.answer("GET", f"/api/mail_account/{A}/relationships/mail_box_id").json
    assert many["data"] == [{"type": "mail_box", "id": B}]
    assert many["links"]["total"] == 1


@pytest.mark.parametrize(
    ("method", "call"), [("POST", "relate"), ("DELETE", "unrelate"), ("PATCH", "replace")]
)
def test_a_list_is_changed(server, resources, method, call):
    path = f"/api/mail_account/{A}/relationships/usergroup_id"
    answer = server.answer(method, path, {"data": [{"type": "usergroup", "id": B}]})
    assert answer.status == 200
    expected = (call, "mail_account", A, "usergroup_id", (Ref("usergroup", B),))
    assert resources.calls[0] == expected


@pytest.mark.parametrize("data", [{"type": "mail_server", "id": SERVER}, None])
def test_a_single_row_is_replaced(server, resources, data):
    path = f"/api/mail_account/{A}/relationships/mail_server_id"
    assert server.answer("PATCH", path, {"data": data}).status == 200
    expected = Ref("mail_server", SERVER) if data else None
    assert resources.calls[0] == ("replace", "mail_account", A, "mail_server_id", expected)


@pytest.mark.parametrize(
    ("method", "relation", "body"),
    [
        ("POST", "mail_server_id", {"data": {"id": A}}),
        ("POST", "mail_server_id", {"data": [{"id": A}]}),
        ("DELETE", "mail_server_id", {"data": None}),
        ("PATCH", "mail_server_id", {"data": [{"id": A}]}),
        ("PATCH", "usergroup_id", {"data": {"id": A}}),
        ("PATCH", "usergroup_id", {"data": None}),
        ("POST", "usergroup_id", {}),
        ("POST", "usergroup_id", None),
        ("POST", "usergroup_id", [1]),
        ("POST", "usergroup_id", {"data": [1]}),
        ("POST", "usergroup_id", {"data": [{"id": None}]}),
    ],
)
def test_relations_that_make_no_sense(server, resources, method, relation, body):
    answer = server.answer(method, f"/api/mail_account/{A}/relationships/{relation}", body)
    assert answer.status == 400
    assert answer.error["detail"]
    assert resources.calls == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content_Type": "text/xml"}, 415),
        ({"Content_Type": "application/json;charset=utf-8"}, 201),
        ({"Content_Type": None}, 201),
        ({"Content_Type": "application/x-www-form-urlencoded"}, 201),
    ],
)
def test_the_type_of_a_body(server, headers, status):
    body = b'{"data": {"attributes": {}}}'
    assert server.answer("POST", "/api/mail_account", body, **headers).status == status


def test_a_long_list_leaves_room_for_other_work():
    pauses = []

    async def pause():
        pauses.append(1)

    rows = [row() for _ in range(1000)]
    document = json.loads(now(jsonapi.listing({"total": 1000}, rows, [row(B)], pause=pause)))
    assert len(pauses) == 19
    assert len(document["data"]) == 1000
    assert document["included"][0]["id"] == B
    assert document["links"]["total"] == 1000


def test_a_long_list_is_answered(server, resources):
    resources.page = Page(tuple(row() for _ in range(200)), 200)
    transport = server.ask(b"GET /api/mail_account?page[size]=200 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert not transport.value()
    server.clock.advance(0)
    assert transport.value().count(b'"id":"' + A.encode()) == 200
    server.hang_up(transport)
