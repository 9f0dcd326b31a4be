"""Rows as JSON:API documents: made, listed, read, changed, related, removed."""

from __future__ import annotations

import itertools
import re
import uuid
from urllib.parse import urlsplit

import pytest
import yaml

from tests.support.rest import JSON_API, SECRET, document

# An id that no row has; the same in each process that collects the tests.
NOBODY = "0199a0b1-2c3d-7e4f-8a5b-6c7d8e9f0a1b"

pytestmark = [pytest.mark.real]

ENTITIES = (
    *("user_account", "usergroup", "world", "action", "task", "mail_server", "mail_account"),
    *("mail_box", "mail", "outbox", "certificate", "credential", "domain", "alias", "api_key"),
)
_names = itertools.count(1)


def hostname() -> str:
    return f"mx{next(_names)}.rows.example"


@pytest.fixture
def account(admin):
    """A new account of the administrator's: its id."""
    username = f"rows{next(_names)}@example.com"
    return admin.make("mail_account", {"username": username, "password": SECRET})["id"]


@pytest.fixture
def twelve(admin, account):
    """An account with twelve mailboxes: the six it has from the start, and six more."""
    for n in range(6):
        admin.make(
            "mail_box", {"name": f"More {n}"}, {"mail_account_id": ("mail_account", account)}
        )
    return account


# -- making ---------------------------------------------------------------------------------


@pytest.mark.mission("DAP-030")
def test_a_row_is_created_at_a_location(admin):
    name = hostname()
    answer = admin.create("mail_server", {"hostname": name})
    assert answer.status == 201
    row = answer.data
    assert answer.headers["Content-Type"] == JSON_API
    assert urlsplit(answer.headers["Location"]).path == f"/api/mail_server/{row['id']}"
    assert row["type"] == "mail_server"
    assert uuid.UUID(row["id"]).version == 7
    attributes = row["attributes"]
    assert attributes["reference_id"] == row["id"]
    assert attributes["__type"] == "mail_server"
    for name in ("created_at", "updated_at"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", attributes[name])
    assert {"id", "version"} & attributes.keys() == set()
    assert row["relationships"]["user_account_id"]["data"]["type"] == "user_account"
    assert admin.row("mail_server", row["id"])["attributes"] == attributes


@pytest.mark.mission("DAP-033")
def test_defaults_of_a_mail_server(admin):
    made = admin.make("mail_server", {"hostname": hostname()})["attributes"]
    expected = {
        "is_enabled": False,
        "listen_interface": "0.0.0.0:465",
        "always_on_tls": True,
        "authentication_required": True,
        "xclient_on": False,
        "max_clients": 20,
    }
    for name, value in expected.items():
        assert made[name] == value, name
        assert type(made[name]) is type(value), name


@pytest.mark.mission("DAP-034")
@pytest.mark.parametrize("given", [True, 1, "true", "1", "True", "yes", "on"])
def test_truth_in_every_spelling(admin, given):
    row = admin.make("mail_server", {"hostname": hostname(), "xclient_on": given})
    assert admin.row("mail_server", row["id"])["attributes"]["xclient_on"] is True


@pytest.mark.mission("DAP-034")
@pytest.mark.parametrize("given", [False, 0, "false", "0", "no", "off"])
def test_falsehood_in_every_spelling(admin, given):
    row = admin.make("mail_server", {"hostname": hostname(), "always_on_tls": given})
    assert admin.row("mail_server", row["id"])["attributes"]["always_on_tls"] is False


@pytest.mark.mission("DAP-035")
def test_a_hostname_counts_once(admin):
    name = hostname()
    admin.make("mail_server", {"hostname": name})
    for spelling in (name, name.upper()):
        again = admin.create("mail_server", {"hostname": spelling})
        assert again.status == 409
        assert again.error
        assert "UNIQUE" not in again.text
    assert admin.rows("mail_server", ("hostname", "is", name)).total == 1


@pytest.mark.mission("DAP-053")
@pytest.mark.parametrize(
    "entity, attributes, name",
    [
        ("mail_box", {}, "name"),
        ("mail_box", {"name": None}, "name"),
        ("mail_server", {}, "hostname"),
        ("mail_account", {"password": SECRET}, "username"),
        ("certificate", {}, "hostname"),
        ("credential", {"content": "{}"}, "name"),
        ("user_account", {"name": "x", "password": SECRET}, "email"),
    ],
)
def test_what_is_missing_is_named(admin, account, entity, attributes, name):
    relations = {"mail_account_id": ("mail_account", account)} if entity == "mail_box" else None
    answer = admin.create(entity, attributes, relations)
    assert answer.status == 400
    assert name in answer.error


@pytest.mark.mission("DAP-051")
def test_a_relation_as_relation_or_as_attribute(admin):
    server = admin.make("mail_server", {"hostname": hostname()})["id"]
    names = [f"both{n}-{server[-6:]}@example.com" for n in range(2)]
    given = {"password": SECRET}
    one = admin.make(
        "mail_account", {"username": names[0], **given}, {"mail_server_id": ("mail_server", server)}
    )
    two = admin.make("mail_account", {"username": names[1], **given, "mail_server_id": server})
    for each in (one, two):
        assert each["relationships"]["mail_server_id"]["data"] == {
            "type": "mail_server",
            "id": server,
        }
    found = admin.rows("mail_account", ("mail_server_id", "is", server))
    assert sorted(found.column("username")) == sorted(names)


@pytest.mark.mission("DAP-052")
@pytest.mark.parametrize("target", [NOBODY, "not-a-uuid", 7, {}, [], True])
def test_a_relation_must_lead_somewhere(admin, target):
    before = admin.get("/api/mail_account").total
    attributes = {"username": f"lost{next(_names)}@example.com", "password": SECRET}
    for body in (
        document("mail_account", {**attributes, "mail_server_id": target}),
        {
            "data": {
                "type": "mail_account",
                "attributes": attributes,
                "relationships": {
                    "mail_server_id": {"data": {"type": "mail_server", "id": target}}
                },
            }
        },
    ):
        answer = admin.post("/api/mail_account", body)
        assert 400 <= answer.status < 500
        assert str(target) in answer.error or "mail_server_id" in answer.error
    assert admin.get("/api/mail_account").total == before


# -- lists ----------------------------------------------------------------------------------


@pytest.mark.mission("DAP-036")
def test_a_page(admin, twelve):
    answer = admin.rows(
        "mail_box", ("mail_account_id", "is", twelve), **{"page__size]": 5, "page__number]": 2}
    )
    links = answer.json["links"]
    assert len(answer.data) == 5
    numbers = {name: links[name] for name in ("total", "per_page", "current_page", "last_page")}
    assert numbers == {"total": 12, "per_page": 5, "current_page": 2, "last_page": 3}
    seen = {}
    for name in ("first", "prev", "next", "last"):
        url = links[f"{name}_page_url"]
        parts = urlsplit(url)
        seen[name] = admin.get(f"{parts.path}?{parts.query}")
        assert seen[name].total == 12, url
    assert seen["first"].ids == seen["prev"].ids
    assert seen["last"].ids == seen["next"].ids
    assert len(seen["last"].ids) == 2
    assert len({*seen["first"].ids, *answer.ids, *seen["last"].ids}) == 12


@pytest.mark.mission("DAP-037")
def test_sizes_of_pages(admin, twelve):
    condition = ("mail_account_id", "is", twelve)
    counts = {}
    for size in (None, 0, 1, 12, 1000, 100_000):
        query = {} if size is None else {"page__size]": size}
        answer = admin.rows("mail_box", condition, **query)
        assert answer.status == 200
        counts[size] = (len(answer.data), answer.json["links"]["per_page"])
    assert counts == {
        None: (10, 10),
        0: (1, 1),
        1: (1, 1),
        12: (12, 12),
        1000: (12, 1000),
        100_000: (12, 1000),
    }


def test_a_page_beyond_the_last_is_empty(admin, twelve):
    answer = admin.rows("mail_box", ("mail_account_id", "is", twelve), **{"page__number]": 99})
    assert answer.data == []
    assert answer.total == 12


@pytest.mark.mission("DAP-043")
def test_sorting(admin, twelve):
    condition = ("mail_account_id", "is", twelve)
    size = {"page__size]": 50}
    names = admin.rows("mail_box", condition, sort="-name,created_at", **size).column("name")
    assert names == sorted(names, reverse=True)
    assert admin.rows("mail_box", condition, sort="name", **size).column("name") == names[::-1]
    # Newest first, unless one says otherwise.
    ids = admin.rows("mail_box", condition, **size).column("created_at")
    assert ids == sorted(ids, reverse=True)
    for unknown in ("nope", "-nope", "name;drop table mail", "mail_account_id.name"):
        answer = admin.get("/api/mail_box", {"sort": unknown})
        assert answer.status == 400, unknown
        assert answer.error


@pytest.mark.mission("DAP-044")
def test_only_the_columns_asked_for(admin):
    made = admin.make("mail_server", {"hostname": hostname()})
    for answer in (
        admin.get("/api/mail_server", {"fields": "hostname"}),
        admin.get("/api/mail_server", {"fields[mail_server]": "hostname"}),
    ):
        shown = answer.data[0]["attributes"]
        assert "hostname" in shown
        assert {"max_size", "is_enabled", "listen_interface"} & shown.keys() == set()
    one = admin.row("mail_server", made["id"], {"fields": "hostname"})
    assert one["attributes"]["hostname"] == made["attributes"]["hostname"]
    assert "max_size" not in one["attributes"]
    assert admin.get("/api/mail_server", {"fields": "nope"}).status == 400


@pytest.mark.mission("DAP-045")
@pytest.mark.parametrize("parameter", ["included_relations", "include"])
def test_related_rows_come_along(admin, parameter):
    server = admin.make("mail_server", {"hostname": hostname()})
    account = admin.make(
        "mail_account",
        {"username": f"inc{next(_names)}@example.com", "password": SECRET},
        {"mail_server_id": ("mail_server", server["id"])},
    )
    answer = admin.get(f"/api/mail_account/{account['id']}", {parameter: "mail_server_id"})
    (included,) = answer.json["included"]
    assert (included["type"], included["id"]) == ("mail_server", server["id"])
    assert included["attributes"]["hostname"] == server["attributes"]["hostname"]
    listed = admin.rows(
        "mail_account", ("reference_id", "is", account["id"]), **{parameter: "mail_server_id"}
    )
    assert [each["id"] for each in listed.json["included"]] == [server["id"]]


@pytest.mark.mission("DAP-046")
def test_cursors(admin, twelve):
    condition = ("mail_account_id", "is", twelve)
    size = {"page__size]": 50}
    every = admin.rows("mail_box", condition, **size)
    ids = every.ids
    for n in (0, 5, 11):
        after = admin.rows("mail_box", condition, **{"page__after]": ids[n]}, **size).ids
        before = admin.rows("mail_box", condition, **{"page__before]": ids[n]}, **size).ids
        # The list has the newest first; after a row comes what is newer.
        assert (set(after), set(before)) == (set(ids[:n]), set(ids[n + 1 :]))
    for bad in ("nope", "0"):
        assert admin.rows("mail_box", condition, **{"page__after]": bad}).status == 400


# -- one row --------------------------------------------------------------------------------


@pytest.mark.mission("DAP-047", "DAP-050")
@pytest.mark.parametrize(
    "path, status",
    [
        (f"/api/mail_server/{NOBODY}", {404}),
        ("/api/mail_server/abc", {400, 404}),
        ("/api/mail_server/1", {400, 404}),
        ("/api/mail_server/%00", {400, 404}),
        ("/api/mail/00000000-0000-8000-8000-000000000000", {404}),
        ("/api/nope", {404}),
        (f"/api/nope/{NOBODY}", {404}),
        ("/api", {404}),
        ("/api/", {404}),
        ("/api/mail_server/../../etc/passwd", {400, 404}),
    ],
)
def test_what_is_not_there(admin, path, status):
    answer = admin.get(path)
    assert answer.status in status
    assert answer.error


@pytest.mark.mission("DAP-048")
def test_a_change_answers_the_whole_row(admin):
    made = admin.make("mail_server", {"hostname": hostname()})
    changed = admin.change("mail_server", made["id"], max_size=123456)
    assert changed["attributes"]["max_size"] == 123456
    same = {"max_size", "updated_at"}
    for name in made["attributes"].keys() - same:
        assert changed["attributes"][name] == made["attributes"][name], name
    assert changed["attributes"]["updated_at"] > made["attributes"]["updated_at"]
    # An administrator's tool sends back what it got.
    whole = {"data": {**changed, "attributes": {**changed["attributes"], "max_clients": 5}}}
    answer = admin.ask("PATCH", f"/api/mail_server/{made['id']}", whole)
    assert answer.status == 200
    assert answer.data["attributes"]["max_clients"] == 5


@pytest.mark.mission("DAP-048")
def test_the_ids_of_path_and_body_must_agree(admin):
    made = admin.make("mail_server", {"hostname": hostname()})
    other = admin.make("mail_server", {"hostname": hostname()})
    body = document("mail_server", {"max_size": 1}, id=other["id"])
    answer = admin.ask("PATCH", f"/api/mail_server/{made['id']}", body)
    assert answer.status == 409
    assert "does not match" in answer.error
    wrong_type = document("mail_account", {"max_size": 1}, id=made["id"])
    assert admin.ask("PATCH", f"/api/mail_server/{made['id']}", wrong_type).status == 409
    for each in (made, other):
        size = admin.row("mail_server", each["id"])["attributes"]["max_size"]
        assert size == each["attributes"]["max_size"]


@pytest.mark.mission("DAP-049")
@pytest.mark.parametrize("entity", ["mail_server", "certificate", "credential", "usergroup"])
def test_a_row_is_removed(admin, entity):
    given = {
        "credential": {"name": hostname(), "content": "{}"},
        "usergroup": {"name": hostname()},
    }.get(entity, {"hostname": hostname()})
    id = admin.make(entity, given)["id"]
    answer = admin.remove(entity, id)
    assert (answer.status, answer.json) == (200, {"meta": None})
    for again in (admin.get(f"/api/{entity}/{id}"), admin.remove(entity, id)):
        assert again.status == 404
        assert again.error


# -- relations as addresses -----------------------------------------------------------------


def test_related_rows_by_address(admin, account):
    box = admin.make("mail_box", {"name": "Rel"}, {"mail_account_id": ("mail_account", account)})
    own = admin.get(f"/api/mail_box/{box['id']}/mail_account_id")
    assert own.status == 200
    assert own.data["id"] == account
    boxes = admin.get(f"/api/mail_account/{account}/mail_box_id", {"page[size]": 50})
    assert box["id"] in boxes.ids
    assert boxes.total == 7
    assert admin.get(f"/api/mail_box/{box['id']}/nope").status == 404


def test_relations_are_read_and_changed_by_address(admin):
    group = admin.make("usergroup", {"name": hostname()})["id"]
    server = admin.make("mail_server", {"hostname": hostname()})["id"]
    url = f"/api/mail_server/{server}/relationships/usergroup_id"
    linked = {"type": "usergroup", "id": group}
    assert admin.get(url).json["data"] == []
    for method, expected in (("POST", [linked]), ("DELETE", []), ("PATCH", [linked])):
        answer = admin.ask(method, url, {"data": [linked]})
        assert answer.status in {200, 204}, (method, answer)
        found = [{"type": each["type"], "id": each["id"]} for each in admin.get(url).json["data"]]
        assert found == expected, method
    stranger = {"type": "usergroup", "id": str(uuid.uuid4())}
    answer = admin.ask("POST", url, {"data": [stranger]})
    assert 400 <= answer.status < 500
    assert answer.error


# -- what the server says of itself ---------------------------------------------------------


@pytest.mark.mission("DAP-055")
def test_the_openapi_document_names_every_path(admin, nobody):
    answer = nobody.get("/openapi.yaml")
    assert answer.status == 200
    found = yaml.safe_load(answer.text)
    assert found["openapi"].startswith("3.")
    for entity in ENTITIES:
        assert {"get"} <= found["paths"][f"/api/{entity}"].keys(), entity
        # Each is served, too.
        assert admin.get(f"/api/{entity}").status == 200, entity
    assert {"get", "post"} <= found["paths"]["/api/mail_server"].keys()
    one = next(path for path in found["paths"] if path.startswith("/api/mail_server/{"))
    assert {"get", "patch", "delete"} <= found["paths"][one].keys()
