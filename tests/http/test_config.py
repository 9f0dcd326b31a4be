from __future__ import annotations

import json

import pytest

from mailtwist.errors import Conflict, MailError, NotFound, ProtocolViolation
from mailtwist.http import config
from mailtwist.http.exchange import Exchange
from mailtwist.mail.permissions import NOBODY, Viewer
from tests.support.now import now

ADMIN = Viewer(user_id=1, is_admin=True)
USER = Viewer(user_id=2)


class Values:
    """`ConfigValues` without a store."""

    def __init__(self, **stored):
        self.stored = stored

    def shown(self, name):
        if name not in self.stored:
            raise NotFound(f"{name} is not set")
        return self.stored[name]

    def all_shown(self):
        return dict(self.stored)

    async def put(self, name, value):
        if name == "locked":
            raise Conflict("locked is given by the file mailtwist.yaml")
        if value == "bad":
            raise ProtocolViolation(f"{name}: bad")
        self.stored[name] = value

    async def remove(self, name):
        del self.stored[name]


def ask(values, method, path, body=b"", *, viewer=ADMIN, type="", by_cookie=False):
    """What the first route answers that fits, as the application would find it."""

    async def identify():
        return viewer

    exchange = Exchange(
        method,
        path,
        {},
        lambda name: type if name == "content-type" else "",
        body,
        identify,
        by_cookie=by_cookie,
    )
    parts = path.strip("/").split("/", 2)[1:]
    names = dict(zip(("end", "name"), parts, strict=False))
    for route in config.routes(values):
        if method in route.methods and route.rule.count("<") == len(parts):
            try:
                return now(route.run(exchange, **names))
            except MailError as error:
                return route.refuse(error)
    raise AssertionError(f"no route for {method} {path}")


@pytest.mark.mission("DAP-210")
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_a_value_is_set_read_and_forgotten(method):
    values = Values()
    answer = ask(values, method, "/_config/backend/imap.enabled", b"true")
    assert (answer.status, answer.body) == (200, b"")
    answer = ask(values, "GET", "/_config/backend/imap.enabled")
    assert (answer.status, answer.body) == (200, b"true")
    assert answer.content_type.startswith("text/plain")
    answer = ask(values, "DELETE", "/_config/backend/imap.enabled")
    assert (answer.status, answer.body) == (200, b"")
    assert ask(values, "GET", "/_config/backend/imap.enabled").status == 404


@pytest.mark.mission("DAP-211")
@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'"x.org"', "x.org"),
        (b"x.org", "x.org"),
        (b' "x.org"\n', "x.org"),
        (b"x.org\r\n", "x.org"),
        (b'"a\\"b"', 'a"b'),
        (b'"unended', '"unended'),
        (b'{"a": "b"}', '{"a": "b"}'),
        (b"true", "true"),
        (b'""', ""),
        (b"", ""),
        ("grün".encode(), "grün"),
    ],
)
def test_one_layer_of_json_quotes_is_taken_off(body, value):
    values = Values()
    assert ask(values, "POST", "/_config/backend/k", body, type="application/json").status == 200
    assert values.stored == {"k": value}


def test_bytes_that_are_no_text_are_refused():
    values = Values()
    assert ask(values, "POST", "/_config/backend/k", b"\xff\xfe").status == 400
    assert values.stored == {}


def test_all_values_are_one_object():
    answer = ask(Values(a="1", b="2"), "GET", "/_config")
    assert answer.content_type == "application/json"
    assert json.loads(answer.body) == {"a": "1", "b": "2"}


def test_values_of_dashboards_stand_apart():
    values = Values(**{"web/theme": "dark", "hostname": "a.example"})
    ask(values, "POST", "/_config/web/hostname", b"x")
    assert values.stored["hostname"] == "a.example"
    shown = json.loads(ask(values, "GET", "/_config/web").body)
    assert shown == {"web/theme": "dark", "web/hostname": "x"}


@pytest.mark.parametrize("end", ["nope", "backend2", "%2e"])
def test_there_are_no_other_ends(end):
    assert ask(Values(), "GET", f"/_config/{end}/k").status == 404
    assert ask(Values(), "POST", f"/_config/{end}/k", b"x").status == 404


@pytest.mark.mission("DAP-213")
@pytest.mark.parametrize("viewer", [NOBODY, USER])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/_config"),
        ("GET", "/_config/backend/hostname"),
        ("GET", "/_config/backend/absent"),
        ("GET", "/_config/nope/hostname"),
        ("POST", "/_config/backend/hostname"),
        ("PUT", "/_config/backend/hostname"),
        ("PATCH", "/_config/backend/hostname"),
        ("DELETE", "/_config/backend/hostname"),
    ],
)
def test_only_administrators_may(viewer, method, path):
    values = Values(hostname="a.example")
    answer = ask(values, method, path, b"evil.example", viewer=viewer)
    assert (answer.status, answer.body) == (403, b"")
    assert values.stored == {"hostname": "a.example"}


@pytest.mark.parametrize(
    ("name", "body", "status", "text"),
    [
        ("locked", b"x", 409, "file mailtwist.yaml"),
        ("hostname", b"bad", 400, "hostname"),
        ("limit.rate", b'{"/ping": "x"}', 400, "limit.rate"),
        ("cors.config", b'{"allowed_origins": 7}', 400, "cors.config"),
    ],
)
def test_a_refusal_says_why(name, body, status, text):
    answer = ask(Values(), "POST", f"/_config/backend/{name}", body)
    assert answer.status == status
    assert text in answer.body.decode()


def test_a_foreign_page_cannot_use_the_cookie_of_an_administrator():
    values = Values()
    path = "/_config/backend/hostname"
    refused = ask(values, "POST", path, b"evil.example", type="text/plain", by_cookie=True)
    assert refused.status == 415
    assert values.stored == {}
    taken = ask(values, "POST", path, b'"a.example"', type="application/json", by_cookie=True)
    assert taken.status == 200
